# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of public models: each is planned, refused with a reason, or needs two figures; and what is planned is what
the engine's own code counts (tests/engine/figures.py asks it)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.architectures import listed
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog import ModelSpec
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog_files import load_catalog
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.kv_cache import Layout, Setting
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.memory import Experts, ends_bytes, stage_bytes, stages
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.planning import FIXTURES, outcome

MODELS = FIXTURES / "models"


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (MODELS / name).read_text(encoding="utf-8").splitlines()]


TABLE: dict[str, dict[str, Any]] = {line["repo_id"]: line for line in lines("configs.jsonl")}
FIGURES = lines("engine_figures.jsonl")
CATALOG = load_catalog(
    {
        name: {"repo_id": name, "config": line["config"], "hf_quant_config": line.get("hf_quant_config")}
        for name, line in TABLE.items()
    }
)
CAPABILITY = {"h100": (9, 0), "h200": (9, 0), "a10g": (8, 6), "l40s": (8, 9), "b200": (10, 0)}
#: Where the engine counts otherwise for a reason: how far apart, and why.
APART = {
    "mistralai/Devstral-Small-2-24B-Instruct-2512": 0.02,  # its tower is named so that the engine takes it for FP8, too
}
SIZED = [line for line in FIGURES if "weights_bytes" in line and not CATALOG.models[line["repo_id"]].missing]


def named(line: dict[str, Any]) -> str:
    return f"{line['repo_id']}-{line['board']}-tp{line['tensor_parallel']}"


def fp8_cache(line: dict[str, Any]) -> bool:
    """Whether the engine keeps the cache of this model in FP8; an indexer's is always."""
    return any(
        kind.get("dtype") in ("uint8", "float8_e4m3fn") and kind.get("kind") != "MambaSpec" and kind["head_size"] != 132
        for kind in line["kv"]
    )


def layout(model: ModelSpec, line: dict[str, Any]) -> Layout:
    setting = Setting(
        tp=line["tensor_parallel"],
        fp8=fp8_cache(line),
        in_flight=line["tokens_in_flight"],
        step=line["tokens_in_flight"] // (1 if line["runner"] == "pooling" else 2),
        capability=CAPABILITY[line["board"]],
        prefix_caching=line["prefix_caching"],
    )
    return model.layout(setting)


@pytest.mark.parametrize("line", SIZED, ids=named)
def test_weights_are_the_engines(line: dict[str, Any]) -> None:
    model, tp = CATALOG.models[line["repo_id"]], line["tensor_parallel"]
    if model.sized.task == "pooling" and line["runner"] == "generate":
        pytest.skip("the engine was asked for a generating model, with an output head that is not served")
    counted = stage_bytes(model.stored, tp, Experts(cut=tp))
    assert counted == pytest.approx(line["weights_bytes"], rel=APART.get(line["repo_id"], 0.01))


@pytest.mark.parametrize("line", SIZED, ids=named)
def test_the_kv_cache_is_the_engines(line: dict[str, Any]) -> None:
    """Exactly: bytes of a block of the pool, of a request of each length, and the tokens that blocks hold."""
    counted = layout(CATALOG.models[line["repo_id"]], line)
    if not line["kv"]:
        assert counted.groups == ()
        return
    assert counted.block_bytes == line["pool_block_bytes"]
    for room in line["room"]:
        assert counted.request_bytes(room["max_model_len"]) == room["request_bytes"]
        if "tokens" in room:  # the engine divides in floating point
            assert abs(counted.tokens(room["blocks"], room["max_model_len"]) - room["tokens"]) <= 1


@pytest.mark.parametrize("line", SIZED, ids=named)
def test_the_context_is_the_engines(line: dict[str, Any]) -> None:
    assert CATALOG.models[line["repo_id"]].context == line["max_model_len"]


def test_what_the_engine_builds_is_known_but_for_a_few() -> None:
    built = {line["repo_id"] for line in FIGURES if "weights_bytes" in line}
    unknown = {name for name in built if CATALOG.models[name].missing}
    assert len(built) >= 60
    assert len(unknown) <= len(built) // 8, sorted(unknown)


@pytest.mark.parametrize("name", TABLE)
def test_each_is_planned_or_refused_with_a_reason(name: str) -> None:
    made = outcome("8xH200", CATALOG, model=name)
    if made.plan:
        assert not CATALOG.models[name].missing
        return
    (finding,) = made.findings
    missing = CATALOG.models[name].missing
    if not missing:
        assert "does not fit 8x NVIDIA H200" in finding
    elif "no longer does" not in missing and "vLLM does not serve" not in missing:
        assert "vllm_weights_bytes" in finding
        assert "vllm_kv_bytes_per_token" in finding


STAGES = lines("stage_figures.jsonl")
#: Other names of a class that was seen.
ALIKE = {"LLaMAForCausalLM", "Llama4ForCausalLM"}


def stage_name(line: dict[str, Any]) -> str:
    return f"{line['repo_id']}-tp{line['tensor_parallel']}-{line['stage']}-of-{line['pipeline_parallel']}"


@pytest.mark.parametrize("line", STAGES, ids=stage_name)
def test_weights_of_a_stage_are_the_engines(line: dict[str, Any]) -> None:
    """Of ends that are on each stage in part only, both are counted: never too little."""
    model, tp, pp = CATALOG.models[line["repo_id"]], line["tensor_parallel"], line["pipeline_parallel"]
    start, end = stages(model.sized.layers, pp)[line["stage"]]
    last = end == model.sized.layers
    counted = stage_bytes(model.stored, tp, Experts(cut=tp), (start, end))
    counted += ends_bytes(model, tp, Experts(cut=tp), first=start == 0, last=last)
    assert counted >= 0.99 * line["weights_bytes"]
    if model.sized.apart:
        assert counted <= 1.01 * line["weights_bytes"]


def test_the_ends_are_apart_where_the_engine_has_them_so() -> None:
    """A middle stage has neither the embedding nor the head of these models."""
    apart = {name for name, entry in listed()["architectures"].items() if entry.get("apart")}
    seen = {CATALOG.models[line["repo_id"]].sized.name for line in STAGES}
    assert {"LlamaForCausalLM", "DeepseekV3ForCausalLM"} <= apart & seen
    assert apart - seen <= ALIKE
    for line in STAGES:
        model, tp = CATALOG.models[line["repo_id"]], line["tensor_parallel"]
        stage = stages(model.sized.layers, line["pipeline_parallel"])[line["stage"]]
        if 0 < line["stage"] < line["pipeline_parallel"] - 1 and not model.sized.apart:
            layers = stage_bytes(model.stored, tp, Experts(cut=tp), stage)
            assert line["weights_bytes"] > 1.005 * layers, f"{model.sized.name} is apart"
