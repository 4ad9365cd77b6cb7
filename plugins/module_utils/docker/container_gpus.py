# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How containers get the GPUs: what nvidia_runtime and gpu_proof set up, and whether it is done already."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any, Callable, Dict, Mapping, Optional, Sequence, Tuple

from ..node import files as node_files
from ..packages.managers import MANAGERS
from . import daemon as docker_daemon, engine as docker_engine

Runner = Callable[[Sequence[str]], Tuple[int, str, str]]
Which = Callable[[str], Optional[str]]

DAEMON = "/etc/docker/daemon.json"
#: The CDI specification: what Docker gives a container that asks for a GPU by name.
SPEC = "/var/run/cdi/nvidia.yaml"
#: The unit that writes it at every boot, and the folder with the links that enable it.
UNIT = "gpunode-cdi.service"
ENABLED = "/etc/systemd/system/multi-user.target.wants"
#: The inputs of the last successful test in a container.
PROOF = "/run/gpunode/gpu-proof.json"

CDI = {"features": {"cdi": True}}
# The name that `nvidia-ctk runtime configure --runtime=docker` uses.
RUNTIME = {"runtimes": {"nvidia": {"path": "nvidia-container-runtime", "args": []}}}


def settings(base: Mapping[str, Any], which: Which) -> Dict[str, Any]:
    """The settings for daemon.json. Keeps a runtime that a user set if its program is on the node, or if containerd
    finds it by its type."""
    runtimes = base.get("runtimes")
    here = runtimes.get("nvidia") if isinstance(runtimes, dict) else None
    # Docker ignores the case of these names.
    runtime = {key.lower(): value for key, value in here.items()} if isinstance(here, dict) else {}
    # Docker does not start if a runtime has both a path and a type.
    works = runtime.get("runtimetype") or (runtime.get("path") and which(str(runtime["path"])))
    return CDI if works else {**CDI, **RUNTIME}


def same_spec(one: str, other: str) -> bool:
    """Whether two CDI specifications are equal: nvidia-ctk writes the entries in any order."""
    return sorted(one.split("\n")) == sorted(other.split("\n"))


def unit_enabled(unit: str = UNIT) -> bool:
    """Whether a unit starts with the node."""
    return os.path.lexists(os.path.join(ENABLED, unit))


def proof(image: str, engine: docker_engine.Engine, uuids: Sequence[str], spec: str) -> Dict[str, Any]:
    """The inputs of a test in a container: it is repeated if one of them changes."""
    return {
        "image": image,
        "method": "cdi" if engine.knows_cdi else "runtime",
        "server": engine.server,
        "spec": hashlib.sha256(node_files.bytes_of(spec)).hexdigest(),
        "uuids": list(uuids),
    }


def last_proof(path: str) -> Any:
    """The inputs of the last test; None if there was none since the boot."""
    try:
        return json.loads(node_files.read_text(path))
    except (OSError, ValueError):
        return None


def settled(toolkit: Mapping[str, Any], server: str, run: Runner, which: Which) -> bool:
    """Whether the role nvidia_container_toolkit would change nothing and start no test container.

    Args:
        toolkit: the option ``toolkit`` of preflight_check.
        server: the version of the running Docker, empty if none answers.
    """
    nvidia_ctk = which("nvidia-ctk")
    return bool(
        nvidia_ctk
        and _packages_settled(toolkit, run)
        and all(_digest(path) == wanted for path, wanted in toolkit["units"].items())
        and unit_enabled()
        and not _trouble(toolkit, server, run, nvidia_ctk)
        and _daemon_settled(which)
        and _spec_settled(run, nvidia_ctk)
        and _proven(toolkit["image"], server, run)
    )


def _packages_settled(toolkit: Mapping[str, Any], run: Runner) -> bool:
    manager, wanted, hold = toolkit["repository"]["manager"], toolkit["repository"]["options"], toolkit.get("hold")
    here = MANAGERS[manager]
    if here.kept(wanted):
        return True
    if not here.settled(wanted, run):
        return False
    # For dnf, the repository's file holds the excluded packages.
    if hold is None or manager == "dnf":
        return True
    held = here.look(wanted, run)["held"]
    return sorted(held) == sorted(wanted["packages"] if hold else [])


def _digest(path: str) -> str:
    return hashlib.sha256(node_files.text_of(path).encode("utf-8", "replace")).hexdigest()


def _trouble(toolkit: Mapping[str, Any], server: str, run: Runner, nvidia_ctk: str) -> str:
    trouble = docker_engine.cdi_trouble(server) if toolkit.get("require_cdi", True) else ""
    return trouble or docker_engine.toolkit_trouble(docker_engine.toolkit_version(run([nvidia_ctk, "--version"])[1]))


def _daemon_settled(which: Which) -> bool:
    try:
        _text, base = docker_daemon.read(DAEMON)
        return not docker_daemon.due() and docker_daemon.merged(DAEMON, base, settings(base, which)) == base
    except ValueError:
        return False


def _spec_settled(run: Runner, nvidia_ctk: str) -> bool:
    rc, now, _err = run([nvidia_ctk, "cdi", "generate"])
    return rc == 0 and same_spec(node_files.text_of(SPEC), now)


def _proven(image: str, server: str, run: Runner) -> bool:
    if not image:
        return True
    rc, out, _err = run(["nvidia-smi", "-L"])
    now = proof(image, docker_engine.Engine(server=server), docker_engine.gpu_uuids(out), SPEC)
    return rc == 0 and last_proof(PROOF) == now
