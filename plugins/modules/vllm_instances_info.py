# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_instances_info
short_description: List the vLLM instances that the role vllm put on a node
version_added: 1.0.0
description:
  - Reads the units of the role P(gpunode.llm.vllm#role) and returns what belongs to each. Units of anybody else are
    passed over, whatever their names are.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.reads_only
options:
  unit_dirs:
    description: The folders that hold the units. In the second are those that run beside others for a while.
    type: list
    elements: path
    default: [/etc/systemd/system, /run/systemd/system]
"""

EXAMPLES = r"""
- name: See what is served here
  gpunode.llm.vllm_instances_info:
  register: here
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
      description: Its unit.
      type: str
    image:
      description: The image that it runs.
      type: str
    model:
      description: The repository of its model.
      type: str
    files:
      description: Its files and folders that exist, the unit last.
      type: list
      elements: str
"""

import glob
import os

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.node import files as node_files
from ..module_utils.units import unit as units_unit


def instance_of(path):
    belongs = units_unit.parse_belongings(node_files.read_text(path, "replace"))
    if not belongs.get("instance"):
        return None
    unit = os.path.basename(path)
    files = [belongs.get(key, "") for key in ("config", "environment", "keys", "cache", "kept")]
    files.append(path)
    return {
        "name": belongs["instance"],
        "unit": unit,
        "image": belongs.get("image", ""),
        "model": belongs.get("model", ""),
        # A path that is not absolute is no path of ours.
        "files": [file for file in files if file.startswith("/") and os.path.lexists(file)],
    }


def main():
    module = AnsibleModule(
        argument_spec={
            "unit_dirs": {
                "type": "list",
                "elements": "path",
                "default": ["/etc/systemd/system", "/run/systemd/system"],
            },
        },
        supports_check_mode=True,
    )
    paths = [path for one in module.params["unit_dirs"] for path in sorted(glob.glob(f"{one}/vllm-*.service"))]
    found = [instance_of(path) for path in paths if not os.path.islink(path)]
    module.exit_json(changed=False, instances=[instance for instance in found if instance])


if __name__ == "__main__":
    main()
