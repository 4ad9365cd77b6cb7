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
from typing import Any, Callable, Dict, Sequence, Tuple

from ansible.module_utils import distro
from ansible.module_utils.common import sys_info

from . import files as node_files

Runner = Callable[[Sequence[str]], Tuple[int, str, str]]

#: Names that setup spells differently from sys_info.
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
