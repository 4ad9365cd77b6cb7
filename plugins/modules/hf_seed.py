# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: hf_seed
short_description: Serve a node's weights to other nodes for a limited time
version_added: 1.0.0
description:
  - Starts C(rsync --daemon) in a transient systemd unit. Other nodes then download the files of snapshots from this
    node (O(gpunode.llm.hf_snapshot#module:seeder)) and not from the hub.
  - The service is read-only and serves only the files of O(snapshots). It listens only on O(address) and accepts only
    O(followers). They need a password, which is new at each start. F(/run/gpunode/seed/rsyncd.secrets) holds the
    password; only root can read this file.
  - The service ends with O(state=absent), or after O(life_s) seconds. Each call with O(state=served) restarts it.
  - The transfer is not encrypted.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
attributes:
  check_mode:
    description: Returns the manifests of the snapshots that this node has, and starts nothing.
    support: full
  diff_mode:
    description: The service is temporary, so there is no difference to show.
    support: none
options:
  state:
    description: Whether the service runs.
    type: str
    choices: [served, absent]
    default: served
  snapshots:
    description: The snapshots to serve, in the same form as for M(gpunode.llm.hf_snapshot). All must be on this node.
    type: list
    elements: dict
    default: []
  home:
    description: The folder that the hub tools call E(HF_HOME).
    type: path
    default: /var/lib/huggingface
  address:
    description: The IP address of this node to listen on. Required with O(state=served).
    type: str
  port:
    description: The TCP port to listen on.
    type: int
    default: 8730
  followers:
    description: The IP addresses of the nodes that may download.
    type: list
    elements: str
    default: []
  life_s:
    description: The time in seconds after which the service ends.
    type: int
    default: 43200
seealso:
  - module: gpunode.llm.hf_snapshot
"""

EXAMPLES = r"""
- name: Serve a model to two nodes
  gpunode.llm.hf_seed:
    address: 10.0.0.1
    followers: [10.0.0.2, 10.0.0.3]
    snapshots:
      - repo_id: meta-llama/Llama-3.1-8B-Instruct
        revision: 0e9e39f249a16976918f6564b8830bc894c89659

- name: Stop the service
  gpunode.llm.hf_seed:
    state: absent
"""

RETURN = r"""
address:
  description: The IP address on which the service listens.
  type: str
  returned: when served
port:
  description: The TCP port on which the service listens.
  type: int
  returned: when served
manifests:
  description:
    - The manifest of each snapshot, with the hash of each file. Pass it to
      O(gpunode.llm.hf_snapshot#module:seeder_manifests).
  type: list
  elements: dict
  returned: when served
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.hub import seed as hub_seed
from ..module_utils.node.network import port_is_free
from ..module_utils.units import job as units_job


def main():
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["served", "absent"], "default": "served"},
            "snapshots": {"type": "list", "elements": "dict", "default": []},
            "home": {"type": "path", "default": "/var/lib/huggingface"},
            "address": {"type": "str"},
            "port": {"type": "int", "default": 8730},
            "followers": {"type": "list", "elements": "str", "default": []},
            "life_s": {"type": "int", "default": 43200},
        },
        required_if=[("state", "served", ("address", "snapshots", "followers"))],
        supports_check_mode=True,
    )
    world = hub_seed.World(module.run_command, port_is_free)
    try:
        if module.params["state"] == "served":
            result = hub_seed.serve(module.params, module.check_mode, world)
        else:
            result = hub_seed.end(module.check_mode, world)
    except (hub_seed.Failed, units_job.JobError, ValueError) as trouble:
        module.fail_json(msg=str(trouble))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
