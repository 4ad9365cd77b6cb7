# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: units_ready
short_description: Start or restart services whose files changed, and wait until they answer
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
description:
  - Does what M(gpunode.llm.units_current) does, and then waits as M(gpunode.llm.endpoint_ready) does.
  - If there is nothing to do and all endpoints answer, this takes one call.
  - The play shows what the engine does during the wait.
extends_documentation_fragment:
  - gpunode.llm.internal
  - gpunode.llm.units
  - gpunode.llm.endpoints
  - gpunode.llm.waiting
attributes:
  check_mode:
    description: Reports which units would be started or restarted. An endpoint that does not answer is no failure then.
    support: full
  diff_mode:
    description: Shows the action for each unit, with its reason.
    support: full
options:
  would_change:
    description: Files that this play would have changed, if it were not in check mode.
    type: list
    elements: path
    default: []
  instead_of:
    description:
      - Units that make room for O(units). Those that run are stopped before any of these is started or restarted, and
        stay enabled. M(gpunode.llm.vllm_rollback) starts them again, M(gpunode.llm.units_removed) removes them.
    type: list
    elements: str
    default: []
seealso:
  - module: gpunode.llm.units_current
  - module: gpunode.llm.endpoint_ready
"""

EXAMPLES = r"""
- name: Run what is on disk, until it answers
  gpunode.llm.units_ready:
    units:
      - name: vllm-8b.service
        files: [/etc/vllm/8b.yaml, /etc/vllm/8b.env, /etc/systemd/system/vllm-8b.service]
        started_from: /run/vllm-8b/started-from
    endpoints:
      - name: 8b
        unit: vllm-8b.service
        port: 8000
        model: meta-llama/Llama-3.1-8B-Instruct
"""

RETURN = r"""
settled:
  description: Whether there was nothing to do, as M(gpunode.llm.units_settled) returns it.
  type: bool
  returned: always
due:
  description: What the module had to do, one line for each action.
  type: list
  elements: str
  returned: always
units:
  description: What was done, for each unit, as M(gpunode.llm.units_current) returns it.
  type: list
  elements: dict
  returned: always
endpoints:
  description: The state of each endpoint, as M(gpunode.llm.endpoint_ready) returns it.
  type: list
  elements: dict
  returned: success
log:
  description: The last lines of the journal that help to find the cause.
  type: list
  elements: str
  returned: failure
done:
  description: Whether the wait has ended.
  type: bool
  returned: always
progress:
  description: What the module waits for.
  type: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.instance import wait as instance_wait
from ..module_utils.units import run as units_run


def main():
    module = AnsibleModule(argument_spec={**units_run.RUNNING, **instance_wait.WAITING}, supports_check_mode=True)
    done = {} if module.params["resume"] else units_run.run(module)
    instance_wait.Wait(module, done).end()


if __name__ == "__main__":
    main()
