# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network of a node as other nodes see it: its address, the interface of that, and RDMA adapters."""

from __future__ import annotations

import glob
import ipaddress
import json
import os
from typing import Any, Dict, List, Optional, Tuple

from . import files as node_files

SYSTEM = "/sys/class"


def addresses(shown: str) -> Dict[str, List[str]]:
    """The addresses of each interface, from ``ip -json address``. Those of the link alone are left out."""
    found = {}
    for interface in json.loads(shown or "[]"):
        usable = [info for info in interface.get("addr_info", []) if info.get("scope") == "global"]
        found[str(interface["ifname"])] = [str(info["local"]) for info in usable]
    return found


def default_interface(shown: str) -> str:
    """The interface of the default route, from ``ip -json route show default``; empty if there is none."""
    return next((str(route["dev"]) for route in json.loads(shown or "[]") if route.get("dev")), "")


def chosen(known: Dict[str, List[str]], default: str, address: str, interface: str) -> Tuple[str, str]:
    """The address and its interface: as set, else those of the default route. Raises ValueError where it has none."""
    if address:
        wanted = str(ipaddress.ip_address(address))
        holders = [name for name, mine in known.items() if wanted in mine]
        if not holders:
            have = ", ".join(f"{name} {' '.join(mine)}" for name, mine in sorted(known.items()) if mine)
            raise ValueError(
                f"{address} is no address of this node, which has {have or 'none'}: set vllm_node_address."
            )
        return wanted, interface or holders[0]
    name = interface or default
    if not name:
        raise ValueError(
            "This node has no default route, so which of its addresses the other nodes of its engine see is not known:"
            " set vllm_node_address."
        )
    mine = sorted(known.get(name, []), key=lambda text: ":" in text)
    if not mine:
        raise ValueError(
            f"The interface {name} of this node has no address: set vllm_node_interface or vllm_node_address."
        )
    return mine[0], name


def adapters(system: str = SYSTEM) -> List[str]:
    """The RDMA adapters with an active port."""
    states = glob.glob(f"{system}/infiniband/*/ports/*/state")
    active = {path.split(os.sep)[-4] for path in states if "ACTIVE" in node_files.text_of(path)}
    return sorted(active)


def speed_mbit_s(interface: str, system: str = SYSTEM) -> Optional[int]:
    """The speed of an interface; None if the driver does not tell."""
    text = node_files.text_of(f"{system}/net/{interface}/speed").strip()
    return int(text) if text.isdigit() and int(text) > 0 else None


def described(run: Any, address: str, interface: str) -> Dict[str, Any]:
    """What the other nodes of an engine need to know of this one. Raises ValueError with a sentence."""
    _rc, shown, _err = run(["ip", "-json", "address", "show"])
    _rc, routes, _err = run(["ip", "-json", "route", "show", "default"])
    mine, name = chosen(addresses(shown), default_interface(routes), address, interface)
    return {"address": mine, "interface": name, "hcas": adapters(), "speed_mbit_s": speed_mbit_s(name)}
