# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a record says at one glance: a table for the screen, and sentences on what makes its figures doubtful."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..screen import text as screen_text
from . import record
from .record import Point, Record

#: CPU seconds per second of the busiest client from which on the client may be what is measured.
BUSY_CLIENT = 0.8
_SHARE = "client_cpu_share"


def warnings(content: Record) -> list[str]:
    """Sentences on clients that were the limit, requests that failed, and requests of others."""
    return [
        sentence for at, points in record.by_concurrency(content["points"]).items() for sentence in _doubts(at, points)
    ]


def _doubts(at: int, points: Sequence[Point]) -> Iterator[str]:
    share = max(record.values(points, _SHARE), default=0.0)
    if share > BUSY_CLIENT:
        yield (
            f"At concurrency {at} the busiest client used {share:.0%} of a CPU: it may be what was measured. Measure"
            " with more client processes."
        )
    failed = sum(record.values(points, "failed"))
    if failed:
        total = failed + sum(record.values(points, "completed"))
        errors = list(dict.fromkeys(error for point in points for error in point.get("errors") or ()))
        why = f": {errors[0]}" if errors else ""
        yield f"At concurrency {at}, {failed:.0f} of {total:.0f} requests failed{why}."
    others = sum(record.values(points, "others"))
    if others:
        yield (
            f"At concurrency {at} the engine also served others ({others:.0f} requests): its figures are too low."
            " Measure again while nobody uses it."
        )


def title(content: Record) -> str:
    """What was measured, such as ``8b, guide, 1x NVIDIA H100 80GB HBM3, vllm 0.33.0``."""
    return ", ".join(parts(content))


def parts(content: Record) -> list[str]:
    """The parts of the title: the instance, the profile, the hardware, the engine, and the label if there is one."""
    profile = content["profile"] if record.is_tune(content) else content["profile"]["name"]
    engine = f"{content['engine']['name']} {content['engine']['version']}"
    found = (name(content), profile, record.hardware(content), engine, content.get("label"))
    return [str(part) for part in found if part]


def name(content: Record) -> str:
    """The instance, or else its model."""
    return str(content["model"].get("instance") or content["model"].get("served") or content["model"]["repo_id"])


#: Column, the figure's name, decimals.
COLUMNS = (
    ("tokens/s", "output_tokens_per_s", 0),
    ("TTFT p50", "ttft_ms.p50", 0),
    ("p99 ms", "ttft_ms.p99", 0),
    ("ITL p50", "itl_ms.p50", 1),
    ("p99 ms", "itl_ms.p99", 1),
    ("tokens/J", "tokens_per_joule", 2),
    ("client CPU", _SHARE, 2),
)


def typical(points: Sequence[Point], name: str) -> float | None:
    """The median of the repeats, but of how busy a client was the highest: once is enough to spoil a figure."""
    return max(record.values(points, name), default=None) if name == _SHARE else record.middle(points, name)


def shown(value: float | None, decimals: int = 0) -> str:
    """A number with a space between thousands, ``-`` for none."""
    return "-" if value is None else f"{value:,.{decimals}f}".replace(",", " ")


def lines(content: Record) -> list[str]:
    """A record or a tune for the screen: what was measured, a table, and warnings."""
    if record.is_tune(content):
        return _tune_lines(content)
    head = ("concurrency", *(column for column, *_rest in COLUMNS), "errors")
    rows = [
        (
            str(at),
            *(shown(typical(points, figure), decimals) for _column, figure, decimals in COLUMNS),
            shown(sum(record.values(points, "failed"))),
        )
        for at, points in record.by_concurrency(content["points"]).items()
    ]
    return [
        f"{title(content)}:",
        *screen_text.columns([head, *rows], right=range(len(head)), indent="  "),
        *(line for sentence in warnings(content) for line in screen_text.wrapped(sentence, "  WARNING: ")),
    ]


def gain(candidate: Mapping[str, Any], content: Record) -> float | None:
    """How much better a candidate's score is than the baseline's, as a share. A higher score is better."""
    by_name = {one["name"]: one for one in content["candidates"]}
    base = (by_name.get(content.get("baseline")) or {}).get("score")
    score = candidate.get("score")
    return (score - base) / abs(base) if base and score is not None else None


def _tune_lines(content: Record) -> list[str]:
    rows = [
        (
            f"{number}. {candidate['name']}",
            candidate["state"],
            shown(candidate.get("score"), 1),
            percent(gain(candidate, content)),
            shown((candidate.get("quality") or {}).get("score"), 2),
            str(candidate.get("why") or ""),
        )
        for number, candidate in enumerate(content["candidates"], 1)
    ]
    head = ("candidate", "state", content["objective"], "gain", "quality", "why")
    best = content.get("best")
    return [
        f"{title(content)}:",
        *screen_text.columns([head, *rows], right=(2, 3, 4), indent="  "),
        f"  Best: {best}." if best else "  No candidate was measured.",
    ]


def percent(share: float | None) -> str:
    """Such as ``+12.3 %``, ``-`` for none."""
    return "-" if share is None else f"{share:+.1%}"
