# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is shown of a fleet, and what alerts: reads catalog/monitoring.yml, and makes Prometheus' rules of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from ...module_utils.instance import names
from ..values import HOME, LOADER

GUIDE = "https://github.com/gpunode/llm/blob/main/docs/guides/monitoring.md"
#: The span of a rate, where nobody chooses one.
RANGE = "5m"
#: The variable of the thresholds.
SETTING = "monitoring_thresholds"
NONE: Mapping[str, float] = {}
_TOKEN = re.compile(r"<([a-z_0-9]+)>")


@dataclass(frozen=True)
class Query:
    """One line of a chart. Its legend names labels in double braces."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """A chart. Its unit is one of Grafana's."""

    row: str
    title: str
    unit: str
    what: str
    queries: Sequence[Query]
    #: What its series need besides an engine.
    needs: str = ""

    @property
    def link(self) -> str:
        """The section of the guide about its row."""
        return f"{GUIDE}#{self.row.lower().replace(' ', '-')}"


@dataclass(frozen=True)
class Alert:
    """A rule. What it says is a template of Prometheus."""

    name: str
    severity: str
    #: How long the expression must be true.
    lasts: str
    expr: str
    says: str
    needs: str = ""

    @property
    def link(self) -> str:
        """The section of the guide that says what to do."""
        return f"{GUIDE}#{self.name.lower()}"


@dataclass(frozen=True)
class Table:
    """All of it."""

    panels: Sequence[Panel]
    alerts: Sequence[Alert]
    #: Names for expressions that several alerts share, with what each is.
    recordings: Mapping[str, tuple[str, str]]
    #: Each threshold with its default and its unit.
    thresholds: Mapping[str, tuple[float, str]]
    #: What stands for longer parts of expressions.
    short: Mapping[str, str]

    @property
    def rows(self) -> list[str]:
        """The names of the rows, in their order."""
        return list(dict.fromkeys(panel.row for panel in self.panels))

    def expression(
        self, text: str, engine: str = "", node: str = "", span: str = RANGE, values: Mapping[str, float] = NONE
    ) -> str:
        """An expression for Prometheus: with these labels, this span of time, and these values of thresholds."""
        defaults = {name: default for name, (default, _unit) in self.thresholds.items()}
        known = {
            **defaults,
            **values,
            "gateway_unit": names.GATEWAY_UNIT,
            "engine": engine,
            "node": node,
            "range": span,
        }
        whole = _TOKEN.sub(lambda found: self.short.get(found[1], found[0]), text)
        return _TOKEN.sub(lambda found: str(known[found[1]]), whole)


@cache
def table() -> Table:
    """The table in the catalogue."""
    data = yaml.load((HOME / "catalog" / "monitoring.yml").read_text(encoding="utf-8"), Loader=LOADER)
    return Table(
        panels=[_panel(row["name"], panel) for row in data["rows"] for panel in row["panels"]],
        alerts=[_alert(alert) for alert in data["alerts"]],
        recordings={one["name"]: (one["expr"], one["what"]) for one in data["recordings"]},
        thresholds={name: (one["default"], one["unit"]) for name, one in data["thresholds"].items()},
        short=data["short"],
    )


def _panel(row: str, panel: Mapping[str, Any]) -> Panel:
    return Panel(**{**panel, "row": row, "queries": [Query(**query) for query in panel["queries"]]})


def _alert(alert: Mapping[str, Any]) -> Alert:
    return Alert(**{"lasts" if name == "for" else name: value for name, value in alert.items()})


def charts() -> str:
    """The charts as JSON for Prometheus' page: no brace of a legend begins a template, no text ends the script."""
    whole = table()
    shown = [
        {
            "row": panel.row,
            "title": panel.title,
            "unit": panel.unit,
            "what": panel.what,
            "link": panel.link,
            "queries": [{"expr": whole.expression(query.expr), "legend": query.legend} for query in panel.queries],
        }
        for panel in whole.panels
    ]
    return json.dumps(shown).replace("{{", r"\u007b\u007b").replace("<", r"\u003c")


def thresholds(given: Mapping[str, Any]) -> tuple[dict[str, float], list[str]]:
    """The thresholds that are set, and a sentence for each that cannot be read."""
    known, read, findings = table().thresholds, {}, []
    for name, value in given.items():
        if name not in known:
            findings.append(f"{SETTING} has no {name}. Its names are {', '.join(known)}.")
            continue
        try:
            read[name] = float(value)
        except (TypeError, ValueError):
            findings.append(f"{name} in {SETTING} must be a number of {known[name][1]}, not {value!r}.")
    return read, findings


def rules(given: Mapping[str, float]) -> dict[str, Any]:
    """The rules as Prometheus reads them, with these thresholds."""
    return {"groups": [{"name": "gpunode", "rules": list(_rules(given))}]}


def _rules(given: Mapping[str, float]) -> Iterator[dict[str, Any]]:
    whole = table()
    for name, (expr, _what) in whole.recordings.items():
        yield {"record": name, "expr": whole.expression(expr)}
    for alert in whole.alerts:
        yield {
            "alert": alert.name,
            "expr": whole.expression(alert.expr, values=given),
            "for": alert.lasts,
            "labels": {"severity": alert.severity},
            "annotations": {"summary": alert.says, "runbook_url": alert.link},
        }
