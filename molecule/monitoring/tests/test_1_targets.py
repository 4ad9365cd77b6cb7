# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs where, what is scraped, and who can read what."""

from __future__ import annotations

import re

import yaml
from conftest import FLEET, HOST, RULES, SECOND, SETTINGS, note, prometheus
from rule_cases import document
from scenario import hunt, on_node, processes, wait_until

UNITS = ("gpunode-node-exporter", "gpunode-prometheus", "gpunode-alertmanager", "gpunode-blackbox")
PACKAGES = ("prometheus", "prometheus-alertmanager", "prometheus-node-exporter", "prometheus-blackbox-exporter")
SECRET = SETTINGS["monitoring_webhook_url"].rpartition("/")[2]


def test_every_target_is_up() -> None:
    def all_are_up() -> bool:
        found = prometheus("targets")["activeTargets"]
        return {target["health"] for target in found} == {"up"}

    wait_until(all_are_up)
    found = {target["labels"]["instance"] for target in prometheus("targets")["activeTargets"]}
    first = {f"{HOST}/{name}" for name in ("tiny", "router-1", "router-2", "gateway", "prometheus", "alertmanager")}
    assert found == {HOST, SECOND, f"{SECOND}/tiny"} | first


def test_each_runs_as_a_unit_of_ours_and_the_packages_own_are_off() -> None:
    for unit in UNITS:
        assert on_node(f"systemctl show -P User {unit}", node=HOST) == "prometheus"
        assert on_node(f"systemctl is-active {unit}", node=HOST) == "active"
    states = on_node(
        f"systemctl is-enabled {' '.join(PACKAGES)}; systemctl is-active {' '.join(PACKAGES)}", False, HOST
    )
    assert set(states.split()) == {"disabled", "inactive"}
    assert on_node("systemctl is-active gpunode-prometheus", check=False, node=SECOND) == "inactive"


def test_nothing_of_it_listens_on_every_address() -> None:
    for node in FLEET:
        lines = on_node("ss -Hltnp | grep prometheus", node=node).splitlines()
        addresses = {re.split(r"\s+", line)[3] for line in lines}
        assert len(addresses) == (4 if node == HOST else 1)
        assert not [address for address in addresses if address.startswith(("0.0.0.0", "*", "[::]"))]
    outside = on_node(f"getent hosts gpunode-lab-node-{HOST} | cut -d' ' -f1", node=SECOND)
    for port in (9090, 9093, 9115):
        assert on_node(f"curl -s -m 3 http://{outside}:{port}/ || echo refused", node=SECOND) == "refused"


def test_the_receivers_secret_is_in_one_file_and_the_copies_of_its_process() -> None:
    found = {path for path in hunt(SECRET, node=HOST) if not path.startswith("/run/gpunode-alertmanager/")}
    assert found == {"/etc/gpunode/monitoring/alertmanager.yml"}
    assert on_node("stat -c %a /etc/gpunode/monitoring/alertmanager.yml", node=HOST) == "600"
    assert SECRET not in processes(node=HOST)


def test_each_alert_fires_for_its_fault_alone() -> None:
    """By promtool, over series: also while the unit of an engine loads, drains, or was stopped."""
    cases = yaml.safe_dump(document(RULES), sort_keys=False, width=1000)
    on_node(f"cat >/run/cases.yml <<'END'\n{cases}\nEND", node=HOST)
    said = on_node("promtool test rules /run/cases.yml", node=HOST)
    assert "SUCCESS" in said


def test_a_node_without_gpus_has_its_other_figures() -> None:
    text = on_node("cat /var/lib/gpunode/metrics/node.prom", node=SECOND)
    assert "gpunode_gpus_expected 0" in text
    assert "gpunode_gpu_" not in text
    assert 'gpunode_engine_start_seconds{name="vllm-tiny.service"}' in text


def test_what_it_costs() -> None:
    """The timer's own account of the last hour, in seconds of a CPU for a run."""
    said = on_node("journalctl -o cat -u gpunode-node-metrics | grep Consumed | tail -1", check=False, node=HOST)
    note(said or "systemd noted no time of a CPU")
    assert on_node("systemctl show -P Result gpunode-node-metrics", node=HOST) == "success"
