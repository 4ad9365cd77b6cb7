# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of records, or of a tune: one HTML page that loads nothing, and a PNG of each plot."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from ...module_utils.node import files
from . import compare, plots, record, references, summary
from .compare import Change, Comparison
from .plots import Picture
from .record import Point, Record
from .references import Reference
from .summary import percent, shown

TEMPLATE = Path(__file__).with_name("report.html.j2")
NO_POWER = "There is no plot of power and tokens per joule, since no GPU was measured."
NO_FRONTIER = "There is no plot, since no candidate was measured."


def of_records(
    contents: Sequence[Record], earlier: Record | None = None, comparison: Comparison | None = None
) -> dict[str, bytes]:
    """The files of a report, by their names; each record is a series, and so is the earlier one.

    ``contents`` are records of benchmarks, at least one. The first of them names the files, and is compared with
    ``earlier``.
    """
    drawn = [*contents, *([earlier] if earlier else [])]
    published = references.of_models(drawn)
    # Beside a processor alone, figures of GPUs would leave the plot empty; the page lists them.
    beside = references.drawn(published) if any(content["node"]["gpus"] for content in drawn) else []
    pictures = [] if plots.MISSING else plots.of_records(drawn, beside)
    power = any(record.values(content["points"], "power_w.mean") for content in drawn)
    page = {
        "title": f"Benchmark of {'; '.join(map(summary.title, contents))}",
        "warnings": [
            f"{summary.name(content)}: {sentence}" for content in contents for sentence in summary.warnings(content)
        ],
        "comparison": _comparison(comparison) if comparison else None,
        "left_out": [sentence for sentence, out in ((plots.MISSING, plots.MISSING), (NO_POWER, not power)) if out],
        "measured": [_measured(content) for content in drawn],
        "files": [f"{content['id']}.json" for content in contents],
    }
    return _files(str(contents[0]["id"]), page, pictures, drawn, published)


def of_tune(content: Record) -> dict[str, bytes]:
    """The files of the report of a tune, by their names."""
    pictures = [] if plots.MISSING else plots.of_tune(content)
    best = content.get("best")
    page = {
        "title": f"Tune of {summary.title(content)}",
        "candidates": _candidates(content),
        "objective": content["objective"],
        "outcome": f"The best candidate is {best}." if best else "No candidate was measured.",
        "left_out": [plots.MISSING] if plots.MISSING else [] if pictures else [NO_FRONTIER],
        "files": [f"{content['id']}.json"],
    }
    return _files(str(content["id"]), page, pictures, [content], references.of_models([content]))


def _files(
    name: str,
    page: Mapping[str, Any],
    pictures: Iterable[Picture],
    contents: Sequence[Record],
    published: Iterable[Reference],
) -> dict[str, bytes]:
    """The page and its pictures."""
    made = {f"{name}-{picture.name}.png": picture.png for picture in pictures}
    context = {
        **page,
        "pictures": [
            {"title": one.title, "says": one.says, "data": base64.b64encode(one.png).decode()} for one in pictures
        ],
        "references": [_reference(one) for one in published],
        "provenance": [_provenance(content) for content in contents],
    }
    # Whatever a record holds is text: a name with <script> in it is shown as it is.
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=Undefined)
    text = environment.from_string(files.read_text(TEMPLATE)).render(context)
    return {f"{name}.html": text.encode("utf-8", "replace"), **made}


class Undefined(jinja2.ChainableUndefined):
    """A part of the page that this report does not have."""


def _provenance(content: Record) -> dict[str, Any]:
    """Everything that the figures depend on, in rows."""
    quality = content.get("quality")
    rows = [("id", content["id"]), ("date", content["date"]), *compare.provenance(content)]
    if record.is_tune(content):
        keys = ("profile", "concurrency", "objective", "budget_minutes", "ended")
        rows += [(key.replace("_", " "), str(content[key])) for key in keys if content.get(key) is not None]
    else:
        rows += [(f"profile {key}", str(value)) for key, value in content["profile"].items()]
    if quality:
        error = f" ± {quality['stderr']}" if quality.get("stderr") is not None else ""
        rows.append(("quality", f"{quality['task']}, {quality['questions']} questions: {quality['score']}{error}"))
    topology = str(content["node"].get("topology") or "")
    return {
        "title": summary.title(content),
        "rows": [row for row in rows if row[0] != "topology"],
        "topology": topology,
    }


#: Column, the figure's name, decimals.
_COLUMNS = (
    ("output tokens/s", "output_tokens_per_s", 0),
    ("requests/s", "requests_per_s", 2),
    ("goodput requests/s", "goodput_requests_per_s", 2),
    ("TTFT p50 ms", "ttft_ms.p50", 0),
    ("p99", "ttft_ms.p99", 0),
    ("TPOT p50 ms", "tpot_ms.p50", 1),
    ("ITL p50 ms", "itl_ms.p50", 1),
    ("p99", "itl_ms.p99", 1),
    ("E2E p50 ms", "e2e_ms.p50", 0),
    ("power W", "power_w.mean", 0),
    ("tokens/J", "tokens_per_joule", 2),
    ("client CPU", "client_cpu_share", 2),
)


def _measured(content: Record) -> dict[str, Any]:
    """A table with a row per concurrency, without columns that no row has a figure for; and every percentile."""
    grouped = record.by_concurrency(content["points"])
    columns = [column for column in _COLUMNS if record.values(content["points"], column[1])]
    return {
        "title": f"{summary.title(content)} ({content['id']})",
        "head": ["concurrency", "repeats", *(title for title, _name, _decimals in columns), "failed"],
        "rows": [
            [
                shown(at),
                len(points),
                *(shown(summary.typical(points, name), decimals) for _title, name, decimals in columns),
                shown(sum(record.values(points, "failed"))),
            ]
            for at, points in grouped.items()
        ],
        "percentiles": _percentiles(grouped),
    }


_TIMES = ("ttft_ms", "tpot_ms", "itl_ms", "e2e_ms")
_PERCENTILES = ("mean", "p1", "p5", "p10", "p25", "p50", "p75", "p90", "p95", "p99", "max")


def _percentiles(grouped: Mapping[int, Sequence[Point]]) -> dict[str, Any]:
    rows = [
        [
            shown(at),
            time.partition("_")[0].upper(),
            *(shown(record.middle(points, f"{time}.{p}"), 1) for p in _PERCENTILES),
        ]
        for at, points in grouped.items()
        for time in _TIMES
        if record.values(points, f"{time}.p50")
    ]
    return {"head": ["concurrency", "time", *_PERCENTILES], "rows": rows}


def _comparison(comparison: Comparison) -> dict[str, Any]:
    """The comparison as a table with a row for each concurrency and a column for each figure."""
    cells = {(change.concurrency, change.metric): _cell(change) for change in comparison.changes}
    rows = [
        {"concurrency": shown(at), "cells": [cells.get((at, metric.name), {}) for metric in compare.METRICS]}
        for at in sorted({change.concurrency for change in comparison.changes})
    ]
    return {
        **comparison.data(),
        "titles": [metric.title for metric in compare.METRICS],
        "rows": rows,
        "differences": [(what, before, after) for what, (before, after) in comparison.differences.items()],
    }


def _cell(change: Change) -> dict[str, str]:
    return {
        "verdict": change.verdict,
        "figures": f"{shown(change.before, 1)} → {shown(change.after, 1)}",
        "change": f"{percent(change.change)} {change.verdict}",
        "noise": f"noise {change.noise:.1%}",
    }


def _candidates(content: Record) -> dict[str, Any]:
    """A row for each candidate; its number is that of the plot."""
    names = [candidate["name"] for candidate in content["candidates"]]
    rows = [
        [
            number,
            candidate["name"],
            candidate["state"],
            shown(candidate.get("score"), 1),
            percent(summary.gain(candidate, content)),
            shown((candidate.get("quality") or {}).get("score"), 2),
            candidate.get("why") or "",
            _options(candidate),
        ]
        for number, candidate in enumerate(content["candidates"], 1)
    ]
    head = ["#", "candidate", "state", f"score ({content['objective']})", "gain", "quality", "why", "options"]
    return {"head": head, "rows": rows, "best": names.index(content["best"]) if content.get("best") in names else -1}


def _options(candidate: Mapping[str, Any]) -> str:
    options, env = (candidate.get(key) or {} for key in ("options", "env"))
    return ", ".join([*(f"{key}: {value}" for key, value in options.items()), *(f"{k}={v}" for k, v in env.items())])


def _reference(one: Reference) -> list[str]:
    return [
        one.title,
        one.model,
        one.hardware,
        shown(one.output_tokens_per_s),
        shown(one.per_gpu),
        one.load,
        one.origin,
    ]
