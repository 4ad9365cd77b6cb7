# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: preflight_check
short_description: Tell what stands against serving a plan on this node
version_added: 1.0.0
description:
  - Checks free disk on the very filesystems that weights and images go to, the ports of the endpoints, the token and
    the access to each repository, the gateway, the platform, and with O(docker) which Docker it is.
    Returns everything it found, not the first thing only.
  - Changes nothing, needs nothing installed, and does not fail because of what it found.
  - The hub is asked for what is not yet on the node, and for a token that the node does not have yet. A node that has
    all its weights, verified, needs no hub. Registries and repositories are asked in the same way, all at once.
  - Environment variables that begin with C(GPUNODE_HUB_) hold, without that beginning, for the questions to the hub
    alone.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
  - gpunode.llm.reads_only
options:
  instances:
    description: The instances of a plan of M(gpunode.llm.serving_plan).
    type: list
    elements: dict
    default: []
  skip:
    description: Checks to leave out.
    type: list
    elements: str
    choices: [platform, disk, ports, hub, repositories, registry]
    default: []
  home:
    description: The folder that weights go to, the hub's E(HF_HOME).
    type: path
    default: /var/lib/huggingface
  update:
    description: Ask the hub which commit a branch stands for, also where the node has recorded one.
    type: bool
    default: false
  remove_unlisted:
    description: Whether services of the role vllm that O(instances) no longer lists make room, with their ports.
    type: bool
    default: false
  image_bytes:
    description:
      - The room that an unpacked image takes, by the plan's device. Asked for where the image is not on the node yet.
    type: dict
    default: {cuda: 30000000000, cpu: 6000000000}
  endpoint:
    description: The hub, or a mirror of it.
    type: str
    default: https://huggingface.co
  source:
    description:
      - A folder on the node that stands in for the hub, as M(gpunode.llm.hf_snapshot) takes it. The hub is not asked
        then, and no token is wanted.
    type: path
  token:
    description: The token that the node is going to have. Without it the one in O(token_path) is used.
    type: str
  token_path:
    description: The file that holds the token on a node that was set up before.
    type: path
    default: /etc/huggingface/token
  ca_path:
    description: A bundle of certificate authorities to trust instead of the system's own.
    type: path
  client:
    description:
      - Has the index of Python packages asked for the client of the hub, where something is to be fetched and no client
        is here yet.
    type: dict
    suboptions:
      index_url:
        description: The index, where pip is going to be told of one.
        type: str
        default: ""
      venv:
        description: The virtual environment that the client goes to.
        type: path
        required: true
  hub:
    description:
      - O(ca_path), O(client), O(endpoint), O(home), O(source), O(token_path) and O(update) in one, by these names.
      - Other keys, and what is null or empty, are passed over.
    type: dict
  elsewhere:
    description:
      - What another node fetches and hands to this one, each a dictionary of C(repo_id), C(revision) and C(seeder),
        that node's name. The hub is not asked for it. Where all is like that, no token is needed here.
    type: list
    elements: dict
    default: []
  gateway:
    description:
      - What the gateway needs of this node, where there is to be one. C(listens) is a list of
        dictionaries of C(host) and C(port), C(certificate) and C(certificate_key) are paths, where they are the
        operator's own. It is checked with the ports.
    type: dict
    default: {}
  docker:
    description:
      - Tells of the Docker of this node, as M(gpunode.llm.docker_info) does. Whoever needs that next is spared a round
        trip.
    type: dict
    suboptions:
      users:
        description: Users to look for in the group docker. Not set, the one that Ansible logs in as.
        type: list
        elements: str
      config:
        description: Settings to look for in daemon.json.
        type: dict
        default: {}
      apt:
        description: The repository and the packages to look for, as options of M(gpunode.llm.apt_source).
        type: dict
        default: {}
      keep:
        description: Whether a Docker that the node came with is going to stay, so that it must be new enough.
        type: bool
        default: true
  toolkit:
    description:
      - Tells in RV(settled) whether the role P(gpunode.llm.nvidia_container_toolkit#role) has anything to do, and its
        proof in a container. Whoever leaves both out then is spared several round trips.
    type: dict
    suboptions:
      repository:
        description: Where the packages come from, as an element of O(repositories).
        type: dict
        required: true
      keep:
        description: Whether a toolkit that the node came with is going to stay, so that it must be new enough.
        type: bool
        default: true
      hold:
        description: Whether the packages are to be held at their version. Not set, either will do.
        type: bool
      require_cdi:
        description: Whether a Docker that is too old for CDI will not do.
        type: bool
        default: true
      units:
        description: The SHA-256 of each unit's file, by its path.
        type: dict
        default: {}
      image:
        description: The image in which the proof is made. Empty, none is asked for.
        type: str
        default: ""
  repositories:
    description:
      - The repositories of packages that the play is going to use. apt or dnf is asked for each, before it is written,
        whether the node could have it, by its key alone. Not asked is for what is installed, or kept as it is.
    type: list
    elements: dict
    default: []
    suboptions:
      manager:
        description: Whose repository it is.
        type: str
        choices: [apt, dnf]
        required: true
      options:
        description: The options of M(gpunode.llm.apt_source) or M(gpunode.llm.rpm_source).
        type: dict
        required: true
      unless_docker:
        description: Whether a Docker that works and came from elsewhere stays, so that the repository is not wanted.
        type: bool
        default: false
  registry:
    description:
      - Has the registry of each image that is not on the node asked for its manifest, as Docker would ask. With the
        mirrors, logins, certificates and the proxy that Docker has on this node or is going to have.
    type: dict
    suboptions:
      config:
        description: What is going to be merged into daemon.json.
        type: dict
        default: {}
      proxy:
        description: The proxy that Docker is going to have.
        type: dict
        default: {}
        suboptions:
          http:
            description: For http addresses.
            type: str
          https:
            description: For https addresses.
            type: str
          no_proxy:
            description: Hosts to reach without it, separated by commas.
            type: str
      ca_certificate:
        description: The certificate (PEM) of an authority that the node is going to trust.
        type: str
      source:
        description: A folder on the node from which images are loaded. No registry is asked then.
        type: path
  platform:
    description: What the facts say, as C(distribution), C(version), C(architecture) and C(service_mgr).
    type: dict
    default: {}
  supported:
    description: The supported platforms, as C(distributions) with a list of versions each, and C(architectures).
    type: dict
    default: {}
  digest:
    description:
      - A digest of the question. The node keeps the question under it, without what is secret, and
        M(gpunode.llm.node_info) answers it once more where nobody else has to be asked. The action plugin sets it.
    type: str
"""

EXAMPLES = r"""
- name: Look for what stands against the plan
  gpunode.llm.preflight_check:
    instances: "{{ vllm_plan.plan.instances }}"
    token: "{{ huggingface_token }}"
    skip: [platform]
  register: check
"""

RETURN = r"""
findings:
  description: What stands against the plan, a sentence or two each, with the remedy. Empty when nothing does.
  type: list
  elements: str
  returned: success
instances:
  description:
    - The instances that were handed in. Where one names a branch, or no revision at all, C(revision) and the revision
      in C(config) are the commit that the branch stands for, and C(branch) is its name. What comes from another node
      carries that one's name as C(seeder).
  type: list
  elements: dict
  returned: success
account:
  description: The hub account that the token belongs to, where the hub was asked.
  type: str
  returned: success
settled:
  description:
    - Whether the node has all C(weights), complete and verified, with the token that it keeps; all C(images); and with
      O(toolkit), whether C(toolkit) is as it is to be. What is settled needs no further call on the node.
  type: dict
  returned: success
  sample: {"weights": true, "images": true}
docker:
  description: The Docker of this node, as M(gpunode.llm.docker_info) returns it.
  type: dict
  returned: where O(docker) is set
fetch:
  description:
    - What is to be fetched, each with its C(kind), V(weights) or V(image), and C(bytes). Those of an image are the room
      that it takes once it is unpacked, see O(image_bytes).
  type: list
  elements: dict
  returned: success
disks:
  description: Each filesystem that this goes to, as C(paths), C(free) bytes before it, and the C(bytes) that it takes.
  type: list
  elements: dict
  returned: success
bytes_to_write:
  description: Bytes of weights and images that the node does not have yet.
  type: int
  returned: success
"""

import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

from ..module_utils.hub import (
    api as hub_api,
    cache as hub_cache,
    folder as hub_folder,
    opener as hub_opener,
    snapshot as hub_snapshot,
    token as hub_token,
)
from ..module_utils.node import asked as node_asked, commands as node_commands
from ..module_utils.preflight import (
    answer as preflight_answer,
    checks as preflight_checks,
    hub as preflight_hub,
    reach as preflight_reach,
)

TIMEOUT_S = 20


class Elsewhere:
    """Asks others than the node, all at once."""

    def __init__(self, params):
        self.params = params

    def __call__(self, asks):
        params = self.params
        run = node_commands.runner(dict(os.environ))
        told, questions = preflight_reach.sources(asks.repositories, run, open_url)
        if asks.images:
            missing = [name for name in asks.images if not preflight_checks.check_images([{"image": name}])]
            questions += preflight_reach.images(missing, params["registry"], os.uname().machine, run)
        # From here on: the questions that are left have an environment of their own.
        os.environ.update(preflight_reach.hub_environment(os.environ))
        reach, hub = preflight_reach.ask(questions, lambda: self.hub(asks))
        linked = bool(params["source"]) and hub_folder.linkable(params["source"], params["home"])
        return preflight_answer.Found([*told, *reach], hub, linked)

    def hub(self, asks):
        """What the hub has against it, and the index of packages that its client comes from."""
        params = self.params
        if not asks.snapshots and not asks.token:
            return preflight_answer.NOTHING
        if params["source"]:
            folder = hub_folder.Folder(params["source"], hub_snapshot.parse_snapshots(params["instances"]))
            return preflight_hub.check_hub(folder, asks.snapshots, token_is_new=False)
        token = hub_token.in_force(params["token"], params["token_path"])
        opener = hub_opener.opener(TIMEOUT_S, params["ca_path"])
        hub = hub_api.Hub(params["endpoint"], opener, time.sleep, token)
        told = preflight_hub.check_hub(hub, asks.snapshots, asks.token)
        index = params["client"]["index_url"] if params["client"] and asks.snapshots else ""
        if index and not hub_cache.client_version(params["client"]["venv"]):
            findings = [*told.findings, *preflight_hub.check_index(index, opener)]
            told = preflight_checks.HubCheck(findings, told.trees, told.account)
        return told


def main():
    module = AnsibleModule(
        argument_spec={
            "instances": {"type": "list", "elements": "dict", "default": []},
            "skip": {
                "type": "list",
                "elements": "str",
                "choices": ["platform", "disk", "ports", "hub", "repositories", "registry"],
                "default": [],
            },
            "home": {"type": "path", "default": "/var/lib/huggingface"},
            "update": {"type": "bool", "default": False},
            "remove_unlisted": {"type": "bool", "default": False},
            "image_bytes": {"type": "dict", "default": {"cuda": 30000000000, "cpu": 6000000000}},
            "endpoint": {"type": "str", "default": "https://huggingface.co"},
            "source": {"type": "path"},
            "token": {"type": "str", "no_log": True},
            "token_path": {"type": "path", "default": "/etc/huggingface/token"},
            "ca_path": {"type": "path"},
            "client": {
                "type": "dict",
                "options": {"index_url": {"type": "str", "default": ""}, "venv": {"type": "path", "required": True}},
            },
            "hub": {"type": "dict"},
            "elsewhere": {"type": "list", "elements": "dict", "default": []},
            "gateway": {"type": "dict", "default": {}},
            "docker": {
                "type": "dict",
                "options": {
                    "users": {"type": "list", "elements": "str"},
                    "config": {"type": "dict", "default": {}},
                    "apt": {"type": "dict", "default": {}},
                    "keep": {"type": "bool", "default": True},
                },
            },
            "toolkit": {
                "type": "dict",
                "options": {
                    "repository": {"type": "dict", "required": True},
                    "keep": {"type": "bool", "default": True},
                    "hold": {"type": "bool"},
                    "require_cdi": {"type": "bool", "default": True},
                    "units": {"type": "dict", "default": {}},
                    "image": {"type": "str", "default": ""},
                },
            },
            "repositories": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "manager": {"type": "str", "choices": ["apt", "dnf"], "required": True},
                    "options": {"type": "dict", "required": True},
                    "unless_docker": {"type": "bool", "default": False},
                },
            },
            "registry": {
                "type": "dict",
                "options": {
                    "config": {"type": "dict", "default": {}},
                    # A host that is reached without it is no secret: blotted out, it would take names of images apart.
                    "proxy": {
                        "type": "dict",
                        "default": {},
                        "options": {
                            "http": {"type": "str", "no_log": True},
                            "https": {"type": "str", "no_log": True},
                            "no_proxy": {"type": "str"},
                        },
                    },
                    "ca_certificate": {"type": "str"},
                    "source": {"type": "path"},
                },
            },
            "platform": {"type": "dict", "default": {}},
            "supported": {"type": "dict", "default": {}},
            "digest": {"type": "str", "no_log": True},
        },
        supports_check_mode=True,
    )
    if module.params["digest"] and not module.check_mode:
        node_asked.keep("preflight_check", module.params["digest"], preflight_answer.question(module.params))
    try:
        told, warnings = preflight_answer.answer(
            module.params, module.run_command, module.get_bin_path, Elsewhere(module.params)
        )
    except ValueError as trouble:
        module.fail_json(msg=str(trouble))
    for warning in warnings:
        module.warn(warning)
    module.exit_json(changed=False, **told)


if __name__ == "__main__":
    main()
