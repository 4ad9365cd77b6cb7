# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every alert is provoked until the webhook has it. What has to last ten minutes has to last seconds here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from ansible_collections.gpunode.llm.plugins.plugin_utils.fleet import series
from conftest import ENGINE_KEY, HOST, RULES, SECOND, TARGETS, begin, note, play, prometheus, told
from scenario import on_node, wait_until

#: More than the engine bears, with a KV cache for a few answers; and thresholds that the lab is beyond.
BURDENED = {"max-num-seqs": 12, "max-num-queued-reqs": 20, "num-gpu-blocks-override": 130}
LOW = {
    **{"restarts": 0.5, "queue": 5, "first_token_s": 0.1, "queue_s": 0.1, "kv_cache": 0.5, "preemptions": 0},
    **{"disk": 0.01, "certificate_days": 100_000},
}
#: What a healthy engine never shows comes from a page of the scenario's own, as if of another engine.
PLANTED = {
    "targets": ["127.0.0.1:9998"],
    "labels": {
        **{"job": "vllm", "node": HOST, "instance": f"{HOST}/planted", "name": "vllm-tiny.service", "model": "planted"},
        # A router that does not know it, and says that it is not well.
        "worker": "http://planted",
    },
}
XID = 'gpunode_gpu_xids_last_hour{gpu="0",xid="79",action="reboot"} 1'
XML = "/etc/gpunode-lab/nvidia-smi.xml"
#: What a sick GPU says, in place of what was recorded.
SICK = {
    "<gpu_temp_tlimit>50 C": "<gpu_temp_tlimit>0 C",
    "<remapped_row_failure>No": "<remapped_row_failure>Yes",
    "<gpu_recovery_action>None": "<gpu_recovery_action>Reset",
    "<state>N.A": "<state>In Progress",
}
BROKEN_LATER = ("GpuGone", "GatewayDown", "FiguresOld", "EngineDown", "NodeDown")


def hurry() -> None:
    """Have the rules fire at once."""
    on_node(f"sed -i 's/for: .*/for: 15s/' {RULES} && systemctl reload gpunode-prometheus", node=HOST)


def reach(names: Iterable[str], seconds: float) -> None:
    """Wait until the webhook has all of these."""
    wanted = set(names)

    def all_were_told() -> bool:
        return wanted <= set(told())

    try:
        wait_until(all_were_told, seconds)
    finally:
        firing = {alert["labels"]["alertname"] for alert in prometheus("alerts")["alerts"]}
        note(f"told: {sorted(told())}; missing: {sorted(wanted - set(told()))}; in Prometheus: {sorted(firing)}")


def test_other_thresholds_are_in_force_without_a_restart_of_prometheus() -> None:
    before = on_node("systemctl show -P InvocationID gpunode-prometheus", node=HOST)
    result = play("site.yml", vllm_extra_args=BURDENED, monitoring_thresholds=LOW)
    assert result.status == 0, result.text[-3000:]
    assert on_node("systemctl show -P InvocationID gpunode-prometheus", node=HOST) == before
    rules = {rule["name"]: rule["query"] for rule in prometheus("rules")["groups"][0]["rules"]}
    assert "> 5" in rules["QueueGrows"]


def test_what_a_burdened_fleet_with_faults_alerts() -> None:
    hurry()
    begin("burden", ENGINE_KEY)
    on_node(f"cat >{TARGETS}/planted.json <<'END'\n{json.dumps([PLANTED])}\nEND", node=HOST)
    on_node(f"echo '{XID}' >/var/lib/gpunode/metrics/planted.prom", node=HOST)
    on_node(f"sed -i '{'; '.join(f's/{old}/{new}/' for old, new in SICK.items())}' {XML}", node=HOST)
    # It ends by itself, and systemd starts it again.
    on_node("docker kill vllm-tiny", node=SECOND)
    names = {alert.name for alert in series.table().alerts}
    reach(names - set(BROKEN_LATER), 600)


def test_what_is_down_or_gone_alerts() -> None:
    on_node("systemctl stop burden", check=False, node=HOST)
    on_node(f"mv {XML} {XML}.away", node=HOST)
    # It is up, and does not answer.
    on_node("systemctl kill --signal=STOP gpunode-gateway", node=HOST)
    on_node("docker pause vllm-tiny", node=HOST)
    on_node("systemctl stop gpunode-node-exporter", node=SECOND)
    try:
        reach(["GpuGone", "GatewayDown", "EngineDown", "NodeDown"], 300)
        # The figures of a GPU that is gone are gone as well.
        assert "gpunode_gpu_power" not in on_node("cat /var/lib/gpunode/metrics/node.prom", node=HOST)
        on_node("systemctl stop gpunode-node-metrics.timer", node=HOST)
        on_node("touch -d '-20 min' /var/lib/gpunode/metrics/node.prom", node=HOST)
        reach(["FiguresOld"], 180)
    finally:
        on_node("docker unpause vllm-tiny", check=False, node=HOST)
        on_node(f"systemctl kill --signal=CONT gpunode-gateway; mv {XML}.away {XML}", check=False, node=HOST)
        on_node("systemctl start gpunode-node-exporter gpunode-node-metrics.timer", check=False, node=SECOND)


def test_each_says_what_is_wrong_and_where_to_read_on() -> None:
    for name, alert in told().items():
        assert alert["path"].startswith("/hook-")
        assert alert["runbook_url"] == f"{series.GUIDE}#{name.lower()}"
        assert not re.search(r"{{|<no value>|  ", alert["summary"]), alert["summary"]
        note(f"{name}: {alert['summary']}")
