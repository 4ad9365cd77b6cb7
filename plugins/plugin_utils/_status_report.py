# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the nodes of a play said of their instances, as a table for a person and as data for a program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.gpunode.llm.plugins.module_utils._diagnosis import sentences

HEAD = ("host", "instance", "state", "unit", "up", "model", "revision", "image", "run", "wait", "KV", "GPU_GiB")
#: Columns of numbers.
RIGHT = ("up", "run", "wait", "KV", "GPU_GiB")
NONE = "-"


def duration(seconds: int | None) -> str:
    """The two largest parts of a time: 3d4h, 5m12s."""
    if seconds is None:
        return NONE
    parts = ((seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s"))
    first = next((index for index, (count, _unit) in enumerate(parts) if count), len(parts) - 1)
    return "".join(f"{count}{unit}" for count, unit in parts[first : first + 2])


def _image(name: str) -> str:
    """Without its registry, which is the same for all; a digest is told from others by its beginning."""
    name, at, digest = name.partition("@sha256:")
    registry, slash, path = name.partition("/")
    short = path if slash and ("." in registry or ":" in registry) else name
    return f"{short}@{digest[:12]}" if at else short


def _count(number: int | None) -> str:
    return NONE if number is None else str(number)


def cells(host: str, one: Mapping[str, Any]) -> tuple[str, ...]:
    """An instance as people read it."""
    usage, used, total = one["kv_cache_usage"], one["gpu_memory_used_mib"], one["gpu_memory_mib"]
    return (
        host,
        one["name"],
        one["state"],
        one["unit_state"],
        duration(one["since_s"]),
        one["model"] or NONE,
        one["revision"][:8] or NONE,
        _image(one["image"]) or NONE,
        _count(one["requests_running"]),
        _count(one["requests_waiting"]),
        NONE if usage is None else f"{usage:.0%}",
        NONE if total is None else f"{used / 1024:.1f}/{total / 1024:.1f}",
    )


def _lines(rows: Sequence[tuple[str, ...]]) -> list[str]:
    table = [HEAD, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEAD))]

    def line(row: tuple[str, ...]) -> str:
        pairs = zip(HEAD, row, widths)
        return "  ".join(cell.rjust(w) if name in RIGHT else cell.ljust(w) for name, cell, w in pairs).rstrip()

    return [line(row) for row in table]


def notes(host: str, said: Mapping[str, Any]) -> list[str]:
    """What the table has no room for: causes, remedies, and what is about to change."""
    told = []
    for one in said["instances"]:
        if not one["healthy"]:
            told.append(sentences(f"{host} {one['name']} is {one['state']}: {one['detail']}", one["remedy"]))
        if one["healthy"] and one["restarts"]:
            times = "once" if one["restarts"] == 1 else f"{one['restarts']} times"
            told.append(f"{host} {one['name']} has ended and was started again {times}: journalctl -u {one['unit']}")
        if one["restart_due"]:
            told.append(f"{host} {one['name']}: {one['restart_due']} has changed since it was started.")
        if not one["enabled"]:
            told.append(f"{host} {one['name']} does not start with the node: systemctl enable {one['unit']}")
    if said.get("front") and not said["front"].startswith("active/"):
        told.append(f"{host}: the front before its engines is {said['front']}: journalctl -u gpunode-gateway says why")
    if said.get("gpu_message"):
        told.append(f"{host}: {said['gpu_message']}")
    return told


def report(nodes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Table, notes and data of all nodes; a node that said nothing is one that could not be asked."""
    rows, told, data, unhealthy = [], [], {}, []
    for host, said in nodes.items():
        if "instances" not in said:
            told.append(f"{host} could not be asked: {said.get('msg') or 'it was not reached'}")
            data[host] = {"asked": False}
            continue
        if not said["instances"]:
            told.append(f"{host} serves nothing.")
        rows += [cells(host, one) for one in said["instances"]]
        told += notes(host, said)
        unhealthy += [f"{host} {one['name']} ({one['state']})" for one in said["instances"] if not one["healthy"]]
        data[host] = {"asked": True, **{key: said[key] for key in ("docker_runs", "front", "gpu_message", "instances")}}
    return {"table": _lines(rows) if rows else [], "notes": told, "nodes": data, "unhealthy": unhealthy}
