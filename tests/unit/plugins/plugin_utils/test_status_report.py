# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table that a person reads, and the data beside it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.gpunode.llm.plugins.filter.vllm_status_report import vllm_status_report
from ansible_collections.gpunode.llm.plugins.plugin_utils._status_report import duration, report

SERVING: dict[str, Any] = {
    "name": "8b",
    "unit": "vllm-8b.service",
    "state": "serving",
    "healthy": True,
    "detail": "it answers a completion",
    "remedy": "",
    "unit_state": "active/running",
    "enabled": True,
    "since_s": 3700,
    "restarts": 0,
    "restart_due": "",
    "model": "meta-llama/Llama-3.1-8B-Instruct",
    "revision": "0e9e39f249a16976918f6564b8830bc894c89659",
    "served": "8b",
    "image": f"registry.example.com:5000/vllm/vllm-openai@sha256:{'ab' * 32}",
    "image_id": "sha256:1",
    "url": "http://127.0.0.1:8000/v1",
    "requests_running": 3,
    "requests_waiting": 0,
    "kv_cache_usage": 0.1234,
    "gpus": [0],
    "gpu_memory_used_mib": 72900,
    "gpu_memory_mib": 81559,
}
DOWN = {
    **SERVING,
    "name": "70b",
    "state": "failed",
    "healthy": False,
    "detail": "it ended (exit-code, status 1). The GPU's memory is full.",
    "remedy": "Lower max-num-seqs.",
    "unit_state": "failed/failed",
    "since_s": None,
    "revision": "",
    "requests_running": None,
    "requests_waiting": None,
    "kv_cache_usage": None,
    "gpu_memory_used_mib": None,
    "gpu_memory_mib": None,
}


def node(*instances: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"instances": list(instances), "docker_runs": True, "front": "", "gpu_message": "", **more}


def test_a_table_of_all_nodes() -> None:
    told = report({"gpu-1": node(SERVING, DOWN), "gpu-2": node(SERVING)})
    head, first, second, third = told["table"]
    assert first.split() == [
        *("gpu-1", "8b", "serving", "active/running", "1h1m", "meta-llama/Llama-3.1-8B-Instruct", "0e9e39f2"),
        *("vllm/vllm-openai@abababababab", "3", "0", "12%", "71.2/79.6"),
    ]
    assert second.split()[:5] == ["gpu-1", "70b", "failed", "failed/failed", "-"]
    assert third.startswith("gpu-2")
    # Columns stand under their heads.
    assert {line.index("meta-llama") for line in told["table"][1:]} == {head.index("model")}
    assert told["notes"] == [
        "gpu-1 70b is failed: it ended (exit-code, status 1). The GPU's memory is full. Lower max-num-seqs."
    ]
    assert told["unhealthy"] == ["gpu-1 70b (failed)"]
    assert told["nodes"]["gpu-2"]["instances"] == [SERVING]


@pytest.mark.parametrize("detail", ["it was stopped, or never started", "it was stopped, or never started."])
def test_two_sentences_are_not_glued_into_one(detail: str) -> None:
    told = report({"n": node({**DOWN, "detail": detail, "remedy": "systemctl start vllm-70b starts it."})})
    assert told["notes"] == ["n 70b is failed: it was stopped, or never started. systemctl start vllm-70b starts it."]


def test_a_node_that_serves_nothing_and_one_that_was_not_reached() -> None:
    told = report({"gpu-1": node(), "gpu-2": {}, "gpu-3": {"failed": True, "msg": "no sudo"}})
    assert told["table"] == []
    assert told["notes"] == [
        "gpu-1 serves nothing.",
        "gpu-2 could not be asked: it was not reached",
        "gpu-3 could not be asked: no sudo",
    ]
    assert told["nodes"]["gpu-2"] == {"asked": False}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"restarts": 1}, "started again once"),
        ({"restarts": 4}, "started again 4 times"),
        ({"restart_due": "/etc/vllm/8b.yaml"}, "/etc/vllm/8b.yaml has changed since it was started."),
        ({"enabled": False}, "does not start with the node"),
    ],
)
def test_what_is_about_to_hurt_is_said(change: dict[str, Any], said: str) -> None:
    (note,) = report({"n": node({**SERVING, **change})})["notes"]
    assert said in note


def test_a_front_that_does_not_run_is_said() -> None:
    assert report({"n": node(SERVING, front="active/running")})["notes"] == []
    (note,) = report({"n": node(SERVING, front="failed/failed")})["notes"]
    assert note.startswith("n: the front before its engines is failed/failed")


def test_trouble_with_gpus_is_said() -> None:
    assert report({"n": node(SERVING, gpu_message="A GPU is lost.")})["notes"] == ["n: A GPU is lost."]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0, "0s"), (59, "59s"), (61, "1m1s"), (3600, "1h0m"), (90061, "1d1h"), (8640000, "100d0h")],
)
def test_durations(seconds: int | None, text: str) -> None:
    assert duration(seconds) == text


def test_the_filter_refuses_what_is_not_a_status() -> None:
    assert vllm_status_report({"n": node(SERVING)})["unhealthy"] == []
    with pytest.raises(AnsibleFilterError, match="not what vllm_status returned"):
        vllm_status_report({"n": {"instances": [{}]}})
