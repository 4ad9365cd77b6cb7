# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: docker_info
short_description: Describe the Docker engine on a node
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
    description: Users to look for in O(group). Not set, the user that Ansible logs in as, where that is not root.
    type: list
    elements: str
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
  apt:
    description: The repository and the packages to look for, as options of M(gpunode.llm.apt_source).
    type: dict
    default: {}
  config_path:
    description: Docker's configuration.
    type: path
    default: /etc/docker/daemon.json
"""

EXAMPLES = r"""
- name: Look at the Docker of this node
  gpunode.llm.docker_info:
    users: [ada]
  register: engine
"""

RETURN = r"""
works:
  description: Whether a server answers.
  type: bool
  returned: success
server_version:
  description: The server's version; empty if none answers.
  type: str
  returned: success
client_version:
  description: The version of the docker command; empty if it is not installed.
  type: str
  returned: success
ours:
  description: Whether this collection installed Docker, according to one of O(markers).
  type: bool
  returned: success
obstacle:
  description:
    - Why that Docker can be neither kept nor replaced, in one sentence with the remedy. It comes from snap, is
      rootless, Docker Desktop or Podman, answers without C(docker.service), or root's docker command is sent elsewhere
      (E(DOCKER_HOST), a context). Empty where nothing stands against it.
  type: str
  returned: success
toolkit_version:
  description: The version of the NVIDIA Container Toolkit; empty if it is not installed.
  type: str
  returned: success
service:
  description: Whether docker.service is known, runs now, and starts with the node; and its drop-ins.
  type: dict
  returned: success
  sample: {"known": true, "active": true, "enabled": true, "drop_ins": []}
config_settled:
  description: Whether daemon.json has all settings of O(config).
  type: bool
  returned: success
settings_due:
  description:
    - What Docker must still do for settings that an earlier play wrote into daemon.json and did not live to have it
      take up, V(restarted) or V(reloaded). Empty where there is nothing.
  type: str
  returned: success
packages_settled:
  description:
    - Whether the node has all of O(apt) as it is wanted, so that M(gpunode.llm.apt_source) has nothing to do. False
      where O(apt) is empty.
  type: bool
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

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.docker import engine as docker_engine


def main():
    module = AnsibleModule(
        argument_spec={
            "users": {"type": "list", "elements": "str"},
            "group": {"type": "str", "default": "docker"},
            "markers": {"type": "list", "elements": "path", "default": docker_engine.MARKERS},
            "config": {"type": "dict", "default": {}},
            "apt": {"type": "dict", "default": {}},
            "config_path": {"type": "path", "default": docker_engine.CONFIG},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, **docker_engine.describe(module.params, module.run_command, module.get_bin_path))


if __name__ == "__main__":
    main()
