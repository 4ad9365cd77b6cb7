# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The status of all nodes of a play, as text for people and as data for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...module_utils.instance.names import GATEWAY_UNIT
from ...module_utils.node import words
from ...module_utils.node.schema import SCHEMA
from ...module_utils.programs.diagnosis import sentences
from ..planner.host import numbered
from . import text as screen_text

LOAD = ("host", "instance", "state", "up", "run", "wait", "req/s", "in tok/s", "out tok/s", "KV")
GPUS = ("host", "instance", "GPUs", "busy", "power", "hottest", "memory")
#: Index of the first column with numbers, which is aligned to the right.
LOAD_NUMBERS, GPU_NUMBERS = 3, 3
WORDS = "req/s: requests that ended; in and out tok/s: tokens of prompts and of answers; seen for one second."
NONE = "-"
GATEWAY, ROUTER = "gateway", "router"
#: Leftovers by kind: the words for one, for several, and the remedy.
LEFT = {
    "job": ("still works", "still work", "journalctl -fu follows it"),
    "failed_job": ("has failed", "have failed", "journalctl -u says why, and the next run of that play begins it anew"),
    "second": (
        "runs beside its first one, as long as a play exchanges that",
        "run beside their first ones, as long as a play exchanges those",
        "the next run of site.yml ends it, where a play left it",
    ),
    "trial": (
        "is of a tune that has ended",
        "are of tunes that have ended",
        "the next tune or the next boot removes it",
    ),
    "image": ("is an image that no service uses", "are images that no service uses", "docker image rm removes it"),
    "model": (
        "is a model that no service uses",
        "are models that no service uses",
        "gpunode.llm.prune -e huggingface_prune_unlisted=true removes it",
    ),
    "file": ("belongs to no service", "belong to no service", "nothing reads it, so it may go"),
}


def _image(name: str) -> str:
    """The image without its registry, and with a shortened digest."""
    name, at, digest = name.partition("@sha256:")
    registry, slash, path = name.partition("/")
    short = path if slash and ("." in registry or ":" in registry) else name
    return f"{short}@{digest[:12]}" if at else short


def _cell(value: Any, form: str = "{}") -> str:
    return NONE if value is None else form.format(value)


def _up(seconds: int | None) -> str:
    return NONE if seconds is None else words.duration(seconds)


def load_cells(host: str, instance: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of the load table: what an instance is doing."""
    return (
        host,
        instance["name"],
        instance["state"],
        _up(instance["since_s"]),
        _cell(instance["requests_running"]),
        _cell(instance["requests_waiting"]),
        _cell(instance["requests_per_s"], "{:g}"),
        _cell(instance["prompt_tokens_per_s"], "{:.0f}"),
        _cell(instance["generation_tokens_per_s"], "{:.0f}"),
        _cell(instance["kv_cache_usage"], "{:.0%}"),
    )


def gpu_cells(host: str, instance: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of the GPU table: average utilisation, total power, hottest GPU, memory."""
    used, total, limit = instance["gpu_memory_used_mib"], instance["gpu_memory_mib"], instance["gpu_power_limit_w"]
    return (
        host,
        instance["name"],
        numbered(instance["gpus"]).split(" ", 1)[1],
        _cell(instance["gpu_utilization_percent"], "{:.0f} %"),
        _cell(instance["gpu_power_w"], "{:.0f}" if limit is None else f"{{:.0f}} of {limit:.0f} W"),
        _cell(instance["gpu_temperature_c"], "{:.0f} C"),
        NONE if total is None else f"{used / 1024:.1f} of {total / 1024:.1f} GiB",
    )


def _gateway_state(status: Mapping[str, Any]) -> str:
    """The gateway's state, in the words used for instances."""
    active = str(status["front"]).partition("/")[0]
    return "serving" if active == "active" else active


def _shown(status: Mapping[str, Any], nodes: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The instances of a node without ranks of an engine whose head is shown: an engine over several nodes is one."""
    return [
        instance
        for instance in status["instances"]
        if not instance.get("rank") or instance["nodes"][0] not in nodes or not instance["healthy"]
    ]


def _router_state(router: Mapping[str, Any]) -> str:
    """The router's state. One of its two processes is enough."""
    answers = any(process["answers"] for process in router["processes"])
    return ("serving" if router["workers_ready"] or not router["workers"] else "no engine") if answers else "down"


def _router_notes(host: str, router: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{host}: {process['unit']} is {process['state']} and does not answer: journalctl -u {process['unit']} says why"
        for process in router["processes"]
        if not process["answers"]
    ]
    if router["not_ready"]:
        lines.append(
            f"{host}: the router sends nothing to {', '.join(router['not_ready'])}: status of that node says why"
        )
    return lines


def _load_rows(host: str, status: Mapping[str, Any], nodes: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rows = [load_cells(host, instance) for instance in _shown(status, nodes)]
    if status.get("front"):
        empty = (NONE,) * (len(LOAD) - 4)
        rows.append((host, GATEWAY, _gateway_state(status), _up(status.get("front_since_s")), *empty))
    if status.get("router"):
        rows.append((host, ROUTER, _router_state(status["router"]), *(NONE,) * (len(LOAD) - 3)))
    return rows


def _place(instance: Mapping[str, Any]) -> str:
    """Where the other ranks of its engine are; empty for an engine on one node."""
    nodes = instance.get("nodes") or []
    if not nodes:
        return ""
    return f"rank {instance['rank']} of the engine on {nodes[0]}" if instance["rank"] else f"over {', '.join(nodes)}"


def _about(host: str, status: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Label and details of each service."""
    lines = []
    for instance in status["instances"]:
        revision = f" at {instance['revision'][:8]}" if instance["revision"] else ""
        what = [
            f"{instance['unit']} {instance['unit_state']}",
            f"{instance['model']}{revision}",
            _image(instance["image"]),
            instance["url"],
            _place(instance),
        ]
        lines.append((f"{host} {instance['name']}", ", ".join(part for part in what if part)))
    if status.get("front"):
        places = [place.replace(" ", ":") for place in status.get("front_listens", [])]
        listens = f", listens on {' and '.join(places)}" if places else ""
        lines.append((f"{host} {GATEWAY}", f"{GATEWAY_UNIT} {status['front']}{listens}"))
    if status.get("router"):
        router = status["router"]
        units = ", ".join(f"{process['unit']} {process['state']}" for process in router["processes"])
        lines.append(
            (f"{host} {ROUTER}", f"{units}, {router['workers_ready']} of {router['workers']} engines get requests")
        )
    return lines


def _left(host: str, leftovers: Sequence[Mapping[str, str]]) -> list[str]:
    """One sentence for each kind of leftover."""
    lines = []
    for kind, (singular, plural, remedy) in LEFT.items():
        names = [left["name"] for left in leftovers if left["kind"] == kind]
        if len(names) == 1:
            lines.append(f"{host}: {names[0]} {singular}: {remedy}.")
        elif names:
            lines.append(f"{host}: {', '.join(names)} {plural}: {remedy.replace(' it', ' them')}.")
    return lines


def _of_instance(host: str, instance: Mapping[str, Any]) -> list[str]:
    lines = []
    if not instance["healthy"]:
        lines.append(
            sentences(f"{host} {instance['name']} is {instance['state']}: {instance['detail']}", instance["remedy"])
        )
    if instance["healthy"] and instance["restarts"]:
        times = "once" if instance["restarts"] == 1 else f"{instance['restarts']} times"
        lines.append(
            f"{host} {instance['name']} has ended and was started again {times}: journalctl -u {instance['unit']}"
        )
    if instance["restart_due"]:
        lines.append(f"{host} {instance['name']}: {instance['restart_due']} has changed since it was started.")
    if not instance["enabled"]:
        lines.append(f"{host} {instance['name']} does not start with the node: systemctl enable {instance['unit']}")
    if instance.get("listed") is False:
        lines.append(
            f"{host} {instance['name']} is no longer listed and stays: gpunode.llm.site with"
            " -e vllm_remove_unlisted=true removes it."
        )
    return lines


def notes(host: str, status: Mapping[str, Any]) -> list[str]:
    """Notes below the tables: causes, remedies, pending restarts and leftovers."""
    lines = [note for instance in status["instances"] for note in _of_instance(host, instance)]
    if status.get("front") and not status["front"].startswith("active/"):
        lines.append(f"{host}: the gateway is {status['front']}: journalctl -u gpunode-gateway says why")
    lines += _router_notes(host, status["router"]) if status.get("router") else []
    if status.get("gpu_message"):
        lines.append(f"{host}: {status['gpu_message']}")
    return lines + _left(host, status.get("leftovers", []))


DATA = ("docker_runs", "front", "front_since_s", "front_listens", "router", "leftovers", "gpu_message", "instances")


def _unhealthy(host: str, status: Mapping[str, Any]) -> list[str]:
    unhealthy = [
        f"{host} {instance['name']} ({instance['state']})"
        for instance in status["instances"]
        if not instance["healthy"]
    ]
    gateway_down = status.get("front") and _gateway_state(status) != "serving"
    unhealthy += [f"{host} {GATEWAY} ({_gateway_state(status)})"] if gateway_down else []
    router = status.get("router") or {}
    router_down = router and _router_state(router) != "serving"
    return [*unhealthy, *([f"{host} {ROUTER} ({_router_state(router)})"] if router_down else [])]


def tables(nodes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The load table and the GPU table."""
    rows = [row for host, status in nodes.items() for row in _load_rows(host, status, nodes)]
    with_gpus = [
        (host, instance) for host, status in nodes.items() for instance in status["instances"] if instance["gpus"]
    ]
    load = screen_text.columns([LOAD, *rows], range(LOAD_NUMBERS, len(LOAD))) if rows else []
    gpus = (
        screen_text.columns([GPUS, *(gpu_cells(*row) for row in with_gpus)], range(GPU_NUMBERS, len(GPUS)))
        if with_gpus
        else []
    )
    return [*load, *([""] if gpus else []), *gpus, *(["", *screen_text.wrapped(WORDS)] if rows else [])]


def _parts(*parts: Sequence[str]) -> list[str]:
    """Join the parts with an empty line between them."""
    return [line for part in parts if part for line in ("", *part)][1:]


def report(nodes: Mapping[str, Mapping[str, Any]], short: bool = False) -> dict[str, Any]:
    """Text, notes and data of all nodes. A node without an answer was not reachable.

    ``short``: leave out of the text what does not change between refreshes.
    """
    lines, data, unhealthy = [], {}, []
    reached = {host: status for host, status in nodes.items() if "instances" in status}
    for host, status in nodes.items():
        if host not in reached:
            lines.append(f"{host} could not be asked: {status.get('msg') or 'it was not reached'}")
            data[host] = {"asked": False}
            continue
        if not status["instances"] and not status.get("router"):
            lines.append(f"{host} serves nothing.")
        lines += notes(host, status)
        unhealthy += _unhealthy(host, status)
        data[host] = {"asked": True, **{key: status[key] for key in DATA if key in status}}
    about = (
        [] if short else screen_text.pairs([pair for host, status in reached.items() for pair in _about(host, status)])
    )
    noted = [line for note in lines for line in screen_text.wrapped(note, rest="  ")]
    text = _parts(tables(reached), about, noted)
    return {"schema": SCHEMA, "text": text, "notes": lines, "nodes": data, "unhealthy": unhealthy}
