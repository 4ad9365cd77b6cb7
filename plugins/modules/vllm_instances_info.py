# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_instances_info
short_description: List the vLLM instances that the role vllm put on a node
version_added: 1.0.0
description:
  - Reads the records of the role P(gpunode.llm.vllm#role) and returns the files of each instance. It ignores units that
    the role did not write, whatever their names are. Until release 1.1 it also reads units without a record, which
    earlier releases wrote.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
  - gpunode.llm.reads_only
options:
  unit_dirs:
    description: The folders that hold the units. The second holds units that run beside another for a short time.
    type: list
    elements: path
    default: [/etc/systemd/system, /run/systemd/system]
  record_dirs:
    description: The folders that hold the records, in the same order.
    type: list
    elements: path
    default: [/etc/vllm, /run/gpunode/beside]
"""

EXAMPLES = r"""
- name: List the instances of the node
  gpunode.llm.vllm_instances_info:
  register: served
"""

RETURN = r"""
instances:
  description: The instances, by name.
  type: list
  elements: dict
  returned: always
  contains:
    name:
      description: The instance's name.
      type: str
    unit:
      description: The name of its systemd unit.
      type: str
    image:
      description: The image that it runs.
      type: str
    model:
      description: The repository of its model.
      type: str
    headless:
      description: Whether it is a rank without an API of an engine over several nodes.
      type: bool
    peers:
      description:
        - The unit that keeps it together with the other ranks of its engine, with its file, as
          M(gpunode.llm.units_removed) takes it. Empty for an engine on one node.
      type: list
      elements: dict
    files:
      description: The paths of its files and folders that exist. The last two are the unit and the record.
      type: list
      elements: str
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.instance import known, names


def row(instance):
    return {
        "name": instance.name,
        "unit": instance.unit,
        "image": instance.image,
        "model": instance.model,
        "headless": instance.headless,
        "peers": [
            {"unit": group["unit"], "files": [group["unit_file"]] if os.path.lexists(group["unit_file"]) else []}
            for group in ([instance.group] if instance.group else [])
        ],
        "files": [path for path in instance.files.all() if os.path.lexists(path)],
    }


def main():
    module = AnsibleModule(
        argument_spec={
            "unit_dirs": {"type": "list", "elements": "path", "default": [names.UNIT_DIR, names.SECOND_UNIT_DIR]},
            "record_dirs": {"type": "list", "elements": "path", "default": list(names.RECORD_DIRS)},
        },
        supports_check_mode=True,
    )
    instances = known.instances(module.params["unit_dirs"], module.params["record_dirs"], without_unit=True)
    module.exit_json(changed=False, instances=[row(instance) for instance in instances])


if __name__ == "__main__":
    main()
