# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role monitoring writes: units without rights, configurations, and secrets in one file for root alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.gpunode.llm.plugins.module_utils.instance import names
from ansible_collections.gpunode.llm.plugins.plugin_utils.fleet import series, targets

ROLE = Path(__file__).parents[4] / "roles" / "monitoring"
DEFAULTS = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
VARS = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())
SECRET = "https://hooks.example.net/s3cr3t"
INSTANCE = {"name": "8b", "host": "0.0.0.0", "port": 8000, "served_model_name": "org/8b"}
ROWS = [
    targets.row("gpu-1", "10.0.0.11", ["gpu-1"], {"exporter_port": 9100, "instances": [INSTANCE]}),
    targets.row("gpu-2", "10.0.0.12", ["gpu-1"], {"exporter_port": 9100, "instances": [INSTANCE]}),
]
UNITS = ("exporter", "prometheus", "alertmanager", "blackbox")


def trusted(value):
    if isinstance(value, dict):
        return {key: trusted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [trusted(item) for item in value]
    return trust_as_template(value) if isinstance(value, str) else value


def templar(**settings):
    given = {
        "inventory_hostname": "gpu-1",
        "role_path": str(ROLE),
        "monitoring_servers": ["gpu-1"],
        "monitoring_rows": ROWS,
        "monitoring_webhook_url": SECRET,
        **settings,
    }
    return Templar(loader=DataLoader(), variables={"ansible_facts": {}, **DEFAULTS, **trusted(VARS), **given})


def value(name, **settings):
    return templar(**settings).template(trust_as_template("{{ " + name + " }}"))


def render(template, **settings):
    text = trust_as_template((ROLE / "templates" / template).read_text())
    overrides = {"trim_blocks": True, "lstrip_blocks": True}
    return templar(**settings).template(text, escape_backslashes=False, overrides=overrides)


def unit(name, **settings):
    plan = value("__monitoring_plan", **settings)
    units = {"exporter": plan["exporter"], **dict(zip(UNITS[1:], plan["server"]))}
    return units[name], render("service.j2", __monitoring_unit=units[name], **settings)


def settings_of(text):
    return [line.split("=", 1) for line in text.replace("\\\n", " ").splitlines() if re.match(r"[A-Z]\w+=", line)]


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_runs_its_program_as_a_user_without_rights(name):
    plan, text = unit(name)
    named = dict(settings_of(text))
    assert named["User"] == "prometheus"
    assert named["CapabilityBoundingSet"] == ""
    assert named["ProtectSystem"] == "strict"
    assert named["ExecStart"].split()[0] == plan["command"][0]
    assert f"/run/{named['RuntimeDirectory']}" == plan["run_dir"]


@pytest.mark.parametrize("name", UNITS)
def test_what_is_put_aside_is_what_the_playbook_compares(name):
    plan, text = unit(name)
    (aside, *_more) = [line for key, line in settings_of(text) if key == "ExecStartPre"]
    assert aside.endswith(" ".join([plan["runs"]["started_from"], *plan["runs"]["files"]]))
    assert ("ExecReload" in dict(settings_of(text))) == plan["runs"]["reloads"]


def test_the_exporter_takes_its_timer_along():
    _plan, text = unit("exporter")
    assert names.NODE_METRICS_UNITS[1] in dict(settings_of(text))["Wants"]
    assert f"PartOf={names.EXPORTER_UNIT}" in render("node-metrics.timer.j2")


def test_the_secret_is_in_one_file_for_root_and_in_a_copy_for_the_process():
    assert SECRET in render("alertmanager.yml.j2")
    others = ("prometheus.yml.j2", "rules.yml.j2", "blackbox.yml.j2", "index.html.j2", "node-metrics.service.j2")
    texts = [render(name) for name in others] + [unit(name)[1] for name in UNITS]
    assert [text for text in texts if SECRET in text] == []
    (written,) = [file for file in value("__monitoring_server_files") if file["src"] == "alertmanager.yml.j2"]
    assert written["secret"] is True
    # What the check of that file says could show it.
    assert ">/dev/null 2>&1" in written["validate"]
    copies = [line for key, line in settings_of(unit("alertmanager")[1]) if "install" in line]
    assert len(copies) == 2
    assert all("--mode=0400 --owner=prometheus" in line for line in copies)


def test_the_configurations_are_what_was_planned():
    assert yaml.safe_load(render("prometheus.yml.j2")) == value("__monitoring_plan")["prometheus"]
    assert yaml.safe_load(render("rules.yml.j2")) == series.rules({})
    assert yaml.safe_load(render("alertmanager.yml.j2")) == value("__monitoring_receivers")["config"]
    probe = yaml.safe_load(render("blackbox.yml.j2"))["modules"]["gateway"]
    assert probe["http"]["tls_config"] == {"insecure_skip_verify": True}


def test_each_node_has_its_targets_in_a_file():
    for one in value("__monitoring_targets"):
        assert json.loads(render("targets.json.j2", __monitoring_unit=one)) == one["groups"]


def test_every_file_has_one_source():
    for files in ("__monitoring_exporter_files", "__monitoring_server_files"):
        made = value(files)
        assert len({file["dest"] for file in made}) == len(made)
        for file in made:
            assert (ROLE / "templates" / file["src"]).exists() or Path(file["src"]).exists()
    named = {item["name"] for item in value("__monitoring_server_each")}
    assert {file["of"] for file in value("__monitoring_server_files") if "of" in file} == named


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ["prometheus-node-exporter", "prometheus", "prometheus-alertmanager", "prometheus-blackbox-exporter"]),
        ({"inventory_hostname": "gpu-2"}, ["prometheus-node-exporter"]),
        ({"monitoring_server": "false"}, ["prometheus-node-exporter"]),
        ({"monitoring_exporters": "false", "inventory_hostname": "gpu-2"}, []),
    ],
)
def test_each_half_brings_its_own_packages(settings, expected):
    assert value("__monitoring_packages", **settings) == expected


def test_targets_of_nodes_that_left_go_and_others_stay():
    found = [{"path": f"{names.PROMETHEUS_TARGETS}/{node}.json"} for node in ("gpu-1", "gpu-2", "gone")]
    found.append({"path": "/usr/bin/prometheus"})
    here = {"__monitoring_found": {"files": found}}
    # gpu-2 is not in this run, and is still listed.
    assert value("__monitoring_unlisted", monitoring_known_nodes=["gpu-1", "gpu-2"], **here) == ["gone"]
    assert value("__monitoring_unlisted", **here) == []
    missing = value("__monitoring_missing", **here)
    assert sorted(missing) == ["prometheus-alertmanager", "prometheus-blackbox-exporter", "prometheus-node-exporter"]


def test_the_names_that_the_role_shares_with_code_are_the_same():
    plan = value("__monitoring_plan")
    assert value("__monitoring_targets_dir") == names.PROMETHEUS_TARGETS
    assert value("__monitoring_metrics_dir") == names.METRICS_DIR
    written = {file["dest"] for file in value("__monitoring_server_files") + value("__monitoring_exporter_files")}
    started_from = {path for one in (plan["exporter"], *plan["server"]) for path in one["runs"]["files"]}
    assert started_from <= written
    assert any(word.endswith(names.PROMETHEUS_PAGES) for word in plan["server"][0]["command"])
    assert f"{names.PROMETHEUS_PAGES}/index.html" in written


def test_the_page_has_no_template_of_prometheus():
    text = render("index.html.j2")
    assert "{{" not in text
    (charts,) = re.findall(r"^const CHARTS = (.*);$", text, re.MULTILINE)
    assert [chart["title"] for chart in json.loads(charts)] == [panel.title for panel in series.table().panels]


def test_the_figures_are_asked_for_without_any_right():
    named = dict(settings_of(render("node-metrics.service.j2", monitoring_gpus="8")))
    assert named["ExecStart"].endswith("--out=/var/lib/gpunode/metrics/node.prom --gpus=8")
    assert (named["CapabilityBoundingSet"], named["DevicePolicy"], named["Type"]) == ("", "closed", "oneshot")
    assert int(named["TimeoutStartSec"]) > 3 * 8
