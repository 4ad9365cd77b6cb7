# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The GPUs of this node, its engines, and the facts of its system: the answer of gpu_info."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, Dict, List, Optional

from ..docker.daemon import data_root
from ..instance import known, serving
from ..programs.gpu import container_id, look, nvidia_smi, scan_pci
from . import files as node_files, system as node_system

CDI = ("/etc/cdi", "/var/run/cdi")


@cache
def _container_name(container: str) -> str:
    """Read Docker's own file: this needs neither its socket nor its client."""
    record = node_files.text_of(Path(data_root()) / "containers" / container / "config.v2.json")
    try:
        return str(json.loads(record)["Name"]).lstrip("/")
    except (ValueError, KeyError, TypeError):
        return ""


def owner_of(pid: int) -> str:
    """The name of the container that a process runs in, "" outside of a container."""
    container = container_id(node_files.text_of(Path(f"/proc/{pid}/cgroup")))
    return _container_name(container) if container else ""


def fabric_manager_runs() -> bool:
    """Whether nv-fabricmanager runs. The kernel cuts process names after 15 letters."""
    return any(node_files.text_of(path).startswith("nv-fabricmanage") for path in Path("/proc").glob("[0-9]*/comm"))


def memory_mib(meminfo: str) -> Optional[int]:
    """All memory of a node, from the text of /proc/meminfo; None if it does not say."""
    match = re.search(r"^MemTotal:\s+(\d+) kB$", meminfo, re.MULTILINE)
    return int(match.group(1)) // 1024 if match else None


def engines() -> List[Dict[str, Any]]:
    """The engines that this node has, from their records."""
    listed = serving.engines(known.instances())
    return [{**engine.as_dict(), "started_from": serving.started_from(engine.name)} for engine in listed]


def cdi_uuids() -> Optional[bool]:
    """Whether this node's CDI specifications name GPUs by UUID; None if there is none yet."""
    return serving.names_uuids(node_files.text_of(path) for folder in CDI for path in sorted(Path(folder).glob("*")))


def answer(module: Any) -> Dict[str, Any]:
    """The whole answer, with one call of nvidia-smi."""
    tool = module.get_bin_path("nvidia-smi")
    pci = scan_pci()
    manager: Optional[bool] = fabric_manager_runs() if pci.nvswitches else None
    memory = memory_mib(node_files.text_of("/proc/meminfo"))
    gpus = look(nvidia_smi(module.run_command, tool), pci, owner_of, manager, memory).as_dict()
    return {**gpus, "engines": engines(), "cdi_uuids": cdi_uuids(), "system": node_system.facts(module.run_command)}
