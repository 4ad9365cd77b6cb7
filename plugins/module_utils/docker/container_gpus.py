# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How containers have the GPUs: what nvidia_runtime and gpu_proof settle, and whether all of it is settled already."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any, Callable, Dict, Mapping, Optional, Sequence, Tuple

from ..node import files as node_files
from ..packages.managers import MANAGERS
from . import daemon_file, engine as docker_engine

Runner = Callable[[Sequence[str]], Tuple[int, str, str]]
Which = Callable[[str], Optional[str]]

DAEMON = "/etc/docker/daemon.json"
#: The CDI specification: what Docker gives a container that asks for a GPU by name.
SPEC = "/var/run/cdi/nvidia.yaml"
#: The unit that writes it at every start of the node, and the links to what starts with the node.
UNIT = "gpunode-cdi.service"
ENABLED = "/etc/systemd/system/multi-user.target.wants"
#: What the last proof in a container depended on.
PROOF = "/run/gpunode/gpu-proof.json"

CDI = {"features": {"cdi": True}}
# As `nvidia-ctk runtime configure --runtime=docker` names it.
RUNTIME = {"runtimes": {"nvidia": {"path": "nvidia-container-runtime", "args": []}}}


def settings(base: Mapping[str, Any], which: Which) -> Dict[str, Any]:
    """What is to be in daemon.json. A runtime that somebody else set is taken where its program is on the node, or
    containerd is to find it by its type."""
    runtimes = base.get("runtimes")
    here = runtimes.get("nvidia") if isinstance(runtimes, dict) else None
    # Docker reads these names in any case.
    said = {key.lower(): value for key, value in here.items()} if isinstance(here, dict) else {}
    # Docker does not start with a path beside a type.
    works = said.get("runtimetype") or (said.get("path") and which(str(said["path"])))
    return CDI if works else {**CDI, **RUNTIME}


def same_spec(one: str, other: str) -> bool:
    """Whether two CDI specifications say the same: nvidia-ctk writes its entries in any order."""
    return sorted(one.split("\n")) == sorted(other.split("\n"))


def unit_enabled(unit: str = UNIT) -> bool:
    """Whether a unit starts with the node."""
    return os.path.lexists(os.path.join(ENABLED, unit))


def proof(image: str, engine: docker_engine.Engine, uuids: Sequence[str], spec: str) -> Dict[str, Any]:
    """All that a proof in a container depends on."""
    return {
        "image": image,
        "method": "cdi" if engine.knows_cdi else "runtime",
        "server": engine.server,
        "spec": hashlib.sha256(node_files.bytes_of(spec)).hexdigest(),
        "uuids": list(uuids),
    }


def last_proof(path: str) -> Any:
    """What the last proof depended on; None where there was none since the node's start."""
    try:
        return json.loads(node_files.read_text(path))
    except (OSError, ValueError):
        return None


def settled(asked: Mapping[str, Any], server: str, run: Runner, which: Which) -> bool:
    """Whether the role nvidia_container_toolkit would change nothing, and the proof would need no container.

    Args:
        asked: the option ``toolkit`` of preflight_check.
        server: the version of the Docker that answers, empty where none does.
    """
    nvidia_ctk = which("nvidia-ctk")
    return bool(
        nvidia_ctk
        and _packages_settled(asked, run)
        and all(_digest(path) == wanted for path, wanted in asked["units"].items())
        and unit_enabled()
        and not _trouble(asked, server, run, nvidia_ctk)
        and _daemon_settled(which)
        and _spec_settled(run, nvidia_ctk)
        and _proven(asked["image"], server, run)
    )


def _packages_settled(asked: Mapping[str, Any], run: Runner) -> bool:
    manager, wanted, hold = asked["repository"]["manager"], asked["repository"]["options"], asked.get("hold")
    here = MANAGERS[manager]
    if here.kept(wanted):
        return True
    if not here.settled(wanted, run):
        return False
    # dnf's hold is in the repository's file.
    if hold is None or manager == "dnf":
        return True
    held = here.look(wanted, run)["held"]
    return sorted(held) == sorted(wanted["packages"] if hold else [])


def _digest(path: str) -> str:
    return hashlib.sha256(node_files.text_of(path).encode("utf-8", "replace")).hexdigest()


def _trouble(asked: Mapping[str, Any], server: str, run: Runner, nvidia_ctk: str) -> str:
    trouble = docker_engine.cdi_trouble(server) if asked.get("require_cdi", True) else ""
    return trouble or docker_engine.toolkit_trouble(docker_engine.toolkit_version(run([nvidia_ctk, "--version"])[1]))


def _daemon_settled(which: Which) -> bool:
    try:
        _text, base = daemon_file.read(DAEMON)
        return not daemon_file.due() and daemon_file.merged(DAEMON, base, settings(base, which)) == base
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
