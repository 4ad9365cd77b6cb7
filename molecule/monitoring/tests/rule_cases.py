# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""For each alert series in which it fires, and others in which it must not: for `promtool test rules`.

Values are written as promtool reads them, one every 15 seconds: 0+1x40 rises by one, 5x40 stays at five.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

ENGINE = 'node="a",name="vllm-x.service",instance="a/x",model="m"'
UNIT = 'node_systemd_unit_state{node="a",name="vllm-x.service",state="%s"}'
GPU = 'node="a",gpu="0",uuid="u"'
#: What a unit may be in while nobody wants an alert about its engine.
ON_PURPOSE = ("activating", "deactivating", "inactive")
STATES = ("active", "failed", *ON_PURPOSE)
Series = dict[str, str]


@dataclass(frozen=True)
class Case:
    """An alert with the series of its fault, and with series that are none."""

    alert: str
    fault: Series
    fine: Series
    #: Whether the state of the unit decides as well.
    of_an_engine: bool = True
    minutes: int = 20


def unit(state: str) -> Series:
    """A unit in this state all the time."""
    return {UNIT % one: "1x120" if one == state else "0x120" for one in STATES}


def steady(name: str, value: str, labels: str = ENGINE) -> Series:
    return {f"{name}{{{labels}}}": f"{value}x120"}


def rising(name: str, step: str, labels: str = ENGINE) -> Series:
    return {f"{name}{{{labels}}}": f"0+{step}x120"}


def waits(family: str, slow: str, quick: str) -> Series:
    """A histogram: so many requests of each 15 seconds take up to 60 seconds, and so many up to one."""
    buckets = {"1": quick, "60": str(float(slow) + float(quick)), "+Inf": str(float(slow) + float(quick))}
    return {f'{family}_bucket{{{ENGINE},le="{le}"}}': f"0+{step}x120" for le, step in buckets.items()}


def answers(failed: str) -> Series:
    page = f'http_requests_total{{job="vllm",{ENGINE},status="%s"}}'
    return {page % "2xx": "0+100x120", page % "5xx": f"0+{failed}x120"}


def work(tokens: str) -> Series:
    return {
        **steady("vllm:num_requests_running", "3"),
        **rising("vllm:generation_tokens_total", tokens),
        **rising("vllm:prompt_tokens_total", tokens),
    }


def disk(left: str) -> Series:
    labels = 'node="a",device="/dev/sda1",fstype="ext4",mountpoint="/"'
    return {
        **steady("node_filesystem_avail_bytes", left, labels),
        **steady("node_filesystem_size_bytes", "100", labels),
    }


WAITING, KV, UP = "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc", f'job="vllm",worker="http://a:8000",{ENGINE}'
WORKER = 'node="r",instance="r/router-1",worker="http://a:8000"'
PROBE, GATEWAY = 'job="gateway",node="a",instance="a/gateway"', 'node="a",name="gpunode-gateway.service",state="%s"'
FILE = 'node="a",file="/var/lib/gpunode/metrics/node.prom"'
RESTARTS = 'node="a",name="vllm-x.service"'

CASES = (
    Case("EngineDown", steady("up", "0", UP), steady("up", "1", UP)),
    Case(
        "EngineRestarts",
        rising("node_systemd_service_restart_total", "1", RESTARTS),
        steady("node_systemd_service_restart_total", "7", RESTARTS),
        of_an_engine=False,
    ),
    Case("QueueGrows", steady(WAITING, "21"), steady(WAITING, "20")),
    Case(
        "SlowFirstToken",
        waits("vllm:time_to_first_token_seconds", "5", "1"),
        waits("vllm:time_to_first_token_seconds", "0", "5"),
    ),
    Case(
        "QueueTime",
        waits("vllm:request_queue_time_seconds", "5", "1"),
        waits("vllm:request_queue_time_seconds", "0", "5"),
    ),
    Case("KvFull", {**steady(KV, "0.97"), **steady(WAITING, "1")}, {**steady(KV, "1"), **steady(WAITING, "0")}),
    Case("Preemptions", rising("vllm:num_preemptions_total", "9"), rising("vllm:num_preemptions_total", "1")),
    Case(
        "EngineErrors",
        rising("vllm:request_success_total", "1", f'{ENGINE},finished_reason="error"'),
        rising("vllm:request_success_total", "1", f'{ENGINE},finished_reason="stop"'),
    ),
    Case("Http5xx", answers("5"), answers("1")),
    Case("Rejections", rising("vllm:admission_rejections_total", "1"), steady("vllm:admission_rejections_total", "4")),
    Case("Stalled", work("0"), work("1")),
    Case(
        "RouterWorkerDown",
        {**steady("smg_worker_health", "0", WORKER), **steady("up", "1", UP)},
        # The engine is down itself: that is another alert.
        {**steady("smg_worker_health", "0", WORKER), **steady("up", "0", UP)},
        of_an_engine=False,
    ),
    Case(
        "GpuGone",
        {**steady("gpunode_gpus", "7", 'node="a"'), **steady("gpunode_gpus_expected", "8", 'node="a"')},
        {**steady("gpunode_gpus", "8", 'node="a"'), **steady("gpunode_gpus_expected", "8", 'node="a"')},
        of_an_engine=False,
    ),
    Case(
        "Xid",
        steady("gpunode_gpu_xids_last_hour", "1", 'node="a",gpu="0",xid="79",action="reboot"'),
        steady("gpunode_gpu_xids_last_hour", "9", 'node="a",gpu="0",xid="31",action="none"'),
        of_an_engine=False,
    ),
    Case(
        "GpuHot",
        steady("gpunode_gpu_temperature_margin_celsius", "2", GPU),
        steady("gpunode_gpu_temperature_margin_celsius", "30", GPU),
        of_an_engine=False,
    ),
    Case(
        "Remap",
        steady("gpunode_gpu_row_remap_failure", "1", GPU),
        steady("gpunode_gpu_row_remap_failure", "0", GPU),
        of_an_engine=False,
    ),
    Case(
        "GpuAsks",
        steady("gpunode_gpu_recovery_needed", "1", f'{GPU},action="Reset"'),
        steady("gpunode_gpu_recovery_needed", "0", f'{GPU},action="None"'),
        of_an_engine=False,
    ),
    Case(
        "FabricDown",
        steady("gpunode_gpu_fabric_up", "0", GPU),
        steady("gpunode_gpu_fabric_up", "1", GPU),
        of_an_engine=False,
    ),
    Case("DiskFull", disk("5"), disk("15"), of_an_engine=False),
    Case(
        "CertExpires",
        steady("probe_ssl_earliest_cert_expiry", "86400", PROBE),
        steady("probe_ssl_earliest_cert_expiry", "8640000", PROBE),
        of_an_engine=False,
    ),
    Case(
        "GatewayDown",
        {**steady("probe_success", "0", PROBE), **steady("node_systemd_unit_state", "1", GATEWAY % "active")},
        {**steady("probe_success", "0", PROBE), **steady("node_systemd_unit_state", "1", GATEWAY % "inactive")},
        of_an_engine=False,
    ),
    Case(
        "NodeDown",
        steady("up", "0", 'job="node",node="a"'),
        steady("up", "1", 'job="node",node="a"'),
        of_an_engine=False,
    ),
    Case(
        "FiguresOld",
        steady("node_textfile_mtime_seconds", "0", FILE),
        rising("node_textfile_mtime_seconds", "15", FILE),
        of_an_engine=False,
    ),
)


def tests() -> Iterator[dict[str, Any]]:
    """Each case as promtool takes it."""
    for case in CASES:
        yield _test(case, {**case.fault, **(unit("active") if case.of_an_engine else {})}, 1)
        yield _test(case, {**case.fine, **(unit("active") if case.of_an_engine else {})}, 0)
        for state in ON_PURPOSE if case.of_an_engine else ():
            yield _test(case, {**case.fault, **unit(state)}, 0)


def _test(case: Case, series: Series, firing: int) -> dict[str, Any]:
    count = f'count(ALERTS{{alertname="{case.alert}",alertstate="firing"}})'
    return {
        "name": f"{case.alert} {'fires' if firing else 'does not fire'}",
        "interval": "15s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": count,
                "eval_time": f"{case.minutes}m",
                "exp_samples": [{"labels": "{}", "value": 1}] if firing else [],
            }
        ],
    }


def document(rules: str) -> dict[str, Any]:
    """The file for `promtool test rules`."""
    return {"rule_files": [rules], "evaluation_interval": "15s", "tests": list(tests())}
