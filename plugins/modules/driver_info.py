# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: driver_info
short_description: Report NVIDIA's driver on a node
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
  - gpunode.llm.reads_only
description:
  - Reports which driver is installed, which one is loaded, the boards on the PCI bus, and what a change of the driver
    depends on - kernel, headers, Secure Boot, running engines.
  - Decides nothing. The role P(gpunode.llm.nvidia_driver#role) does.
options:
  lists:
    description: Packages whose versions to look up in the lists of apt or dnf.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Read the driver
  gpunode.llm.driver_info:
  register: driver
"""

RETURN = r"""
kernel:
  description: The kernel that runs, as C(uname -r) prints it.
  type: str
  returned: success
headers:
  description: Whether the headers of this kernel are installed, with which DKMS builds modules.
  type: bool
  returned: success
secure_boot:
  description: Whether Secure Boot is on. Null if the firmware does not have it.
  type: bool
  returned: success
loaded:
  description: The C(version) of the kernel module that is loaded, and whether it is an C(open) one.
  type: dict
  returned: success
  sample: {"version": "580.159.04", "open": true}
on_disk:
  description: The same of the module that the running kernel would load.
  type: dict
  returned: success
gpus:
  description: The GPUs, as M(gpunode.llm.gpu_info) returns them.
  type: dict
  returned: success
fabric_manager:
  description: The version of Fabric Manager. Empty if it is not installed.
  type: str
  returned: success
engines:
  description: The units of engines of this collection that run.
  type: list
  elements: str
  returned: success
initramfs:
  description: The command that makes the first file system of the boot anew. Empty if the node has none.
  type: list
  elements: str
  returned: success
system:
  description: Facts of the system, with the names of M(ansible.builtin.setup).
  type: dict
  returned: success
packages:
  description: The installed packages of the driver and of Ubuntu's kernels, with their versions.
  type: dict
  returned: success
held:
  description: Those of them that apt holds.
  type: list
  elements: str
  returned: success
lists:
  description: The versions of each package in O(lists) that apt or dnf could install.
  type: dict
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.node import driver as node_driver


def main():
    module = AnsibleModule(
        argument_spec={"lists": {"type": "list", "elements": "str", "default": []}}, supports_check_mode=True
    )
    answer = node_driver.answer(module, module.params["lists"])
    module.exit_json(changed=False, ansible_facts=answer["system"], **answer)


if __name__ == "__main__":
    main()
