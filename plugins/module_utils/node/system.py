# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts of a node's system that the roles need, under the names that ansible.builtin.setup uses.

gpu_info returns them with the GPUs. setup would bring the collectors of every system, which costs more than everything
else that a play with nothing to do asks a node. The values come from Ansible's own ``sys_info`` and ``distro``.
"""

from __future__ import annotations

import os
import platform
import socket
from typing import Any, Callable, Dict, Sequence, Tuple

from ansible.module_utils import distro
from ansible.module_utils.common import sys_info

from . import files as node_files

Runner = Callable[[Sequence[str]], Tuple[int, str, str]]

#: The kernel's routes, a line each, and an address for documentation: it has no route of its own.
ROUTES, NOWHERE = "/proc/net/route", "192.0.2.1"
#: Names that setup spells differently from sys_info.
SPELT = {"Redhat": "RedHat", "Almalinux": "AlmaLinux"}
SYSTEMD = "/run/systemd/system"  # sd_booted(3)


def facts(run: Runner) -> Dict[str, Any]:
    """The facts, with ``ansible_`` before their names."""
    name = sys_info.get_distribution() or ""
    version = sys_info.get_distribution_version() or ""
    known = {
        "architecture": platform.machine(),
        "default_ipv4": _default_route(node_files.text_of(ROUTES)),
        "distribution": SPELT.get(name, name),
        "distribution_major_version": version.partition(".")[0],
        "distribution_release": sys_info.get_distribution_codename() or "",
        "distribution_version": version,
        "nodename": platform.node(),
        "os_family": _family(name),
        **_manager(run),
    }
    return {f"ansible_{key}": value for key, value in known.items()}


def _default_route(routes: str) -> Dict[str, str]:
    """Interface and own address of the default route; nothing if there is none. No packet is sent for that."""
    lines = [line.split() for line in routes.splitlines()[1:]]
    found = sorted((int(line[6]), line[0]) for line in lines if line[1] == line[7] == "00000000")
    if not found:
        return {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((NOWHERE, 9))
        except OSError:  # a rule of its own forbids it
            return {}
        return {"interface": found[0][1], "address": probe.getsockname()[0]}


def _family(name: str) -> str:
    kin = {distro.id(), *distro.like().split()}
    return "Debian" if "debian" in kin else "RedHat" if kin & {"rhel", "fedora"} else name


def _manager(run: Runner) -> Dict[str, Any]:
    if not os.path.isdir(SYSTEMD):
        return {"service_mgr": node_files.text_of("/proc/1/comm").strip()}
    # "systemd 252 (252.38-1~deb12u1)"
    _rc, out, _err = run(["systemctl", "--version"])
    words = out.split()
    return {"service_mgr": "systemd", "systemd": {"version": int(words[1]) if len(words) > 1 else 0}}
