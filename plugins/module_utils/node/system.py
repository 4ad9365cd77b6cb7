# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the roles want to know of a node's system, under the names of the facts that ansible.builtin.setup gathers.

Whoever looks at the GPUs is told of these as well. setup would bring along the collectors of every system that it
knows, which costs more than all else that a play with nothing to do asks a node. The answers are Ansible's own: its
``sys_info`` and its ``distro``.
"""

from __future__ import annotations

import os
import platform
from typing import Any, Callable, Dict, Sequence, Tuple

from ansible.module_utils import distro
from ansible.module_utils.common import sys_info

from . import files as node_files

Runner = Callable[[Sequence[str]], Tuple[int, str, str]]

#: Names that setup spells otherwise than sys_info does.
SPELT = {"Redhat": "RedHat", "Almalinux": "AlmaLinux"}
SYSTEMD = "/run/systemd/system"  # sd_booted(3)


def facts(run: Runner) -> Dict[str, Any]:
    """The facts, with ``ansible_`` before their names."""
    name = sys_info.get_distribution() or ""
    version = sys_info.get_distribution_version() or ""
    known = {
        "architecture": platform.machine(),
        "distribution": SPELT.get(name, name),
        "distribution_major_version": version.partition(".")[0],
        "distribution_release": sys_info.get_distribution_codename() or "",
        "distribution_version": version,
        "nodename": platform.node(),
        "os_family": _family(name),
        **_manager(run),
    }
    return {f"ansible_{key}": value for key, value in known.items()}


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
