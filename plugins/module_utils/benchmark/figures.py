# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The figures of one point: what the client's processes saw, put together.

Times are in seconds and ``_ms`` in milliseconds. Percentiles are of all requests of all processes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Sequence

PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)
#: Errors that are kept of a point.
ERRORS = 5

#: Counters of the engine, by their names here. vLLM's own names: v1/metrics/loggers.py and v1/spec_decode/metrics.py.
COUNTERS = {
    "finished": "vllm:request_success",
    "preemptions": "vllm:num_preemptions",
    "cached_prompt_tokens": "vllm:prefix_cache_hits",
    "drafted": "vllm:spec_decode_num_draft_tokens",
    "accepted": "vllm:spec_decode_num_accepted_tokens",
    "running": "vllm:num_requests_running",
    "waiting": "vllm:num_requests_waiting",
}
_SAMPLE = re.compile(r"^(vllm:\w+?)(?:_total)?(?:\{[^}]*\})? ([-+.\deE]+)$", re.MULTILINE)


@dataclass
class Part:
    """What one process of the client saw: lists have one element for each request."""

    started: float
    ended: float
    cpu_s: float
    start_times: List[float] = field(default_factory=list)
    input_lens: List[int] = field(default_factory=list)
    output_lens: List[int] = field(default_factory=list)
    ttfts: List[float] = field(default_factory=list)
    itls: List[List[float]] = field(default_factory=list)
    errors: List[str] = field(default_factory=list)


def counters(metrics: str) -> Dict[str, float]:
    """The engine's counters, summed over its engines and labels, from the text of /metrics."""
    sums: Dict[str, float] = {}
    for name, value in _SAMPLE.findall(metrics):
        sums[name] = sums.get(name, 0.0) + float(value)
    return {ours: sums[theirs] for ours, theirs in COUNTERS.items() if theirs in sums}


def percentiles(values: Sequence[float], scale: float = 1000.0) -> Optional[Dict[str, float]]:
    """Mean, percentiles and maximum, times ``scale``; None of nothing. Between two values it is linear, as in numpy.

    >>> percentiles([1, 2, 3], 1)["p25"]
    1.5
    """
    if not values:
        return None
    ordered = sorted(values)
    shown = {"mean": sum(ordered) / len(ordered), **{f"p{share}": _at(ordered, share) for share in PERCENTILES}}
    return {name: round(value * scale, 3) for name, value in {**shown, "max": ordered[-1]}.items()}


def _at(ordered: Sequence[float], share: int) -> float:
    place = (len(ordered) - 1) * share / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def point(parts: Sequence[Part], goals: Mapping[str, float]) -> Dict[str, Any]:
    """The figures of a point, without what the GPUs and the engine say. ``goals``: ttft_ms and itl_ms, if any."""
    rows = [row for part in parts for row in zip(*_columns(part))]
    good = [row for row in rows if not row[5]]
    ends = [start + ttft + sum(itl) for start, _in, _out, ttft, itl, _error in good]
    # From the first request to the last token: processes start within milliseconds of each other.
    duration = max(max(ends) - min(row[0] for row in good), 1e-6) if good else 0.0
    tpots = [sum(itl) / (out - 1) for _start, _in, out, _ttft, itl, _error in good if out > 1]
    made, read = sum(row[2] for row in good), sum(row[1] for row in good)
    return {
        "requests": len(rows),
        "completed": len(good),
        "failed": len(rows) - len(good),
        "errors": sorted({_last_line(row[5]) for row in rows if row[5]})[:ERRORS],
        "duration_s": round(duration, 3),
        "input_tokens": read,
        "output_tokens": made,
        "output_tokens_per_s": _rate(made, duration),
        "total_tokens_per_s": _rate(made + read, duration),
        "requests_per_s": _rate(len(good), duration),
        "goodput_requests_per_s": _rate(sum(_meets(row, goals) for row in good), duration) if goals else None,
        "ttft_ms": percentiles([row[3] for row in good]),
        "tpot_ms": percentiles(tpots),
        "itl_ms": percentiles([gap for row in good for gap in row[4]]),
        "e2e_ms": percentiles([row[3] + sum(row[4]) for row in good]),
        **client(parts),
    }


def client(parts: Sequence[Part]) -> Dict[str, Any]:
    """What the client itself took. A share of 1 of its busiest process means that the client was measured."""
    shares = [part.cpu_s / max(part.ended - part.started, 1e-6) for part in parts]
    return {
        "client_cpu_s": round(sum(part.cpu_s for part in parts), 3),
        "client_cpu_share": round(max(shares, default=0.0), 3),
    }


def engine(before: Mapping[str, float], after: Mapping[str, float], requests: int) -> Dict[str, Any]:
    """What the engine counted meanwhile. ``others``: requests that it finished and that were not ours.

    It is nothing where the engine did not say before, and where it was started anew and counts from 0.
    """
    grown = {name: max(0.0, after[name] - before.get(name, 0.0)) for name in after} if before else {}
    drafted = grown.get("drafted", 0.0)
    return {
        "others": max(0, round(grown.get("finished", requests)) - requests),
        "preemptions": round(grown.get("preemptions", 0)),
        "cached_prompt_tokens": round(grown.get("cached_prompt_tokens", 0)),
        "acceptance_rate": round(grown.get("accepted", 0.0) / drafted, 4) if drafted else None,
    }


def _columns(part: Part) -> List[Sequence[Any]]:
    return [part.start_times, part.input_lens, part.output_lens, part.ttfts, part.itls, part.errors]


def _meets(row: Sequence[Any], goals: Mapping[str, float]) -> bool:
    _start, _in, out, ttft, itl, _error = row
    taken = {"ttft_ms": ttft * 1000, "itl_ms": sum(itl) / max(1, out - 1) * 1000}
    return all(taken[name] <= most for name, most in goals.items())


def _rate(count: float, seconds: float) -> float:
    return round(count / seconds, 3) if seconds else 0.0


def _last_line(error: str) -> str:
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no reason was given"
