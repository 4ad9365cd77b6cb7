# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's GPUs as the planner sees them: groups of equal ones that are free, and a sentence for each that is not."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from ...module_utils.programs.gpu import Gpu, GpuProcess, NodeGpus
from .catalog import Catalog, GpuSpec, near, version_key

MIB_PER_GIB = 1024
#: nvidia-smi's figure for what the driver keeps moves by a MiB from call to call; a plan must not.
RESERVED_STEP_MIB = 64
#: What the containers of engines are called, before their instance's name.
UNIT = "vllm-"
#: States of nvidia-smi's fabric field that a board without NVSwitch, or one that is ready, shows.
FABRIC_READY = ("", "Completed")

#: Whether a container belongs to the plan that is being made.
Ours = Callable[[str], bool]


@dataclass(frozen=True)
class Group:
    """Equal GPUs of one host. An engine spans GPUs of one group only."""

    spec: GpuSpec
    indices: tuple[int, ...]

    @property
    def total_gib(self) -> float:
        """The memory of one GPU, as CUDA sees it."""
        return (self.spec.memory_mib - (self.spec.reserved_mib or 0)) / MIB_PER_GIB

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
        return " and ".join(group.title for group in self.groups)


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
        count, name = re.fullmatch(r"(?:(\d+)\s*[xX*]\s*)?(.+)", part).groups()  # type: ignore[union-attr]
        items.append({"name": name.strip(), "count": int(count or 1)})
    return items


#: Of an entry of `gpus`, what must be a whole number.
NUMBERS = ("index", "memory_mib", "reserved_mib", "used_mib")
GIVEN_KEYS = ("count", *(field.name for field in fields(Gpu)))


def _known_or_sized(entry: Any, catalog: Catalog) -> tuple[str, GpuSpec | None]:
    """The name of an entry of `gpus` and what the catalogue knows of it; without that, the entry must say the size."""
    if not isinstance(entry, Mapping):
        raise ValueError(f"gpus: {entry!r} is neither a text such as 8xH100 nor a dictionary.")
    for key in entry:
        if key not in GIVEN_KEYS:
            raise ValueError(f"gpus: unknown key {key!r}; known: {', '.join(GIVEN_KEYS)}.")
    name = str(entry.get("name", ""))
    spec = catalog.gpu(name)
    if spec is None and not entry.get("memory_mib"):
        guesses = near(name, catalog.gpu_names)
        meant = f"Did you mean {' or '.join(guesses)}? " if guesses else ""
        raise ValueError(
            f"gpus: {name!r} is not in the catalogue. {meant}Known: {', '.join(catalog.gpus)}. Of any other say "
            "memory_mib and compute_capability, or add it with vllm_extra_gpus."
        )
    return name, spec


def _given(entry: Mapping[str, Any], catalog: Catalog) -> list[Gpu]:
    """One entry of `gpus`, as often as its count says."""
    name, spec = _known_or_sized(entry, catalog)
    try:
        numbers = {key: int(entry[key]) for key in NUMBERS if entry.get(key) is not None}
        count = int(entry.get("count", 1))
    except (TypeError, ValueError):
        raise ValueError(f"gpus: {name}: {', '.join(('count', *NUMBERS))} must be whole numbers.") from None
    # A short name stands for the catalogue's first; one of nvidia-smi's own stays as it is.
    short = spec is not None and name.casefold() not in map(str.casefold, spec.names)
    set_here = {
        "index": -1,
        "name": spec.names[0] if spec and short else name or f"GPU of {entry.get('memory_mib')} MiB",
        "compute_capability": str(entry.get("compute_capability") or ""),
        "processes": tuple(GpuProcess(**process) for process in entry.get("processes") or ()),
    }
    told = {key: value for key, value in entry.items() if key != "count" and key not in set_here}
    return [Gpu(**{**told, **set_here, **numbers})] * count


def given_gpus(gpus: str | Mapping[str, Any] | Sequence[Any], catalog: Catalog) -> NodeGpus:
    """The option `gpus`: GPUs by description instead of from a node."""
    if not isinstance(gpus, (str, Mapping, list, tuple)):
        raise ValueError(f"gpus: {gpus!r} is neither a text such as 8xH100 nor a dictionary, nor a list of these.")
    listed = [gpus] if isinstance(gpus, (str, Mapping)) else gpus
    entries = [part for item in listed for part in (_parsed(item) if isinstance(item, str) else [item])]
    cards = [gpu for entry in entries for gpu in _given(entry, catalog)]
    # Without numbers of their own they are numbered by kind, so that the order of the entries does not matter.
    cards.sort(key=lambda gpu: (gpu.index, gpu.name, repr(gpu)))
    cards = [gpu if gpu.index >= 0 else replace(gpu, index=place) for place, gpu in enumerate(cards)]
    if len({gpu.index for gpu in cards}) < len(cards):
        raise ValueError("gpus: two entries have the same index; give each an index of its own, or none at all.")
    return NodeGpus(state="ok" if cards else "no_gpu", message="" if cards else "No GPU was given.", gpus=tuple(cards))


def spec_of(gpu: Gpu, catalog: Catalog) -> GpuSpec | None:
    """The catalogue's entry amended by what this very GPU says; None where neither knows enough."""
    known = catalog.gpu(gpu.name)
    memory = gpu.memory_mib or (known.memory_mib if known else 0)
    by_name = known.compute_capability if known else catalog.architectures.get(gpu.architecture, "")
    capability = gpu.compute_capability or by_name
    if not memory or not capability:
        return None
    base = known or GpuSpec(gpu.name, (gpu.name,), memory, capability)
    names = (gpu.name, *(name for name in base.names if name != gpu.name))
    reserved = base.reserved_mib if base.memory_mib == memory else None
    if reserved is None:
        told = -(-(gpu.reserved_mib or 0) // RESERVED_STEP_MIB) * RESERVED_STEP_MIB
        reserved = max(round(memory * catalog.reserved_fraction), told)
    return replace(base, names=names, memory_mib=memory, reserved_mib=reserved, compute_capability=capability)


def _taken(gpu: Gpu, ours: Ours) -> tuple[int, str]:
    """Memory that somebody else holds, and who. An engine of this plan is about to be replaced or is already right."""
    others = [process for process in gpu.processes if not ours(process.owner)]
    if gpu.processes and not others:
        return 0, ""
    held = (gpu.used_mib or 0) - sum(process.used_mib or 0 for process in gpu.processes if ours(process.owner))
    who = ", ".join(f"{process.owner or process.name} (pid {process.pid})" for process in others)
    return held, who or "a process that this host does not show"


def _in_use(gpu: Gpu, catalog: Catalog, ours: Ours) -> tuple[str, str] | None:
    held, who = _taken(gpu, ours)
    if held <= catalog.policy.busy_mib:
        return None
    engine = any(process.owner.startswith(UNIT) for process in gpu.processes)
    cure = "plan it together with this model, or remove it (vllm_remove_unlisted)" if engine else "stop that"
    return f"in use: {held / MIB_PER_GIB:.1f} GiB are held by {who}", f"{cure}, or name other GPUs in gpu_indices"


def _judged(gpu: Gpu, catalog: Catalog, ours: Ours) -> GpuSpec | tuple[str, str]:
    """What a GPU is, where it is free and ready; else what keeps it out: (what is there, what to do)."""
    if gpu.lost:
        return "fallen off the bus", "restart the host, and see `dmesg | grep -i xid`"
    if gpu.mig or gpu.mig_pending:
        return "in MIG mode, and vLLM spans whole GPUs only", "turn it off with `nvidia-smi -mig 0 -i` and its number"
    if gpu.fabric_state not in FABRIC_READY or gpu.fabric_status not in ("", "Success"):
        state = gpu.fabric_state if gpu.fabric_state not in FABRIC_READY else f"Completed with {gpu.fabric_status}"
        return (
            f"on an NVSwitch board whose fabric is {state!r}, not 'Completed', so CUDA would fail with error 802",
            "start Fabric Manager, whose version must equal the driver's: `systemctl status nvidia-fabricmanager`",
        )
    spec = spec_of(gpu, catalog)
    if spec is None:
        return "of a kind that the catalogue does not know and reports no memory size", "describe it in vllm_extra_gpus"
    return _in_use(gpu, catalog, ours) or spec


def _sorted_out(gpus: Sequence[Gpu], catalog: Catalog, ours: Ours) -> tuple[tuple[Group, ...], list[str]]:
    """Equal free GPUs together, the most memory first; and one sentence for each reason, not for each GPU."""
    kinds: dict[GpuSpec, list[int]] = {}
    reasons: dict[tuple[str, str, str], list[int]] = {}
    for gpu in gpus:
        judged = _judged(gpu, catalog, ours)
        if isinstance(judged, GpuSpec):
            kinds.setdefault(judged, []).append(gpu.index)
        else:
            reasons.setdefault((gpu.name or "without a name", *judged), []).append(gpu.index)
    groups = [Group(spec, tuple(sorted(found))) for spec, found in kinds.items()]
    groups.sort(key=lambda group: (-group.total_gib * len(group.indices), group.name, group.total_gib))
    return tuple(groups), [
        f"{numbered(found)} ({name}) {'is' if len(found) == 1 else 'are'} {what}: {remedy}."
        for (name, what, remedy), found in reasons.items()
    ]


def _switches(node: NodeGpus) -> list[str]:
    """NVSwitch boards before Hopper have no fabric state: only Fabric Manager's absence shows."""
    silent = not any(gpu.fabric_state for gpu in node.gpus)
    if not (node.nvswitches and silent and node.fabric_manager is False):
        return []
    return [
        f"This host has {node.nvswitches} NVSwitches and Fabric Manager does not run, so CUDA would fail with error "
        f"802. Install nvidia-fabricmanager of the driver's version ({node.driver_version}) and start it."
    ]


def read_host(node: NodeGpus, catalog: Catalog, ours: Ours = lambda owner: False) -> Host:
    """Sort a node's GPUs into groups that can be planned on and sentences about the rest."""
    if node.state != "ok":
        return Host((), (node.message,))
    switches = _switches(node)
    groups, blocked = _sorted_out(node.gpus, catalog, ours)
    warnings = [node.message] if node.message else []
    warnings += [
        f"{numbered([gpu.index])} ({gpu.name}): the driver asks for {gpu.recovery_action!r} to recover it."
        for gpu in node.gpus
        if gpu.recovery_action
    ]
    return Host(() if switches else groups, tuple(switches + blocked), tuple(warnings), node.driver_version)
