# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Monitoring of a fleet: where what runs, what is scraped, who is told, and what is refused before anything changes."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.instance import names
from ansible_collections.gpunode.llm.plugins.plugin_utils.fleet import monitoring, receivers, targets

SETTINGS = asdict(monitoring.Settings())
NOBODY = dict.fromkeys(
    (
        *("mail_from", "mail_host", "mail_password", "mail_to"),
        *("mail_user", "slack_channel", "slack_url", "webhook_url"),
    ),
    "",
)
GATEWAY = {"host": "0.0.0.0", "port": "8443", "metrics_host": "127.0.0.1", "metrics_port": None}


def plan(where="10.0.0.11", os_family="Debian", **settings):
    return monitoring.plan({**SETTINGS, **settings}, where, os_family)


def row(node="gpu-2", where="10.0.0.12", servers=("gpu-1",), **facts):
    return targets.row(node, where, servers, {"exporter_port": 9100, **facts})


def engine(name="8b", host="0.0.0.0", port=8000):
    return {"name": name, "host": host, "port": port, "served_model_name": f"org/{name}"}


def groups(*rows, server="gpu-1", **settings):
    found = targets.targets(rows, server, {**SETTINGS, **settings})
    return {one["name"]: one["groups"] for one in found}


# -- units -----------------------------------------------------------------------------------------------------------
def test_what_has_no_password_listens_where_the_settings_say():
    made = plan(port="9190", exporter_port=9200)
    assert made["findings"] == []
    assert "--web.listen-address=10.0.0.11:9200" in made["exporter"]["command"]
    listens = [word for unit in made["server"] for word in unit["command"] if "listen-address" in word]
    assert listens == [
        "--web.listen-address=127.0.0.1:9190",
        "--web.listen-address=127.0.0.1:9093",
        "--cluster.listen-address=",
        "--web.listen-address=127.0.0.1:9115",
    ]
    assert made["page"] == "http://127.0.0.1:9190/consoles/index.html"


def test_an_address_of_version_6_is_bracketed():
    made = plan("fd00::11", host="::1")
    assert "--web.listen-address=[fd00::11]:9100" in made["exporter"]["command"]
    assert made["server"][0]["url"] == "http://[::1]:9090/-/ready"


def test_each_unit_is_restarted_for_its_own_files():
    for unit in (plan()["exporter"], *plan()["server"]):
        assert unit["runs"]["files"][0] == unit["path"] == f"/etc/systemd/system/{unit['unit']}"
        assert unit["runs"]["started_from"] == names.started_from(unit["unit"])
    by_name = {unit["unit"]: unit["runs"] for unit in plan()["server"]}
    assert by_name[names.PROMETHEUS_UNIT]["files"][1:] == [names.PROMETHEUS_CONFIG, names.PROMETHEUS_RULES]
    assert all(runs["reloads"] for runs in by_name.values())
    # The timer goes with the exporter.
    assert plan()["exporter"]["runs"]["files"][1:] == [names.NODE_METRICS_SERVICE, names.NODE_METRICS_TIMER]
    assert not plan()["exporter"]["runs"]["reloads"]


def test_what_is_kept_is_what_the_settings_say():
    (prometheus, *_others) = plan(retention_days="30", retention_gib=50)["server"]
    assert {"--storage.tsdb.retention.time=30d", "--storage.tsdb.retention.size=50GB"} <= set(prometheus["command"])
    assert plan(scrape_interval_s=30)["prometheus"]["global"]["scrape_interval"] == "30s"


def test_a_removal_takes_all_and_ends_with_the_folder_of_the_files():
    removed = plan()["removed"]
    assert {one["unit"] for one in removed} == {
        *(names.EXPORTER_UNIT, *names.NODE_METRICS_UNITS),
        *(names.PROMETHEUS_UNIT, names.ALERTMANAGER_UNIT, names.BLACKBOX_UNIT),
    }
    paths = [path for one in removed for path in one["files"]]
    assert {names.METRICS_DIR, names.MONITORING_DIR, "/var/lib/gpunode-prometheus"} <= set(paths)
    # The timer before its service, or it would start that again.
    assert removed[0]["unit"].endswith(".timer")


@pytest.mark.parametrize(
    ("settings", "finding"),
    [
        ({"port": "much"}, "monitoring_port must be a whole number such as 9090, not 'much'."),
        ({"port": 70000}, "monitoring_port must be between 1 and 65535, not 70000."),
        ({"port": 9093}, "The four ports of monitoring must differ, and are 9093, 9093, 9115, 9100."),
        ({"scrape_interval_s": 1}, "monitoring_scrape_interval_s must be between 10 and 300, not 1."),
        ({"thresholds": {"none": 1}}, "monitoring_thresholds has no none."),
        (
            {"host": "0.0.0.0"},
            "monitoring_host is 0.0.0.0, where anybody may read it, and Prometheus and Alertmanager have no password:"
            " give it a private address of this node.",
        ),
        ({"host": "8.8.8.8"}, "monitoring_host is 8.8.8.8,"),
    ],
)
def test_settings_that_it_cannot_work_with_are_refused(settings, finding):
    (found,) = plan(**settings)["findings"]
    assert found.startswith(finding)


def test_a_private_address_or_a_name_is_the_operators_choice():
    assert plan(host="10.0.0.11")["findings"] == plan(host="mon.internal")["findings"] == []


def test_a_system_without_the_packages_is_refused():
    (found,) = plan(os_family="RedHat")["findings"]
    assert found == "monitoring_enabled is for Debian and Ubuntu: this system has no packages of Prometheus."


# -- which host, which address ---------------------------------------------------------------------------------------
INVENTORY = {"all": ["gpu-1", "gpu-2"]}


@pytest.mark.parametrize(
    ("given", "inventory", "routers", "with_gateway", "expected"),
    [
        (["gpu-2"], {**INVENTORY, "monitoring": ["mon"]}, ["gpu-1"], [], ["gpu-2"]),
        ("gpu-2", INVENTORY, [], [], ["gpu-2"]),
        ([], {**INVENTORY, "monitoring": ["mon"]}, ["gpu-2"], ["gpu-2"], ["mon"]),
        ([], INVENTORY, ["gpu-2", "gpu-1"], ["gpu-1"], ["gpu-2"]),
        ([], INVENTORY, [], ["gpu-2"], ["gpu-2"]),
        ([], INVENTORY, [], [], ["gpu-1"]),
    ],
)
def test_the_server_is_where_the_router_is(given, inventory, routers, with_gateway, expected):
    assert targets.hosts(given, inventory, routers, with_gateway) == expected


@pytest.mark.parametrize(
    ("given", "servers", "more", "expected"),
    [
        ("", ["gpu-1"], ("10.0.0.11",), "127.0.0.1"),
        ("10.1.0.11", ["gpu-1"], ("10.0.0.11",), "10.1.0.11"),
        ("", ["gpu-2"], ("10.0.0.11",), "10.0.0.11"),
        ("", ["gpu-1", "gpu-2"], ("127.0.0.1", "192.168.0.5"), "192.168.0.5"),
        ("", ["gpu-2"], ("gpu-1.example.net",), ""),
        ("gpu-1.internal", ["gpu-2"], (), "gpu-1.internal"),
    ],
)
def test_exporters_listen_where_the_server_reaches_them(given, servers, more, expected):
    assert targets.address(given, "gpu-1", servers, *more) == expected


def test_an_address_that_is_none_is_refused_under_its_own_name():
    with pytest.raises(ValueError, match=r"^monitoring_address must be an address or a name"):
        targets.address("not an address", "gpu-1", ["gpu-2"])


# -- targets ---------------------------------------------------------------------------------------------------------
def test_each_target_says_itself_what_it_is():
    made = groups(row(instances=[engine(), engine("70b", "10.0.0.99", 8001)]))
    assert made == {
        "gpu-2": [
            {"targets": ["10.0.0.12:9100"], "labels": {"job": "node", "node": "gpu-2", "instance": "gpu-2"}},
            {
                "targets": ["10.0.0.12:8000"],
                "labels": {
                    "job": "vllm",
                    "node": "gpu-2",
                    "instance": "gpu-2/8b",
                    "name": "vllm-8b.service",
                    "model": "org/8b",
                    "worker": "http://10.0.0.12:8000",
                    "__metrics_path__": "/metrics",
                },
            },
            {
                "targets": ["10.0.0.99:8001"],
                "labels": {
                    "job": "vllm",
                    "node": "gpu-2",
                    "instance": "gpu-2/70b",
                    "name": "vllm-70b.service",
                    "model": "org/70b",
                    "worker": "http://10.0.0.99:8001",
                    "__metrics_path__": "/metrics",
                },
            },
        ]
    }


def test_loopback_is_scraped_where_the_server_is():
    here = row(
        "gpu-1", "127.0.0.1", instances=[engine(host="127.0.0.1")], gateway=GATEWAY, router_ports=["29000", 29001]
    )
    assert here["findings"] == []
    jobs = {(group["labels"]["job"], group["targets"][0]) for group in groups(here)["gpu-1"]}
    assert jobs == {
        ("node", "127.0.0.1:9100"),
        ("vllm", "127.0.0.1:8000"),
        ("router", "127.0.0.1:29000"),
        ("router", "127.0.0.1:29001"),
        ("prometheus", "127.0.0.1:9090"),
        ("alertmanager", "127.0.0.1:9093"),
        ("gateway", "127.0.0.1:9115"),
    }


def test_the_gateway_is_asked_as_a_client_asks_it():
    probe = groups(row(gateway=GATEWAY), blackbox_port=9215)["gpu-2"][-1]
    assert probe["targets"] == ["127.0.0.1:9215"]
    labels = probe["labels"]
    assert (labels["__metrics_path__"], labels["__param_module"]) == ("/probe", "gateway")
    assert labels["__param_target"] == "https://10.0.0.12:8443/health"
    own = groups(row(gateway={**GATEWAY, "host": "fd00::5"}))["gpu-2"][-1]["labels"]["__param_target"]
    assert own == "https://[fd00::5]:8443/health"


def test_an_engine_on_loopback_elsewhere_is_scraped_through_its_gateway_or_refused():
    loopback = [engine(host="127.0.0.1")]
    open_metrics = {**GATEWAY, "metrics_host": "0.0.0.0", "metrics_port": "9101"}
    through = row(instances=loopback, gateway=open_metrics)
    assert through["findings"] == []
    labels, target = groups(through)["gpu-2"][1]["labels"], groups(through)["gpu-2"][1]["targets"]
    assert (target, labels["__metrics_path__"]) == (["10.0.0.12:9101"], "/8b/metrics")
    for gateway in ({}, GATEWAY, {**open_metrics, "metrics_host": "127.0.0.1"}):
        (finding,) = row(instances=loopback, gateway=gateway)["findings"]
        assert finding.startswith("8b listens on 127.0.0.1:8000, where Prometheus on gpu-1 does not reach it: set")


@pytest.mark.parametrize(
    ("where", "finding"),
    [
        ("", "Which address of gpu-2 Prometheus reaches is not known: set monitoring_address."),
        ("127.0.0.1", "Prometheus on gpu-1 does not reach 127.0.0.1: set monitoring_address of gpu-2."),
        ("0.0.0.0", "monitoring_address is 0.0.0.0, where anybody may read it, and the exporter has no password"),
        ("1.1.1.1", "monitoring_address is 1.1.1.1, where anybody may read it, and the exporter has no password"),
    ],
)
def test_an_address_that_is_not_reached_or_open_to_all_is_refused(where, finding):
    (found,) = row(where=where)["findings"]
    assert found.startswith(finding)


def test_each_node_has_a_file_of_its_own():
    (made,) = targets.targets([row()], "gpu-1", SETTINGS)
    assert made["to_write"] == [
        {"src": "targets.json.j2", "dest": f"{names.PROMETHEUS_TARGETS}/gpu-2.json", "of": "gpu-2"}
    ]


# -- who is told -----------------------------------------------------------------------------------------------------
def test_nobody_is_told_unless_asked_for():
    made = receivers.receivers(NOBODY)
    assert made["config"]["receivers"] == [{"name": "operator"}]
    assert (made["findings"], made["told"]) == ([], [])


def test_each_way_has_its_own_form():
    given = {
        **NOBODY,
        "webhook_url": "https://hooks.example.net/secret",
        "slack_url": "https://hooks.slack.com/services/secret",
        "slack_channel": "#oncall",
        "mail_to": "a@example.net,b@example.net",
        "mail_from": "gpunode@example.net",
        "mail_host": "mail.example.net:587",
        "mail_user": "gpunode",
        "mail_password": "secret",
    }
    made = receivers.receivers(given)
    (receiver,) = made["config"]["receivers"]
    assert receiver["webhook_configs"] == [{"url": given["webhook_url"], "send_resolved": True}]
    (slack,) = receiver["slack_configs"]
    assert (slack["api_url"], slack["channel"]) == (given["slack_url"], "#oncall")
    (mail,) = receiver["email_configs"]
    assert (mail["to"], mail["auth_password"]) == ("a@example.net, b@example.net", "secret")
    assert made["told"] == ["mail", "webhook", "Slack"]
    assert made["findings"] == []


def test_a_mail_server_may_want_no_password_and_slack_its_own_channel():
    given = {**NOBODY, "mail_to": ["a@b"], "mail_from": "c@b", "mail_host": "m:25", "slack_url": "https://s"}
    (receiver,) = receivers.receivers(given)["config"]["receivers"]
    assert "auth_username" not in receiver["email_configs"][0]
    assert "channel" not in receiver["slack_configs"][0]


def test_what_is_missing_of_a_receiver_is_said_without_its_secret():
    found = receivers.receivers({**NOBODY, "mail_to": ["a@b"], "webhook_url": "secret", "slack_url": "secret"})[
        "findings"
    ]
    assert found == [
        "monitoring_mail_to needs monitoring_mail_host, such as mail.example.net:587, and monitoring_mail_from.",
        "monitoring_webhook_url must be an address that begins with https:// or http://.",
        "monitoring_slack_url must be an address that begins with https:// or http://.",
    ]
