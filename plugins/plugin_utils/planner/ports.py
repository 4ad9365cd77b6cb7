# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Assign ports to instances. A running engine keeps its port when instances are added."""

from __future__ import annotations

from collections.abc import Sequence

from ...module_utils.instance.serving import Serving
from .request import HostRequest

LAST_PORT = 65535


def _kept(host_request: HostRequest, engines: Sequence[Serving]) -> dict[str, int]:
    """Ports that running engines keep: those without a `port` in the request, counted from the same first port."""
    counted = {request.name for request in host_request.instances if request.port is None}
    return {
        engine.name: engine.port
        for engine in engines
        if engine.name in counted
        and engine.port
        and engine.port >= host_request.port
        and engine.port_base in (None, host_request.port)
    }


def _held(host_request: HostRequest, engines: Sequence[Serving]) -> dict[int, str]:
    """Ports that are not available, with their owner: kept ones, and those of engines outside the plan."""
    planned = {request.name for request in host_request.instances}
    others = [] if host_request.remove_unlisted else [engine for engine in engines if engine.name not in planned]
    held = {port: name for name, port in _kept(host_request, engines).items()}
    return held | {engine.port: engine.name for engine in others if engine.port}


def _next(host_request: HostRequest, name: str, taken: set[int]) -> int:
    port = next(number for number in range(host_request.port, LAST_PORT + 2) if number not in taken)
    if port > LAST_PORT:
        raise ValueError(
            f"No port is left for {name}: counting up from port {host_request.port} ends at {LAST_PORT}. Set a lower"
            " port (vllm_port), or give it its own `port`."
        )
    return port


def ports(host_request: HostRequest, engines: Sequence[Serving] = ()) -> dict[str, int]:
    """The port of each instance: its own, else the current one, else the next free one, in the order of the names.

    Raises ValueError if a requested port belongs to another engine, or if no port is left.
    """
    held = _held(host_request, engines)
    assigned = {request.name: request.port for request in host_request.instances if request.port}
    for name, port in assigned.items():
        if port in held:
            raise ValueError(
                f"{name} wants port {port}, which {held[port]} uses: give {name} another, or give {held[port]} its own"
                " `port`."
            )
    assigned |= _kept(host_request, engines)
    taken = {*assigned.values(), *held}
    for request in host_request.instances:
        if request.name not in assigned:
            assigned[request.name] = _next(host_request, request.name, taken)
            taken.add(assigned[request.name])
    return assigned
