# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a node has room for a second engine next to a running one: free GPUs, or free memory for a CPU engine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Callable, Iterable, List, Mapping, Optional, Sequence, Tuple

from ..programs import gpu as programs_gpu

#: Outside of Linux's range for outgoing connections, so that no connection takes the port first.
PORTS = range(18000, 19000)


@dataclass(frozen=True)
class Want:
    """The engine that will be restarted: its number of GPUs, and the memory that its processes use.

    ``cache_bytes``: of the node's memory, for KV cache beside that of its GPUs.
    """

    name: str
    gpus: int
    utilization: float = programs_gpu.UTILIZATION
    held_bytes: Optional[int] = None
    cache_bytes: int = 0


@dataclass(frozen=True)
class Room:
    """Where a second engine can run."""

    name: str
    port: int
    gpu_indices: Tuple[int, ...] = ()
    gpu_uuids: Tuple[str, ...] = ()


def find(
    wants: Sequence[Want],
    taken: Iterable[int],
    seen: programs_gpu.NodeGpus,
    free_bytes: int,
    is_free: Callable[[int], bool],
) -> List[Room]:
    """Find room for as many engines as possible. ``taken``: GPUs of instances; ``is_free``: whether a port is free."""
    uuids = {gpu.index: gpu.uuid for gpu in seen.gpus}
    owned, ports = set(taken), (port for port in PORTS if is_free(port))
    rooms: List[Room] = []
    for want in wants:
        indices = _free_gpus(want, owned, seen)
        # 1.5 times as much: an engine needs more memory while it loads its weights.
        bytes_wanted = want.cache_bytes if want.gpus else (want.held_bytes or free_bytes + 1) * 3 // 2
        if len(indices) < want.gpus or bytes_wanted > free_bytes:
            continue
        port = next(ports, None)
        if port is None:
            break
        owned.update(indices)
        free_bytes -= bytes_wanted
        rooms.append(Room(want.name, port, indices, tuple(uuids[index] for index in indices)))
    return rooms


def _free_gpus(want: Want, owned: Iterable[int], seen: programs_gpu.NodeGpus) -> Tuple[int, ...]:
    free = [
        gpu.index
        for gpu in seen.gpus
        if gpu.index not in owned
        and not (gpu.mig or gpu.lost or gpu.processes)
        and not programs_gpu.not_ready(seen, [str(gpu.index)], want.utilization)
    ]
    return tuple(free[: want.gpus])


def available_bytes(meminfo: str) -> int:
    """The memory that is available without swapping, from the text of /proc/meminfo."""
    match = re.search(r"^MemAvailable:\s+(\d+) kB$", meminfo, re.MULTILINE)
    return int(match.group(1)) * 1024 if match else 0


def held_bytes(container: str, processes: Iterable[Tuple[str, str]]) -> Optional[int]:
    """The memory of a container's processes, from the texts of their cgroup and status files; None without any."""
    held = [
        int(match.group(1)) * 1024
        for cgroup, status in processes
        if container and programs_gpu.container_id(cgroup) == container
        for match in [re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)]
        if match
    ]
    return sum(held) if held else None


def want(instance: Mapping[str, object], held: Optional[int]) -> Want:
    """What an instance of a plan needs."""
    indices, config = instance.get("gpu_indices") or [], instance.get("config") or {}
    share = config.get("gpu-memory-utilization") if isinstance(config, dict) else None
    count = len(indices) if isinstance(indices, list) else 0
    cache = int(str(instance.get("kv_host_gib") or 0)) * 1024**3
    return Want(str(instance["name"]), count, float(share or programs_gpu.UTILIZATION), held, cache)
