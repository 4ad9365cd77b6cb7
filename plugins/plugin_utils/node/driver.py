# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which NVIDIA driver a node gets, from what it is and what is asked for. Everything else only carries it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ...module_utils.node.driver import version_in
from ..planner.catalog import version_key
from .driver_packages import SERVICES, Chosen, Slot, System, choose, driver_slots, fabric_slots, flavours

#: Where the packages are known, by the distribution: its versions.
SYSTEMS: Mapping[str, tuple[str, ...]] = {
    "Ubuntu": ("22.04", "24.04", "26.04"),
    "Debian": ("12", "13"),
    "RedHat": ("9",),
    "Rocky": ("9",),
    "AlmaLinux": ("9",),
}
# PCI device ids grow with the generations; the list in NVIDIA's open kernel modules has them.
#: The first that a driver of the branch 580 serves: Maxwell. Those before it end with 470.
FIRST_SERVED = 0x1340
#: Turing is the first that open modules serve, and that branches after 580 do.
FIRST_OPEN, LAST_LEGACY = 0x1E00, "580"
#: Blackwell is the first that proprietary modules do not serve; nor do they serve Grace Hopper.
FIRST_ONLY_OPEN, GRACE_HOPPER = 0x2900, range(0x2342, 0x234A)
#: Branches without proprietary modules.
OPEN_BRANCHES = ("620",)
#: HGX B200 and B300, whose NVSwitches are not seen on the PCI bus, and the superchips GB200 and GB300.
HGX_BLACKWELL, HGX_BOARDS, SUPERCHIPS = (0x2901, 0x3182), 8, (0x2941, 0x31C2)


#: Beginnings of the names of packages with nvidia-smi or its libraries, the surest first.
PROGRAMS = ("nvidia-driver-cuda", "nvidia-utils", "nvidia-smi", "libnvidia-compute", "nvidia-driver", "cuda-drivers")


@dataclass(frozen=True)
class Wanted:
    """The role's settings."""

    branch: str = "580"
    version: str | None = None
    source: str = "auto"
    modules: str = "auto"
    fabric: str = "auto"
    reboot: bool = False
    stop_engines: bool = False


@dataclass(frozen=True)
class Seen:
    """What driver_info says of a node."""

    answer: Mapping[str, Any]

    @cached_property
    def fact(self) -> Mapping[str, Any]:
        """Facts of the system, without their prefix."""
        return {name.removeprefix("ansible_"): value for name, value in self.answer["system"].items()}

    @cached_property
    def boards(self) -> list[Mapping[str, Any]]:
        """The GPUs on the bus that are this host's, not a virtual machine's."""
        return [gpu for gpu in self.answer["gpus"]["pci_gpus"] if gpu["driver"] != "vfio-pci"]

    @cached_property
    def ids(self) -> list[int]:
        """The numbers of the boards: 0x2330 for 10de:2330."""
        return [int(str(gpu["device_id"]).rpartition(":")[2], 16) for gpu in self.boards]

    @property
    def loaded(self) -> str:
        return str(self.answer["loaded"]["version"])

    @cached_property
    def programs(self) -> str:
        """The version of nvidia-smi and the libraries, by their package; empty where none has them."""
        found = {name: version for name, version in self.answer["packages"].items() if version_in(version)}
        names = [name for start in PROGRAMS for name in sorted(found) if name.startswith(start)]
        return version_in(found[names[0]]) if names else ""

    @cached_property
    def installed(self) -> str:
        """The version of the driver on the disk, or, where its files are elsewhere, of what nvidia-smi shows."""
        return str(self.answer["on_disk"]["version"]) or self.programs or str(self.answer["gpus"]["driver_version"])

    @property
    def version(self) -> str:
        """The version of the system as packages are sorted by it: Ubuntu's has two numbers that count."""
        name = "distribution_version" if self.fact["distribution"] == "Ubuntu" else "distribution_major_version"
        return str(self.fact[name])

    @property
    def system(self) -> System:
        return System(
            distribution=str(self.fact["distribution"]),
            kernel=str(self.answer["kernel"]),
            architecture=str(self.fact["architecture"]),
            headers=bool(self.answer["headers"]),
            flavours=flavours(self.answer["packages"]),
        )


@dataclass(frozen=True)
class Decision:
    """What is done with the driver.

    ``state``: none without a GPU, kept, load where the module that runs is not the one on the disk, or install.
    ``changes``: whether another module is going to run. ``reboot``: why the node must restart for that; ``stops``: the
    engines that go down for it.
    """

    state: str
    text: str
    branch: str = ""
    version: str = ""
    source: str = ""
    modules: str = ""
    services: tuple[str, ...] = ()
    changes: bool = False
    reboot: str = ""
    stops: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    slots: tuple[Slot, ...] = field(default=(), repr=False)

    @property
    def pending(self) -> bool:
        return self.state in ("install", "load")


def decide(wanted: Wanted, seen: Seen) -> Decision:
    """Which driver the node gets and how, or why not."""
    if not seen.boards and not seen.answer["gpus"]["gpus"]:
        return Decision("none", "This node has no NVIDIA GPU, so no driver is installed.")
    source = _source(wanted, seen)
    is_open = _open(wanted, seen)
    kind = _fabric(wanted, seen)
    right = _right(wanted, seen)
    extra = fabric_slots(kind, source, wanted.branch, seen.system.architecture)
    lacking = tuple(slot for slot in extra if not _has(slot, seen))
    slots = (() if right else driver_slots(seen.system, source, wanted.branch, is_open)) + (lacking if right else extra)
    state = "install" if slots else "load" if seen.loaded != seen.installed else "kept"
    changes = state == "load" or (state == "install" and not right)
    plan = Decision(
        state=state,
        text="",
        branch=wanted.branch,
        version=seen.installed if right else wanted.version or "",
        source=source,
        modules="open" if is_open else "proprietary",
        services=("nvidia-persistenced", *_services(extra)),
        changes=changes,
        reboot=_reboot(seen) if changes else "",
        stops=tuple(seen.answer["engines"]) if changes and seen.loaded else (),
        slots=slots,
    )
    text, findings = _text(plan, wanted, seen, right), _findings(plan, wanted, seen, right) if plan.pending else []
    return replace(plan, text=text, findings=tuple(findings))


def _services(extra: Sequence[Slot]) -> list[str]:
    return [service for slot in extra for service in SERVICES if slot.names[0].startswith(service)]


def _source(wanted: Wanted, seen: Seen) -> str:
    """Canonical's modules are signed, so Ubuntu's own archive comes first there."""
    if wanted.source != "auto":
        return wanted.source
    return "ubuntu" if seen.fact["distribution"] == "Ubuntu" else "nvidia"


def _open(wanted: Wanted, seen: Seen) -> bool:
    """Open modules, unless a board or the user wants the others."""
    return wanted.modules == "open" if wanted.modules != "auto" else all(one >= FIRST_OPEN for one in seen.ids)


def _fabric(wanted: Wanted, seen: Seen) -> str:
    """What the boards need beside the driver: fabricmanager, nvlsm, imex, or nothing."""
    if wanted.fabric != "auto":
        return "" if wanted.fabric == "none" else wanted.fabric
    if any(one in SUPERCHIPS for one in seen.ids):
        return "imex"
    if len([one for one in seen.ids if one in HGX_BLACKWELL]) >= HGX_BOARDS:
        return "nvlsm"
    return "fabricmanager" if seen.answer["gpus"]["nvswitches"] else ""


def _right(wanted: Wanted, seen: Seen) -> bool:
    """Whether the driver that is installed stays: it is of the branch, and of the version if one is asked for."""
    has = seen.installed.partition(".")[0] == wanted.branch
    return has and (not wanted.version or seen.installed == wanted.version) and seen.programs in ("", seen.installed)


def _has(slot: Slot, seen: Seen) -> bool:
    """Whether a package is installed, at the driver's version if that matters."""
    there = [version for name, version in seen.answer["packages"].items() if name in slot.names]
    return any(not slot.exact or version_in(version) == seen.installed for version in there)


def _reboot(seen: Seen) -> str:
    if any(gpu["driver"] == "nouveau" for gpu in seen.boards):
        return "nouveau holds the GPUs until then"
    return ""


def _text(plan: Decision, wanted: Wanted, seen: Seen, right: bool) -> str:
    """One or two sentences for a person: what comes, from where, and whether the node restarts."""
    if plan.state == "kept":
        return f"The NVIDIA driver {seen.installed} stays."
    if plan.state == "load":
        other = f"while {seen.loaded} is loaded" if seen.loaded else "and not loaded"
        return f"The NVIDIA driver {seen.installed} is installed, {other}: it will be loaded. {_restart(plan, wanted)}"
    names = ", ".join(slot.names[0] for slot in plan.slots)
    if right:
        return f"To the NVIDIA driver {seen.installed}, which stays, comes what its boards need: {names}."
    what = f"The NVIDIA driver {wanted.version or wanted.branch}"
    built = "prebuilt and signed by Canonical" if plan.source == "ubuntu" else "built by DKMS"
    where = "Ubuntu's archive" if plan.source == "ubuntu" else "NVIDIA's repository"
    place = f" in place of {seen.installed}" if seen.installed else ""
    how = f"with {plan.modules} kernel modules, {built}"
    return f"{what} will be installed from {where}{place}, {how}: {names}. {_restart(plan, wanted)}"


def _restart(plan: Decision, wanted: Wanted) -> str:
    if not plan.reboot:
        return "No restart of the node is due, unless the modules that are loaded cannot be unloaded."
    then = "it is restarted once" if wanted.reboot else "the play ends after the installation (nvidia_driver_reboot)"
    return f"The node must be restarted, since {plan.reboot}: {then}."


def _findings(plan: Decision, wanted: Wanted, seen: Seen, right: bool) -> list[str]:
    """What stands against it, each in a sentence with the remedy."""
    found = _of_engines(plan, wanted, seen)
    if right:
        return found
    system, version, architecture = seen.fact["distribution"], seen.version, seen.system.architecture
    if version not in SYSTEMS.get(system, ()):
        known = ", ".join(f"{name} {' '.join(versions)}" for name, versions in SYSTEMS.items())
        here = f"nvidia_driver knows no packages for {system} {version}; it knows {known}"
        return [f"{here}. Install the driver yourself."]
    if architecture not in ("x86_64", "aarch64"):
        found.append(f"NVIDIA has no driver for {architecture}, only for x86_64 and aarch64.")
    if plan.source == "ubuntu" and system != "Ubuntu":
        found.append(f"nvidia_driver_source is ubuntu, and this is {system} {version}: set it to nvidia.")
    if seen.answer["secure_boot"] and plan.source == "nvidia":
        ubuntu = ", or set nvidia_driver_source to ubuntu, whose modules are signed" if system == "Ubuntu" else ""
        found.append(
            "Secure Boot is on, and it refuses modules that DKMS builds until their key is enrolled at the console."
            f" Turn Secure Boot off in the firmware{ubuntu}."
        )
    if seen.installed and not seen.programs:
        found.append(
            f"The driver {seen.installed} was installed without packages, by NVIDIA's .run file: remove it with"
            f" nvidia-uninstall, or keep it by nvidia_driver_branch={seen.installed.partition('.')[0]}."
        )
    if plan.modules == "proprietary" and wanted.branch in OPEN_BRANCHES and wanted.modules == "proprietary":
        found.append(f"The branch {wanted.branch} has open modules alone: set nvidia_driver_modules to auto or open.")
    return found + _of_boards(plan, wanted, seen.ids)


def _of_engines(plan: Decision, wanted: Wanted, seen: Seen) -> list[str]:
    """Who uses the driver that is to go. Our own engines can be stopped, if that is allowed; others are not touched."""
    if not (seen.loaded and plan.changes):
        return []
    found = []
    if plan.stops and not wanted.stop_engines:
        units = ", ".join(unit.removesuffix(".service") for unit in plan.stops)
        one = "runs" if len(plan.stops) == 1 else "run"
        found.append(
            f"{units} {one} on the driver that is to be changed. nvidia_driver_stop_engines: true drains and stops the"
            " engines before it, and starts them again."
        )
    own = tuple(unit.removesuffix(".service") for unit in plan.stops)
    gpus = seen.answer["gpus"]["gpus"]
    others = {
        f"{process['owner'] or process['name'] or 'a process'} (pid {process['pid']})"
        for gpu in gpus
        for process in gpu["processes"]
        if process["owner"] not in own
    }
    if others:
        found.append(f"{', '.join(sorted(others))} would lose the driver that is to be changed: stop it first.")
    return found


def _of_boards(plan: Decision, wanted: Wanted, ids: Sequence[int]) -> list[str]:
    """Boards that the branch or the kind of modules does not serve."""

    def some(which: list[int], what: str, remedy: str) -> list[str]:
        listed = ", ".join(sorted({f"10de:{one:04x}" for one in which}))
        return [f"The driver {what} does not serve the GPU {listed}: {remedy}."] if which else []

    branch, is_open = wanted.branch, plan.modules == "open"
    only_open = [one for one in ids if one >= FIRST_ONLY_OPEN or one in GRACE_HOPPER]
    too_old = [one for one in ids if one < FIRST_SERVED]
    found = some(too_old, branch, "it is older than Maxwell, and ended with the branch 470")
    legacy = [one for one in ids if FIRST_SERVED <= one < FIRST_OPEN]
    if version_key(branch) > version_key(LAST_LEGACY):
        return found + some(legacy, branch, f"set nvidia_driver_branch to {LAST_LEGACY}, the last one for it")
    if legacy and only_open:
        return found + some([*legacy, *only_open], branch, "no kind of kernel modules serves all of them in one host")
    if is_open:
        return found + some(legacy, "with open modules", "set nvidia_driver_modules to auto or proprietary")
    return found + some(only_open, "with proprietary modules", "set nvidia_driver_modules to auto or open")


def plan_of(answer: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The decision as plain data, with the packages to look up in the node's lists, and those that it chooses there."""
    wanted, seen = Wanted(**settings), Seen(answer)
    decision = decide(wanted, seen)
    asks = [name for slot in decision.slots for name in slot.names]
    return {**_plain(replace(decision, slots=())), "pending": decision.pending, "asks": asks}


def choice_of(answer: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The packages to install, from what the node's lists have; or why there are none."""
    decision = decide(Wanted(**settings), Seen(answer))
    apt = Seen(answer).system.family != "RedHat"
    return _plain(choose(decision.slots, decision.branch, decision.version, answer["lists"], apt))


def _plain(result: Decision | Chosen) -> dict[str, Any]:
    """Its values as a play takes them, with lists in place of tuples."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(result).items()}


def proof_of(answer: Mapping[str, Any]) -> list[str]:
    """What is wrong with a driver that was installed and loaded, each in a sentence; nothing if all of it works."""
    seen, gpus = Seen(answer), answer["gpus"]
    if gpus["state"] != "ok":
        return [gpus["message"]]
    found = []
    if len(gpus["gpus"]) < len(seen.boards):
        found.append(
            f"nvidia-smi lists {len(gpus['gpus'])} of the {len(seen.boards)} GPUs on the PCI bus: `dmesg | grep -i"
            " nvrm` on the node says why."
        )
    parts = {"loaded": seen.loaded, "installed": seen.installed, "nvidia-smi": gpus["driver_version"]}
    if len({version for version in parts.values() if version}) > 1:
        listed = ", ".join(f"{name} {version}" for name, version in parts.items())
        found.append(f"Parts of the NVIDIA driver have unequal versions ({listed}): restart the node.")
    manager = str(answer["fabric_manager"])
    # Without NVSwitches a package that was left behind does nothing.
    needed = gpus["nvswitches"] or any(gpu["fabric_state"] for gpu in gpus["gpus"])
    if needed and manager not in ("", seen.loaded):
        found.append(
            f"Fabric Manager is {manager} and the driver {seen.loaded}: it starts only with an equal one. Install"
            f" nvidia-fabricmanager {seen.loaded}."
        )
    if any(gpu["fabric_state"] == "In Progress" for gpu in gpus["gpus"]):
        found.append("The NVSwitch fabric does not come up: `journalctl -u nvidia-fabricmanager` on the node says why.")
    return found
