# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: units_settled
short_description: Check whether services run from the wanted files and answer requests
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
description:
  - Renders files as M(gpunode.llm.rendered_files) does and compares them with those on the node, looks at the units as
    M(gpunode.llm.units_current) does, and asks the endpoints once, as M(gpunode.llm.endpoint_ready) does.
  - Takes one call on the node, and changes nothing.
  - When RV(settled) is true, none of these modules has anything to do.
extends_documentation_fragment:
  - gpunode.llm.internal
  - gpunode.llm.endpoints
  - gpunode.llm.files
  - gpunode.llm.reads_only
  - gpunode.llm.units
options:
  absent:
    description: Files that must not exist, such as those that a stopped play has left.
    type: list
    elements: path
    default: []
  digest:
    description:
      - A digest of the question. The node keeps the question under it, without what is secret, and
        M(gpunode.llm.node_info) answers it once more. The action plugin sets it.
    type: str
  unchanged:
    description:
      - Whether the play has changed nothing on the node since its first call. The answer of the first call is
        returned then, and the node is not called again.
    type: bool
    default: false
  services:
    description:
      - The services to check, as P(gpunode.llm.vllm_service#filter) returns them. They replace O(each), O(units),
        O(endpoints) and O(absent), and add files to O(files).
    type: list
    elements: dict
    default: []
seealso:
  - module: gpunode.llm.rendered_files
  - module: gpunode.llm.units_ready
"""

EXAMPLES = r"""
- name: Check whether the service needs a change
  gpunode.llm.units_settled:
    files:
      - src: 8b.yaml.j2
        dest: /etc/vllm/8b.yaml
      - src: vllm-8b.service.j2
        dest: /etc/systemd/system/vllm-8b.service
    units:
      - name: vllm-8b.service
        files: [/etc/vllm/8b.yaml, /etc/systemd/system/vllm-8b.service]
        started_from: /run/vllm-8b/started-from
    endpoints:
      - name: 8b
        unit: vllm-8b.service
        port: 8000
        model: meta-llama/Llama-3.1-8B-Instruct
  register: service

- name: Change the service
  ansible.builtin.include_tasks: serve.yml
  when: not service.settled
"""

RETURN = r"""
settled:
  description: Whether there is nothing to do.
  type: bool
  returned: success
due:
  description: The changes that are needed, one line each. Empty when RV(settled) is true.
  type: list
  elements: str
  returned: success
  sample: ["/etc/vllm/8b.yaml differs", "vllm-8b.service: start, it does not run"]
units:
  description: What each unit needs, as M(gpunode.llm.units_current) returns it. Empty where files are not settled.
  type: list
  elements: dict
  returned: success
unchanged:
  description: The value of the option O(unchanged).
  type: bool
  returned: success
endpoints:
  description:
    - The state of each endpoint, as M(gpunode.llm.endpoint_ready) returns it.
    - Empty when files or units are not settled.
  type: list
  elements: dict
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.instance import wait as instance_wait
from ..module_utils.node import questions as node_questions
from ..module_utils.units import files as units_files, run as units_run, settled as units_settled


def main():
    module = AnsibleModule(
        argument_spec={
            **units_files.OPTIONS,
            **units_run.OPTIONS,
            **instance_wait.OPTIONS,
            "absent": {"type": "list", "elements": "path", "default": []},
            "digest": {"type": "str", "no_log": True},
            "unchanged": {"type": "bool", "default": False},
            "services": {"type": "list", "elements": "dict", "default": []},  # for the action plugin
        },
        supports_check_mode=True,
    )
    if module.params["digest"] and not module.check_mode:
        node_questions.keep("units_settled", module.params["digest"], units_settled.question(module.params))
    module.exit_json(changed=False, **units_settled.answer(module))


if __name__ == "__main__":
    main()
