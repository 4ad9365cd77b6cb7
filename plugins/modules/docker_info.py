# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: docker_info
short_description: Describe the Docker engine on a node
version_added: 1.0.0
description:
  - Reports whether Docker works on the node, its version, whether its service starts at boot, and which users may use
    it. It needs one call.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.reads_only
options:
  users:
    description: The users to look up in O(group). The default is the user that Ansible logs in as, if that is not root.
    type: list
    elements: str
  group:
    description: The group whose members may use Docker.
    type: str
    default: docker
  markers:
    description: Files that name this collection if it installed Docker. One such file is enough.
    type: list
    elements: path
    default: [/etc/apt/sources.list.d/docker.sources, /etc/yum.repos.d/docker-ce.repo]
  config:
    description: The settings to look up in O(config_path).
    type: dict
    default: {}
  apt:
    description: The repository and the packages to look up, as options of M(gpunode.llm.apt_source).
    type: dict
    default: {}
  config_path:
    description: The configuration file of Docker.
    type: path
    default: /etc/docker/daemon.json
"""

EXAMPLES = r"""
- name: Read the state of Docker
  gpunode.llm.docker_info:
    users: [ada]
  register: engine
"""

RETURN = r"""
works:
  description: Whether the Docker daemon answers.
  type: bool
  returned: success
server_version:
  description: The version of the Docker daemon. Empty if it does not answer.
  type: str
  returned: success
client_version:
  description: The version of the docker command. Empty if it is not installed.
  type: str
  returned: success
ours:
  description: Whether this collection installed Docker, according to one of O(markers).
  type: bool
  returned: success
obstacle:
  description:
    - Why this collection can neither use nor replace this Docker, in one sentence with the remedy. Possible reasons are
      a Docker from snap, rootless Docker, Docker Desktop, Podman, a daemon outside C(docker.service), and a docker
      command of root that uses another daemon (E(DOCKER_HOST) or a context). Empty if there is no such reason.
  type: str
  returned: success
toolkit_version:
  description: The version of the NVIDIA Container Toolkit. Empty if it is not installed.
  type: str
  returned: success
service:
  description: Whether docker.service exists, runs now and starts at boot, and its drop-in files.
  type: dict
  returned: success
  sample: {"known": true, "active": true, "enabled": true, "drop_ins": []}
config_settled:
  description: Whether daemon.json has all settings of O(config).
  type: bool
  returned: success
settings_due:
  description:
    - V(restarted) or V(reloaded), if an earlier play wrote settings into daemon.json and stopped before Docker was
      restarted or reloaded. Empty if nothing is pending.
  type: str
  returned: success
packages_settled:
  description:
    - Whether the repository and packages in O(apt) are as requested, so that M(gpunode.llm.apt_source) has nothing to
      do. False if O(apt) is empty.
  type: bool
  returned: success
group_exists:
  description: Whether O(group) exists.
  type: bool
  returned: success
users_missing:
  description: The users in O(users) that are not in the group.
  type: list
  elements: str
  returned: success
users_unknown:
  description: The users in O(users) that do not exist on the node.
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
