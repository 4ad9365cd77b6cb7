# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: hf_cache_info
short_description: List the Hugging Face snapshots, client and token on a node
version_added: 1.0.0
description:
  - Reports which snapshots are complete, which other revisions are in the cache, which version of C(huggingface_hub) is
    installed, and whether the token file is up to date. It uses no network and starts no program, so it is fast.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.reads_only
options:
  snapshots:
    description: The requested snapshots, as M(gpunode.llm.hf_snapshot) takes them.
    type: list
    elements: dict
    default: []
  home:
    description: The folder that the hub tools call E(HF_HOME).
    type: path
    default: /var/lib/huggingface
  venv:
    description: The virtual environment that may hold C(huggingface_hub).
    type: path
    default: /opt/huggingface-hub
  token:
    description: The token that the token file should contain. Without it, any content is up to date.
    type: str
  token_path:
    description: The file that holds the token.
    type: path
    default: /etc/huggingface/token
"""

EXAMPLES = r"""
- name: List the snapshots on the node
  gpunode.llm.hf_cache_info:
    snapshots:
      - repo_id: meta-llama/Llama-3.1-8B-Instruct
        revision: 0e9e39f249a16976918f6564b8830bc894c89659
        ignore_patterns: ["original/*"]
  register: cache
"""

RETURN = r"""
complete:
  description: Whether all requested snapshots are on the node and verified.
  type: bool
  returned: success
snapshots:
  description: The requested snapshots, in the same order.
  type: list
  elements: dict
  returned: success
  contains:
    repo_id:
      description: The repository.
      type: str
    revision:
      description: The commit. Empty for a branch that was never downloaded.
      type: str
    path:
      description: The folder of the snapshot.
      type: str
    bytes:
      description: The size of its files on the node.
      type: int
    complete:
      description: Whether all files are verified, and a container that mounts only the cache can read them.
      type: bool
    missing:
      description: Files that were verified but are now missing or have a different size.
      type: list
      elements: str
others:
  description: Revisions in the cache that were not requested.
  type: list
  elements: dict
  returned: success
  contains:
    repo_id:
      description: The repository.
      type: str
    revision:
      description: The commit.
      type: str
    path:
      description: The folder of the snapshot.
      type: str
verified:
  description:
    - All snapshots with a manifest on the node, requested or not, in the form that M(gpunode.llm.hf_snapshot) takes.
  type: list
  elements: dict
  returned: success
fetch_seconds:
  description:
    - How many seconds the download job of the requested snapshots took. If there were several jobs, the longest time.
      0 if there was none since the last boot.
  type: float
  returned: success
client_version:
  description: The version of C(huggingface_hub) in the virtual environment. Empty if it is not installed.
  type: str
  returned: success
token_current:
  description: Whether the token file exists, has the right content, and only its owner can read it.
  type: bool
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.hub import cache as hub_cache, snapshot as hub_snapshot, token as hub_token


def main():
    module = AnsibleModule(
        argument_spec={
            "snapshots": {"type": "list", "elements": "dict", "default": []},
            "home": {"type": "path", "default": "/var/lib/huggingface"},
            "venv": {"type": "path", "default": "/opt/huggingface-hub"},
            "token": {"type": "str", "no_log": True},
            "token_path": {"type": "path", "default": "/etc/huggingface/token"},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        requests = hub_snapshot.parse_snapshots(params["snapshots"])
        snapshots = [hub_snapshot.look(params["home"], request) for request in requests]
    except ValueError as trouble:
        module.fail_json(msg=str(trouble))
    module.exit_json(
        changed=False,
        complete=all(snapshot.complete for snapshot in snapshots),
        snapshots=[hub_cache.row(snapshot) for snapshot in snapshots],
        others=hub_cache.others(params["home"], snapshots),
        verified=hub_cache.verified(params["home"]),
        fetch_seconds=hub_cache.fetch_seconds(snapshots),
        client_version=hub_cache.client_version(params["venv"]),
        token_current=hub_token.current(params["token_path"], params["token"]),
    )


if __name__ == "__main__":
    main()
