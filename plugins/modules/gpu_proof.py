# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_proof
short_description: Test that a container sees the GPUs
version_added: 1.0.0
description:
  - Starts a container with all GPUs, runs C(nvidia-smi) in it, and compares the UUIDs with those of the node.
  - Runs C(systemctl daemon-reload) while the container runs. This takes the GPUs away from a container that has them
    through Docker's legacy hook. With runc 1.1.3 to 1.1.6 it also takes away GPUs from CDI, if the driver has made no
    links in C(/dev/char). If the container loses its GPUs, the module fails with CDI and warns with the legacy hook.
  - The result stays valid until the node restarts, or until Docker, the CDI specification, the GPUs or the image
    change. Until then, the module starts no container again.
author:
  - gpunode contributors (@gpunode)
attributes:
  check_mode:
    description: Starts no container.
    support: full
  diff_mode:
    description: The module changes nothing, so there is no diff.
    support: none
options:
  image:
    description: An image on the node that has a C library and C(sleep). The GPU runtime adds C(nvidia-smi).
    type: str
    required: true
  spec:
    description: The CDI specification. Docker 25 and later use it; older versions use the nvidia runtime.
    type: path
    default: /var/run/cdi/nvidia.yaml
  stamp:
    description: The file that keeps the last result. It must be on a file system that a reboot empties.
    type: path
    default: /run/gpunode/gpu-proof.json
  timeout:
    description: How long each docker command may take, in seconds.
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: Test that a container sees the GPUs
  gpunode.llm.gpu_proof:
    image: vllm/vllm-openai:v0.33.0
"""

RETURN = r"""
uuids:
  description: The UUIDs of the GPUs that the container saw. Empty in check mode if there is no valid earlier result.
  type: list
  elements: str
  returned: success
method:
  description: How the container got its GPUs, V(cdi) or V(runtime).
  type: str
  returned: success
fresh:
  description: Whether this call started a container. False if an earlier result is still valid.
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
#: Why a container loses its GPUs at systemctl daemon-reload, which every package with a unit file runs. With CDI the
#: devices are in the container's DeviceAllow, unless runc leaves them out
#: (https://github.com/opencontainers/runc/issues/3671).
LOSS_CAUSES = {
    "cdi": "They were given by CDI; runc 1.1.3 to 1.1.6 (runc --version) forgets those that have no link in /dev/char.",
    "runtime": "They were given by Docker's legacy hook; Docker 25 and later give them by CDI and keep them.",
}


def report_loss(module, method):
    """Report lost GPUs. With CDI this can be fixed, so it fails; with the legacy hook it is expected, so it warns."""
    report = module.fail_json if method == "cdi" else module.warn
    report(
        "A container lost its GPUs when systemd reloaded its units (systemctl daemon-reload). Engines would fail the "
        f"same way. {LOSS_CAUSES[method]} docker_keep_existing: false replaces the installed packages with Docker's "
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
    """Run one docker command with a time limit. Returns its exit status and its output on both streams."""
    rc, out, err = module.run_command(commands.within(module.params["timeout"], "docker", *words))
    if rc in commands.TIMED_OUT:
        module.fail_json(msg=f"A container that asks for the GPUs did not answer within {module.params['timeout']} s.")
    return rc, out + err


def seen_inside(module):
    """The UUIDs of the GPUs in the container, and the output of nvidia-smi."""
    rc, output = docker(module, "exec", CONTAINER, "nvidia-smi", "-L")
    return (sorted(docker_engine.gpu_uuids(output)) if rc == 0 else []), output


def other_gpus(inside, outside):
    """The message for GPUs that only the node has, or only the container has."""
    missing = [f"GPU {index} ({uuid})" for index, uuid in enumerate(outside) if uuid not in inside]
    extra = [uuid for uuid in inside if uuid not in outside]
    parts = [f"{', '.join(missing)} not inside"] if missing else []
    parts += [f"{', '.join(extra)} not outside"] if extra else []
    return (
        f"A container sees other GPUs than the node: {' and '.join(parts)}. A description of the GPUs (CDI) that is"
        " older than they are, or another one in /etc/cdi, does that: systemctl restart gpunode-cdi."
    )


def prove(module, now):
    """A container sees the GPUs of the node. Returns whether it still does after systemd has read its units anew."""
    docker(module, "rm", "--force", CONTAINER)
    keep = ["--rm", "--init", "--pull=never", "--network=none", f"--name={CONTAINER}", "--entrypoint=sleep"]
    try:
        rc, output = docker(module, "run", "--detach", *keep, *GPUS[now["method"]], now["image"], "600")
        inside, output = seen_inside(module) if rc == 0 else ([], output)
        if not inside:
            module.fail_json(msg=docker_engine.proof_failure(output))
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
            report_loss(module, now["method"])
        remember(module.params["stamp"], now)
    proven = known or not module.check_mode
    module.exit_json(
        changed=False, uuids=now["uuids"] if proven else [], method=now["method"], fresh=proven and not known
    )


if __name__ == "__main__":
    main()
