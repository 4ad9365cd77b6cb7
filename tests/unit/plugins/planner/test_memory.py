# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The arithmetic against what is published and what was measured on real GPUs."""

from __future__ import annotations

import json

import pytest
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog_files import load_catalog
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.kv_cache import Setting
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.memory import (
    GIB,
    Parallel,
    stages,
    weights_bytes,
    weights_gib_per_gpu,
)
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.splits import problem
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.planning import (
    CATALOG,
    CONFIGS,
    FIXTURES,
    findings,
    one,
    recorded,
)

MEASURED = json.loads((FIXTURES / "measurements" / "vllm-0.26.0-hopper.json").read_text(encoding="utf-8"))
TOLERANCE = 0.03


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("8b", 16_060_522_496),  # total_size of the published index
        ("70b", 141_107_412_992),  # likewise
        ("3.3-70b", 141_107_412_992),
        ("405b", 811_706_777_600),
    ],
)
def test_published_sizes(model: str, size: int) -> None:
    assert weights_bytes(CATALOG.models[model]) == size


@pytest.mark.parametrize(
    ("model", "gigabytes"),
    [
        ("8b-fp8", 9.08),
        ("70b-fp8", 72.66),
        ("405b-fp8", 410.06),
        ("8b-w4a16", 5.70),
        ("70b-w4a16", 39.5),
        ("405b-w4a16", 215.5),
        ("405b-fp8-meta", 487.2),
    ],
)
def test_quantised_sizes(model: str, gigabytes: float) -> None:
    assert weights_bytes(CATALOG.models[model]) / 1e9 == pytest.approx(gigabytes, rel=0.001)


@pytest.mark.parametrize(
    ("model", "spread", "kv_dtype", "size"),
    [
        ("8b", Parallel(), "auto", 131_072),
        ("8b", Parallel(), "fp8", 65_536),
        ("70b", Parallel(), "auto", 327_680),
        ("405b", Parallel(), "auto", 516_096),
        ("405b", Parallel(8), "auto", 64_512),
        ("405b", Parallel(16), "auto", 64_512),  # wider than the KV heads: they are repeated
        ("405b", Parallel(8, 2), "auto", 32_256),  # stages do divide them
        ("70b", Parallel(8), "fp8_e4m3", 20_480),
    ],
)
def test_kv_cache_of_a_token(model: str, spread: Parallel, kv_dtype: str, size: int) -> None:
    known = CATALOG.models[model]
    stage = stages(known.sized.layers, spread.pp)[0]
    assert known.layout(Setting(tp=spread.tp, layers=stage, fp8=kv_dtype != "auto")).token_bytes == size


def test_weights_per_gpu() -> None:
    assert weights_gib_per_gpu(CATALOG.models["405b"], Parallel(8)) == pytest.approx(94.5, abs=0.05)
    assert weights_gib_per_gpu(CATALOG.models["405b-fp8-meta"], Parallel(8)) == pytest.approx(56.7, abs=0.05)
    halves = weights_gib_per_gpu(CATALOG.models["405b"], Parallel(8, 2))
    assert 47.24 <= halves < 47.6  # the head stays on one stage
    meta = CATALOG.models["405b-fp8-meta"]
    stages = weights_gib_per_gpu(meta, Parallel(8, 2))
    assert weights_bytes(meta) / 16 / GIB <= stages < 29


@pytest.mark.parametrize("point", MEASURED["fit"], ids=lambda p: f"{p['model']}-{p['gpu']}-tp{p['tp']}-{p['kv_dtype']}")
def test_measured_fit(point: dict) -> None:
    """Every recorded point within 3 %, whatever else the planner would have chosen."""
    instance = one(
        [{"name": MEASURED["gpu"][point["gpu"]]["name"], "count": point["gpus"]}],
        recorded(CATALOG),
        model=point["model"],
        kv_cache_dtype=point["kv_dtype"],
        tensor_parallel_size=point["tp"],
        max_model_len=point["max_model_len"],
        gpu_memory_utilization=MEASURED["defaults"]["gpu_memory_utilization"],
    )
    assert instance.weights_gib_per_gpu == pytest.approx(point["weights_gib_per_gpu"], rel=TOLERANCE)
    assert instance.kv_cache_tokens == pytest.approx(point["kv_tokens"], rel=TOLERANCE)


@pytest.mark.parametrize("gpu", ["h100", "h200"])
def test_memory_as_cuda_sees_it(gpu: str) -> None:
    measured = MEASURED["gpu"][gpu]
    spec = CATALOG.gpu(measured["name"])
    assert spec
    assert spec.memory_mib == measured["memory_total_mib"]
    assert (spec.memory_mib - (spec.reserved_mib or 0)) / 1024 == pytest.approx(measured["torch_total_gib"], abs=0.02)


REFUSED = {
    "70b BF16 on one H100": ({"model": "70b"}, "131.4 GiB of weights"),
    "8b with --tensor-parallel-size 2 on one GPU": (
        {"model": "8b", "tensor_parallel_size": 2},
        "TP 2 needs 2 GPUs, 1 is available",
    ),
    "8b with --swap-space 16": ({"model": "8b", "extra_args": {"swap-space": 16}}, "no longer has the option swap"),
}


@pytest.mark.parametrize("case", [item["case"] for item in MEASURED["refused"]])
def test_options_that_vllm_refused(case: str) -> None:
    options, says = REFUSED[case]
    assert says in findings("1xH100", **options)


def test_heads() -> None:
    model = CATALOG.models["8b"]
    assert [tp for tp in range(1, 65) if problem(model.sized, model.stored, tp, tp) is None] == [1, 2, 4, 8, 16, 32]
    assert problem(model.sized, model.stored, 3, 3) == "32 attention heads do not divide by TP 3"
    config = {**CONFIGS["8b"], "num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128}
    odd = load_catalog({"odd": {"repo_id": "a/b", "config": config}}).models["odd"]
    assert problem(odd.sized, odd.stored, 6, 6) == "8 KV heads do not divide by TP 6"


def test_biases_and_tied_embeddings_count() -> None:
    base = CONFIGS["8b"]

    def size(**changes: object) -> int:
        return weights_bytes(load_catalog({"m": {"repo_id": "a/b", "config": {**base, **changes}}}).models["m"])

    assert size() - size(tie_word_embeddings=True) == 2 * 128256 * 4096
    assert size(attention_bias=True) - size() == 2 * 32 * ((32 + 16) * 128 + 4096)  # of the output, too
    assert size(architectures=["Qwen2ForCausalLM"]) - size() == 2 * 32 * (32 + 16) * 128
