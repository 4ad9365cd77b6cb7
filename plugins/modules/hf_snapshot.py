# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: hf_snapshot
short_description: Download models from the Hugging Face hub to a node, and verify them
version_added: 1.0.0
description:
  - Downloads the files of one or more revisions to the hub cache on the node. Compares each file with the hash that
    the hub lists. Files that are verified already need no download and no network.
  - C(huggingface_hub) downloads the files, from a virtual environment on the node, or C(rsync) copies them from
    O(seeder). The work runs in one transient systemd unit for each repository. It continues if the connection breaks
    or the play is stopped, and a later run waits for the same unit.
  - An interrupted download resumes, even in the middle of a file.
  - The play shows the bytes, the rate and the time left during the download.
  - The module resolves a branch once and records the commit. The node keeps this commit until O(update=true).
  - The unit uses the proxy and certificate variables from the C(environment) of the task.
author:
  - gpunode contributors (@gpunode)
attributes:
  check_mode:
    description: Reports how many bytes the module would download. Nothing has to be installed for this.
    support: full
  diff_mode:
    description: Shows the commit of each repository before and after.
    support: full
options:
  snapshots:
    description:
      - The snapshots to download, as dictionaries with these keys.
      - C(repo_id) is the repository, as organisation/name.
      - C(revision) is a commit, or a branch or tag that is resolved once. The default is V(main).
      - C(ignore_patterns) lists patterns of files to leave out. C(allow_patterns), if set, lists patterns of the only
        files to download. Both have the syntax of the hub tools.
      - C(branch) is the name to record for the commit in C(revision). C(gated) is what the hub reported about access.
      - The module skips a dictionary with C(folder), because its model is in that folder on the node.
      - Other keys are ignored, so the instances of M(gpunode.llm.serving_plan) can be used unchanged. If several
        dictionaries name the same revision, it is downloaded once.
    type: list
    elements: dict
    required: true
  home:
    description: The folder that the hub tools call E(HF_HOME). The cache is its subfolder C(hub).
    type: path
    default: /var/lib/huggingface
  venv:
    description: The virtual environment that holds C(huggingface_hub).
    type: path
    default: /opt/huggingface-hub
  endpoint:
    description: The hub, or a mirror of it.
    type: str
    default: https://huggingface.co
  source:
    description:
      - A folder on the node, or a mounted share, that holds the weights. The module uses it instead of the
        hub, and then needs no O(venv).
      - The folder is a hub cache (an E(HF_HOME), or its folder C(hub)), or a plain folder with the files of one model.
      - If O(source) is on the same filesystem as O(home) and belongs to root, the module makes hard links. Otherwise it
        copies the files.
      - The module compares each file with the hash in its manifest, in the listing of the hub, or in the notes that
        C(hf download) wrote next to it. If there is no such hash, it records the hash of the file.
    type: path
  token:
    description:
      - The token for requests to the hub. The default is the token in O(token_path).
      - The download job reads only O(token_path), so the token is in no command line and no environment.
    type: str
  token_path:
    description: The file that holds the token. It may be missing.
    type: path
    default: /etc/huggingface/token
  ca_path:
    description: A file of certificate authorities to trust instead of those of the system.
    type: path
  update:
    description: Whether to ask the hub again for the commit of a branch.
    type: bool
    default: false
  verify:
    description: Whether to hash every file again, even if it was verified before.
    type: bool
    default: false
  fetch:
    description:
      - Whether to download missing or wrong files. With V(false) the module names them and fails, without the hub.
    type: bool
    default: true
  workers:
    description: How many files to download or hash at the same time.
    type: int
    default: 8
  attempts:
    description: How often in a row a file may fail without any progress.
    type: int
    default: 8
  xet:
    description:
      - Whether to download files that the hub stores in Xet with C(hf_xet). It opens many connections for each file and
        uses more memory. An interrupted file starts again from the beginning; plain HTTP continues in the middle.
    type: bool
    default: false
  wait_s:
    description: How long one call waits before it reports progress, in seconds.
    type: int
    default: 10
  background:
    description: Whether to start the download, or find it running, and return at once. A later call waits for it.
    type: bool
    default: false
  seeder:
    description:
      - A node that serves the snapshots with M(gpunode.llm.hf_seed). C(rsync) copies files from there, without the
        hub and without a token. Each revision must then be a commit.
    type: dict
    suboptions:
      name:
        description: The name of the seeder in messages.
        type: str
        required: true
      address:
        description: The address of the seeder, as this node reaches it.
        type: str
        required: true
      port:
        description: The port of the service on the seeder.
        type: int
        required: true
      bind:
        description: The address of this node to connect from, if it has several.
        type: str
  seeder_secret:
    description: The password of the service on the seeder.
    type: str
  seeder_manifests:
    description:
      - The manifests of the seeder, as M(gpunode.llm.hf_seed) returns them. The module compares each file with its hash
        in the manifest, so it does not have to trust the network.
    type: list
    elements: dict
    default: []
  resume:
    description: The value of RV(ignore:resume) from the previous call. The action plugin sets it.
    type: dict
seealso:
  - module: gpunode.llm.hf_cache_info
  - module: gpunode.llm.hf_seed
"""

EXAMPLES = r"""
- name: Download a model at a commit
  gpunode.llm.hf_snapshot:
    snapshots:
      - repo_id: meta-llama/Llama-3.1-8B-Instruct
        revision: 0e9e39f249a16976918f6564b8830bc894c89659
        ignore_patterns: ["original/*"]

- name: Copy a model from a share
  gpunode.llm.hf_snapshot:
    snapshots:
      - repo_id: meta-llama/Llama-3.1-8B-Instruct
    source: /mnt/models/huggingface

- name: Find damaged files, without the hub
  gpunode.llm.hf_snapshot:
    snapshots:
      - repo_id: meta-llama/Llama-3.1-8B-Instruct
        revision: 0e9e39f249a16976918f6564b8830bc894c89659
    verify: true
    fetch: false
"""

RETURN = r"""
seconds:
  description: How many seconds this wait for the download took, by the clock of the controller.
  type: float
  returned: always
fetch_seconds:
  description: How many seconds the download job took, by the clock of the node. The longest time of several jobs.
  type: float
  returned: when a job ended
snapshots:
  description: The requested snapshots, each revision once.
  type: list
  elements: dict
  returned: when done
  contains:
    repo_id:
      description: The repository.
      type: str
    revision:
      description: The commit.
      type: str
    path:
      description: The folder of the snapshot. Empty in check mode if the commit is not known yet.
      type: str
    bytes:
      description: The size of the requested files in bytes, as far as it is known.
      type: int
    bytes_to_fetch:
      description: The bytes to download, in check mode. V(-1) if the hub did not answer.
      type: int
    changed:
      description: Whether this call downloaded or repaired the snapshot.
      type: bool
done:
  description: Whether the download has ended.
  type: bool
  returned: always
begun:
  description: Whether a download runs in the background (O(background)).
  type: bool
  returned: when a download runs in the background
progress:
  description: The progress of the download.
  type: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.hub import api as hub_api, run as hub_run

OPTIONS = {
    "snapshots": {"type": "list", "elements": "dict", "required": True},
    "home": {"type": "path", "default": "/var/lib/huggingface"},
    "venv": {"type": "path", "default": "/opt/huggingface-hub"},
    "endpoint": {"type": "str", "default": "https://huggingface.co"},
    "source": {"type": "path"},
    "token": {"type": "str", "no_log": True},
    "token_path": {"type": "path", "default": "/etc/huggingface/token"},
    "ca_path": {"type": "path"},
    "update": {"type": "bool", "default": False},
    "verify": {"type": "bool", "default": False},
    "fetch": {"type": "bool", "default": True},
    "workers": {"type": "int", "default": 8},
    "attempts": {"type": "int", "default": 8},
    "xet": {"type": "bool", "default": False},
    "wait_s": {"type": "int", "default": 10},
    "background": {"type": "bool", "default": False},
    "seeder": {
        "type": "dict",
        "options": {
            "name": {"type": "str", "required": True},
            "address": {"type": "str", "required": True},
            "port": {"type": "int", "required": True},
            "bind": {"type": "str"},
        },
    },
    "seeder_secret": {"type": "str", "no_log": True},
    "seeder_manifests": {"type": "list", "elements": "dict", "default": []},
    "resume": {"type": "dict"},
}


def main():
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    try:
        result = hub_run.run(module.params, module.check_mode, module.run_command)
    except (hub_run.Failed, hub_api.HubError, ValueError) as trouble:
        module.fail_json(msg=str(trouble), done=True, progress="")
    for warning in result.pop("warnings", []):
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
