# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_runtime
short_description: Let Docker give GPUs to containers
version_added: 1.0.0
description:
  - Merges the nvidia runtime and CDI into daemon.json, when they are not there yet. What else is in it stays, in its
    order, and C(dockerd --validate) reads the result before it lands. C(nvidia-ctk runtime configure) is not asked to
    do it, since it throws every other entry of C(features) away.
  - An nvidia runtime that is there, and whose program is on the node, stays as somebody set it.
  - Keeps the CDI specification equal to what C(nvidia-ctk cdi generate) finds now, which a changed driver, an added GPU
    or a new MIG layout would otherwise leave behind.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
attributes:
  check_mode:
    description: Says what would change, also where the toolkit is not installed yet.
    support: full
  diff_mode:
    description: Shows daemon.json before and after, and of the specification its size and its hash.
    support: full
options:
  path:
    description: Docker's settings.
    type: path
    default: /etc/docker/daemon.json
  spec:
    description: The CDI specification.
    type: path
    default: /var/run/cdi/nvidia.yaml
  require_cdi:
    description: Whether a Docker that is too old for CDI is an error.
    type: bool
    default: true
  unit:
    description: The unit that writes the specification at every start of the node.
    type: str
    default: gpunode-cdi.service
"""

EXAMPLES = r"""
- name: Let Docker give GPUs to containers
  gpunode.llm.nvidia_runtime:
  register: runtime
"""

RETURN = r"""
settings:
  description: The settings of daemon.json that changed.
  type: list
  elements: str
  returned: success
restart:
  description: Whether Docker must be restarted for them; a reload is enough otherwise.
  type: bool
  returned: success
spec_changed:
  description: Whether the CDI specification is another.
  type: bool
  returned: success
unit_enabled:
  description: Whether the unit that writes the specification starts with the node.
  type: bool
  returned: success
server_version:
  description: The version of Docker; empty where none answers.
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


def look(module):
    """daemon.json as it is, its settings, and these with the runtime in them."""
    path = module.params["path"]
    try:
        before, base = docker_daemon.read(path)
        return before, base, docker_daemon.merged(path, base, container_gpus.settings(base, module.get_bin_path))
    except ValueError as error:
        module.fail_json(msg=str(error))


def settle_daemon(module, docker, before, base, merged):
    """Have the settings in daemon.json; returns the keys that changed and the diff."""
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
    """Make the CDI specification anew where it is another; returns the diff."""
    path = module.params["spec"]
    if not nvidia_ctk:
        told = "(what nvidia-ctk cdi generate finds)\n"
        return {"before_header": path, "after_header": path, "before": "", "after": told}
    rc, now, err = module.run_command([nvidia_ctk, "cdi", "generate"])
    if rc != 0:
        module.fail_json(msg=f"nvidia-ctk finds no GPUs to describe for containers: {err.strip()}")
    there = node_files.text_of(path)
    if container_gpus.same_spec(there, now):
        return None
    if not module.check_mode:
        rc, out, err = module.run_command([nvidia_ctk, "cdi", "generate", f"--output={path}"])
        if rc != 0:
            module.fail_json(msg=f"nvidia-ctk could not write {path}: {(err + out).strip()}")
    before, after = (units_files.summary(text, "what nvidia-ctk cdi generate finds") for text in (there, now))
    return {"before_header": path, "after_header": path, "before": before, "after": after}


def refuse(module, docker, nvidia_ctk):
    """Stop at what knows no CDI; a check only warns of it, since the play may replace that before."""
    said = []
    if module.params["require_cdi"]:
        said.append(docker_engine.cdi_trouble(docker.server))
    if nvidia_ctk:
        said.append(
            docker_engine.toolkit_trouble(
                docker_engine.toolkit_version(module.run_command([nvidia_ctk, "--version"])[1])
            )
        )
    for one in filter(None, said):
        if not module.check_mode:
            module.fail_json(msg=one)
        module.warn(one)


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
        module.fail_json(msg="nvidia-ctk is not on this node: the package nvidia-container-toolkit-base brings it.")
    seen = look(module)
    spec_diff = settle_spec(module, nvidia_ctk)
    keys, daemon_diff = settle_daemon(module, docker, *seen)
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
