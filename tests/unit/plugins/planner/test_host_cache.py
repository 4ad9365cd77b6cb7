# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""KV cache in the host's memory: how much each engine has, what is refused, and the shared memory that holds it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.programs.gpu import NodeGpus
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.planning import (
    CATALOG,
    CONFIGS,
    board,
    findings,
    instances,
    one,
    warnings,
)


def host(gib: int, name: str = "h100x1") -> NodeGpus:
    return replace(board(name), host_memory_mib=gib * 1024 - 300)


def test_what_is_stated_is_written_and_the_shared_memory_grows_by_it() -> None:
    plain, made = one(host(256), model="8b"), one(host(256), model="8b", kv_host_gib="64")
    assert (made.config["kv-offloading-size"], made.shm_size, made.kv_host_gib) == (64, "80g", 64)
    assert ("kv-offloading-size" in plain.config, plain.shm_size, plain.kv_host_gib) == (False, "16g", 0)
    # What is on the GPU is as without it.
    assert (made.kv_cache_tokens, made.max_model_len) == (plain.kv_cache_tokens, plain.max_model_len)
    assert "8b: up to 64 GiB of KV cache are kept in the host's memory" in warnings(
        host(256), model="8b", kv_host_gib=64
    )


def test_replicas_share_it() -> None:
    made = one("8xH100", model="8b", kv_host_gib=100)
    assert made.data_parallel_size == 8
    assert (made.config["kv-offloading-size"], made.kv_host_gib) == (12.5, 100)
    assert "100 GiB of KV cache (12.5 for each of 8 replicas)" in warnings("8xH100", model="8b", kv_host_gib=100)


@pytest.mark.parametrize(("gib", "expected"), [(256, 116), (257, 120), (128, 52), (40, 8), (24, 0), (16, 0)])
def test_auto_is_half_of_what_the_system_leaves(gib: int, expected: int) -> None:
    made = one(host(gib), model="8b", kv_host_gib="auto")
    assert made.kv_host_gib == expected
    assert made.config.get("kv-offloading-size") == (expected or None)
    notes = warnings(host(gib), model="8b", kv_host_gib="auto")
    assert ("too little to keep KV cache there" in notes) == (expected == 0)


def test_engines_share_what_is_planned() -> None:
    node = host(512, "h100x8")
    models = [
        {"model": "8b", "tensor_parallel_size": 1, "data_parallel_size": 1, "kv_host_gib": 48},
        {"model": "8b-fp8", "tensor_parallel_size": 1, "data_parallel_size": 1},
        {"model": "8b-w4a16", "tensor_parallel_size": 1, "data_parallel_size": 1},
    ]
    found = {name: made.kv_host_gib for name, made in instances(node, models=models, kv_host_gib="auto").items()}
    # (512 - 16) / 2 = 248, 200 of it for two.
    assert found == {"8b": 48, "8b-fp8": 96, "8b-w4a16": 96}


def test_more_than_the_host_has_is_refused() -> None:
    problems = findings(host(128), model="8b", kv_host_gib=120)
    assert "8b 120 GiB are asked for, and of the host's 128 GiB 16 are kept" in problems
    assert "set 111 or less in all, or auto" in problems
    assert one(host(128), model="8b", kv_host_gib=111).kv_host_gib == 111


def test_without_a_node_its_memory_is_not_known() -> None:
    assert one("1xH100", model="8b", kv_host_gib=4000).kv_host_gib == 4000
    assert one("1xH100", model="8b", kv_host_gib="auto").kv_host_gib == 0
    assert "is decided on the node" in warnings("1xH100", model="8b", kv_host_gib="auto")


@pytest.mark.parametrize("value", ["much", 0, -1, 1.5, True, 70000, [64]])
def test_an_invalid_size_is_a_finding(value: Any) -> None:
    problems = findings("1xH100", model="8b", kv_host_gib=value)
    assert f"vllm_kv_host_gib must be auto, or a whole number of GiB from 1 to 65536, not {value!r}" in problems


POOLING = {"mine": {"repo_id": "Acme/mine", "config": {**CONFIGS["8b"], "architectures": ["MistralModel"]}}}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"device": "cpu"}, "on the CPU the KV cache is in the host's memory anyway"),
        ({"extra_args": {"enable-prefix-caching": False}}, "by prefix caching, which is off"),
    ],
)
def test_where_there_is_none_auto_is_silent_and_a_number_refused(options: dict[str, Any], says: str) -> None:
    assert says in findings(host(256), model="8b", kv_host_gib=8, **options)
    made = one(host(256), model="8b", kv_host_gib="auto", **options)
    assert made.kv_host_gib == 0
    assert "kv-offloading-size" not in made.config


def test_a_memory_that_is_the_hosts_keeps_nothing_beside_it() -> None:
    unified = next(key for key, gpu in CATALOG.gpus.items() if gpu.unified)
    assert one(f"1x{unified}", model="8b", kv_host_gib=8).kv_host_gib == 0
    assert "the memory of its GPU is the host's" in warnings(f"1x{unified}", model="8b", kv_host_gib=8)


def test_both_ways_at_once_are_refused() -> None:
    problems = findings("1xH100", model="8b", kv_host_gib="auto", extra_args={"kv-offloading-size": 8})
    assert "8b: kv-offloading-size and vllm_kv_host_gib set the same: use one of the two." in problems
