# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who gets which port. What serves keeps the one that it has, whoever comes beside it."""

from __future__ import annotations

from collections.abc import Sequence

from ...module_utils.instance.serving import Serving
from .request import Request

LAST_PORT = 65535


def _kept(request: Request, engines: Sequence[Serving]) -> dict[str, int]:
    """What serves keeps its port, unless it is given one of its own or is to be counted from another than before."""
    counted = {wish.name for wish in request.instances if wish.port is None}
    return {
        engine.name: engine.port
        for engine in engines
        if engine.name in counted
        and engine.port
        and engine.port >= request.port
        and engine.port_base in (None, request.port)
    }


def _held(request: Request, engines: Sequence[Serving]) -> dict[int, str]:
    """Whose each port is that nobody else may have: what is kept, and what engines that are not planned serve on."""
    planned = {wish.name for wish in request.instances}
    others = [] if request.remove_unlisted else [one for one in engines if one.port and one.name not in planned]
    held = {port: name for name, port in _kept(request, engines).items()}
    return held | {one.port: one.name for one in others if one.port}


def _next(request: Request, name: str, taken: set[int]) -> int:
    port = next(number for number in range(request.port, LAST_PORT + 2) if number not in taken)
    if port > LAST_PORT:
        raise ValueError(
            f"No port is left for {name}: counting up from port {request.port} ends at {LAST_PORT}. Set a lower port"
            " (vllm_port), or give it a `port` of its own."
        )
    return port


def ports(request: Request, engines: Sequence[Serving] = ()) -> dict[str, int]:
    """The port of each instance: its own, else the one that it has, else the next free one, in the order of the names.

    Raises ValueError where a wish meets a port that somebody keeps, or where counting passes the last port.
    """
    held = _held(request, engines)
    found = {wish.name: wish.port for wish in request.instances if wish.port}
    for name, port in found.items():
        if port in held:
            raise ValueError(
                f"{name} wants port {port}, on which {held[port]} serves: give {name} another, or {held[port]} a `port`"
                " of its own."
            )
    found |= _kept(request, engines)
    taken = {*found.values(), *held}
    for wish in request.instances:
        if wish.name not in found:
            found[wish.name] = _next(request, wish.name, taken)
            taken.add(found[wish.name])
    return found
