# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: hf_seed
short_description: Serve a node's weights to other nodes for a while
version_added: 1.0.0
description:
  - Starts C(rsync --daemon) in a transient systemd unit, so that other nodes take the files of snapshots from this node
    (O(gpunode.llm.hf_snapshot#module:seeder)) and not from the hub.
  - It is read only, shows the files of O(snapshots) and nothing else, listens on O(address) alone, answers O(followers)
    alone, and asks them for a password that is made at every start. F(/run/gpunode/seed/rsyncd.secrets), which only
    root reads, holds it.
  - It ends with O(state=absent), and by itself after O(life_s). Each call with O(state=served) starts it anew.
  - What it sends is not encrypted.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
attributes:
  check_mode:
    description: Says what would be served as far as it is here, and starts nothing.
    support: full
  diff_mode:
    description: A service that ends with the play is no part of what a node is, so there is nothing to compare.
    support: none
options:
  state:
    description: Whether the service runs.
    type: str
    choices: [served, absent]
    default: served
  snapshots:
    description: The snapshots to serve, as M(gpunode.llm.hf_snapshot) takes them. All must be on this node.
    type: list
    elements: dict
    default: []
  home:
    description: The folder that the hub's tools call E(HF_HOME).
    type: path
    default: /var/lib/huggingface
  address:
    description: The address of this node to listen on. Needed with O(state=served).
    type: str
  port:
    description: The port to listen on.
    type: int
    default: 8730
  followers:
    description: The addresses that are answered.
    type: list
    elements: str
    default: []
  life_s:
    description: Seconds until it stops by itself.
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

- name: Enough
  gpunode.llm.hf_seed:
    state: absent
"""

RETURN = r"""
address:
  description: The address on which the service listens.
  type: str
  returned: when served
port:
  description: The port on which the service listens.
  type: int
  returned: when served
manifests:
  description:
    - For each snapshot what it holds, with the hash of each file, for
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
