# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_proof
short_description: Test that a container sees the GPUs
version_added: 1.0.0
description:
  - Runs C(nvidia-smi) in a container that is given all GPUs, and compares their UUIDs with those of the node.
  - Has systemd read its units anew meanwhile, which takes the GPUs from containers that have them by Docker's legacy
    hook, and with runc 1.1.3 to 1.1.6 also by CDI where the driver has made no links in C(/dev/char). Where they are
    lost with CDI, it fails; with the legacy hook, it warns.
  - What was proven holds until the node restarts, or Docker, the CDI specification, the GPUs or the image change; until
    then no container is started again.
author:
  - gpunode contributors (@gpunode)
attributes:
  check_mode:
    description: Starts no container.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
options:
  image:
    description: An image that is on the node. It needs a C library and C(sleep); C(nvidia-smi) is put into it.
    type: str
    required: true
  spec:
    description: The CDI specification, by which Docker 25 and later give GPUs; older ones use the nvidia runtime.
    type: path
    default: /var/run/cdi/nvidia.yaml
  stamp:
    description: Where the last proof is kept, in a file system that a restart empties.
    type: path
    default: /run/gpunode/gpu-proof.json
  timeout:
    description: How long the container may take, in seconds.
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: A container sees the GPUs
  gpunode.llm.gpu_proof:
    image: vllm/vllm-openai:v0.33.0
"""

RETURN = r"""
uuids:
  description: The GPUs that the container saw, which are the node's. None in check mode without an earlier proof.
  type: list
  elements: str
  returned: success
method:
  description: V(cdi) or V(runtime).
  type: str
  returned: success
fresh:
  description: Whether a container was started for it now.
  type: bool
  returned: success
"""

import json

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.docker import container_gpus, engine as docker_engine
from ..module_utils.node import commands, files as node_files

CONTAINER = "gpunode-gpu-proof"
GPUS = {
    "cdi": ["--device=nvidia.com/gpu=all"],
    "runtime": ["--runtime=nvidia", "--env=NVIDIA_VISIBLE_DEVICES=all", "--env=NVIDIA_DRIVER_CAPABILITIES=utility"],
}
#: A new unit file is all that it takes, and every package that brings one does it. By CDI the devices are in the
#: container's DeviceAllow, unless runc leaves them out (https://github.com/opencontainers/runc/issues/3671).
LOST = {
    "cdi": "They were given by CDI; runc 1.1.3 to 1.1.6 (runc --version) forgets those that have no link in /dev/char.",
    "runtime": "They were given by Docker's legacy hook; Docker 25 and later give them by CDI and keep them.",
}


def tell(module, method):
    """Report lost GPUs. With CDI this can be fixed, so it fails; with the legacy hook it is expected, so it warns."""
    say = module.fail_json if method == "cdi" else module.warn
    say(
        "A container lost its GPUs when systemd reloaded its units (systemctl daemon-reload). Engines would fail the "
        f"same way. {LOST[method]} docker_keep_existing: false replaces the installed packages with Docker's "
        "own."
    )


def state(module):
    """The inputs of the test, from two short commands."""
    _rc, out, _err = module.run_command(["docker", "version", "--format", "{{json .}}"], check_rc=False)
    engine = docker_engine.parse_version(out)
    if not engine.works:
        module.fail_json(msg="Docker does not answer on this node, so no container can see a GPU.")
    rc, out, err = module.run_command(["nvidia-smi", "-L"])
    outside = docker_engine.gpu_uuids(out)
    if rc != 0 or not outside:
        module.fail_json(msg=f"nvidia-smi shows no GPU on the node itself: {(err + out).strip()}")
    return container_gpus.proof(module.params["image"], engine, outside, module.params["spec"])


def docker(module, *words):
    """One docker command, bounded. Its exit status, and what it said on either stream."""
    rc, out, err = module.run_command(commands.within(module.params["timeout"], "docker", *words))
    if rc in commands.TIMED_OUT:
        module.fail_json(msg=f"A container that asks for the GPUs did not answer within {module.params['timeout']} s.")
    return rc, out + err


def seen_inside(module):
    """The GPUs of the container now, with what nvidia-smi said."""
    rc, said = docker(module, "exec", CONTAINER, "nvidia-smi", "-L")
    return (sorted(docker_engine.gpu_uuids(said)) if rc == 0 else []), said


def other_gpus(inside, outside):
    """Which GPUs are missing in the container, or strange to the node, by index and UUID."""
    missing = [f"GPU {index} ({uuid})" for index, uuid in enumerate(outside) if uuid not in inside]
    strange = [uuid for uuid in inside if uuid not in outside]
    parts = [f"{', '.join(missing)} not inside"] if missing else []
    parts += [f"{', '.join(strange)} not outside"] if strange else []
    return (
        f"A container sees other GPUs than the node: {' and '.join(parts)}. A description of the GPUs (CDI) that is"
        " older than they are, or another one in /etc/cdi, does that: systemctl restart gpunode-cdi."
    )


def prove(module, now):
    """A container sees the GPUs of the node. Returns whether it still does after systemd has read its units anew."""
    docker(module, "rm", "--force", CONTAINER)
    keep = ["--rm", "--init", "--pull=never", "--network=none", f"--name={CONTAINER}", "--entrypoint=sleep"]
    try:
        rc, said = docker(module, "run", "--detach", *keep, *GPUS[now["method"]], now["image"], "600")
        inside, said = seen_inside(module) if rc == 0 else ([], said)
        if not inside:
            module.fail_json(msg=docker_engine.proof_failure(said))
        if inside != sorted(now["uuids"]):
            module.fail_json(msg=other_gpus(inside, now["uuids"]))
        module.run_command(["systemctl", "daemon-reload"])
        return seen_inside(module)[0] == inside
    finally:
        docker(module, "rm", "--force", CONTAINER)


def remember(path, now):
    node_files.write_atomically(path, json.dumps(now))


def main():
    module = AnsibleModule(
        argument_spec={
            "image": {"type": "str", "required": True},
            "spec": {"type": "path", "default": container_gpus.SPEC},
            "stamp": {"type": "path", "default": container_gpus.PROOF},
            "timeout": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    if module.check_mode and not module.get_bin_path("docker"):
        module.exit_json(changed=False, uuids=[], method="cdi", fresh=False)
    now = state(module)
    known = container_gpus.last_proof(module.params["stamp"]) == now
    if not known and not module.check_mode:
        if not prove(module, now):
            tell(module, now["method"])
        remember(module.params["stamp"], now)
    proven = known or not module.check_mode
    module.exit_json(
        changed=False, uuids=now["uuids"] if proven else [], method=now["method"], fresh=proven and not known
    )


if __name__ == "__main__":
    main()
