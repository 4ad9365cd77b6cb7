# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: node_link_info
short_description: Describe the network of a node that is to run one engine together with others
version_added: 1.0.0
description:
  - Returns the address at which the other nodes reach this one, the interface that has it, and the RDMA adapters with
    an active port.
  - Fails where the node has no such address.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
  - gpunode.llm.reads_only
options:
  address:
    description: The address of the node. By default that of O(interface).
    type: str
    default: ""
  interface:
    description: The interface. By default the one that has O(address), or else that of the default route.
    type: str
    default: ""
  adapters:
    description: The names of the RDMA adapters to use. By default those with an active port.
    type: list
    elements: str
"""

EXAMPLES = r"""
- name: Look at the network of the node
  gpunode.llm.node_link_info:
  register: link
"""

RETURN = r"""
address:
  description: The address.
  type: str
  returned: success
interface:
  description: The interface.
  type: str
  returned: success
hcas:
  description: The RDMA adapters.
  type: list
  elements: str
  returned: success
speed_mbit_s:
  description: The speed of the interface in Mbit/s. Null if the driver does not report it.
  type: int
  returned: success
proved:
  description: The key of the last proof of the network, see M(gpunode.llm.network_proof). Empty if there was none.
  type: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.image import link_proof
from ..module_utils.node import link as node_link


def main():
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "default": ""},
            "interface": {"type": "str", "default": ""},
            "adapters": {"type": "list", "elements": "str"},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        link = node_link.described(module.run_command, given["address"], given["interface"])
    except ValueError as trouble:
        module.fail_json(msg=str(trouble))
    if given["adapters"] is not None:
        link["hcas"] = given["adapters"]
    module.exit_json(changed=False, proved=str(link_proof.last().get("key", "")), **link)


if __name__ == "__main__":
    main()
