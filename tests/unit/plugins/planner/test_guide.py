# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The web guide's hardware table is the floor of what is accepted, and what goes beyond it."""

from __future__ import annotations

import pytest
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.planning import (
    findings,
    instances,
    one,
    outcome,
    warnings,
)


@pytest.mark.parametrize(
    ("model", "gpus"),
    [
        ("8b", "1xA100-40"),
        ("8b", "1xA100-80"),
        ("8b", "1xH100"),
        ("70b", "8xA100-40"),
        ("70b", "8xA100-80"),
        ("70b", "8xH100"),
        ("405b-fp8", "8xH100"),
    ],
)
def test_the_guides_table(model: str, gpus: str) -> None:
    assert one(gpus, model=model).max_model_len == 131072


@pytest.mark.parametrize(
    ("model", "gpus", "tp", "pp", "dp", "context"),
    [
        ("8b", "8xH100", 1, 1, 8, 131072),  # eight engines, not TP 8
        ("8b", "1xA10G", 1, 1, 1, 29696),
        ("8b", "1xL40S", 1, 1, 1, 131072),
        ("8b", "3xH100", 1, 1, 3, 131072),
        ("70b", "8xH100", 4, 1, 2, 131072),
        ("70b", "4xH100", 4, 1, 1, 131072),
        ("70b", "2xH100", 2, 1, 1, 24576),  # accepted, with less context
        ("70b", "2xH200", 2, 1, 1, 131072),
        ("70b", "1xB200", 1, 1, 1, 76800),
        ("70b-fp8", "2xH100", 2, 1, 1, 131072),
        ("405b-fp8", "8xH100", 8, 1, 1, 131072),
        ("405b-fp8-meta", "8xH100", 8, 1, 1, 131072),
        ("405b-fp8", "6xH100", 2, 3, 1, 59392),  # stages, where tensor parallelism alone finds no width
        ("405b", "8xH200", 8, 1, 1, 131072),
        ("405b", "8xB200", 8, 1, 1, 131072),
    ],
)
def test_choices(model: str, gpus: str, tp: int, pp: int, dp: int, context: int) -> None:
    instance = one(gpus, model=model)
    assert (
        instance.tensor_parallel_size,
        instance.pipeline_parallel_size,
        instance.data_parallel_size,
        instance.max_model_len,
    ) == (tp, pp, dp, context)
    assert len(instance.gpu_indices) == tp * pp * dp


def test_8b_takes_one_gpu_per_engine() -> None:
    config = one("8xH100", model="8b").config
    assert (config["tensor-parallel-size"], config["data-parallel-size"]) == (1, 8)


def test_405b_in_bf16_states_the_number_of_nodes() -> None:
    message = findings("8xH100", model="405b")
    assert "2 nodes of 8x NVIDIA H100 80GB HBM3 (TP 8 x PP 2)" in message
    assert "8x NVIDIA H200 (TP 8)" in message
    assert "405b-fp8-meta, 405b-fp8, 405b-w4a16" in message


@pytest.mark.parametrize("model", ["70b", "405b-fp8"])
def test_one_h100_is_too_little_in_one_message(model: str) -> None:
    made = outcome("1xH100", model=model)
    assert len(made.findings) == 1
    message = made.findings[0]
    assert "does not fit 1x NVIDIA H100 80GB HBM3" in message  # what is there
    assert "GiB of weights" in message  # what is needed
    assert "72.8 GiB of each are usable (79.2 GiB x 0.92)" in message
    assert "It fits " in message  # what would work
    assert "Models that fit 1x NVIDIA H100 80GB HBM3: 70b" in message


def test_weight_only_fp8_is_a_warning() -> None:
    assert "no FP8 tensor cores" in warnings("8xA100-80", model="405b-fp8")
    assert "FP8" not in warnings("8xH100", model="405b-fp8")
    assert "FP8" not in warnings("8xA100-80", model="8b-w4a16")


def test_too_old() -> None:
    message = findings(
        [{"name": "Tesla V100", "memory_mib": 16384, "compute_capability": "7.0", "count": 4}], model="8b"
    )
    assert "compute capability 7.0, and the images of vLLM 0.33.0 have kernels for 7.5" in message


def test_objectives() -> None:
    assert one("8xH100", model="8b", objective="latency").tensor_parallel_size == 8
    assert one("8xH100", model="8b", objective="latency").data_parallel_size == 1
    wide = one("8xH100", model="70b", objective="context")
    assert (wide.tensor_parallel_size, wide.max_model_len) == (4, 131072)
    longest = one("2xH100", model="70b", objective="context")
    assert (longest.max_model_len, longest.config["kv-cache-dtype"]) == (49152, "fp8")
    # Two bridged pairs: wider than a pair would leave NVLink.
    assert one("4xH100-NVL", model="8b", objective="latency").tensor_parallel_size == 2
    assert one("4xL40S", model="8b", objective="latency").tensor_parallel_size == 4


def test_several_models_share_a_host() -> None:
    planned = instances("8xH100", models=["8b", "70b"])
    assert {name: (i.tensor_parallel_size, i.data_parallel_size) for name, i in planned.items()} == {
        "70b": (4, 1),
        "8b": (1, 4),
    }
    assert planned["70b"].gpu_indices == (0, 1, 2, 3)
    assert planned["8b"].gpu_indices == (4, 5, 6, 7)
    assert (planned["70b"].port, planned["8b"].port) == (8000, 8001)


def test_a_model_that_would_take_the_whole_host_makes_room_with_pipeline_stages() -> None:
    plan = outcome("8xH100", models=["70b", "405b-fp8"]).plan
    assert plan
    spread = {item.model: (item.tensor_parallel_size, item.pipeline_parallel_size) for item in plan.instances}
    assert spread == {"405b-fp8": (2, 3), "70b": (2, 1)}
    made = outcome("8xH100", model="405b-fp8").plan
    assert made
    (alone,) = made.instances
    assert (alone.tensor_parallel_size, alone.pipeline_parallel_size) == (8, 1)


def test_models_that_fit_only_one_by_one() -> None:
    message = findings("8xH100", models=["3.3-70b", "70b", "405b-fp8"])
    assert "3.3-70b at least 2, 405b-fp8 at least 6, 70b at least 2, 10 GPUs in all" in message
    assert "smaller weights: 405b-w4a16, 70b-fp8, 70b-w4a16" in message
    assert "on this host." in findings("1xH100", models=["8b-w4a16", {"model": "8b-w4a16", "name": "again"}])
