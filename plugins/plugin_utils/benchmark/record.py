# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Records of a benchmark and of a tune: read them, check them, and take figures from them.

A record stays the mapping that the node wrote: whatever it holds beside what is checked here is kept.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from ...module_utils.node import files
from ...module_utils.node.schema import SCHEMA, number_of

Record = Mapping[str, Any]
Point = Mapping[str, Any]

#: An id is part of file names on the controller, and a node wrote it.
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
#: Longest value that a message shows.
_SHOWN = 40


@dataclass(frozen=True)
class Maybe:
    """A value that may be null or missing."""

    of: Any


PERCENTILES = Maybe({"p50": Maybe("number"), "p99": Maybe("number")})
POINT = {
    "concurrency": "count",
    "repeat": "count",
    "completed": "number",
    "failed": "number",
    "output_tokens_per_s": "number",
    "requests_per_s": Maybe("number"),
    "goodput_requests_per_s": Maybe("number"),
    "ttft_ms": PERCENTILES,
    "tpot_ms": PERCENTILES,
    "itl_ms": PERCENTILES,
    "e2e_ms": PERCENTILES,
    "client_cpu_share": Maybe("number"),
    "others": Maybe("number"),
    "preemptions": Maybe("number"),
    "acceptance_rate": Maybe("number"),
    "power_w": Maybe({"mean": Maybe("number"), "max": Maybe("number")}),
    "tokens_per_joule": Maybe("number"),
    "errors": Maybe(["text"]),
}
_QUALITY = Maybe({"task": "text", "questions": "number", "score": "number", "stderr": Maybe("number")})
_COMMON = {
    "id": "id",
    "date": "text",
    "node": {"name": "text", "gpus": [{"name": "text"}]},
    "engine": {"name": "text", "version": "text", "options": Maybe({}), "env": Maybe({})},
    "model": {"repo_id": "text", "revision": Maybe("text"), "instance": Maybe("text"), "served": Maybe("text")},
    "goals": Maybe({}),
}
RECORD = {**_COMMON, "label": Maybe("text"), "profile": {"name": "text"}, "quality": _QUALITY, "points": [POINT]}
_CANDIDATE = {
    "name": "text",
    "options": Maybe({}),
    "env": Maybe({}),
    "state": "text",
    "why": Maybe("text"),
    "score": Maybe("number"),
    "quality": _QUALITY,
    "points": Maybe([POINT]),
}
TUNE = {
    **_COMMON,
    "objective": "text",
    "profile": "text",
    "baseline": Maybe("text"),
    "best": Maybe("text"),
    "candidates": [_CANDIDATE],
}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


#: What a shape is called, and whether a value has it.
_PLAIN: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "text": ("a text", lambda value: isinstance(value, str)),
    "number": ("a number", _is_number),
    "count": ("a whole number from 1", lambda value: _is_number(value) and value >= 1 and value == int(value)),
    "id": ("a name of letters, digits, dots and dashes", lambda value: bool(_ID.fullmatch(str(value)))),
}


def _check(where: str, value: Any, shape: Any) -> None:
    """Raise ValueError with the first place whose value has another shape."""
    if isinstance(shape, Maybe):
        if value is not None:
            _check(where, value, shape.of)
    elif isinstance(shape, str):
        named, holds = _PLAIN[shape]
        if not holds(value):
            raise ValueError(f"{where} must be {named}, not {_short(value)}")
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise ValueError(f"{where} must be a list, not {_short(value)}")
        for at, item in enumerate(value):
            _check(f"{where}[{at}]", item, shape[0])
    else:
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} must be a dictionary, not {_short(value)}")
        for key, inner in shape.items():
            _check(f"{where}.{key}" if where else key, value.get(key), inner)


def _short(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def is_tune(content: Mapping[str, Any]) -> bool:
    """Whether it is the record of a tune, which has candidates."""
    return "candidates" in content


def checked(content: Any, what: str) -> Record:
    """A record of a benchmark or of a tune, as it is.

    Args:
        content: what a node returned or a file holds.
        what: what a message calls it, such as the path.
    Raises:
        ValueError: it is no record, or of a newer schema; the message is one sentence.
    """
    if not isinstance(content, Mapping) or number_of(content) is None:
        raise ValueError(f"{what} is no record of a benchmark or a tune: it has no number `schema`.")
    number = number_of(content)
    if number != SCHEMA:
        raise ValueError(
            f"{what} has schema {number}, and this release of gpunode.llm reads schema {SCHEMA}: use the release that"
            " wrote it, or a newer one."
        )
    try:
        _check("", content, TUNE if is_tune(content) else RECORD)
    except ValueError as error:
        raise ValueError(f"{what} is no complete record of a benchmark or a tune: {error}.") from None
    return content


def read(path: str) -> Record:
    """The record in a file on the controller. Raises ValueError with one sentence if there is none."""
    try:
        content = json.loads(files.read_text(path))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}.") from None
    except ValueError:  # neither UTF-8 nor JSON
        raise ValueError(f"{path} is no record of a benchmark or a tune: it is not JSON.") from None
    return checked(content, path)


def by_concurrency(points: Iterable[Point]) -> dict[int, list[Point]]:
    """The repeats of each point of the sweep, by rising concurrency."""
    grouped: dict[int, list[Point]] = {}
    for point in points:
        grouped.setdefault(int(point["concurrency"]), []).append(point)
    return dict(sorted(grouped.items()))


def figure(point: Point, name: str) -> float | None:
    """A figure of a point by its name, such as ``ttft_ms.p99``; None where there is none."""
    value: Any = point
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return float(value) if _is_number(value) else None


def values(points: Iterable[Point], name: str) -> list[float]:
    """This figure of all repeats that have it."""
    return [value for value in (figure(point, name) for point in points) if value is not None]


def middle(points: Iterable[Point], name: str) -> float | None:
    """The median of this figure over the repeats; None where none has it."""
    found = values(points, name)
    return median(found) if found else None


def gpus_used(content: Record) -> int:
    """The GPUs that the instance computes on: those that its options divide it over; 0 without GPUs."""
    options = (content.get("engine") or {}).get("options") or {}
    return used(options, content["node"]["gpus"])


def used(options: Mapping[str, Any], gpus: Sequence[Any]) -> int:
    """The GPUs of a node that an engine with these options computes on."""
    names = ("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size")
    return min(len(gpus), math.prod(_times(options.get(name)) for name in names))


def _times(value: Any) -> int:
    text = str(value)
    return max(1, int(text)) if text.isascii() and text.isdigit() else 1


def hardware(content: Record) -> str:
    """The GPUs that it was measured on, such as ``2x NVIDIA H100 80GB HBM3``, or the processor."""
    gpus, count = content["node"]["gpus"], gpus_used(content)
    return f"{count}x {gpus[0]['name']}" if gpus else str(content["node"].get("cpu") or "CPU")
