# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What keeps usage on the gateway's host: its unit, its files, and what it is told; and usage as people read it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from ...module_utils.instance import names
from ..screen import text as screen_text
from .plan import engines


def addresses(instances: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where each engine shows its counters. A rank without an API has none."""
    served = [one for one in instances if not (one.get("config") or {}).get("headless")]
    return [f"http://{engine['address']}" for engine in engines(served)]


def plan(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The names of its unit and files, and the settings that it reads."""
    return {
        "unit": names.USAGE_UNIT,
        "unit_path": f"{names.UNIT_DIR}/{names.USAGE_UNIT}",
        "gateway_unit": names.GATEWAY_UNIT,
        "started_from": names.started_from(names.USAGE_UNIT),
        "settings_path": names.USAGE_SETTINGS,
        "state": names.USAGE_STATE,
        "settings": {
            "schema": 1,
            "engines": addresses(settings["instances"]),
            "workers": settings["workers"],
            "limits": dict(settings["limits"]),
            "interval_s": settings["interval_s"],
            "keep_days": settings["keep_days"],
            "state": names.USAGE_STATE,
            "run": names.run_dir(names.USAGE_UNIT),
        },
    }


#: The columns of a report, and those of them that are numbers.
COLUMNS = ("day", "client", "model", "requests", "prompt_tokens", "generation_tokens")
NUMBERS = COLUMNS[3:]
TITLES = ("day", "client", "model", "requests", "tokens in", "tokens out")
#: The schema of the report as JSON.
SCHEMA = 1


def summed(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of several gateways, those of the same day, client and model added up."""
    sums: dict[tuple[str, ...], list[int]] = {}
    for row in (row for result in results for row in result.get("rows") or ()):
        key = tuple(str(row[column]) for column in COLUMNS[:3])
        sums[key] = [old + int(row[name]) for old, name in zip(sums.get(key, [0] * len(NUMBERS)), NUMBERS)]
    return [dict(zip(COLUMNS, (*key, *sums[key]))) for key in sorted(sums)]


def _line(cells: Sequence[Any]) -> list[str]:
    return [f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells]


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The rows as a table, with the sum below."""
    if not rows:
        return ["No request was counted in these days."]
    total = ["in all", "", "", *(sum(row[name] for row in rows) for name in NUMBERS)]
    cells = [list(TITLES), *(_line([row[name] for name in COLUMNS]) for row in rows), _line(total)]
    return screen_text.columns(cells, right=(3, 4, 5))


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as comma-separated values, with a line of titles."""
    page = io.StringIO()
    writer = csv.DictWriter(page, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return page.getvalue()


def report(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What usage.yml shows and writes, from the results of usage_info."""
    rows = summed(results)
    trouble = [sentence for result in results for sentence in result.get("trouble") or ()]
    if not any(result.get("counted") for result in results) and not rows:
        trouble.append("Usage is counted on no node: set usage_enabled and gateway_enabled, and run site.yml.")
    return {"schema": SCHEMA, "rows": rows, "text": [*table(rows), *trouble], "csv": csv_text(rows)}
