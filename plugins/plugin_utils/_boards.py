# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's GPUs as the planner sees them: groups of equal ones that are free, and a sentence for each that is not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.gpunode.llm.plugins.module_utils._gpu import Gpu, NodeGpus
from ansible_collections.gpunode.llm.plugins.plugin_utils._catalog import Catalog, GpuSpec, near, version_key

MIB_PER_GIB = 1024
RESERVED_STEP_MIB = 64
#: States of nvidia-smi's fabric field that a board without NVSwitch, or one that is ready, shows.
FABRIC_READY = ("", "Completed")


@dataclass(frozen=True)
class Group:
    """Equal GPUs of one host. An engine spans GPUs of one group only."""

    spec: GpuSpec
    total_gib: float
    indices: tuple[int, ...]

    @property
    def name(self) -> str:
        """As nvidia-smi prints it."""
        return self.spec.names[0]

    @property
    def title(self) -> str:
        """As people say it: 8x NVIDIA H100 80GB HBM3."""
        return f"{len(self.indices)}x {self.name}"

    def has(self, capability: str) -> bool:
        """Whether the GPUs are at least of this compute capability."""
        return version_key(self.spec.compute_capability) >= version_key(capability)


@dataclass(frozen=True)
class Host:
    """What can be planned on, what cannot and why."""

    groups: tuple[Group, ...]
    blocked: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    driver_version: str = ""

    @property
    def title(self) -> str:
        """Everything that is free, in words."""
        return " and ".join(group.title for group in self.groups) or "no GPU"


def numbered(indices: Sequence[int]) -> str:
    """GPU 3, GPUs 0-3, GPUs 0, 2, 5."""
    ordered = sorted(indices)
    if len(ordered) == 1:
        return f"GPU {ordered[0]}"
    if len(ordered) > 2 and ordered[-1] - ordered[0] == len(ordered) - 1:
        return f"GPUs {ordered[0]}-{ordered[-1]}"
    return f"GPUs {', '.join(map(str, ordered))}"


def _parsed(text: str) -> list[dict[str, Any]]:
    """4xH100, or 4xH100,2xL40S, or H100."""
    items = []
    for part in filter(None, (item.strip() for item in text.split(","))):
        match = re.fullmatch(r"(?:(\d+)\s*[xX*]\s*)?(.+)", part)
        assert match  # the second group takes anything
        items.append({"name": match.group(2).strip(), "count": int(match.group(1) or 1)})
    return items


GIVEN_KEYS = ["name", "count", "index", "memory_mib", "reserved_mib", "used_mib", "compute_capability", "architecture", "uuid", "pci_bus_id", "mig", "mig_pending", "fabric_state", "fabric_status", "clique", "lost", "recovery_action", "processes"]


def _given(entry: Mapping[str, Any], catalog: Catalog) -> list[Gpu]:
    """One entry of `gpus`; a name that the catalogue knows needs nothing further."""
    for key in entry:
        if key not in GIVEN_KEYS:
            raise ValueError(f"gpus: unknown key {key!r}; known: {', '.join(GIVEN_KEYS)}.")
    name = str(entry.get("name", ""))
    spec = catalog.gpu(name)
    if spec is None and not entry.get("memory_mib"):
        meant = near(name, catalog.gpu_names) or list(catalog.gpus)
        raise ValueError(
            f"gpus: {name!r} is not in the catalogue, so say its memory_mib and compute_capability; "
            f"known names that are near: {', '.join(meant)}."
        )
    gpu = Gpu(
        index=int(entry.get("index", -1)),
        name=spec.names[0] if spec and name.casefold() not in map(str.casefold, spec.names) else name,
        compute_capability=str(entry.get("compute_capability", "")),
        memory_mib=int(entry["memory_mib"]) if entry.get("memory_mib") else None,
    )
    rest = {key: entry[key] for key in GIVEN_KEYS if key in entry and key not in ("name", "count", "index", "memory_mib")}
    gpu = replace(gpu, **{**rest, "compute_capability": gpu.compute_capability, "processes": ()})
    return [gpu] * int(entry.get("count", 1))


def given_gpus(gpus: str | Sequence[Any], catalog: Catalog) -> NodeGpus:
    """The option `gpus`: GPUs by description instead of from a node."""
    if isinstance(gpus, str):
        entries = _parsed(gpus)
    else:
        entries = [part for item in gpus for part in (_parsed(item) if isinstance(item, str) else [dict(item)])]
    cards = [gpu for entry in entries for gpu in _given(entry, catalog)]
    # Without numbers of their own they are numbered by kind, so that the order of the entries does not matter.
    cards.sort(key=lambda gpu: (gpu.index, gpu.name, gpu.memory_mib or 0))
    cards = [gpu if gpu.index >= 0 else replace(gpu, index=place) for place, gpu in enumerate(cards)]
    return NodeGpus(state="ok" if cards else "no_gpu", message="" if cards else "No GPU was given.", gpus=tuple(cards))


def spec_of(gpu: Gpu, catalog: Catalog) -> GpuSpec | None:
    """The catalogue's entry amended by what this very GPU says; None where neither knows enough."""
    known = catalog.gpu(gpu.name)
    memory = gpu.memory_mib or (known.memory_mib if known else 0)
    capability = gpu.compute_capability or (
        known.compute_capability if known else catalog.architectures.get(gpu.architecture, "")
    )
    if not memory or not capability:
        return None
    base = known or GpuSpec(gpu.name, (gpu.name,), memory, capability)
    names = (gpu.name, *(name for name in base.names if name != gpu.name))
    reserved = base.reserved_mib if base.memory_mib == memory else None
    if reserved is None:
        reserved = round(memory * catalog.reserved_fraction)
        # nvidia-smi's own figure moves by a MiB from call to call; a plan must not.
        reserved = max(reserved, -(-(gpu.reserved_mib or 0) // RESERVED_STEP_MIB) * RESERVED_STEP_MIB)
    return replace(base, names=names, memory_mib=memory, reserved_mib=reserved, compute_capability=capability)


def _gib(mib: float) -> str:
    return f"{mib / MIB_PER_GIB:.1f} GiB"


def _taken(gpu: Gpu, own_prefix: str) -> tuple[int, str]:
    """Memory that somebody else holds, and who. An engine of ours is about to be replaced or is already right."""
    others = [process for process in gpu.processes if not process.owner.startswith(own_prefix)]
    ours = [process for process in gpu.processes if process.owner.startswith(own_prefix)]
    if ours and not others:
        return 0, ""
    held = (gpu.used_mib or 0) - sum(process.used_mib or 0 for process in ours)
    who = ", ".join(f"{process.owner or process.name} (pid {process.pid})" for process in others)
    return held, who or "a process that this host does not show"


def _why_not(gpu: Gpu, catalog: Catalog, own_prefix: str) -> tuple[str, str] | None:
    """What keeps a GPU out of the plan, as (what is there, what to do); None for one that is free and ready."""
    if gpu.lost:
        return "fallen off the bus", "restart the host, and see `dmesg | grep -i xid`"
    if gpu.mig or gpu.mig_pending:
        return "in MIG mode, and vLLM spans whole GPUs only", f"turn it off with `nvidia-smi -i {gpu.index} -mig 0`"
    if gpu.fabric_state not in FABRIC_READY or gpu.fabric_status not in ("", "Success"):
        state = gpu.fabric_state if gpu.fabric_state not in FABRIC_READY else f"Completed with {gpu.fabric_status}"
        return (
            f"on an NVSwitch board whose fabric is {state!r} and not 'Completed', so CUDA would fail with error 802",
            "start Fabric Manager, whose version must equal the driver's: `systemctl status nvidia-fabricmanager`",
        )
    if spec_of(gpu, catalog) is None:
        return "of a kind that the catalogue does not know and reports no memory size", "describe it in extra_gpus"
    held, who = _taken(gpu, own_prefix)
    if held > catalog.policy.busy_mib:
        return f"in use: {_gib(held)} are held by {who}", "stop that, or name other GPUs in gpu_indices"
    return None


def _blocked(gpus: Sequence[Gpu], catalog: Catalog, own_prefix: str) -> tuple[list[Gpu], list[str]]:
    """The free ones, and one sentence for each reason, not for each GPU."""
    free: list[Gpu] = []
    reasons: dict[tuple[str, str, str], list[int]] = {}
    for gpu in gpus:
        reason = _why_not(gpu, catalog, own_prefix)
        if reason is None:
            free.append(gpu)
        else:
            reasons.setdefault((gpu.name or "no name", *reason), []).append(gpu.index)
    sentences = [
        f"{numbered(found)} ({name}) {'is' if len(found) == 1 else 'are'} {what}: {remedy}."
        for (name, what, remedy), found in reasons.items()
    ]
    return free, sentences


def _grouped(gpus: Sequence[Gpu], catalog: Catalog) -> tuple[Group, ...]:
    """Equal GPUs together; the group with the most memory first."""
    kinds: dict[GpuSpec, list[int]] = {}
    for gpu in gpus:
        spec = spec_of(gpu, catalog)
        assert spec is not None  # _why_not has seen to it
        kinds.setdefault(spec, []).append(gpu.index)
    groups = [
        Group(spec, (spec.memory_mib - (spec.reserved_mib or 0)) / MIB_PER_GIB, tuple(sorted(found)))
        for spec, found in kinds.items()
    ]
    def size(group: Group) -> tuple[float, str, float]:
        return (
            -group.total_gib * len(group.indices),
            group.name,
            group.total_gib,
        )
    return tuple(sorted(groups, key=size))


def _switches(node: NodeGpus) -> list[str]:
    """NVSwitch boards before Hopper have no fabric state: only Fabric Manager's absence shows."""
    silent = not any(gpu.fabric_state for gpu in node.gpus)
    if not (node.nvswitches and silent and node.fabric_manager is False):
        return []
    return [
        f"This host has {node.nvswitches} NVSwitches and Fabric Manager does not run, so CUDA would fail with error 802. "
        f"Install nvidia-fabricmanager of the driver's version ({node.driver_version}) and start it."
    ]


def read_host(node: NodeGpus, catalog: Catalog, own_prefix: str = "vllm-") -> Host:
    """Sort a node's GPUs into groups that can be planned on and sentences about the rest."""
    if node.state != "ok":
        return Host((), (node.message,))
    switches = _switches(node)
    free, blocked = _blocked(node.gpus, catalog, own_prefix)
    warnings = [node.message] if node.message else []
    warnings += [
        f"{numbered([gpu.index])} ({gpu.name}): the driver asks for {gpu.recovery_action!r} to recover it."
        for gpu in node.gpus
        if gpu.recovery_action
    ]
    groups = () if switches else _grouped(free, catalog)
    return Host(groups, tuple(switches + blocked), tuple(warnings), node.driver_version)
