# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes with and without a driver, as driver_info tells of them."""

from __future__ import annotations

from typing import Any

UBUNTU = {"distribution": "Ubuntu", "distribution_version": "24.04", "distribution_major_version": "24"}
DEBIAN = {"distribution": "Debian", "distribution_version": "12.11", "distribution_major_version": "12"}
ROCKY = {"distribution": "Rocky", "distribution_version": "9.6", "distribution_major_version": "9"}
KERNELS = {"Ubuntu": "6.8.0-60-generic", "Debian": "6.1.0-41-amd64", "Rocky": "5.14.0-687.51.1.el9_8.x86_64"}


def board(device: str = "2330", driver: str = "") -> dict[str, Any]:
    return {"address": "0000:19:00.0", "device_id": f"10de:{device}", "driver": driver}


def process(owner: str = "", name: str = "python", pid: int = 7) -> dict[str, Any]:
    return {"pid": pid, "name": name, "owner": owner, "used_mib": 1000}


def node(
    system: dict[str, str] = DEBIAN,
    boards: tuple[dict[str, Any], ...] = (board(),),
    loaded: str = "",
    disk: str = "",
    packages: dict[str, str] | None = None,
    switches: int = 0,
    processes: tuple[dict[str, Any], ...] = (),
    **other: Any,
) -> dict[str, Any]:
    gpus = [{"processes": list(processes)}] if loaded else []
    facts = {"architecture": "x86_64", **system}
    return {
        "kernel": KERNELS[system["distribution"]],
        "headers": True,
        "secure_boot": None,
        "loaded": {"version": loaded, "open": True},
        "on_disk": {"version": disk, "open": True},
        "gpus": {
            "pci_gpus": list(boards),
            "nvswitches": switches,
            "gpus": gpus,
            "state": "ok",
            "driver_version": loaded,
        },
        "fabric_manager": "",
        "engines": [],
        "initramfs": [],
        "system": {f"ansible_{name}": value for name, value in facts.items()},
        "packages": packages or {},
        "held": [],
        "lists": {},
        **other,
    }


def lists(versions: dict[str, str | list[str]]) -> dict[str, list[str]]:
    return {name: [found] if isinstance(found, str) else found for name, found in versions.items()}
