# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Models x hosts: rows as data and as a table that a person reads."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.instance.serving import NodeServing
from ansible_collections.gpunode.llm.plugins.module_utils.programs.gpu import NodeGpus
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog import Measured, Preset
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.host import given_gpus, read_host
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.matrix import (
    Row,
    catalogue_hosts,
    matrix,
    matrix_models,
    together,
)
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.messages import sentence
from ansible_collections.gpunode.llm.plugins.plugin_utils.screen.matrix import alone, packed, table
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.planning import CATALOG, board, instances, outcome


def rows(gpus: Any, *models: Any, link: float = 1000) -> list[Row]:
    node = gpus if isinstance(gpus, NodeGpus) else given_gpus(gpus, CATALOG)
    rows, findings = matrix({"models": list(models)}, [("host", read_host(node, CATALOG))], CATALOG, link)
    assert not findings
    return rows


def test_a_row_matches_the_plan() -> None:
    (row,) = rows("8xH100", "70b")
    plan = outcome("8xH100", model="70b").plan
    assert plan
    instance = plan.instances[0]
    for key in (
        "tensor_parallel_size",
        "pipeline_parallel_size",
        "data_parallel_size",
        "max_model_len",
        "kv_cache_tokens",
    ):
        assert row.as_dict()[key] == getattr(instance, key)
    assert (row.fits, row.layout, row.download_bytes) == (True, "TP 4 x 2 replicas", instance.weights_bytes)


@pytest.mark.parametrize(
    "options",
    [
        {"max_model_len": 262144},
        {"model": "qwen3-8b", "max_model_len": 65536},
        {"model": "tiny", "max_model_len": 4096},
        {"gpu_share": 0.1},
        {"gpu_share": 0.5},
        {"gpu_share": "auto"},
        {"pipeline_parallel_size": 2},
        {"extra_args": {"max-num-seqs": 0}},
        {"extra_args": {"bogus": 1}},
        {"extra_args": {"bogus": 1}, "image": "mine/vllm:1"},
        {"image": "mine/vllm:1"},
    ],
)
def test_the_table_says_yes_where_the_plan_does(options: dict[str, Any]) -> None:
    model = {"model": "8b", **options}
    made = outcome("2xH100", models=[model])
    node = read_host(given_gpus("2xH100", CATALOG), CATALOG)
    (row,), findings = matrix({"models": [model]}, [("host", node)], CATALOG, 1000)
    assert (row.fits and not findings) == (made.plan is not None)
    if made.plan:
        instance = made.plan.instances[0]
        assert (row.max_model_len, row.kv_cache_tokens) == (instance.max_model_len, instance.kv_cache_tokens)
    else:
        assert all(finding in made.findings for finding in findings)
        assert findings or any(row.reason in finding for finding in made.findings)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ({"model": "8b", "max_model_len": 262144}, "    max_model_len 262144 exceeds the model's context"),
        ({"model": "qwen3-14b", "tensor_parallel_size": 3}, "    40 attention heads do not divide by TP 3"),
        (
            {"model": "70b", "tensor_parallel_size": 1, "pipeline_parallel_size": 1},
            "    134.7 GiB per GPU are needed with TP 1",
        ),
    ],
)
def test_a_reason_is_a_sentence_that_keeps_names_as_they_are_written(model: dict[str, Any], says: str) -> None:
    assert says in "\n".join(alone(rows("4xH100", model), [], 1000))


def test_a_reason_that_begins_with_a_name() -> None:
    assert sentence("intermediate_size (13824) does not divide by TP 8").startswith("intermediate_size")
    assert sentence("vLLM 0.33.0 does not serve it") == "vLLM 0.33.0 does not serve it."
    assert sentence("the vocabulary does not divide") == "The vocabulary does not divide."


def test_a_driver_that_no_image_takes_is_said_in_the_table() -> None:
    node = dataclasses.replace(given_gpus("1xH100", CATALOG), driver_version="450.80.02")
    (row,) = rows(node, "8b")
    assert not row.fits
    assert row.reason.startswith("The NVIDIA driver is 450.80.02, and the image needs at least")


def test_minutes_of_a_link() -> None:
    assert rows("8xH100", "405b-fp8")[0].download_minutes == 54.7
    assert rows("8xH100", "405b-fp8", link=10000)[0].download_minutes == 5.5


def test_reasons() -> None:
    def reason(gpus: Any, model: Any) -> str:
        (row,) = rows(gpus, model)
        assert not row.fits
        return row.reason

    old = {"name": "Tesla V100", "memory_mib": 16384, "compute_capability": "7.0"}
    assert reason("8xH100", "405b") == (
        "96.7 GiB per GPU are needed with TP 4 x PP 2, 72.8 GiB of each can be used; 2 such nodes would hold it"
        " (TP 8 x PP 2)"
    )
    assert reason("1xH100", "70b") == "134.7 GiB per GPU are needed with TP 1, 72.8 GiB of each can be used"
    little = {"model": "8b", "max_model_len": "128K", "gpu_memory_utilization": 0.5}
    assert reason("1xL40S", little) == "45376 tokens fit the KV cache with TP 1, 131072 are needed"
    assert "kernels for 7.5 and newer" in reason([old], "8b")
    assert "heads do not divide" in reason("8xH100", {"model": "8b", "tensor_parallel_size": 3})
    assert "is not available" in reason("1xH100", {"model": "8b", "gpu_indices": [4]})
    assert reason(board("h100x8-fabric-in-progress"), "8b") == "no free GPU"
    assert "such nodes" not in reason("8xA10G", "405b")


def test_the_cpu() -> None:
    (row,) = rows("1xH100", "tiny")
    assert (row.fits, row.layout, row.max_model_len, row.kv_cache_tokens) == (True, "CPU", 2048, 1048576)
    node = given_gpus("1xH100", CATALOG)
    planned = together({"models": ["tiny"]}, "host", node, NodeServing(), CATALOG, 1000)
    assert [row.layout for row in planned.rows] == ["CPU"]


def test_all_models_in_the_catalogues_order() -> None:
    every = matrix_models(["all"], CATALOG)
    assert every[0] == "8b"
    assert "tiny" not in every
    assert matrix_models(["tiny", {"model": "8b"}], CATALOG) == ["tiny", {"model": "8b"}]
    assert [row.model for row in rows("1xH100", *reversed(every))] == every


def test_hosts_of_the_catalogue() -> None:
    hosts = catalogue_hosts(CATALOG)
    assert {"1xa100-40", "8xh100", "8xb200", "8xl40s"} <= set(hosts)


def test_a_model_that_nobody_knows() -> None:
    _rows, findings = matrix({"models": ["8x"]}, [], CATALOG, 1000)
    assert "'8x' is not in the catalogue" in findings[0]


def test_the_table() -> None:
    assert table(rows("2xH100", "8b", "70b", "405b", "tiny")) == [
        "model  fits  layout             context  KV cache  download  minutes",
        "8b     yes   TP 1 x 2 replicas   131072      908k   16.1 GB        2",
        "70b    yes   TP 2                 24576       25k  141.1 GB       19",
        "405b   no                                          811.7 GB      108",
        "    381.2 GiB per GPU are needed with TP 1 x PP 2, 72.8 GiB of each can be used.",
        "tiny   yes   CPU                   2048     1048k    0.0 GB       <1",
    ]
    assert "8192" in table(rows("1xH100", {"model": "8b", "max_model_len": 8192}))[1]
    assert table([Row("m", "h", True, "", 1, 1, "TP 1", 1, 1, 1, 4096, 4096)])[1].split()[4] == "4096"


def test_what_is_the_same_in_all_rows_has_no_column() -> None:
    h100, l40s = (Row("m", host, True, "", 1, 1, "TP 1") for host in ("1xH100", "1xL40S"))
    assert table([h100, l40s])[0].startswith("host    fits")
    assert [line for line in alone([h100, l40s], [], 1000) if line.endswith(":")] == ["Where m fits, alone:"]
    other = Row("other", "1xL40S", True, "", 1, 1, "TP 1")
    titles = [line for line in alone([h100, other], [], 1000) if line.endswith(":")]
    assert titles == ["What fits 1xH100, each model alone:", "What fits 1xL40S, each model alone:"]


def test_the_table_shows_which_models_have_drafts() -> None:
    text = " ".join(alone(rows("4xH100", "8b", "70b", "qwen3.5-9b"), [], 1000))
    assert "The catalogue supports vllm_speculative: auto for 8b, qwen3.5-9b." in text
    alone_text = " ".join(alone(rows("1xH100", "qwen3.5-9b"), [], 1000))
    assert "vllm_speculative: auto for qwen3.5-9b: mtp, 1 token." in alone_text
    assert "vllm_speculative" not in " ".join(alone(rows("4xH100", "70b"), [], 1000))


def test_the_table_says_which_presets_are_taken_and_which_weights_are_faster() -> None:
    by = Measured("2026-11-27", "0.33.0", "guide", 1000, 7000, 9000)
    gain = (
        "9000 output tokens/s in place of 7000 (+29%), measured on 2026-11-27 with vLLM 0.33.0, profile guide, 1000 at"
        " once"
    )
    fast = Preset("fast", "8b", "h100", 2, "throughput", by, options={"max-num-batched-tokens": 16384})
    small = Preset("small", "8b", "h100", 1, "throughput", by, weights="8b-fp8")
    on_cpu = Preset("calm", "tiny", "cpu", 0, "throughput", by, options={"max-num-seqs": 8})
    catalog = dataclasses.replace(CATALOG, presets=(fast, small, on_cpu))
    hosts = [(label, read_host(given_gpus(label, catalog), catalog)) for label in ("1xH100", "2xH100")]
    for wanted in ("8b", "tiny"):
        planned, _findings = matrix({"models": [wanted]}, hosts, catalog, 1000)
        plans = [instances(label, catalog, model=wanted)[wanted] for label, _host in hosts]
        for row, plan in zip(planned, plans):
            for field in ("preset", "preset_gain", "faster_weights", "kv_cache_tokens", "max_model_len"):
                assert getattr(row, field) == getattr(plan, field)
    text = " ".join(" ".join(alone(matrix({"models": ["8b", "tiny"]}, hosts, catalog, 1000)[0], [], 1000)).split())
    assert f"- 8b on 2xH100 has the preset fast: {gain}." in text
    assert f"- tiny on 1xH100 has the preset calm: {gain}." in text
    assert f"- For 8b on 1xH100 vllm_weights: fastest takes 8b-fp8: {gain}." in text
    (fastest, _two), _findings = matrix({"models": ["8b"], "weights": "fastest"}, hosts, catalog, 1000)
    assert (fastest.preset, fastest.faster_weights) == ("small", "")
    assert fastest.download_bytes == instances("1xH100", catalog, model="8b-fp8")["8b-fp8"].download_bytes
    served = "8b: Serving 8b-fp8 (RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8, 8.5 GiB of FP8 weights) in place of 8b"
    (note,) = fastest.notes
    assert note.startswith(served)
    assert f"- {served}" in " ".join(" ".join(alone([fastest], [], 1000)).split())
    assert served not in " ".join(" ".join(alone([fastest, _two], [], 1000)).split())
    odd = dataclasses.replace(catalog, presets=(dataclasses.replace(on_cpu, options={"max-num-seqs": 0}),))
    (row, _two), _findings = matrix({"models": ["tiny"]}, hosts, odd, 1000)
    assert row.notes == ("tiny: The preset calm is left out: max-num-seqs must be at least 1, not 0.",)
    host = together({"models": ["8b"]}, "2xH100", given_gpus("2xH100", catalog), NodeServing(), catalog, 1000)
    assert f"- 8b on 2xH100 has the preset fast: {gain}." in " ".join(" ".join(packed(host, 1000)).split())


def test_all_of_the_catalogue_fits_a_screen() -> None:
    every = matrix_models(["all"], CATALOG)
    hosts = [(label, read_host(given_gpus(label, CATALOG), CATALOG)) for label in catalogue_hosts(CATALOG)]
    for objective in ("throughput", "latency", "context"):
        rows, _findings = matrix({"models": every, "objective": objective}, hosts, CATALOG, 1000)
        assert max(map(len, alone(rows, ["a word " * 40], 1000))) <= 100
    long = Row("m" * 64, "8xrtx-pro-6000", True, "", 1, 1, "TP 4 x PP 2 x 2 replicas, KV cache in FP8, steps of 2048 t")
    lines = alone([long, Row("n", "1xH100", True, "", 1, 1, "TP 1")], [], 1000)
    assert max(map(len, lines)) <= 100
    assert "    With KV cache in FP8, steps of 2048 t." in lines
