# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The address that several gateways share: which hosts have it by turns, and what stands against that."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...module_utils.instance import names
from ..values import typed

#: The first host's priority; each further one has one less.
FIRST_PRIORITY = 200
#: keepalived reads no more than eight characters.
_PASSWORD = re.compile(r"[A-Za-z0-9]{1,8}\Z")
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}\Z")


def is_ipv4(text: Any) -> bool:
    try:
        return bool(ipaddress.IPv4Address(str(text)))
    except ValueError:
        return False


def address(value: Any) -> str:
    """Read the address, without a prefix."""
    if value and not is_ipv4(value):
        raise ValueError(f"gateway_shared_address must be an IPv4 address such as 10.0.0.100, not {value!r}.")
    return str(value)


def interface(value: Any) -> str:
    if value and not _INTERFACE.match(str(value)):
        raise ValueError(f"gateway_shared_interface must be the name of an interface such as eth0, not {value!r}.")
    return str(value)


def peers(value: Any) -> Mapping[str, str]:
    """Read the hosts and their addresses, which site.yml sets."""
    if not isinstance(value, Mapping):
        raise ValueError(f"gateway_shared_peers must be a dictionary of hosts and their addresses, not {value!r}.")
    return {str(host): str(own) for host, own in value.items()}


def from_inventory(hosts: Sequence[str], *addresses: Sequence[Any]) -> dict[str, str]:
    """Each host with the first of its addresses that others reach; empty if none is known."""
    rows = zip(*addresses, strict=True) if hosts else ()
    return {host: next(filter(_is_from_afar, row), "") for host, row in zip(hosts, rows, strict=True)}


def _is_from_afar(text: Any) -> bool:
    return is_ipv4(text) and not ipaddress.IPv4Address(str(text)).is_loopback


def password_findings(password: Any) -> list[str]:
    """Findings about the password. None contains it."""
    text = typed("gateway_shared_password", password)
    if text and not _PASSWORD.match(str(text)):
        return ["gateway_shared_password must be at most 8 letters and digits: keepalived reads no more."]
    return []


def findings(shared: str, interface: str, peers: Mapping[str, str], node: str, listens_on: str) -> list[str]:
    """What stands against sharing an address on this node; nothing where none is shared."""
    if not shared:
        return []
    found = []
    if listens_on not in ("0.0.0.0", "::"):
        found.append(f"gateway_host is {listens_on}, where {shared} is not heard: leave gateway_host at 0.0.0.0.")
    if not interface:
        found.append(f"This node has no default route, so {shared} has no interface: set gateway_shared_interface.")
    if len(peers) < 2 or node not in peers:
        listed = ", ".join(peers) or "none"
        found.append(
            f"{shared} needs two hosts with a gateway and this gateway_shared_address, and the inventory has {listed}."
        )
    if unknown := [host for host, own in peers.items() if not is_ipv4(own)]:
        found.append(
            f"No IPv4 address of {', '.join(unknown)} is known here: run the play over it as well, or set its"
            " ansible_host to its address."
        )
    found += [
        f"gateway_shared_address is {shared}, the address of {host} itself. Choose one that no host has."
        for host, own in peers.items()
        if own == shared
    ]
    return found


def plan(shared: str, peers: Mapping[str, str], node: str) -> dict[str, Any]:
    """What keepalived is told on this node, and its unit."""
    hosts = list(peers)
    return {
        "unit": names.GATEWAY_ADDRESS_UNIT,
        "unit_path": f"{names.UNIT_DIR}/{names.GATEWAY_ADDRESS_UNIT}",
        "run_dir": names.run_dir(names.GATEWAY_ADDRESS_UNIT),
        "started_from": names.started_from(names.GATEWAY_ADDRESS_UNIT),
        "own": peers.get(node, ""),
        "others": [own for host, own in peers.items() if host != node],
        "priority": FIRST_PRIORITY - (hosts.index(node) if node in hosts else 0),
        "enabled": bool(shared),
    }
