# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the Grafana dashboard from catalog/monitoring.yml, by Grafana's own SDK: docs/dashboard.sh

With --check it only compares, and ends with 1 where the file is another.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

CHECKOUT = Path(__file__).resolve().parents[1]
PAGE = CHECKOUT / "roles" / "monitoring" / "files" / "dashboard.json"
sys.path[:0] = [str(CHECKOUT / "collections")]

from ansible_collections.gpunode.llm.plugins.plugin_utils.fleet import series

#: Three charts in a row of Grafana's 24 columns.
SPAN, HEIGHT = 8, 7
NODES = 'node=~"$node"'
ENGINES = f'{NODES},model=~"$model",instance=~"$instance"'
SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")


def variable(name: str, query: str) -> dashboard.QueryVariable:
    """A choice of some or all values of a label."""
    return (
        dashboard.QueryVariable(name)
        .label(name)
        .query({"query": query, "refId": name})
        .datasource(SOURCE)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".*")
    )


def panel(number: int, shown: series.Panel) -> timeseries.Panel:
    """A chart with its unit, its description, and its link to the guide."""
    built = (
        timeseries.Panel()
        .id(number)
        .title(shown.title)
        .description(shown.what + (f" Needs {shown.needs}." if shown.needs else ""))
        .unit(shown.unit)
        .datasource(SOURCE)
        .links(
            [
                dashboard.DashboardLink("What it means")
                .type(models.DashboardLinkType.LINK)
                .url(shown.link)
                .target_blank(True)
            ]
        )
        .span(SPAN)
        .height(HEIGHT)
        .min(0)
        .legend(common.VizLegendOptions().show_legend(True).calcs(["lastNotNull"]))
    )
    for at, query in enumerate(shown.queries):
        expr = series.table().expression(query.expr, ENGINES, NODES, "$__rate_interval")
        target = prometheus.Dataquery().expr(expr).legend_format(query.legend).ref_id(chr(ord("A") + at))
        built = built.with_target(target.datasource(SOURCE))
    return built


def page() -> str:
    """The dashboard as JSON."""
    whole = series.table()
    built = (
        dashboard.Dashboard("gpunode: fleet")
        .uid("gpunode-fleet")
        .description("Engines, GPUs, disks and the router of a fleet of gpunode.llm. Made from catalog/monitoring.yml.")
        .tags(["gpunode", "vllm"])
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(variable("node", 'label_values(up{job="node"}, node)'))
        .with_variable(variable("model", f'label_values(up{{job="vllm",{NODES}}}, model)'))
        .with_variable(variable("instance", f'label_values(up{{job="vllm",{NODES},model=~"$model"}}, instance)'))
    )
    for place, row in enumerate(whole.rows):
        built = built.with_row(dashboard.Row(row).id((place + 1) * 100))
        for number, shown in enumerate((shown for shown in whole.panels if shown.row == row), 1):
            built = built.with_panel(panel((place + 1) * 100 + number, shown))
    return JSONEncoder(sort_keys=True, indent=2).encode(built.build()) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only compare")
    text = page()
    if parser.parse_args().check:
        return int(text != PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
