# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: engine_info
short_description: The Docker engine that is on a node
version_added: 1.0.0
description:
  - Says whether a Docker works on the node, which version, whether its service starts with the node, and which users
    may talk to it, all in one step.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.reads_only
options:
  users:
    description: Users to look for in O(group).
    type: list
    elements: str
    default: []
  group:
    description: The group that may talk to Docker.
    type: str
    default: docker
  markers:
    description: Files of which one names this collection where it was this collection that installed Docker.
    type: list
    elements: path
    default: [/etc/apt/sources.list.d/docker.sources, /etc/yum.repos.d/docker-ce.repo]
  config:
    description: Settings to look for in O(config_path).
    type: dict
    default: {}
  config_path:
    description: Docker's configuration.
    type: path
    default: /etc/docker/daemon.json
"""

EXAMPLES = r"""
- name: Look at the Docker of this node
  gpunode.llm.engine_info:
    users: [ada]
  register: engine
"""

RETURN = r"""
works:
  description: Whether a server answers.
  type: bool
  returned: success
server_version:
  description: The server's version; empty where none answers.
  type: str
  returned: success
client_version:
  description: The version of the docker command; empty where there is none.
  type: str
  returned: success
ours:
  description: Whether one of O(markers) says so.
  type: bool
  returned: success
service:
  description: Whether docker.service is known, runs now, and starts with the node; and its drop-ins.
  type: dict
  returned: success
  sample: {"known": true, "active": true, "enabled": true, "drop_ins": []}
config_settled:
  description: Whether daemon.json says all that O(config) does.
  type: bool
  returned: success
settings_due:
  description:
    - What Docker must still do for settings that an earlier play wrote into daemon.json and did not live to have it
      take up, V(restarted) or V(reloaded). Empty where there is nothing.
  type: str
  returned: success
group_exists:
  description: Whether O(group) is there.
  type: bool
  returned: success
users_missing:
  description: Those of O(users) that are not in the group.
  type: list
  elements: str
  returned: success
users_unknown:
  description: Those of O(users) that the node does not know.
  type: list
  elements: str
  returned: success
"""

import grp
import os
import pwd

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpunode.llm.plugins.module_utils import _daemon_file, _daemon_json, _engine

MARKERS = ["/etc/apt/sources.list.d/docker.sources", "/etc/yum.repos.d/docker-ce.repo"]


def engine(module):
    docker = module.get_bin_path("docker")
    if not docker:
        return _engine.Engine()
    # Exits 1 where no server answers, and tells of the client all the same.
    _rc, out, _err = module.run_command([docker, "version", "--format", "{{json .}}"])
    return _engine.parse_version(out)


def service(module):
    systemctl = module.get_bin_path("systemctl")
    said = {}
    if systemctl:
        _rc, out, _err = module.run_command(
            [systemctl, "show", "docker.service", "-p", "LoadState,ActiveState,UnitFileState,DropInPaths"]
        )
        said = _engine.parse_unit(out)
    return {
        "known": said.get("LoadState") == "loaded",
        "active": said.get("ActiveState") == "active",
        "enabled": said.get("UnitFileState") == "enabled",
        "drop_ins": said.get("DropInPaths", "").split(),
    }


def is_ours(marker):
    if not os.path.exists(marker):
        return False
    with open(marker, encoding="utf-8", errors="replace") as stream:
        return "gpunode.llm" in stream.read()


def config_settled(path, wanted):
    """A file that cannot be read is not settled: whoever merges into it says what is wrong with it."""
    try:
        _text, here = _daemon_file.read(path)
    except ValueError:
        return False
    return _daemon_json.merge(here, wanted) == here


def users(names, group):
    unknown, missing, members, gid = [], [], [], None
    try:
        entry = grp.getgrnam(group)
        members, gid = entry.gr_mem, entry.gr_gid
    except KeyError:
        pass
    for name in names:
        try:
            primary = pwd.getpwnam(name).pw_gid
        except KeyError:
            unknown.append(name)
            continue
        if name not in members and primary != gid:
            missing.append(name)
    return {"group_exists": gid is not None, "users_missing": missing, "users_unknown": unknown}


def main():
    module = AnsibleModule(
        argument_spec={
            "users": {"type": "list", "elements": "str", "default": []},
            "group": {"type": "str", "default": "docker"},
            "markers": {"type": "list", "elements": "path", "default": MARKERS},
            "config": {"type": "dict", "default": {}},
            "config_path": {"type": "path", "default": "/etc/docker/daemon.json"},
        },
        supports_check_mode=True,
    )
    found = engine(module)
    module.exit_json(
        changed=False,
        works=found.works,
        server_version=found.server,
        client_version=found.client,
        ours=any(is_ours(marker) for marker in module.params["markers"]),
        service=service(module),
        config_settled=config_settled(module.params["config_path"], module.params["config"]),
        settings_due=_daemon_file.due(),
        **users(module.params["users"], module.params["group"]),
    )


if __name__ == "__main__":
    main()
