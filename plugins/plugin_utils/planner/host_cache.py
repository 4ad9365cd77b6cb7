# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""KV cache in the host's memory: blocks that the GPU evicts are kept there for prompts with the same beginning.

vLLM keeps them in a file under /dev/shm, one for each replica (v1/kv_offload/cpu/shared_offload_region.py), so the
shared memory of the container is enlarged by that size. The plan of the GPUs does not depend on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .catalog import Catalog, EngineSpec
from .tasks import GENERATE

AUTO = "auto"
OPTION = "kv-offloading-size"
LARGEST_GIB = 65536
MIB_PER_GIB = 1024
#: What the planner chooses is a multiple of this: a kernel's own share of the memory differs from boot to boot.
STEP_GIB = 4


class Served(Protocol):
    """The parts of a requested instance that are needed here (`request.InstanceRequest`)."""

    @property
    def name(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def kv_host_gib(self) -> int | str | None: ...
    @property
    def nodes(self) -> int | None: ...
    @property
    def extra_args(self) -> Mapping[str, Any]: ...
    @property
    def task(self) -> str: ...
    def option(self, name: str, default: Any = None) -> Any: ...


@dataclass(frozen=True)
class Shares:
    """GiB of the host's memory by instance; findings and notes about instances that requested some and get none."""

    gib: Mapping[str, int]
    findings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_kv_host_gib(value: Any) -> int | str:
    """Read auto, or whole GiB."""
    text = str(value).strip()
    if text == AUTO:
        return AUTO
    if isinstance(value, bool) or not text.isdecimal() or not 1 <= int(text) <= LARGEST_GIB:
        raise ValueError(f"kv_host_gib must be auto, or a whole number of GiB from 1 to {LARGEST_GIB}, not {value!r}.")
    return int(text)


def problems(request: Served, engine: EngineSpec) -> list[str]:
    """A finding if the engine cannot keep KV cache in the host's memory."""
    if request.kv_host_gib is None:
        return []
    own = next((name for name in (OPTION, "kv-transfer-config") if name in request.extra_args), "")
    if own:
        return [f"{request.name}: {own} and vllm_kv_host_gib set the same: use one of the two."]
    why = _why_not(request, engine)
    # With auto, a model that cannot use the cache is no error.
    return [f"{request.name}: {why}: leave out vllm_kv_host_gib."] if why and request.kv_host_gib != AUTO else []


def _why_not(request: Served, engine: EngineSpec) -> str:
    """Why an instance keeps none; empty if it can."""
    if request.device == "cpu":
        return "on the CPU the KV cache is in the host's memory anyway (VLLM_CPU_KVCACHE_SPACE)"
    if (request.nodes or 1) > 1:
        return f"it runs over {request.nodes} nodes, and KV cache in the host's memory is planned for one node only"
    if OPTION not in engine.spellings and not engine.unplanned:
        return f"vLLM {engine.version} has no option {OPTION}"
    if request.task != GENERATE:
        return "a model that does not generate keeps no KV cache between requests"
    if not request.option("enable-prefix-caching", True):
        return "KV cache comes back from the host's memory by prefix caching, which is off (enable-prefix-caching)"
    return ""


def shares(
    requests: Sequence[tuple[Served, EngineSpec, bool]], host_memory_mib: int | None, catalog: Catalog
) -> Shares:
    """Share out the host's memory. ``requests``: each with its release, and whether its GPU's memory is the host's."""
    asking = [
        (request, unified)
        for request, engine, unified in requests
        if request.kv_host_gib is not None and not _why_not(request, engine)
    ]
    notes = [
        f"{request.name}: the memory of its GPU is the host's, so no KV cache is kept in the host's beside it."
        for request, unified in asking
        if unified
    ]
    asking = [(request, unified) for request, unified in asking if not unified]
    stated = {
        request.name: int(request.kv_host_gib or 0) for request, _unified in asking if request.kv_host_gib != AUTO
    }
    planned = [request.name for request, _unified in asking if request.kv_host_gib == AUTO]
    if host_memory_mib is None:
        notes += [
            f"{name}: how much KV cache is kept in the host's memory (vllm_kv_host_gib: auto) is decided on the node,"
            " since nothing is known here of its memory."
            for name in planned
        ]
        return Shares(stated, notes=tuple(notes))
    total, kept = host_memory_mib / MIB_PER_GIB, catalog.unified_reserve_mib / MIB_PER_GIB
    if stated and sum(stated.values()) > total - kept:
        return Shares({}, (_too_much(stated, total, kept),))
    each = int((total - kept) * catalog.policy.kv_host_share - sum(stated.values())) // max(1, len(planned))
    each = each // STEP_GIB * STEP_GIB
    notes += [
        f"{name}: the host has {total:.0f} GiB of memory, too little to keep KV cache there (vllm_kv_host_gib)."
        for name in planned
        if each < 1
    ]
    return Shares({**stated, **(dict.fromkeys(planned, each) if each >= 1 else {})}, notes=tuple(notes))


def _too_much(stated: Mapping[str, int], total: float, kept: float) -> str:
    who = " and ".join(f"{name} {gib}" for name, gib in stated.items())
    return (
        f"KV cache in the host's memory (vllm_kv_host_gib): {who} GiB are asked for, and of the host's {total:.0f} GiB"
        f" {kept:.0f} are kept for its system and the engines: set {max(0, int(total - kept))} or less in all, or auto."
    )


def option(gib: int, replicas: int) -> dict[str, Any]:
    """vLLM's option, which is for each replica; empty without."""
    return {OPTION: round(gib / replicas, 2)} if gib else {}


def shared_memory(size: str, gib: int) -> str:
    """Docker's --shm-size with so many GiB more.

    >>> shared_memory("16g", 0), shared_memory("16g", 64)
    ('16g', '80g')
    """
    return f"{int(size.removesuffix('g')) + gib}g" if gib else size


def note(name: str, gib: int, replicas: int) -> str:
    """A note about the cache, for the user."""
    each = f" ({gib / replicas:g} for each of {replicas} replicas)" if replicas > 1 else ""
    return f"{name}: up to {gib} GiB of KV cache{each} are kept in the host's memory, in its /dev/shm."
