# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table that a person reads, and the data beside it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.gpunode.llm.plugins.filter.plans import FilterModule
from ansible_collections.gpunode.llm.plugins.plugin_utils.screen.status import report

vllm_status_report = FilterModule().filters()["vllm_status_report"]
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
    "requests_per_s": 2.5,
    "prompt_tokens_per_s": 340.4,
    "generation_tokens_per_s": 890.0,
    "kv_cache_usage": 0.1234,
    "gpus": [0, 1, 2, 3],
    "gpu_memory_used_mib": 72900,
    "gpu_memory_mib": 81559,
    "gpu_utilization_percent": 87.3,
    "gpu_power_w": 1612.4,
    "gpu_power_limit_w": 2800.0,
    "gpu_temperature_c": 61.0,
    "listed": None,
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
    "requests_per_s": None,
    "prompt_tokens_per_s": None,
    "generation_tokens_per_s": None,
    "kv_cache_usage": None,
    "gpu_memory_used_mib": None,
    "gpu_memory_mib": None,
    "gpu_utilization_percent": None,
    "gpu_power_w": None,
    "gpu_power_limit_w": None,
    "gpu_temperature_c": None,
}


def node(*instances: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"instances": list(instances), "docker_runs": True, "front": "", "gpu_message": "", **more}


def test_all_nodes_as_text() -> None:
    text = report({"gpu-1": node(SERVING, DOWN), "gpu-2": node(SERVING, front="active/running", front_since_s=61)})
    assert text["text"] == [
        "host   instance  state           up  run  wait  req/s  in tok/s  out tok/s   KV",
        "gpu-1  8b        serving  1 h 1 min    3     0    2.5       340        890  12%",
        "gpu-1  70b       failed           -    -     -      -         -          -    -",
        "gpu-2  8b        serving  1 h 1 min    3     0    2.5       340        890  12%",
        "gpu-2  gateway   serving  1 min 1 s    -     -      -         -          -    -",
        "",
        "host   instance  GPUs  busy           power  hottest            memory",
        "gpu-1  8b        0-3   87 %  1612 of 2800 W     61 C  71.2 of 79.6 GiB",
        "gpu-1  70b       0-3      -               -        -                 -",
        "gpu-2  8b        0-3   87 %  1612 of 2800 W     61 C  71.2 of 79.6 GiB",
        "",
        "req/s: requests that ended; in and out tok/s: tokens of prompts and of answers; seen for one second.",
        "",
        "gpu-1 8b       vllm-8b.service active/running, meta-llama/Llama-3.1-8B-Instruct at 0e9e39f2,",
        "               vllm/vllm-openai@abababababab, http://127.0.0.1:8000/v1",
        "gpu-1 70b      vllm-8b.service failed/failed, meta-llama/Llama-3.1-8B-Instruct,",
        "               vllm/vllm-openai@abababababab, http://127.0.0.1:8000/v1",
        "gpu-2 8b       vllm-8b.service active/running, meta-llama/Llama-3.1-8B-Instruct at 0e9e39f2,",
        "               vllm/vllm-openai@abababababab, http://127.0.0.1:8000/v1",
        "gpu-2 gateway  gpunode-gateway.service active/running",
        "",
        "gpu-1 70b is failed: it ended (exit-code, status 1). The GPU's memory is full. Lower max-num-seqs.",
    ]
    assert text["unhealthy"] == ["gpu-1 70b (failed)"]
    assert text["nodes"]["gpu-2"]["instances"] == [SERVING]
    assert text["nodes"]["gpu-2"]["front"] == "active/running"


def test_a_short_text_leaves_out_what_does_not_change() -> None:
    text = report({"n": node(DOWN)}, short=True)["text"]
    assert not [line for line in text if "vllm-8b.service" in line]
    assert "n 70b is failed" in text[-1]


def test_a_node_without_gpus_has_no_table_of_them() -> None:
    assert not [line for line in report({"n": node({**SERVING, "gpus": []})})["text"] if "hottest" in line]


@pytest.mark.parametrize("detail", ["it was stopped, or never started", "it was stopped, or never started."])
def test_two_sentences_are_not_glued_into_one(detail: str) -> None:
    text = report({"n": node({**DOWN, "detail": detail, "remedy": "systemctl start vllm-70b starts it."})})
    assert text["notes"] == ["n 70b is failed: it was stopped, or never started. systemctl start vllm-70b starts it."]


def test_a_node_that_serves_nothing_and_one_that_was_not_reached() -> None:
    text = report({"gpu-1": node(), "gpu-2": {}, "gpu-3": {"failed": True, "msg": "no sudo"}})
    assert text["text"] == text["notes"]
    assert text["notes"] == [
        "gpu-1 serves nothing.",
        "gpu-2 could not be asked: it was not reached",
        "gpu-3 could not be asked: no sudo",
    ]
    assert text["nodes"]["gpu-2"] == {"asked": False}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"restarts": 1}, "started again once"),
        ({"restarts": 4}, "started again 4 times"),
        ({"restart_due": "/etc/vllm/8b.yaml"}, "/etc/vllm/8b.yaml has changed since it was started."),
        ({"enabled": False}, "does not start with the node"),
        (
            {"listed": False},
            "is no longer listed and stays: gpunode.llm.site with -e vllm_remove_unlisted=true removes",
        ),
    ],
)
def test_imminent_trouble_is_reported(change: dict[str, Any], message: str) -> None:
    (note,) = report({"n": node({**SERVING, **change})})["notes"]
    assert message in note


def test_a_stopped_gateway_is_reported() -> None:
    assert report({"n": node(SERVING, front="active/running")})["notes"] == []
    text = report({"n": node(SERVING, front="failed/failed", front_listens=["0.0.0.0 443", "127.0.0.1 9113"])})
    (note,) = text["notes"]
    assert note.startswith("n: the gateway is failed/failed")
    assert text["unhealthy"] == ["n gateway (failed)"]
    assert next(line.split()[:3] for line in text["text"] if " gateway " in line) == ["n", "gateway", "failed"]
    assert "listens on 0.0.0.0:443 and 127.0.0.1:9113" in " ".join(text["text"])


@pytest.mark.parametrize(
    ("kind", "one", "two"),
    [
        ("job", "n: x still works", "n: x, y still work: journalctl -fu follows them."),
        ("failed_job", "n: x has failed: journalctl", "n: x, y have failed: "),
        ("second", "n: x runs beside its first one", "n: x, y run beside their first ones"),
        ("image", "n: x is an image that no service uses: docker image rm removes it.", "removes them."),
        ("model", "n: x is a model that no service uses: gpunode.llm.prune", "n: x, y are models"),
        ("file", "n: x belongs to no service: nothing reads it", "n: x, y belong to no service: nothing reads them"),
    ],
)
def test_leftovers_are_reported(kind: str, one: str, two: str) -> None:
    left = [{"kind": kind, "name": name} for name in "xy"]
    assert one in report({"n": node(SERVING, leftovers=left[:1])})["notes"][0]
    text = report({"n": node(SERVING, leftovers=left)})
    assert two in text["notes"][0]
    assert text["nodes"]["n"]["leftovers"] == left
    assert text["unhealthy"] == []


def test_gpu_trouble_is_reported() -> None:
    assert report({"n": node(SERVING, gpu_message="A GPU is lost.")})["notes"] == ["n: A GPU is lost."]


def test_the_filter_refuses_what_is_not_a_status() -> None:
    assert vllm_status_report({"n": node(SERVING)})["unhealthy"] == []
    with pytest.raises(AnsibleFilterError, match="not what vllm_status returned"):
        vllm_status_report({"n": {"instances": [{}]}})


OVER_TWO = {**SERVING, "rank": 0, "nodes": ["n1", "n2"]}
RANK = {**SERVING, "rank": 1, "nodes": ["n1", "n2"], "url": "", "detail": "it is a part of the engine on n1"}


def rows(nodes: dict[str, Any]) -> list[str]:
    """The hosts of the load table."""
    lines = report(nodes)["text"]
    return [line.split()[0] for line in lines[1 : lines.index("")]]


def test_an_engine_over_several_nodes_is_one_row() -> None:
    nodes = {"n1": {"instances": [OVER_TWO]}, "n2": {"instances": [RANK]}}
    assert rows(nodes) == ["n1"]
    text = "\n".join(report(nodes)["text"])
    assert "over n1, n2" in text
    assert "rank 1 of the engine on n1" in text
    # Its data, and its GPUs, are those of each node.
    assert [row["rank"] for row in report(nodes)["nodes"]["n2"]["instances"]] == [1]


def test_a_rank_is_shown_where_its_head_is_not_or_where_it_is_ill() -> None:
    assert rows({"n2": {"instances": [RANK]}}) == ["n2"]
    ill = {**RANK, "state": "failed", "healthy": False}
    nodes = {"n1": {"instances": [OVER_TWO]}, "n2": {"instances": [ill]}}
    assert rows(nodes) == ["n1", "n2"]
    assert report(nodes)["unhealthy"] == ["n2 8b (failed)"]


def routing(*answers, ready=1, not_ready=()):
    units = ("gpunode-router.service", "gpunode-router-second.service")
    processes = [
        {"unit": unit, "state": "active/running" if answer else "failed/failed", "answers": answer}
        for unit, answer in zip(units, answers, strict=True)
    ]
    return {"processes": processes, "workers": 2, "workers_ready": ready, "not_ready": list(not_ready)}


def test_a_router_without_an_engine_of_its_own_is_shown():
    text = " ".join(" ".join(report({"r": node(router=routing(True, True, ready=2))})["text"]).split())
    assert "router" in text
    assert "2 of 2 engines get requests" in text
    assert "serves nothing" not in text


@pytest.mark.parametrize(
    ("router", "state", "note"),
    [
        (routing(True, True, not_ready=["gpu-2-8b at http://10.0.0.2:8000"]), "", "sends nothing to gpu-2-8b at http"),
        (routing(True, False), "", "gpunode-router-second.service is failed/failed and does not answer"),
        (routing(True, True, ready=0), "no engine", ""),
        (routing(False, False, ready=0), "down", "journalctl -u gpunode-router.service says why"),
    ],
)
def test_what_is_wrong_with_a_router(router, state, note):
    found = report({"r": node(router=router)})
    assert found["unhealthy"] == ([f"r router ({state})"] if state else [])
    assert note in " ".join(found["notes"])
