# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write docs/metrics.md, every chart and every alert, from catalog/monitoring.yml: python docs/monitoring.py"""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
PAGE = CHECKOUT / "docs" / "metrics.md"
# Lets this be run from a checkout as it is.
runpy.run_path(str(CHECKOUT / "tests" / "unit" / "conftest.py"))

from ansible_collections.gpunode.llm.plugins.plugin_utils.fleet import series

HEAD = """# What is shown, and what alerts

Made from [catalog/monitoring.yml](https://github.com/gpunode/llm/blob/main/catalog/monitoring.yml) by `make docs`.
What to do about each is in [the guide](guides/monitoring.md). The series of an engine have the labels `node`, `name`
(its unit), `instance` (`NODE/NAME`) and `model`; all others have `node`.

## Charts
"""
UNITS = {"percentunit": "share", "s": "seconds", "d": "days", "short": "", "reqps": "a second", "ops": "a second"}


def cell(text: str) -> str:
    return text.replace("|", "\\\\|").replace("\n", " ")


def code(expr: str) -> str:
    """An expression as Prometheus takes it, for all engines and nodes."""
    plain = series.table().expression(expr).replace(",}", "}").replace("{}", "")
    return f"`{cell(plain)}`"


def charts() -> Iterator[str]:
    for row in series.table().rows:
        yield f"\n### {row}\n\n| chart | unit | what it is | expressions |\n| --- | --- | --- | --- |\n"
        for panel in series.table().panels:
            if panel.row == row:
                what = panel.what + (f" Needs {panel.needs}." if panel.needs else "")
                unit = UNITS.get(panel.unit, panel.unit.removeprefix("suffix: "))
                queries = "<br>".join(code(query.expr) for query in panel.queries)
                yield f"| {panel.title} | {unit} | {cell(what)} | {queries} |\n"


def alerts() -> Iterator[str]:
    yield "\n## Alerts\n\n| alert | severity | for | expression |\n| --- | --- | --- | --- |\n"
    for alert in series.table().alerts:
        link = f"[{alert.name}](guides/monitoring.md#{alert.name.lower()})"
        yield f"| {link} | {alert.severity} | {alert.lasts} | {code(alert.expr)} |\n"
    yield "\nNames that several of them share:\n\n| name | what it is | expression |\n| --- | --- | --- |\n"
    for name, (expr, what) in series.table().recordings.items():
        yield f"| `{name}` | {what} | {code(expr)} |\n"


def thresholds() -> Iterator[str]:
    yield "\n## Thresholds\n\nThe names that `monitoring_thresholds` takes.\n\n"
    yield "| name | default | unit |\n| --- | --- | --- |\n"
    for name, (default, unit) in series.table().thresholds.items():
        yield f"| `{name}` | {default} | {unit} |\n"


def page() -> str:
    return HEAD + "".join((*charts(), *alerts(), *thresholds()))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
