# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The packages of NVIDIA's driver: their names in each repository, and the one version that all of them have there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ...module_utils.node.driver import version_in
from ..planner.catalog import version_key

#: From this branch on NVIDIA's packages for Ubuntu have no branch in their names.
PLAIN_NAMES = "590"


@dataclass(frozen=True)
class Slot:
    """A package that is needed, by the names that it may have: sources and branches differ in them.

    ``exact``: its version must be the driver's. ``at``: the beginning of its version, if it has one of its own.
    ``optional``: it is left out where the lists do not have it. ``remedy``: what to do where they do not.
    """

    names: tuple[str, ...]
    exact: bool = True
    at: str = ""
    optional: bool = False
    remedy: str = ""


def loose(*names: str, remedy: str = "", at: str = "", optional: bool = False) -> Slot:
    """A package whose version is not the driver's."""
    return Slot(names, False, at, optional, remedy)


@dataclass(frozen=True)
class System:
    """What the names of packages depend on."""

    distribution: str
    kernel: str
    architecture: str
    headers: bool = True
    #: Ubuntu's kernels: what is installed of linux-image-generic, linux-image-aws and their like.
    flavours: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        """The name of the systems that share their packages: Ubuntu, Debian or RedHat."""
        return self.distribution if self.distribution in ("Ubuntu", "Debian") else "RedHat"

    @property
    def flavour(self) -> str:
        """The kind of kernel that runs: generic of 6.8.0-60-generic, cloud-amd64 of 6.1.0-41-cloud-amd64."""
        return re.sub(r"^[\d.]+-[\d.]+-", "", self.kernel)


def flavours(packages: Iterable[str]) -> tuple[str, ...]:
    """The kinds of kernel whose newest release apt keeps installed, from the names of installed packages."""
    names = (name.removeprefix("linux-image-") for name in packages if name.startswith("linux-image-"))
    return tuple(sorted(name for name in names if not re.match(r"\d|unsigned", name)))


def driver_slots(system: System, source: str, branch: str, open_modules: bool) -> tuple[Slot, ...]:
    """The driver itself, without a desktop's parts: user space, kernel modules, persistence daemon."""
    if source == "ubuntu":
        return _of_ubuntu(system, branch, open_modules)
    if system.family == "Ubuntu":
        part = "" if version_key(branch) >= version_key(PLAIN_NAMES) else f"-{branch}"
        module = f"nvidia-dkms{part}{'-open' if open_modules else ''}"
        programs = (f"nvidia-utils{part}", f"nvidia-compute-utils{part}")
        return (*(Slot((name,)) for name in (f"libnvidia-compute{part}", module, *programs)), *_headers(system))
    module = "nvidia-kernel-open-dkms" if open_modules else "nvidia-kernel-dkms"
    if system.family == "RedHat":
        module = "kmod-nvidia-open-dkms" if open_modules else "kmod-nvidia-latest-dkms"
    named = ("nvidia-driver-cuda", module, "nvidia-persistenced")
    return (*(Slot((name,)) for name in named), loose("nvidia-modprobe"), *_headers(system))


def _of_ubuntu(system: System, branch: str, open_modules: bool) -> tuple[Slot, ...]:
    """Canonical's: modules built and signed for each of its kernels."""
    kind = "-open" if open_modules else ""
    modules = f"linux-modules-nvidia-{branch}-server{kind}"
    remedy = (
        f"Ubuntu has no modules of the driver {branch} for the kernel {system.kernel} that runs: install the newest"
        " kernel, restart the node and run this again."
    )
    return (
        loose(f"{modules}-{system.kernel}", remedy=remedy),
        *(loose(f"{modules}-{flavour}", optional=True) for flavour in system.flavours or (system.flavour,)),
        Slot((f"nvidia-headless-no-dkms-{branch}-server{kind}",)),
        Slot((f"nvidia-utils-{branch}-server",)),
        Slot((f"nvidia-compute-utils-{branch}-server",)),
    )


def _headers(system: System) -> tuple[Slot, ...]:
    """What DKMS builds with: the headers of the kernel that runs, and of those that will come."""
    remedy = (
        f"DKMS builds the modules with the headers of the kernel {system.kernel} that runs, which this node does not"
        " have and its repositories do not offer: install the newest kernel with its headers, restart the node and run"
        " this again."
    )
    if system.family == "RedHat":
        at = re.sub(rf"\.{system.architecture}$", "", system.kernel)
        running = () if system.headers else (loose("kernel-devel", at=at, remedy=remedy),)
        # EPEL has it.
        return (*running, loose("dkms", remedy="dkms comes from EPEL: install epel-release, and run this again."))
    running = () if system.headers else (loose(f"linux-headers-{system.kernel}", remedy=remedy),)
    coming = (loose(f"linux-headers-{system.flavour}", optional=True),) if system.flavour != system.kernel else ()
    return (*running, *coming)


#: Packages with a service of their own name, which is part of what the boards need.
SERVICES = ("nvidia-fabricmanager", "nvidia-imex")


def fabric_slots(kind: str, source: str, branch: str, architecture: str) -> tuple[Slot, ...]:
    """The packages of Fabric Manager, of the subnet manager of NVLink 5, or of IMEX."""
    if not kind:
        return ()

    def both(name: str) -> Slot:
        """NVIDIA's repositories had the branch in these names up to somewhere in 580; Ubuntu's archive has it still."""
        suffixed = f"{name}-{branch}"
        return Slot((suffixed,) if source == "ubuntu" else (name, suffixed))

    if kind == "imex":
        return (both("nvidia-imex"),)
    manager = (both("nvidia-fabricmanager"),)
    if kind == "fabricmanager":
        return manager
    remedy = "Ubuntu's archive has no nvlsm: set nvidia_driver_source to nvidia." if source == "ubuntu" else ""
    # There is no libnvsdm for aarch64.
    monitor = (both("libnvsdm"),) if architecture == "x86_64" else ()
    return (*manager, *monitor, loose("nvlsm", remedy=remedy), loose("infiniband-diags"))


@dataclass(frozen=True)
class Chosen:
    """The packages to install, as apt or dnf takes them; ``names`` without versions. With findings there are none."""

    version: str = ""
    specs: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()


def choose(slots: Sequence[Slot], branch: str, version: str, lists: Mapping[str, Sequence[str]], apt: bool) -> Chosen:
    """The newest version of the branch that all exact packages have, or ``version`` where one is asked for."""
    exact = [slot for slot in slots if slot.exact]
    known = [_versions(slot, branch, lists) for slot in exact]
    common = set.intersection(*map(set, known)) if known else set()
    wanted = version or max(common, key=version_key, default="")
    findings = _missing([slot for slot in slots if not slot.exact], lists)
    if known and wanted not in common:
        findings += _unequal(exact, known, branch, version)
    if findings:
        return Chosen(findings=tuple(findings))
    picked = [_pick(slot, wanted, lists) for slot in slots]
    there = [(name, found) for name, found in picked if name]
    specs = tuple(f"{name}{'=' if apt else '-'}{found}" if found else name for name, found in there)
    return Chosen(wanted, specs, tuple(name for name, _found in there))


def _versions(slot: Slot, branch: str, lists: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The driver's versions that a package has in the lists, in this branch, each with the name that has it."""
    found = {}
    for name in reversed(slot.names):
        for full in lists.get(name) or ():
            plain = version_in(full)
            if plain.partition(".")[0] == branch:
                found[plain] = name
    return found


def _fits(slot: Slot, full: str) -> bool:
    return not slot.at or re.sub(r"^\d+:", "", full).startswith(slot.at)


def _missing(slots: Iterable[Slot], lists: Mapping[str, Sequence[str]]) -> list[str]:
    """A sentence for each package without which the driver cannot be installed, and which the lists do not have."""
    lacking = [
        slot
        for slot in slots
        if not slot.optional and not any(_fits(slot, full) for name in slot.names for full in lists.get(name) or ())
    ]
    return [slot.remedy or f"The package lists of this node have no {' or '.join(slot.names)}." for slot in lacking]


def _unequal(slots: Sequence[Slot], known: Sequence[Mapping[str, str]], branch: str, version: str) -> list[str]:
    """A sentence that says which versions there are, where no version is that of all packages."""
    newest = [max(versions, key=version_key, default="none") for versions in known]
    listed = ", ".join(f"{' or '.join(slot.names)} {number}" for slot, number in zip(slots, newest))
    of = f"the version {version}" if version else f"one version of the branch {branch}"
    return [
        f"The package lists of this node do not have {of} for all of the driver: newest are {listed}. Parts of unequal"
        " versions do not work together, so nothing was installed; refresh the mirror, or set nvidia_driver_version to"
        " a version that all of them have."
    ]


def _pick(slot: Slot, version: str, lists: Mapping[str, Sequence[str]]) -> tuple[str, str]:
    """The name and, for apt and dnf, the whole version of a package; no name where it is left out."""
    for name in slot.names:
        for full in lists.get(name) or ():
            if slot.exact and version_in(full) == version:
                return name, full
            if not slot.exact and _fits(slot, full):
                return name, full if slot.at else ""
    return "", ""
