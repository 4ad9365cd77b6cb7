# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of charts and alerts: names that exist, units, links that lead somewhere, and what is made of it."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest
import yaml
from ansible_collections.gpunode.llm.plugins.module_utils.programs import node_metrics
from ansible_collections.gpunode.llm.plugins.plugin_utils.fleet import series

CHECKOUT = Path(__file__).resolve().parents[4]
TABLE = series.table()
RULES = series.rules({})["groups"][0]["rules"]
EXPRESSIONS = [*(query.expr for panel in TABLE.panels for query in panel.queries), *(rule["expr"] for rule in RULES)]
#: Of smg 1.13.0, node-exporter and the blackbox exporter, as Debian 12 has them, asked for what is used here.
OF_OTHERS = {
    *("smg_worker_health", "smg_http_responses_total", "probe_success", "probe_ssl_earliest_cert_expiry", "up"),
    *("node_systemd_unit_start_time_seconds", "node_systemd_service_restart_total", "node_systemd_unit_state"),
    *("node_filesystem_avail_bytes", "node_filesystem_size_bytes", "node_memory_MemAvailable_bytes"),
    *("node_cpu_seconds_total", "node_textfile_mtime_seconds", "node_textfile_scrape_error"),
}
#: Only where a draft is, and only where usage is counted.
SELDOM = {
    *("vllm:spec_decode_num_accepted_tokens_total", "vllm:spec_decode_num_draft_tokens_total"),
    *("gpunode_prompt_tokens_total", "gpunode_generation_tokens_total"),
}


def of_an_engine() -> set[str]:
    """Every name on a page that a real vLLM answered with."""
    page = (CHECKOUT / "tests" / "fixtures" / "vllm" / "metrics-0.32.0.txt").read_text()
    return set(re.findall(r"^([a-z0-9_:]+)[{ ]", page, re.MULTILINE))


def of_a_node() -> set[str]:
    """Every name that the program of a node can write."""
    source = Path(node_metrics.__file__).read_text()
    fields = {f"gpunode_gpu_{name}" for name, *_rest in node_metrics.FIELDS}
    plain = {f"gpunode_{name}" for name in re.findall(r'page\.add\(\s*"(\w+)"', source)}
    return fields | plain | {"gpunode_gpu_row_remap_pending", "gpunode_gpu_row_remap_failure"}


def used(expr: str) -> set[str]:
    """The names of series in an expression."""
    plain = re.sub(r'"[^"]*"', "", TABLE.expression(expr))
    plain = re.sub(r"\b(by|on|without) \([^)]*\)", "", plain)
    plain = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", plain)
    words = set(re.findall(r"[a-zA-Z_:][\w:]*", plain))
    functions = {"sum", "max", "avg", "rate", "increase", "time", "histogram_quantile", "and", "or", "by", "on"}
    return words - functions


@pytest.mark.parametrize("expr", EXPRESSIONS)
def test_every_series_exists(expr: str) -> None:
    known = of_an_engine() | of_a_node() | OF_OTHERS | SELDOM | set(TABLE.recordings)
    assert used(expr) <= known
    assert used(expr)


def test_names_are_found_in_expressions() -> None:
    assert used('sum by (le) (rate(a:b_bucket{x="y",<engine>}[<range>])) > <queue> and on (node) c') == {
        "a:b_bucket",
        "c",
    }


@pytest.mark.parametrize("panel", TABLE.panels, ids=lambda panel: panel.title)
def test_every_chart_has_a_unit_and_says_what_it_is(panel: series.Panel) -> None:
    units = ("short", "s", "d", "reqps", "ops", "percentunit", "bytes", "celsius", "watt", "hertz", "suffix: tok/s")
    assert panel.unit in units
    assert panel.what.endswith(".")
    assert all(query.legend for query in panel.queries)


def test_titles_and_names_are_unique() -> None:
    titles = [(panel.row, panel.title) for panel in TABLE.panels]
    assert len(set(titles)) == len(titles)
    names = [alert.name for alert in TABLE.alerts]
    assert len(set(names)) == len(names) >= 15


def test_every_link_leads_to_a_section_of_the_guide() -> None:
    guide = (CHECKOUT / "docs" / "guides" / "monitoring.md").read_text()
    heads = {head.lower().replace(" ", "-") for head in re.findall(r"^#+ (.+)$", guide, re.MULTILINE)}
    links = [*(panel.link for panel in TABLE.panels), *(alert.link for alert in TABLE.alerts)]
    assert {link.partition("#")[2] for link in links} <= heads
    assert {link.partition("#")[0] for link in links} == {series.GUIDE}


@pytest.mark.parametrize("alert", TABLE.alerts, ids=lambda alert: alert.name)
def test_every_alert_says_what_is_wrong_and_where(alert: series.Alert) -> None:
    assert alert.severity in ("warning", "critical")
    assert re.fullmatch(r"\d+m", alert.lasts)
    assert "$labels." in alert.says
    assert alert.says.endswith(".")


def test_every_threshold_is_used() -> None:
    tokens = {token for alert in TABLE.alerts for token in re.findall(r"<(\w+)>", alert.expr)}
    assert set(TABLE.thresholds) <= tokens
    assert tokens <= {*TABLE.thresholds, *TABLE.short, "gateway_unit"}


def test_a_threshold_that_is_set_is_in_the_rules() -> None:
    values, findings = series.thresholds({"queue": "50", "disk": 0.95})
    assert findings == []
    rules = {rule.get("alert"): rule["expr"] for rule in series.rules(values)["groups"][0]["rules"]}
    assert " > 50.0 " in rules["QueueGrows"]
    assert rules["DiskFull"].endswith(" > 0.95")
    assert rules["GpuHot"].endswith(" < 3")


def test_thresholds_that_cannot_be_read_are_refused_by_name() -> None:
    values, findings = series.thresholds({"que": 1, "disk": "much", "kv_cache": None})
    assert values == {}
    assert findings == [
        f"monitoring_thresholds has no que. Its names are {', '.join(TABLE.thresholds)}.",
        "disk in monitoring_thresholds must be a number of share of the disk, not 'much'.",
        "kv_cache in monitoring_thresholds must be a number of share of the KV cache, not None.",
    ]


def test_no_alert_about_an_engine_ignores_the_state_of_its_unit() -> None:
    about = [alert for alert in TABLE.alerts if "vllm:" in alert.expr or 'job="vllm"' in alert.expr]
    assert len(about) > 10
    asks = ("<while_active>", "<while_expected>", '(up{job="vllm"} == 1)')
    assert [alert.name for alert in about if not any(ask in alert.expr for ask in asks)] == []


def test_the_page_holds_the_charts_and_no_template_of_prometheus() -> None:
    text = series.charts()
    assert "{{" not in text
    assert "<" not in text
    charts = json.loads(text)
    assert [chart["title"] for chart in charts] == [panel.title for panel in TABLE.panels]
    assert charts[0]["queries"][0]["legend"] == "{{instance}} {{model}}"
    assert html.escape(text) != text


def test_the_dashboard_is_of_the_table() -> None:
    """docs/dashboard.sh --check makes it again by Grafana's SDK, which is not here."""
    board = json.loads((CHECKOUT / "roles" / "monitoring" / "files" / "dashboard.json").read_text())
    nodes = 'node=~"$node"'
    engines = f'{nodes},model=~"$model",instance=~"$instance"'
    charts = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert [panel["title"] for panel in board["panels"] if panel["type"] == "row"] == TABLE.rows
    for chart, panel in zip(charts, TABLE.panels, strict=True):
        assert chart["title"] == panel.title
        assert chart["fieldConfig"]["defaults"]["unit"] == panel.unit
        assert chart["description"].startswith(panel.what)
        assert [link["url"] for link in chart["links"]] == [panel.link]
        expected = [TABLE.expression(query.expr, engines, nodes, "$__rate_interval") for query in panel.queries]
        assert [target["expr"] for target in chart["targets"]] == expected
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)


def test_rules_are_plain_yaml() -> None:
    assert yaml.safe_load(yaml.safe_dump(series.rules({}))) == series.rules({})
    assert [rule["record"] for rule in RULES if "record" in rule] == list(TABLE.recordings)
    assert {rule["annotations"]["runbook_url"] for rule in RULES if "alert" in rule} == {a.link for a in TABLE.alerts}
