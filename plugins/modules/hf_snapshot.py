# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: hf_snapshot
short_description: Download models from the Hugging Face hub to a node, pinned, resumable and verified
version_added: 1.0.0
description:
  - Makes sure that the files of one or more revisions are in the hub's own cache on the node, each compared with the
    hash that the hub lists. What is there and was verified is not asked for again, and needs no network to be known.
  - C(huggingface_hub) does the transfer, from a venv on the node, or C(rsync) from O(seeder), in one transient systemd
    unit per repository. The unit goes on when the connection breaks or the play is stopped, and a second run attaches
    to it.
  - An interrupted download resumes, also in the middle of a file.
  - While it runs, the play shows bytes, rate and time left.
  - A branch is resolved once. The commit is recorded, and the node stays with it until O(update=true).
  - The unit takes over the proxy and certificate variables from the task's C(environment).
author:
  - gpunode contributors (@gpunode)
attributes:
  check_mode:
    description: Reports how many bytes would be downloaded. Works before anything is installed.
    support: full
  diff_mode:
    description: Shows the commit of each repository before and after.
    support: full
options:
  snapshots:
    description:
      - What is to be there. Each is a dictionary of C(repo_id), which is organisation/name, C(revision), which is a
        commit, or a branch or tag that is resolved once (V(main) where it is left out), and C(ignore_patterns), a list
        of files that are left out, as the hub's own tools read patterns. Of the rest, C(allow_patterns) are all that is
        fetched, where there are some. C(branch) is recorded as the name of the commit that C(revision) gives, and
        C(gated) as what the hub said of it.
      - One with a C(folder) is served from that folder of the node, and is passed over.
      - Other keys are ignored, so the instances of M(gpunode.llm.serving_plan) can be handed over as they are. A
        revision that several of them name is fetched once.
    type: list
    elements: dict
    required: true
  home:
    description: The folder that the hub's tools call E(HF_HOME). The cache is its subfolder C(hub).
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
      - A folder on the node, or a share that is mounted there, that holds the weights. It is taken in place of the hub,
        which is not asked then, and no O(venv) is needed.
      - Either the hub's own cache (an E(HF_HOME), or its folder C(hub)), or one model's files in a plain folder.
      - Where O(source) is on the filesystem of O(home) and belongs to root, each file gets a second name there and no
        copy; otherwise it is copied. Either way it is compared with the hash in its manifest, in the hub's listing, or
        in what C(hf download) noted beside it. Where there is none of these, it is recorded as it was found.
    type: path
  token:
    description:
      - The token for questions to the hub. Without it the one in O(token_path) is used.
      - The pull itself reads O(token_path) only, so that the token is in no command line and no environment.
    type: str
  token_path:
    description: The file that holds the token, if there is one.
    type: path
    default: /etc/huggingface/token
  ca_path:
    description: A bundle of certificate authorities to trust instead of the system's own.
    type: path
  update:
    description: Ask the hub again which commit a branch stands for.
    type: bool
    default: false
  verify:
    description: Hash every file again, also what was verified when it was fetched.
    type: bool
    default: false
  fetch:
    description:
      - Fetch what is missing or wrong. With V(false) that is an error that names the files, and no hub is needed.
    type: bool
    default: true
  workers:
    description: How many files are fetched or hashed at a time.
    type: int
    default: 8
  attempts:
    description: How often in a row a file may fail without a single byte of progress.
    type: int
    default: 8
  xet:
    description:
      - Fetch files that the hub keeps in xet through C(hf_xet). It opens many connections for one file, and takes more
        memory. A file that it did not finish starts over; plain HTTP goes on in the middle.
    type: bool
    default: false
  wait_s:
    description: How long one call looks at the pull before it reports progress, in seconds.
    type: int
    default: 10
  background:
    description: Start the pull, or attach to it, and return at once. A later call without this waits for it.
    type: bool
    default: false
  seeder:
    description:
      - The node that has the snapshots and serves them (M(gpunode.llm.hf_seed)). Their files are taken from there by
        C(rsync), and neither the hub nor a token is needed. Each revision is a commit then.
    type: dict
    suboptions:
      name:
        description: Its name in messages.
        type: str
        required: true
      address:
        description: Its address for this node.
        type: str
        required: true
      port:
        description: The port of its service.
        type: int
        required: true
      bind:
        description: The address of this node that connections come from, where it has several.
        type: str
  seeder_secret:
    description: The password of the seeder's service.
    type: str
  seeder_manifests:
    description:
      - The seeder's manifests, as M(gpunode.llm.hf_seed) returns them. Every file is compared with the hash that it has
        in there, so what comes over the network needs no trust.
    type: list
    elements: dict
    default: []
  resume:
    description: What an earlier call returned as RV(ignore:resume). The action plugin fills it in.
    type: dict
seealso:
  - module: gpunode.llm.hf_cache_info
  - module: gpunode.llm.hf_seed
"""

EXAMPLES = r"""
- name: Fetch a model at a commit
  gpunode.llm.hf_snapshot:
    snapshots:
      - repo_id: meta-llama/Llama-3.1-8B-Instruct
        revision: 0e9e39f249a16976918f6564b8830bc894c89659
        ignore_patterns: ["original/*"]

- name: Take a model from a share
  gpunode.llm.hf_snapshot:
    snapshots:
      - repo_id: meta-llama/Llama-3.1-8B-Instruct
    source: /mnt/models/huggingface

- name: Find a flipped bit, without a hub
  gpunode.llm.hf_snapshot:
    snapshots:
      - repo_id: meta-llama/Llama-3.1-8B-Instruct
        revision: 0e9e39f249a16976918f6564b8830bc894c89659
    verify: true
    fetch: false
"""

RETURN = r"""
seconds:
  description: How long it took, on the controller's clock; where the pull was begun before, what was left of it.
  type: float
  returned: always
fetch_seconds:
  description: How long the job took that fetched them, on the node's clock; the longest where there were several.
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
      description: The folder of the snapshot. Empty in check mode while the commit is not known.
      type: str
    bytes:
      description: The size of the requested files, as far as known.
      type: int
    bytes_to_fetch:
      description: In check mode, the bytes to download. V(-1) if the hub did not answer.
      type: int
    changed:
      description: Whether this snapshot was downloaded or repaired.
      type: bool
done:
  description: Whether the download has ended.
  type: bool
  returned: always
begun:
  description: Whether a pull goes on in the background (O(background)).
  type: bool
  returned: where one does
progress:
  description: The progress of the download.
  type: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.hub import api as hub_api, run as hub_run


def main():
    module = AnsibleModule(
        argument_spec={
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
        },
        supports_check_mode=True,
    )
    try:
        result = hub_run.run(module.params, module.check_mode, module.run_command)
    except (hub_run.Failed, hub_api.HubError, ValueError) as trouble:
        module.fail_json(msg=str(trouble), done=True, progress="")
    for warning in result.pop("warnings", []):
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
