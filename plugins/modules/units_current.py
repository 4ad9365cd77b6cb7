# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: units_current
short_description: Make sure that services run, enabled, from the files that are on disk
version_added: 1.0.0
description:
  - Enables and starts units that do not run. Restarts units whose files changed since their start. One call takes
    any number of units.
  - At its start, each unit copies its files to O(units[].started_from). The module compares these copies with the files
    on disk. So the next play finishes the work of a play that was stopped, and no service restarts without a change.
  - Returns when systemd has accepted the jobs, not when the service is ready. M(gpunode.llm.endpoint_ready) waits for
    that. For units with O(units[].reloads) the module returns when systemd has finished the jobs.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
  - gpunode.llm.units
attributes:
  check_mode:
    description: Says which units would be started or restarted.
    support: full
  diff_mode:
    description: Shows the action for each unit, with its reason.
    support: full
options:
  would_change:
    description:
      - Files that this play would have changed, if it were not in check mode. This makes check mode exact.
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
"""

EXAMPLES = r"""
- name: Run what is on disk
  gpunode.llm.units_current:
    units:
      - name: vllm-8b.service
        files: [/etc/vllm/8b.yaml, /etc/vllm/8b.env, /etc/systemd/system/vllm-8b.service]
        started_from: /run/vllm-8b/started-from
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
  description: The action for each unit.
  type: list
  elements: dict
  returned: always
  contains:
    name:
      description: The unit's name.
      type: str
    action:
      description: One of V(none), V(start), V(restart), V(reload) and V(stop).
      type: str
    why:
      description: The reason.
      type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.units import run as units_run


def main():
    module = AnsibleModule(argument_spec=units_run.RUNNING, supports_check_mode=True)
    module.exit_json(**units_run.run(module))


if __name__ == "__main__":
    main()
