# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's GPUs for the planner: groups of identical free GPUs, and one sentence for each GPU that is unavailable."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...module_utils.programs.gpu import SLICES, Gpu, GpuProcess, MigSlice, NodeGpus, gpu_from, label
from . import forms
from .catalog import Catalog, GpuSpec, near, version_key

MIB_PER_GIB = 1024
#: nvidia-smi's figure for reserved memory varies by a MiB between calls. Rounding keeps the plan stable.
RESERVED_STEP_MIB = 64
#: Prefix of an engine's container name, before the instance's name.
UNIT = "vllm-"
#: nvidia-smi's fabric states for a board without NVSwitch, or with one that is ready.
FABRIC_READY = ("", "Completed")

#: Tells whether a container belongs to the current plan.
IsPlanned = Callable[[str], bool]


@dataclass(frozen=True)
class View:
    """How a plan looks at a host: which containers are its own, and the share of a GPU that the user gives engines."""

    is_planned: IsPlanned = lambda owner: False
    utilization: float | None = None

    def spare_mib(self, spec: GpuSpec) -> float:
        """What the user leaves to others on this GPU; 0 where nothing is said."""
        if self.utilization is None:
            return 0
        return spec.memory_mib - (spec.reserved_mib or 0) - spec.memory_mib * self.utilization


@dataclass(frozen=True)
class Group:
    """Identical GPUs of one host. An engine spans GPUs of one group only."""

    spec: GpuSpec
    indices: tuple[int, ...]

    @property
    def total_gib(self) -> float:
        """Memory of one GPU that CUDA can use."""
        return (self.spec.memory_mib - (self.spec.reserved_mib or 0)) / MIB_PER_GIB

    @property
    def name(self) -> str:
        """The name that nvidia-smi prints."""
        return self.spec.names[0]

    @property
    def title(self) -> str:
        """Count and name: 8x NVIDIA H100 80GB HBM3."""
        return f"{len(self.indices)}x {self.name}"

    def has(self, capability: str) -> bool:
        """Whether the GPUs have at least this compute capability."""
        return version_key(self.spec.compute_capability) >= version_key(capability)


@dataclass(frozen=True)
class Host:
    """Free GPUs, and why the others are unavailable."""

    groups: tuple[Group, ...]
    blocked: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    driver_version: str = ""

    @property
    def title(self) -> str:
        """All free GPUs, in words."""
        return " and ".join(group.title for group in self.groups)


def numbered(indices: Sequence[int]) -> str:
    """Indices as text: GPU 3, GPUs 0-3, GPUs 0, 2, 5."""
    ordered = sorted(indices)
    if len(ordered) == 1:
        return f"GPU {label(ordered[0])}"
    if len(ordered) > 2 and ordered[-1] - ordered[0] == len(ordered) - 1:
        return f"GPUs {label(ordered[0])}-{label(ordered[-1])}"
    return f"GPUs {', '.join(map(label, ordered))}"


def _parsed(text: str) -> list[dict[str, Any]]:
    """Parse a text such as 4xH100, 4xH100,2xL40S or H100."""
    items = []
    for part in filter(None, (item.strip() for item in text.split(","))):
        count, name = re.fullmatch(r"(?s)(?:(\d+)\s*[xX*]\s*)?(.+)", part).groups()  # type: ignore[union-attr]
        items.append({"name": name.strip(), "count": count or 1})
    return items


#: No host has more GPUs.
MOST_GPUS = 64
CAPABILITY = re.compile(r"\d{1,2}\.\d", re.ASCII)
#: Keys of a `gpus` entry that are whole numbers, and their least and largest values.
NUMBERS = {
    "index": (0, SLICES - 1),
    "memory_mib": (1, 1 << 24),
    "reserved_mib": (0, 1 << 24),
    "used_mib": (0, 1 << 24),
    "count": (0, MOST_GPUS),
}
GIVEN_KEYS = forms.types_of(Gpu, count="int")


def _known_or_sized(entry: Any, catalog: Catalog) -> tuple[str, GpuSpec | None]:
    """A `gpus` entry's name and catalogue entry. Raises ValueError if neither gives the memory size."""
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
            f"gpus: {name!r} is not in the catalogue. {meant}Known: {', '.join(catalog.gpus)}. For another GPU, "
            "give memory_mib and compute_capability, or add it with vllm_extra_gpus."
        )
    return name, spec


def _numbers(name: str, entry: Mapping[str, Any]) -> dict[str, int]:
    """The whole numbers of a `gpus` entry. Raises ValueError where a key has another form, or is out of range."""
    what = f"gpus: {name}"
    forms.check(what, entry, GIVEN_KEYS)
    for key, spec in (("processes", GpuProcess), ("slices", MigSlice)):
        for part in entry.get(key) or ():
            forms.check(f"{what}: {key}", part, forms.types_of(spec), forms.required(spec))
    numbers = {key: int(entry[key]) for key in NUMBERS if entry.get(key) is not None}
    for key, number in numbers.items():
        least, most = NUMBERS[key]
        if not least <= number <= most:
            raise ValueError(f"{what}: {key} must be between {least} and {most}, not {number}.")
    capability = entry.get("compute_capability") or "0.0"
    if not CAPABILITY.fullmatch(str(capability)):
        raise ValueError(f"{what}: compute_capability must look like 9.0, not {capability!r}.")
    return numbers


def _given(entry: Mapping[str, Any], catalog: Catalog) -> list[Gpu]:
    """The GPUs of one `gpus` entry, repeated by its count."""
    name, spec = _known_or_sized(entry, catalog)
    numbers = _numbers(name, entry)
    count = numbers.pop("count", 1)
    # Replace a short name with the catalogue's first name; keep a name that nvidia-smi prints.
    short = spec is not None and name.casefold() not in map(str.casefold, spec.names)
    derived = {
        "index": -1,
        "name": spec.names[0] if spec and short else name or f"GPU of {entry.get('memory_mib')} MiB",
        "compute_capability": str(entry.get("compute_capability") or ""),
    }
    given = {key: value for key, value in entry.items() if key != "count" and key not in derived}
    return [gpu_from({**given, **derived, **numbers})] * count


def given_gpus(gpus: str | Mapping[str, Any] | Sequence[Any], catalog: Catalog) -> NodeGpus:
    """Read the option `gpus`: described GPUs instead of a node's. Raises ValueError if it is malformed."""
    if not isinstance(gpus, (str, Mapping, list, tuple)):
        raise ValueError(f"gpus: {gpus!r} is neither a text such as 8xH100 nor a dictionary, nor a list of these.")
    listed = [gpus] if isinstance(gpus, (str, Mapping)) else gpus
    entries = [part for item in listed for part in (_parsed(item) if isinstance(item, str) else [item])]
    cards = [gpu for entry in entries for gpu in _given(entry, catalog)]
    if len(cards) > MOST_GPUS:
        raise ValueError(
            f"gpus: {len(cards)} GPUs are more than one host has: describe a host of {MOST_GPUS} or fewer."
        )
    # GPUs without an index are numbered by type, so the order of the entries does not matter.
    cards.sort(key=lambda gpu: (gpu.index, gpu.name, repr(gpu)))
    cards = [gpu if gpu.index >= 0 else replace(gpu, index=place) for place, gpu in enumerate(cards)]
    if len({gpu.index for gpu in cards}) < len(cards):
        raise ValueError("gpus: two entries have the same index; give each its own index, or none at all.")
    return NodeGpus(state="ok" if cards else "no_gpu", message="" if cards else "No GPU was given.", gpus=tuple(cards))


#: States of a node with GPUs on the PCI bus that no driver serves, and that one would serve.
DRIVERLESS = ("no_driver", "driver_not_loaded", "driver_mismatch")


def with_driver(node: NodeGpus, catalog: Catalog) -> NodeGpus:
    """A node as it will be once its GPUs have a driver: the boards are known by their numbers on the PCI bus.

    Returned as it is where it has a driver, or where a board is not in the catalogue.
    """
    specs = [catalog.gpus_on_pci.get(gpu.device_id.rpartition(":")[2].casefold()) for gpu in node.pci_gpus]
    if node.state not in DRIVERLESS or not specs:
        return node
    unknown = sorted({gpu.device_id for gpu, spec in zip(node.pci_gpus, specs, strict=True) if spec is None})
    if unknown:
        lacking = (
            f"The catalogue does not know the GPU {', '.join(unknown)}: describe it in vllm_extra_gpus, with its pci."
        )
        return replace(node, message=f"{node.message} {lacking}")
    gpus = [
        Gpu(index, spec.names[0], None if spec.unified else spec.memory_mib)
        for index, spec in enumerate(spec for spec in specs if spec)
    ]
    return NodeGpus(
        state="ok",
        message="No NVIDIA driver runs on this host yet: its GPUs are known from the PCI bus alone.",
        gpus=tuple(gpus),
        pci_gpus=node.pci_gpus,
        host_memory_mib=node.host_memory_mib,
    )


def _unified(spec: GpuSpec, memory: int, catalog: Catalog) -> GpuSpec:
    """A GPU whose memory is the host's, of which the host keeps some: vLLM takes its share of all of it."""
    share = math.floor(100 * (memory - catalog.unified_reserve_mib) / memory) / 100
    return replace(spec, memory_mib=memory, reserved_mib=0, unified=True, most=max(share, 0.01))


def spec_of(gpu: Gpu, catalog: Catalog, host_memory_mib: int | None = None) -> GpuSpec | None:
    """The catalogue's entry with this GPU's own values; None if memory or compute capability is unknown.

    ``host_memory_mib``: the memory of the host, which is that of a GPU that reports none.
    """
    known = catalog.gpu(gpu.name)
    shared = gpu.memory_mib is None and (known.unified if known else bool(host_memory_mib))
    memory = gpu.memory_mib or (host_memory_mib if shared else 0) or (known.memory_mib if known else 0)
    by_name = known.compute_capability if known else catalog.architectures.get(gpu.architecture, "")
    capability = gpu.compute_capability or by_name
    if not memory or not capability:
        return None
    base = known or GpuSpec(gpu.name, (gpu.name,), memory, capability)
    names = (gpu.name, *(name for name in base.names if name != gpu.name))
    if shared or (known is not None and known.unified):
        return _unified(replace(base, names=names, compute_capability=capability), memory, catalog)
    reserved = base.reserved_mib if base.memory_mib == memory else None
    if reserved is None:
        reported = -(-(gpu.reserved_mib or 0) // RESERVED_STEP_MIB) * RESERVED_STEP_MIB
        reserved = max(round(memory * catalog.reserved_fraction), reported)
    return replace(base, names=names, memory_mib=memory, reserved_mib=reserved, compute_capability=capability)


def _memory_in_use(gpu: Gpu, is_planned: IsPlanned) -> tuple[int, str]:
    """MiB held by processes outside this plan, and their names. Engines of this plan do not count."""
    others = [process for process in gpu.processes if not is_planned(process.owner)]
    if gpu.processes and not others:
        return 0, ""
    if gpu.used_mib is None:
        held = sum(process.used_mib or 0 for process in others)
    else:
        held = gpu.used_mib - sum(process.used_mib or 0 for process in gpu.processes if is_planned(process.owner))
    who = ", ".join(f"{process.owner or process.name} (pid {process.pid})" for process in others)
    return held, who or "a process that is not visible on this host"


def _in_use(gpu: Gpu, spec: GpuSpec, catalog: Catalog, view: View) -> tuple[str, str] | None:
    held, who = _memory_in_use(gpu, view.is_planned)
    if held <= catalog.policy.busy_mib or held <= view.spare_mib(spec):
        return None
    engine = any(process.owner.startswith(UNIT) for process in gpu.processes)
    remedy = "plan it together with this model, or remove it (vllm_remove_unlisted)" if engine else "stop it"
    return (
        f"in use: {held / MIB_PER_GIB:.1f} GiB are held by {who}",
        f"{remedy}, name other GPUs in gpu_indices, or leave room for it (vllm_gpu_memory_utilization)",
    )


def _slice_of(spec: GpuSpec) -> GpuSpec:
    """A MIG slice as a kind of GPU: it computes as the whole one does, and no NVLink reaches it."""
    name = f"MIG slice of {spec.memory_mib / MIB_PER_GIB:.1f} GiB of {spec.names[0]}"
    return replace(spec, names=(name, *spec.names), nvlink_domain=1, fabric=False)


def _check_gpu(gpu: Gpu, catalog: Catalog, view: View, host_memory_mib: int | None) -> GpuSpec | tuple[str, str]:
    """The GPU's spec if it is free and ready, else (problem, remedy)."""
    if gpu.lost:
        return "fallen off the bus", "restart the host, and see `dmesg | grep -i xid`"
    if gpu.mig or gpu.mig_pending:
        return (
            "in MIG mode, and has no slices that nvidia-smi lists",
            "make some (`nvidia-smi mig -cgi`), or turn it off with `nvidia-smi -mig 0 -i` and its index",
        )
    if gpu.fabric_state not in FABRIC_READY or gpu.fabric_status not in ("", "Success"):
        state = gpu.fabric_state if gpu.fabric_state not in FABRIC_READY else f"Completed with {gpu.fabric_status}"
        return (
            f"on an NVSwitch board whose fabric is {state!r}, not 'Completed', so CUDA would fail with error 802",
            "start Fabric Manager, whose version must equal the driver's: `systemctl status nvidia-fabricmanager`",
        )
    spec = spec_of(gpu, catalog, host_memory_mib)
    if spec is not None and gpu.index >= SLICES:
        spec = _slice_of(spec)
    if spec is None:
        return "of a kind that the catalogue does not know and reports no memory size", "describe it in vllm_extra_gpus"
    return _in_use(gpu, spec, catalog, view) or spec


def _grouped(node: NodeGpus, catalog: Catalog, view: View) -> tuple[tuple[Group, ...], list[str]]:
    """Groups of identical free GPUs, most memory first, and one sentence per reason for the others."""
    # CUDA shows a process one slice, so each is a group of its own, which no engine leaves.
    kinds: dict[tuple[GpuSpec, int], list[int]] = {}
    reasons: dict[tuple[str, str, str], list[int]] = {}
    for gpu in node.devices:
        checked = _check_gpu(gpu, catalog, view, node.host_memory_mib)
        if isinstance(checked, GpuSpec):
            kinds.setdefault((checked, gpu.index if gpu.index >= SLICES else -1), []).append(gpu.index)
        else:
            reasons.setdefault((gpu.name or "without a name", *checked), []).append(gpu.index)
    groups = [Group(spec, tuple(sorted(indices))) for (spec, _own), indices in kinds.items()]
    groups.sort(key=lambda group: (-group.total_gib * len(group.indices), group.name, group.total_gib, group.indices))
    return tuple(groups), [
        f"{numbered(indices)} ({name}) {'is' if len(indices) == 1 else 'are'} {what}: {remedy}."
        for (name, what, remedy), indices in reasons.items()
    ]


def _fabric_manager_missing(node: NodeGpus) -> list[str]:
    """A finding if NVSwitches lack Fabric Manager. Boards before Hopper report no fabric state, only its service."""
    silent = not any(gpu.fabric_state for gpu in node.gpus)
    if not (node.nvswitches and silent and node.fabric_manager is False):
        return []
    return [
        f"This host has {node.nvswitches} NVSwitches but Fabric Manager is not running, so CUDA would fail with error "
        f"802. Install nvidia-fabricmanager of the driver's version ({node.driver_version}) and start it."
    ]


def read_host(
    node: NodeGpus,
    catalog: Catalog,
    is_planned: IsPlanned = lambda owner: False,
    utilization: float | None = None,
) -> Host:
    """Sort a node's GPUs into groups that can be planned on, and sentences about the rest.

    ``utilization``: the largest share of a GPU that the user gives the engines of it, if all have one.
    """
    view = View(is_planned, utilization)
    if node.state != "ok":
        return Host((), (node.message,))
    fabric_findings = _fabric_manager_missing(node)
    groups, blocked = _grouped(node, catalog, view)
    warnings = [node.message] if node.message else []
    warnings += [
        f"{numbered([gpu.index])} ({gpu.name}): the driver asks for {gpu.recovery_action!r} to recover it."
        for gpu in node.gpus
        if gpu.recovery_action
    ]
    return Host(
        () if fabric_findings else groups, tuple(fabric_findings + blocked), tuple(warnings), node.driver_version
    )
