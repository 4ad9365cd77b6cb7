# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: preflight_check
short_description: Check whether this node can serve a plan
version_added: 1.0.0
description:
  - Checks the free disk on the filesystems of weights and images, the ports of the endpoints, the token and the access
    to each repository, the gateway, the platform, and with O(docker) the Docker of the node.
  - Returns all findings, not only the first one. It does not fail because of a finding.
  - Changes nothing and needs no package on the node.
  - Asks the hub about weights that are not on the node yet, and about a token that the node does not have yet. A node
    with all its weights, verified, needs no hub. Registries and repositories are asked by the same rule, all at once.
  - An environment variable with the prefix C(GPUNODE_HUB_) is set, without the prefix, for requests to the hub only.
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
    description: The folder that holds the weights, the hub's E(HF_HOME).
    type: path
    default: /var/lib/huggingface
  update:
    description: Whether to ask the hub for the commit of a branch even when the node has recorded one.
    type: bool
    default: false
  remove_unlisted:
    description:
      - Whether services of the role vllm that O(instances) does not list will be removed.
      - Then their ports count as free.
    type: bool
    default: false
  image_bytes:
    description:
      - The disk space of an unpacked image in bytes, by the plan's device. It counts when the image is not on the node.
    type: dict
    default: {cuda: 30000000000, cpu: 6000000000}
  endpoint:
    description: The URL of the hub, or of a mirror.
    type: str
    default: https://huggingface.co
  source:
    description:
      - A folder on the node that stands in for the hub, as M(gpunode.llm.hf_snapshot) takes it. Then the hub
        is not asked, and no token is needed.
    type: path
  token:
    description: The token that the node will get. When it is not set, the token in O(token_path) is used.
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
      - Asks the index of Python packages for the client of the hub, when weights must be fetched and the node has no
        client.
    type: dict
    suboptions:
      index_url:
        description: The URL of the index that pip will use. When it is empty, no index is asked.
        type: str
        default: ""
      venv:
        description: The path of the client's virtual environment.
        type: path
        required: true
  hub:
    description:
      - O(ca_path), O(client), O(endpoint), O(home), O(source), O(token_path) and O(update) in one dictionary, by
        these names.
      - Other keys and empty values are ignored.
    type: dict
  elsewhere:
    description:
      - The weights that another node fetches and hands to this one. Each is a dictionary of C(repo_id), C(revision) and
        C(seeder), the name of that node. The hub is not asked about them. When all weights come this way, this node
        needs no token.
    type: list
    elements: dict
    default: []
  gateway:
    description:
      - The needs of the gateway, when this node will run one. C(listens) is a list of dictionaries of C(host) and
        C(port), and so is C(router) for the router before it. C(certificate) and C(certificate_key) are the paths of
        the operator's own files. They are checked with the ports.
    type: dict
    default: {}
  docker:
    description:
      - Returns the state of Docker, as M(gpunode.llm.docker_info) does. This saves a later task one round trip.
    type: dict
    suboptions:
      users:
        description: Users to look for in the group docker. When it is not set, the user that Ansible logs in as.
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
        description: Whether a Docker that the node came with stays. It must then be new enough.
        type: bool
        default: true
  toolkit:
    description:
      - Returns in RV(settled) whether the role P(gpunode.llm.nvidia_container_toolkit#role) and its proof in a
        container have nothing to do. A play that then skips both saves several round trips.
    type: dict
    suboptions:
      repository:
        description: The repository of the packages, as an element of O(repositories).
        type: dict
        required: true
      keep:
        description: Whether a toolkit that the node came with stays. It must then be new enough.
        type: bool
        default: true
      hold:
        description: Whether the packages must be held at their version. When it is not set, both states are accepted.
        type: bool
      require_cdi:
        description: Whether Docker must be new enough for CDI.
        type: bool
        default: true
      units:
        description: The SHA-256 of each unit's file, by its path.
        type: dict
        default: {}
      image:
        description: The image of the proof. When it is empty, no proof is needed.
        type: str
        default: ""
  repositories:
    description:
      - The package repositories that the play will use. apt or dnf checks, before a repository is written, whether the
        node can use it with the repository's own key alone. Packages that are installed, or kept, are not checked.
    type: list
    elements: dict
    default: []
    suboptions:
      manager:
        description: The package manager of the repository.
        type: str
        choices: [apt, dnf]
        required: true
      options:
        description: The options of M(gpunode.llm.apt_source) or M(gpunode.llm.rpm_source).
        type: dict
        required: true
      unless_docker:
        description: Whether the repository is not needed when a working Docker from another source stays.
        type: bool
        default: false
  registry:
    description:
      - Asks the registry of each image that is not on the node for its manifest, as Docker does. It uses the mirrors,
        logins, certificates and proxy that Docker has or will have on this node.
    type: dict
    suboptions:
      config:
        description: The settings that will be merged into daemon.json.
        type: dict
        default: {}
      proxy:
        description: The proxy that Docker will use.
        type: dict
        default: {}
        suboptions:
          http:
            description: The proxy URL for http addresses.
            type: str
          https:
            description: The proxy URL for https addresses.
            type: str
          no_proxy:
            description: Hosts that are reached without the proxy, separated by commas.
            type: str
      ca_certificate:
        description: The certificate (PEM) of an authority that the node will trust.
        type: str
      source:
        description: A folder on the node from which images are loaded. No registry is asked then.
        type: path
  platform:
    description: The facts of the node, as C(distribution), C(version), C(architecture) and C(service_mgr).
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
- name: Check whether the node can serve the plan
  gpunode.llm.preflight_check:
    instances: "{{ vllm_plan.plan.instances }}"
    token: "{{ huggingface_token }}"
    skip: [platform]
  register: check
"""

RETURN = r"""
findings:
  description: The reasons why the node cannot serve the plan, each with the remedy. Empty when there is none.
  type: list
  elements: str
  returned: success
instances:
  description:
    - The instances of O(instances). When one names a branch, or no revision at all, C(revision) and the revision
      in C(config) are the commit that the branch stands for, and C(branch) is its name. An instance whose
      weights come from another node has its name as C(seeder).
  type: list
  elements: dict
  returned: success
account:
  description: The hub account that the token belongs to, when the hub was asked.
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
    - The weights and images to fetch, each with its C(kind), V(weights) or V(image), and C(bytes). For an image these
      are the bytes of the unpacked image, see O(image_bytes).
  type: list
  elements: dict
  returned: success
disks:
  description: Each filesystem that is written to, with its C(paths), the C(free) bytes now and the C(bytes) to write.
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
from ..module_utils.node import commands as node_commands, questions as node_questions
from ..module_utils.preflight import (
    answer as preflight_answer,
    checks as preflight_checks,
    hub as preflight_hub,
    reach as preflight_reach,
)

TIMEOUT_S = 20
OPTIONS = {
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
            # no_proxy is no secret. If Ansible masked its hosts, it would also mask parts of image names.
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
}


class Elsewhere:
    """Asks the hub, registries and repositories, all at once."""

    def __init__(self, params):
        self.params = params

    def __call__(self, asks):
        params = self.params
        run = node_commands.runner(dict(os.environ))
        problems, questions = preflight_reach.sources(asks.repositories, run, open_url)
        if asks.images:
            missing = [name for name in asks.images if not preflight_checks.check_images([{"image": name}])]
            questions += preflight_reach.images(missing, params["registry"], os.uname().machine, run)
        # The other questions already hold an environment of their own, so this one is for the hub alone.
        os.environ.update(preflight_reach.hub_environment(os.environ))
        reach, hub = preflight_reach.ask(questions, lambda: self.hub(asks))
        linked = bool(params["source"]) and hub_folder.linkable(params["source"], params["home"])
        return preflight_answer.Found([*problems, *reach], hub, linked)

    def hub(self, asks):
        """The findings of the hub and of the package index of its client."""
        params = self.params
        if not asks.snapshots and not asks.token:
            return preflight_answer.NOTHING
        if params["source"]:
            folder = hub_folder.Folder(params["source"], hub_snapshot.parse_snapshots(params["instances"]))
            return preflight_hub.check_hub(folder, asks.snapshots, token_is_new=False)
        token = hub_token.in_force(params["token"], params["token_path"])
        opener = hub_opener.opener(TIMEOUT_S, params["ca_path"])
        hub = hub_api.Hub(params["endpoint"], opener, time.sleep, token)
        check = preflight_hub.check_hub(hub, asks.snapshots, asks.token)
        index = params["client"]["index_url"] if params["client"] and asks.snapshots else ""
        if index and not hub_cache.client_version(params["client"]["venv"]):
            findings = [*check.findings, *preflight_hub.check_index(index, opener)]
            check = preflight_checks.HubCheck(findings, check.trees, check.account)
        return check


def main():
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    if module.params["digest"] and not module.check_mode:
        node_questions.keep("preflight_check", module.params["digest"], preflight_answer.question(module.params))
    try:
        result, warnings = preflight_answer.answer(
            module.params, module.run_command, module.get_bin_path, Elsewhere(module.params)
        )
    except ValueError as trouble:
        module.fail_json(msg=str(trouble))
    for warning in warnings:
        module.warn(warning)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
