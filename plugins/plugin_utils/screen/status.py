# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the nodes of a play said of what is ours there: as text for a person, and as data for a program."""

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
#: From here on, columns of numbers.
LOAD_NUMBERS, GPU_NUMBERS = 3, 3
WORDS = "req/s: requests that ended; in and out tok/s: tokens of prompts and of answers; seen for one second."
NONE = "-"
FRONT = "front"
#: What belongs to no service, by its kind: what is said of one, of several, and what to do about it.
LEFT = {
    "job": ("still works", "still work", "journalctl -fu follows it"),
    "failed_job": ("has failed", "have failed", "journalctl -u says why, and the next run of site.yml begins it anew"),
    "second": (
        "runs beside its first one, as long as a play exchanges that",
        "run beside their first ones, as long as a play exchanges those",
        "the next run of site.yml ends it, where a play left it",
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
    """Without its registry, which is the same for all; a digest is told from others by its beginning."""
    name, at, digest = name.partition("@sha256:")
    registry, slash, path = name.partition("/")
    short = path if slash and ("." in registry or ":" in registry) else name
    return f"{short}@{digest[:12]}" if at else short


def _told(value: Any, form: str = "{}") -> str:
    return NONE if value is None else form.format(value)


def _up(seconds: int | None) -> str:
    return NONE if seconds is None else words.duration(seconds)


def load_cells(host: str, one: Mapping[str, Any]) -> tuple[str, ...]:
    """What an instance has to do."""
    return (
        host,
        one["name"],
        one["state"],
        _up(one["since_s"]),
        _told(one["requests_running"]),
        _told(one["requests_waiting"]),
        _told(one["requests_per_s"], "{:g}"),
        _told(one["prompt_tokens_per_s"], "{:.0f}"),
        _told(one["generation_tokens_per_s"], "{:.0f}"),
        _told(one["kv_cache_usage"], "{:.0%}"),
    )


def gpu_cells(host: str, one: Mapping[str, Any]) -> tuple[str, ...]:
    """What its GPUs do: how busy they are on average, all that they draw, the hottest of them."""
    used, total, limit = one["gpu_memory_used_mib"], one["gpu_memory_mib"], one["gpu_power_limit_w"]
    return (
        host,
        one["name"],
        numbered(one["gpus"]).split(" ", 1)[1],
        _told(one["gpu_utilization_percent"], "{:.0f} %"),
        _told(one["gpu_power_w"], "{:.0f}" if limit is None else f"{{:.0f}} of {limit:.0f} W"),
        _told(one["gpu_temperature_c"], "{:.0f} C"),
        NONE if total is None else f"{used / 1024:.1f} of {total / 1024:.1f} GiB",
    )


def _front_state(said: Mapping[str, Any]) -> str:
    """In the words that instances have."""
    active = str(said["front"]).partition("/")[0]
    return "serving" if active == "active" else active


def _load_rows(host: str, said: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rows = [load_cells(host, one) for one in said["instances"]]
    if said.get("front"):
        empty = (NONE,) * (len(LOAD) - 4)
        rows.append((host, FRONT, _front_state(said), _up(said.get("front_since_s")), *empty))
    return rows


def _about(host: str, said: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What each is, beside its name."""
    told = []
    for one in said["instances"]:
        revision = f" at {one['revision'][:8]}" if one["revision"] else ""
        what = [f"{one['unit']} {one['unit_state']}", f"{one['model']}{revision}", _image(one["image"]), one["url"]]
        told.append((f"{host} {one['name']}", ", ".join(part for part in what if part)))
    if said.get("front"):
        places = [place.replace(" ", ":") for place in said.get("front_listens", [])]
        listens = f", listens on {' and '.join(places)}" if places else ""
        told.append((f"{host} {FRONT}", f"{GATEWAY_UNIT} {said['front']}{listens}"))
    return told


def _left(host: str, leftovers: Sequence[Mapping[str, str]]) -> list[str]:
    """A sentence for each kind of what belongs to no service."""
    told = []
    for kind, (one, several, remedy) in LEFT.items():
        names = [left["name"] for left in leftovers if left["kind"] == kind]
        if len(names) == 1:
            told.append(f"{host}: {names[0]} {one}: {remedy}.")
        elif names:
            told.append(f"{host}: {', '.join(names)} {several}: {remedy.replace(' it', ' them')}.")
    return told


def _of_instance(host: str, one: Mapping[str, Any]) -> list[str]:
    told = []
    if not one["healthy"]:
        told.append(sentences(f"{host} {one['name']} is {one['state']}: {one['detail']}", one["remedy"]))
    if one["healthy"] and one["restarts"]:
        times = "once" if one["restarts"] == 1 else f"{one['restarts']} times"
        told.append(f"{host} {one['name']} has ended and was started again {times}: journalctl -u {one['unit']}")
    if one["restart_due"]:
        told.append(f"{host} {one['name']}: {one['restart_due']} has changed since it was started.")
    if not one["enabled"]:
        told.append(f"{host} {one['name']} does not start with the node: systemctl enable {one['unit']}")
    if one.get("listed") is False:
        told.append(
            f"{host} {one['name']} is no longer listed and stays: gpunode.llm.site with -e vllm_remove_unlisted=true"
            " removes it."
        )
    return told


def notes(host: str, said: Mapping[str, Any]) -> list[str]:
    """What the tables have no room for: causes, remedies, what is about to change, and what is left over."""
    told = [sentence for one in said["instances"] for sentence in _of_instance(host, one)]
    if said.get("front") and not said["front"].startswith("active/"):
        told.append(f"{host}: the front before its engines is {said['front']}: journalctl -u gpunode-gateway says why")
    if said.get("gpu_message"):
        told.append(f"{host}: {said['gpu_message']}")
    return told + _left(host, said.get("leftovers", []))


DATA = ("docker_runs", "front", "front_since_s", "front_listens", "leftovers", "gpu_message", "instances")


def _unhealthy(host: str, said: Mapping[str, Any]) -> list[str]:
    ill = [f"{host} {one['name']} ({one['state']})" for one in said["instances"] if not one["healthy"]]
    front = said.get("front") and _front_state(said) != "serving"
    return [*ill, *([f"{host} {FRONT} ({_front_state(said)})"] if front else [])]


def tables(nodes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What instances have to do, and what their GPUs do."""
    rows = [row for host, said in nodes.items() for row in _load_rows(host, said)]
    ours = [(host, one) for host, said in nodes.items() for one in said["instances"] if one["gpus"]]
    load = screen_text.columns([LOAD, *rows], range(LOAD_NUMBERS, len(LOAD))) if rows else []
    gpus = (
        screen_text.columns([GPUS, *(gpu_cells(*one) for one in ours)], range(GPU_NUMBERS, len(GPUS))) if ours else []
    )
    return [*load, *([""] if gpus else []), *gpus, *(["", *screen_text.wrapped(WORDS)] if rows else [])]


def _parts(*parts: Sequence[str]) -> list[str]:
    """With an empty line between any two of them."""
    return [line for part in parts if part for line in ("", *part)][1:]


def report(nodes: Mapping[str, Mapping[str, Any]], short: bool = False) -> dict[str, Any]:
    """Text, notes and data of all nodes; a node that said nothing is one that could not be asked.

    ``short``: the text is without what does not change from look to look.
    """
    told, data, unhealthy = [], {}, []
    asked = {host: said for host, said in nodes.items() if "instances" in said}
    for host, said in nodes.items():
        if host not in asked:
            told.append(f"{host} could not be asked: {said.get('msg') or 'it was not reached'}")
            data[host] = {"asked": False}
            continue
        if not said["instances"]:
            told.append(f"{host} serves nothing.")
        told += notes(host, said)
        unhealthy += _unhealthy(host, said)
        data[host] = {"asked": True, **{key: said[key] for key in DATA if key in said}}
    about = [] if short else screen_text.pairs([pair for host, said in asked.items() for pair in _about(host, said)])
    noted = [line for note in told for line in screen_text.wrapped(note, rest="  ")]
    text = _parts(tables(asked), about, noted)
    return {"schema": SCHEMA, "text": text, "notes": told, "nodes": data, "unhealthy": unhealthy}
