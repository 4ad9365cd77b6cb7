# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: daemon_json
short_description: Merge settings into Docker's daemon.json
version_added: 1.0.0
description:
  - Merges settings into daemon.json key by key, at any depth. Other settings keep their values and their order.
  - Refuses a file if the merge would lose a setting, for example if the file names a key twice. A symbolic link stays
    a symbolic link.
  - Checks the result with C(dockerd --validate) before it writes the file, with Docker 23 and later.
  - Returns whether a reload of Docker is enough, which keeps containers running, or whether Docker must restart.
author:
  - gpunode contributors (@gpunode)
attributes:
  check_mode:
    description: Reports what would change. Also validates it if dockerd is installed.
    support: full
  diff_mode:
    description: Shows the file before and after.
    support: full
options:
  path:
    description: The configuration file of Docker.
    type: path
    default: /etc/docker/daemon.json
  config:
    description: The settings. A null removes a key. A list replaces the old list.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Set a registry mirror and limit the logs
  gpunode.llm.daemon_json:
    config:
      registry-mirrors: ["https://mirror.example.com"]
      log-opts:
        max-size: 50m
  register: daemon
"""

RETURN = r"""
settings:
  description: The top-level settings that changed.
  type: list
  elements: str
  returned: success
restart:
  description: Whether Docker must restart for these settings. Otherwise a reload is enough.
  type: bool
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.docker import daemon as docker_daemon


def validate(module, staged, path):
    dockerd = module.get_bin_path("dockerd")
    refused = docker_daemon.refusal(module.run_command, dockerd, staged, path) if dockerd else ""
    if refused:
        module.fail_json(msg=refused)


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/etc/docker/daemon.json"},
            "config": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    path = module.params["path"]
    try:
        before, base = docker_daemon.read(path)
        merged = docker_daemon.merged(path, base, module.params["config"])
    except ValueError as error:
        module.fail_json(msg=str(error))
    keys = docker_daemon.changed_keys(base, merged)
    if not keys:
        module.exit_json(changed=False, settings=[], restart=False)
    after = docker_daemon.dump(merged)
    staged = docker_daemon.stage(after)
    module.add_cleanup_file(staged)
    validate(module, staged, path)
    restart = docker_daemon.needs_restart(keys)
    if not module.check_mode:
        docker_daemon.land(module.atomic_move, staged, path, restart)
    module.exit_json(
        changed=True,
        settings=keys,
        restart=restart,
        diff={"before_header": path, "after_header": path, "before": before, "after": after},
    )


if __name__ == "__main__":
    main()
