# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_runtime
short_description: Configure Docker to give GPUs to containers
version_added: 1.0.0
description:
  - Adds the nvidia runtime and CDI to daemon.json if they are missing. All other settings stay, in the same order.
    C(dockerd --validate) checks the result before the module writes it. The module does not use C(nvidia-ctk runtime
    configure), because this command removes all other entries of C(features).
  - Does not change an existing nvidia runtime if its program is on the node.
  - Keeps the CDI specification up to date with C(nvidia-ctk cdi generate). Without this, the specification would be
    wrong after a change of the driver, of the GPUs or of the MIG layout.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
attributes:
  check_mode:
    description: Reports what would change, even if the toolkit is not installed yet.
    support: full
  diff_mode:
    description: Shows daemon.json before and after. Shows only the size and the hash of the specification.
    support: full
options:
  path:
    description: The file of Docker's settings.
    type: path
    default: /etc/docker/daemon.json
  spec:
    description: The file of the CDI specification.
    type: path
    default: /var/run/cdi/nvidia.yaml
  require_cdi:
    description: Whether the module fails if Docker is too old for CDI.
    type: bool
    default: true
  unit:
    description: The systemd unit that writes the specification at each start of the node.
    type: str
    default: gpunode-cdi.service
"""

EXAMPLES = r"""
- name: Configure Docker to give GPUs to containers
  gpunode.llm.nvidia_runtime:
  register: runtime
"""

RETURN = r"""
settings:
  description: The names of the settings in daemon.json that changed.
  type: list
  elements: str
  returned: success
restart:
  description: Whether Docker must be restarted for these settings. If not, a reload is enough.
  type: bool
  returned: success
spec_changed:
  description: Whether the CDI specification changed.
  type: bool
  returned: success
unit_enabled:
  description: Whether the unit that writes the specification starts with the node.
  type: bool
  returned: success
server_version:
  description: The version of Docker. Empty if Docker does not answer.
  type: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.docker import container_gpus, daemon as docker_daemon, engine as docker_engine
from ..module_utils.node import files as node_files
from ..module_utils.units import files as units_files


def engine(module):
    docker = module.get_bin_path("docker")
    if not docker:
        return docker_engine.Engine()
    _rc, out, _err = module.run_command([docker, "version", "--format", "{{json .}}"])
    return docker_engine.parse_version(out)


def must_restart(keys, docker):
    return docker_daemon.needs_restart(keys) or ("features" in keys and not docker.cdi_is_on)


def read_daemon(module):
    """Return the text of daemon.json, its settings, and the settings with the runtime added."""
    path = module.params["path"]
    try:
        before, base = docker_daemon.read(path)
        return before, base, docker_daemon.merged(path, base, container_gpus.settings(base, module.get_bin_path))
    except ValueError as error:
        module.fail_json(msg=str(error))


def settle_daemon(module, docker, before, base, merged):
    """Write the settings to daemon.json; return the changed keys and the diff."""
    path = module.params["path"]
    keys = docker_daemon.changed_keys(base, merged)
    if not keys:
        return keys, None
    after = docker_daemon.dump(merged)
    staged = docker_daemon.stage(after)
    module.add_cleanup_file(staged)
    dockerd = module.get_bin_path("dockerd")
    refused = docker_daemon.refusal(module.run_command, dockerd, staged, path) if dockerd else ""
    if refused:
        module.fail_json(msg=refused)
    if not module.check_mode:
        docker_daemon.land(module.atomic_move, staged, path, must_restart(keys, docker))
    return keys, {"before_header": path, "after_header": path, "before": before, "after": after}


def settle_spec(module, nvidia_ctk):
    """Write the CDI specification if it changed; return the diff."""
    path = module.params["spec"]
    if not nvidia_ctk:
        after = "(the output of nvidia-ctk cdi generate)\n"
        return {"before_header": path, "after_header": path, "before": "", "after": after}
    rc, now, err = module.run_command([nvidia_ctk, "cdi", "generate"])
    if rc != 0:
        module.fail_json(
            msg="nvidia-ctk finds no GPUs to describe for containers. Check the driver with nvidia-smi. "
            f"The output of nvidia-ctk: {err.strip()}"
        )
    old = node_files.text_of(path)
    if container_gpus.same_spec(old, now):
        return None
    if not module.check_mode:
        rc, out, err = module.run_command([nvidia_ctk, "cdi", "generate", f"--output={path}"])
        if rc != 0:
            module.fail_json(msg=f"nvidia-ctk could not write {path}: {(err + out).strip()}")
    before, after = (units_files.summary(text, "the output of nvidia-ctk cdi generate") for text in (old, now))
    return {"before_header": path, "after_header": path, "before": before, "after": after}


def refuse(module, docker, nvidia_ctk):
    """Fail if Docker or the toolkit is too old for CDI. Check mode only warns, since the play may upgrade them."""
    problems = []
    if module.params["require_cdi"]:
        problems.append(docker_engine.cdi_trouble(docker.server))
    if nvidia_ctk:
        problems.append(
            docker_engine.toolkit_trouble(
                docker_engine.toolkit_version(module.run_command([nvidia_ctk, "--version"])[1])
            )
        )
    for problem in filter(None, problems):
        if not module.check_mode:
            module.fail_json(msg=problem)
        module.warn(problem)


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": container_gpus.DAEMON},
            "spec": {"type": "path", "default": container_gpus.SPEC},
            "require_cdi": {"type": "bool", "default": True},
            "unit": {"type": "str", "default": container_gpus.UNIT},
        },
        supports_check_mode=True,
    )
    docker = engine(module)
    nvidia_ctk = module.get_bin_path("nvidia-ctk")
    refuse(module, docker, nvidia_ctk)
    if not nvidia_ctk and not module.check_mode:
        module.fail_json(msg="nvidia-ctk is not on this node: install the package nvidia-container-toolkit-base.")
    daemon = read_daemon(module)
    spec_diff = settle_spec(module, nvidia_ctk)
    keys, daemon_diff = settle_daemon(module, docker, *daemon)
    module.exit_json(
        changed=bool(keys or spec_diff),
        settings=keys,
        restart=must_restart(keys, docker),
        spec_changed=bool(spec_diff),
        unit_enabled=container_gpus.unit_enabled(module.params["unit"]),
        server_version=docker.server,
        diff=[diff for diff in (daemon_diff, spec_diff) if diff],
    )


if __name__ == "__main__":
    main()
