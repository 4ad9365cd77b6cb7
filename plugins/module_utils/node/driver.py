# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVIDIA's driver on this node: what is installed, what is loaded, and what stands in the way of another one.

Makes no decisions.
"""

from __future__ import annotations

import glob
import os
import platform
import re
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Tuple

from ..instance import known
from ..packages import apt as packages_apt, rpm as packages_rpm
from ..programs.gpu import look, nvidia_smi, scan_pci
from . import commands, files as node_files, gpus as node_gpus, system as node_system

Runner = Callable[[Sequence[str]], Tuple[int, str, str]]
Which = Callable[[str], Optional[str]]

#: What the kernel says of the module that is loaded.
LOADED = "/proc/driver/nvidia/version"
#: The modules of the driver, in the order in which they can be unloaded.
MODULES = ("nvidia_peermem", "nvidia_uvm", "nvidia_drm", "nvidia_modeset", "nvidia")
#: Services that hold the driver open. They are stopped before it is unloaded, and started after it was loaded.
SERVICES = ("nvidia-dcgm", "nvidia-imex", "nvidia-fabricmanager", "nvidia-persistenced")
#: Packages that may be part of a driver, as patterns of apt and rpm; and kernels, after which Ubuntu names modules.
FAMILY = ("nvidia-*", "libnvidia-*", "kmod-nvidia-*", "linux-modules-nvidia-*", "linux-image-*", "libnvsdm*", "nvlsm")
#: The unit that describes the GPUs to Docker, with the libraries of the driver.
DESCRIBES = "/etc/systemd/system/gpunode-cdi.service"
VERSION = re.compile(r"\b(\d{3}\.\d+(?:\.\d+)?)\b")


def version_in(text: str) -> str:
    """The first version of a driver in a text; empty if there is none.

    >>> version_in("3:580.178.04-1.el9"), version_in("1.20.0-1")
    ('580.178.04', '')
    """
    match = VERSION.search(text)
    return match.group(1) if match else ""


def loaded(text: str) -> Dict[str, Any]:
    """The module that runs, from the text of /proc/driver/nvidia/version: its version, and whether it is open."""
    return {"version": version_in(text), "open": "Open Kernel Module" in text}


def on_disk(run: Runner) -> Dict[str, Any]:
    """The module for the kernel that runs: its version, and whether it is open, which its licence tells."""
    _rc, out, _err = run(["modinfo", "nvidia"])
    fields = dict(re.findall(r"^(\w+):\s+(.*)$", out, re.MULTILINE))
    return {"version": fields.get("version", ""), "open": "GPL" in fields.get("license", "")}


def packages(run: Runner, apt: bool) -> Dict[str, Any]:
    """The driver's packages with their versions, and those of them that apt holds."""
    if apt:
        # Exits 1 if a pattern matches nothing.
        _rc, out, _err = run(["dpkg-query", "-W", "-f", packages_apt.QUERY, *FAMILY])
        found = packages_apt.installed(out)
        held = sorted(name for name, package in found.items() if package.held)
        return {"packages": {name: found[name].version for name in sorted(found)}, "held": held}
    _rc, out, _err = run(["rpm", "-qa", "--qf", packages_rpm.QUERY, *FAMILY])
    return {"packages": dict(sorted(packages_rpm.installed(out).items())), "held": []}


def offered(names: Sequence[str], run: Runner, apt: bool) -> Dict[str, List[str]]:
    """The versions of packages that the node could install, as apt or dnf lists them."""
    lists: Dict[str, List[str]] = {name: [] for name in names}
    for name, version in _offers(names, run, apt) if names else ():
        if version not in lists.setdefault(name, []):
            lists[name].append(version)
    return lists


def _offers(names: Sequence[str], run: Runner, apt: bool) -> Iterable[Tuple[str, str]]:
    if apt:
        _rc, out, _err = run(["apt-cache", "madison", *names])
        rows = [[part.strip() for part in line.split("|")] for line in out.splitlines()]
        return [(row[0], row[1]) for row in rows if len(row) > 2 and row[2].endswith("Packages")]
    form = "%{name}\t%{epoch}:%{version}-%{release}\n"
    ask = ["dnf", "-q", "repoquery", "--refresh", "--available", "--disableexcludes=all", "--qf", form, *names]
    _rc, out, _err = run(commands.within(120, *ask))
    return [(row[0], row[1]) for row in (line.split("\t") for line in out.splitlines()) if len(row) == 2]


def secure_boot(pattern: str = "/sys/firmware/efi/efivars/SecureBoot-*") -> Optional[bool]:
    """Whether Secure Boot is on; None where the firmware has none. Four bytes of attributes come before the value."""
    values = [node_files.bytes_of(path) for path in glob.glob(pattern)]
    return values[0][4:5] == b"\x01" if values else None


def initramfs(which: Which) -> List[str]:
    """The command that makes the first file system of the boot anew; empty where the node has none."""
    if which("update-initramfs"):
        return ["update-initramfs", "-u"]
    return ["dracut", "--force"] if which("dracut") else []


def engines(run: Runner) -> List[str]:
    """The units of our engines that run, or that are on their way up or down."""
    units = [record.unit for record in known.instances()]
    _rc, out, _err = run(commands.show(["Id", "ActiveState"], *units)) if units else (0, "", "")
    return [unit["Id"] for unit in commands.shown(out) if unit.get("ActiveState") not in ("inactive", "failed")]


def fabric_manager(run: Runner, which: Which) -> str:
    """The version that Fabric Manager says it has: a package of that name may be empty, and depend on a later one."""
    tool = which("nv-fabricmanager")
    return version_in(run([tool, "--version"])[1]) if tool else ""


def answer(module: Any, lists: Sequence[str]) -> Dict[str, Any]:
    """Everything about the driver in one call."""
    run, which = module.run_command, module.get_bin_path
    kernel, tool, system = platform.release(), which("nvidia-smi"), node_system.facts(run)
    apt = system["ansible_os_family"] == "Debian"
    seen = look(nvidia_smi(run, tool), scan_pci(), node_gpus.owner_of).as_dict()
    return {
        "kernel": kernel,
        "headers": os.path.exists(f"/lib/modules/{kernel}/build"),
        "secure_boot": secure_boot(),
        "loaded": loaded(node_files.text_of(LOADED)),
        "on_disk": on_disk(run),
        "gpus": seen,
        "fabric_manager": fabric_manager(run, which),
        "engines": engines(run),
        "initramfs": initramfs(which),
        "system": system,
        "lists": offered(lists, run, apt),
        **packages(run, apt),
    }


# -- to load another one ----------------------------------------------------------------------------------------------
def modules(text: str) -> List[str]:
    """The modules of the driver that are loaded, in the order in which they can be unloaded, from what lsmod prints."""
    names = {line.split()[0] for line in text.splitlines() if line.strip()}
    return [name for name in MODULES if name in names]


def reload(run: Runner) -> str:
    """Load the module that is on the disk in place of the one that runs; why that failed, empty if it did not.

    Services of the driver are stopped before and started again after it, also if it fails.
    """
    stopped = [service for service in SERVICES if run(["systemctl", "is-active", "--quiet", service])[0] == 0]
    for service in stopped:
        run(["systemctl", "stop", service])
    failed = ""
    for command in [*(["modprobe", "-r", name] for name in modules(run(["lsmod"])[1])), ["modprobe", "nvidia"]]:
        rc, out, err = run(command)
        if rc:
            failed = " ".join((err or out).split()) or f"{' '.join(command)} ended with status {rc}"
            break
    for service in reversed(stopped):
        run(["systemctl", "start", service])
    if os.path.exists(DESCRIBES):
        run(["systemctl", "restart", os.path.basename(DESCRIBES)])
    return failed
