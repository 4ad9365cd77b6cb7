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
    the access to each repository, the front before the engines, the platform, and with O(docker) which Docker it is.
    Returns everything it found, not the first thing only.
  - Changes nothing, needs nothing installed, and does not fail because of what it found.
  - The hub is asked for what is not yet on the node, and for a token that the node does not have yet. A node that has
    all its weights, verified, needs no hub. Registries and repositories are asked in the same way, all at once.
  - Environment variables that begin with C(GPUNODE_HUB_) hold, without that beginning, for the questions to the hub
    alone.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
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
  elsewhere:
    description:
      - What another node fetches and hands to this one, each a dictionary of C(repo_id), C(revision) and C(seeder),
        that node's name. The hub is not asked for it. Where all is like that, no token is needed here.
    type: list
    elements: dict
    default: []
  gateway:
    description:
      - What the front before the engines needs of this node, where there is to be one. C(listens) is a list of
        dictionaries of C(host) and C(port), C(certificate) and C(certificate_key) are paths, where they are the
        operator's own. It is checked with the ports.
    type: dict
    default: {}
  docker:
    description:
      - Tells of the Docker of this node, as M(gpunode.llm.engine_info) does. Whoever needs that next is spared a round
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
      keep_docker:
        description:
          - Whether a Docker that the node came with is going to stay and to give GPUs by name (CDI), so that it must
            know how.
        type: bool
        default: true
      keep_toolkit:
        description: Whether an NVIDIA Container Toolkit that the node came with is going to stay, so that it must do.
        type: bool
        default: true
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
"""

EXAMPLES = r"""
- name: Look for what stands against the plan
  gpunode.llm.preflight_check:
    instances: "{{ preflight_plan.plan.instances }}"
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
    - Whether the node has all C(weights), complete and verified, with the token that it keeps; and all C(images). What
      is settled needs no further call on the node.
  type: dict
  returned: success
  sample: {"weights": true, "images": true}
docker:
  description: The Docker of this node, as M(gpunode.llm.engine_info) returns it.
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

import glob
import os
import time

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.docker import engine_here
from ..module_utils.hub import (
    api as hub_api,
    cache as hub_cache,
    folder as hub_folder,
    http as hub_http,
    snapshot as hub_snapshot,
)
from ..module_utils.preflight import checks as preflight_checks, reach as preflight_reach

TIMEOUT_S = 20
GATEWAY_UNIT = f"/etc/systemd/system/{preflight_checks.GATEWAY_UNIT}"


def text_of(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def units():
    """The text of every unit that may be one of the role vllm."""
    return {os.path.basename(path): text_of(path) for path in glob.glob("/etc/systemd/system/vllm-*.service")}


def check(module, docker):
    params = module.params
    instances, skip, run = params["instances"], params["skip"], module.run_command
    findings, hub_check = preflight_checks.check_images(instances), preflight_checks.HubCheck((), {})
    if "platform" not in skip and params["platform"]:
        findings += preflight_checks.check_platform(params["platform"], params["supported"])
    images = preflight_checks.image_needs(instances, params["image_bytes"], run, module.get_bin_path("docker") or "")
    told, questions = reaching(params, docker, images)
    # From here on: the questions that are left have an environment of their own.
    os.environ.update(preflight_reach.hub_environment(os.environ))
    asks_hub = "hub" not in skip and not only_follows(params)
    reach, hub_check = preflight_reach.ask(questions, lambda: ask_hub(params) if asks_hub else hub_check)
    findings += [*hub_check.findings, *told, *reach]
    linked = bool(params["source"]) and hub_folder.linkable(params["source"], params["home"])
    findings += preflight_checks.check_cache(instances, params["home"])
    weights = preflight_checks.weights_needs(instances, params["home"], hub_check.trees, linked)
    if "disk" not in skip:
        findings += preflight_checks.check_disk(weights + images)
    if "ports" not in skip:
        going = preflight_checks.making_room(units(), instances) if params["remove_unlisted"] else {}
        findings += preflight_checks.check_ports(instances, run, going=going)
        findings += preflight_checks.check_gateway(params["gateway"], run, text_of(GATEWAY_UNIT))
    return findings, hub_check, weights, images


def reaching(params, docker, images):
    """What is wrong with the keys of repositories, and the questions to them and to the registries of images."""
    run = preflight_reach.runner(dict(os.environ))
    told, questions = [], []
    if "repositories" not in params["skip"] and params["repositories"]:
        stays = docker.get("works", False) and not docker.get("ours", False)
        told, questions = preflight_reach.sources(params["repositories"], stays, run, open_url)
    if "registry" not in params["skip"] and params["registry"] is not None:
        missing = [need.name for need in images if not preflight_checks.check_images([{"image": need.name}])]
        questions += preflight_reach.images(missing, params["registry"], os.uname().machine, run)
    return told, questions


def open_url(*given, **more):
    # Only here: loading it takes a node longer than all that a preflight with nothing to fetch looks at.
    from ansible.module_utils.urls import open_url as ansibles

    return ansibles(*given, **more)


def settled(params, weights, images):
    """What the roles need not be asked for. A token that others can read is not settled."""
    token = hub_cache.token_current(params["token_path"], params["token"] or "")
    token = token or bool(params["source"]) or only_follows(params)
    return {"weights": not weights and token and not params["update"], "images": not images}


def seeders(params):
    return {(one["repo_id"], one["revision"]): one["seeder"] for one in params["elsewhere"]}


def from_hub(params):
    """What this node has to have from the hub."""
    wanted, elsewhere = hub_snapshot.parse_snapshots(params["instances"]), seeders(params)
    return [one for one in wanted if (one.repo_id, one.revision) not in elsewhere]


def only_follows(params):
    """Whether hub and token are none of this node's business."""
    return bool(params["elsewhere"]) and not from_hub(params)


def ask_hub(params):
    """What the hub has against it, and the index of packages that its client comes from."""
    token = (params["token"] or hub_cache.read_token(params["token_path"])).strip()
    opener = hub_http.opener(TIMEOUT_S, params["ca_path"])
    snapshots = [
        snapshot
        for snapshot in from_hub(params)
        if not hub_snapshot.look(params["home"], snapshot).complete or (params["update"] and not snapshot.pinned)
    ]
    if params["source"]:
        folder = hub_folder.Folder(params["source"], hub_snapshot.parse_snapshots(params["instances"]))
        return preflight_checks.check_hub(folder, snapshots, token_is_new=False)
    token_is_new = token != hub_cache.read_token(params["token_path"])
    hub = hub_api.Hub(params["endpoint"], opener, time.sleep, token)
    told = preflight_checks.check_hub(hub, snapshots, token_is_new)
    index = params["client"]["index_url"] if params["client"] and snapshots else ""
    if index and not hub_cache.client_version(params["client"]["venv"]):
        told = preflight_checks.HubCheck(
            [*told.findings, *preflight_checks.check_index(index, opener)], told.trees, told.account
        )
    return told


def docker_here(module):
    """The Docker of this node, and what stands against it."""
    asked = module.params["docker"]
    if asked is None:
        # Whether it stays says whether its repository is wanted.
        wanted = bool(module.params["repositories"])
        return (engine_here.describe({}, module.run_command, module.get_bin_path) if wanted else {}), []
    docker = engine_here.describe(asked, module.run_command, module.get_bin_path)
    sockets = engine_here.rootless_sockets()
    if sockets and not docker["works"]:
        module.warn(
            f"A user's rootless Docker is on this node ({', '.join(sockets)}) and stays as it is: what runs here needs"
            " root's own Docker, started by docker.service, which comes beside it."
        )
    keep_docker = asked["keep_docker"] and not docker["ours"]
    keep_toolkit = asked["keep_toolkit"] and not any(map(os.path.exists, engine_here.TOOLKIT_SOURCES))
    return docker, preflight_checks.check_docker(docker, module.params["instances"], keep_docker, keep_toolkit)


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
            "elsewhere": {"type": "list", "elements": "dict", "default": []},
            "gateway": {"type": "dict", "default": {}},
            "docker": {
                "type": "dict",
                "options": {
                    "users": {"type": "list", "elements": "str"},
                    "config": {"type": "dict", "default": {}},
                    "apt": {"type": "dict", "default": {}},
                    "keep_docker": {"type": "bool", "default": True},
                    "keep_toolkit": {"type": "bool", "default": True},
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
        },
        supports_check_mode=True,
    )
    docker, against = docker_here(module)
    try:
        findings, hub_check, weights, images = check(module, docker)
    except ValueError as trouble:
        module.fail_json(msg=str(trouble))
    params = module.params
    instances = preflight_checks.assign(params["instances"], seeders(params))
    module.exit_json(
        changed=False,
        findings=findings + against,
        instances=preflight_checks.pin(instances, params["home"], hub_check.trees),
        account=hub_check.account,
        bytes_to_write=sum(need.bytes for need in weights + images),
        **preflight_checks.told_needs(weights + images, [params["home"], preflight_checks.data_root()]),
        settled=settled(params, weights, images),
        **({"docker": docker} if params["docker"] is not None else {}),
    )


if __name__ == "__main__":
    main()
