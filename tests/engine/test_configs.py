# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every configuration that the planner renders, through vLLM's own parser and engine configuration.

Needs `prepare.py`'s environment (2.5 GB, made at the first run), so it is not among the unit tests: pytest tests/engine
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import shapes
import yaml
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog import ModelSpec
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.planning import CATALOG, outcome
from prepare import BASE, prepare
from release import describe

HERE = Path(__file__).resolve().parent
ENTRIES = yaml.safe_load((HERE.parents[1] / "catalog" / "models.yml").read_text(encoding="utf-8"))["models"]
#: config.json of published models.
PUBLISHED = {record["repo_id"]: record["config"] for record in shapes.read(shapes.CONFIGS)}

#: vLLM deprecates its options with these words; Python's own libraries warn of other things.
DEPRECATED = re.compile(r"--[\w-]+ is deprecated|argument '.*' is deprecated|Unknown vLLM environment")
RELEASES = list(CATALOG.engines)
OBJECTIVES = ("throughput", "latency", "context")
ADDRESSES = ["10.0.0.1", "10.0.0.2"]
ACTIVATIONS = {"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": True, "dynamic": False}
#: quantization_config as such repositories publish it.
QUANTIZATION: dict[str, dict[str, Any]] = {
    "bf16": {},
    "fp8": {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": ACTIVATIONS, "input_activations": ACTIVATIONS}},
        "ignore": ["lm_head"],
    },
    "w4a16": {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": True},
            }
        },
        "ignore": ["lm_head"],
    },
    "fbgemm-fp8": {
        "quant_method": "fbgemm_fp8",
        "activation_scale_ub": 1200.0,
        "modules_to_not_convert": ["lm_head", "model.layers.0", "model.layers.125"],
    },
}


def config_json(model: ModelSpec) -> dict[str, Any]:
    """The repository's config.json, as far as it decides anything here. All that are not in the table are Llamas."""
    if model.repo_id in PUBLISHED:
        return {key: value for key, value in PUBLISHED[model.repo_id].items() if key != "auto_map"}
    fields = {**ENTRIES[model.key]["config"], "model_type": "llama", "dtype": "bfloat16"}
    quantization = QUANTIZATION[model.weights.key]
    return {**fields, "quantization_config": quantization} if quantization else fields


def every_plan() -> dict[str, Any]:
    """Each model on each host of the catalogue where it fits, under each objective; equal configurations once."""
    cases: dict[str, Any] = {}
    hosts = [f"{count}x{gpu.key}" for gpu in CATALOG.gpus.values() for count in gpu.matrix_counts or (1,)]
    for model in CATALOG.models.values():
        for host in hosts if model.device == "cuda" else hosts[:1]:
            for objective in OBJECTIVES:
                made = outcome(host, model=model.key, objective=objective)
                for instance in made.plan.instances if made.plan else ():
                    text = json.dumps([model.key, instance.config])
                    name = f"{model.key} on {host} for {objective}"
                    case = {"name": name, "config": instance.config, "hf": config_json(model), "instance": instance}
                    cases.setdefault(text, case)
    return {case["name"]: case for case in cases.values()}


def over_nodes() -> dict[str, Any]:
    """Each rank of each model that two such hosts hold together, and of one on the CPU."""
    cases: dict[str, Any] = {}
    hosts = [
        f"{max(gpu.matrix_counts)}x{gpu.key}" for gpu in CATALOG.gpus.values() if max(gpu.matrix_counts, default=0) > 1
    ]
    wanted = [(model, host) for model in CATALOG.models.values() if model.device == "cuda" for host in hosts]
    tiny = CATALOG.models["tiny"]
    for model, host, options in [*((*one, {}) for one in wanted), (tiny, hosts[0], {"nodes_per_engine": 2})]:
        for rank in range(2):
            group = {"nodes": ["a", "b"], "addresses": ADDRESSES, "rank": rank, "interface": "eth0"}
            made = outcome(host, model=model.key, group=group, **options)
            for instance in made.plan.instances if made.plan else ():
                if instance.group:
                    name = f"{model.key} on 2 nodes of {host}, rank {rank}"
                    cases[name] = {
                        "name": name,
                        "config": instance.config,
                        "hf": config_json(model),
                        "instance": instance,
                    }
    return cases


PLANS = every_plan()
GROUPS = over_nodes()


@cache
def constructed(version: str) -> dict[str, Any]:
    """What a release made of every plan, and of some configurations that must fail, in one run of it."""
    every = (*PLANS.values(), *GROUPS.values(), *WRONG.values())
    cases = [{key: case[key] for key in ("name", "config", "hf")} for case in every]
    done = prepare(version).run(HERE / "_construct.py", json.dumps(cases))
    assert done.returncode == 0, done.stderr[-3000:]
    return {result["name"]: result for result in json.loads(done.stdout)}


GOOD = next(case for name, case in PLANS.items() if name.startswith("8b on 1x"))


def wrong(name: str, **changes: Any) -> dict[str, Any]:
    config = {**GOOD["config"], **{key.replace("_", "-"): value for key, value in changes.items()}}
    return {"name": name, "config": config, "hf": GOOD["hf"]}


WRONG = {
    case["name"]: case
    for case in (
        wrong("swap space", swap_space=16),
        wrong("three GPUs", tensor_parallel_size=3),
        wrong("too long", max_model_len=999999),
        {
            "name": "Meta's FP8 without its flag",
            "config": {key: value for key, value in GOOD["config"].items() if key != "revision"},
            "hf": {**GOOD["hf"], "quantization_config": QUANTIZATION["fbgemm-fp8"]},
        },
        wrong("deprecated", disable_cascade_attn=True),
        wrong(
            "a headless rank with API servers",
            nnodes=2,
            node_rank=1,
            headless=True,
            api_server_count=2,
            pipeline_parallel_size=2,
        ),
        wrong("a group that its ranks do not divide by", nnodes=3, pipeline_parallel_size=2),
    )
}


@pytest.mark.parametrize("version", RELEASES)
def test_the_catalogue_lists_the_releases_own_options(version: str) -> None:
    described = describe(version)
    listed = {
        flag.name: [flag.type, flag.default, *([list(flag.also)] if flag.also else [])]
        for flag in CATALOG.engines[version].flags.values()
    }
    assert listed == described["flags"]
    assert set(described["deprecated"]) <= set(CATALOG.engines[version].deprecated)
    used = {name for case in PLANS.values() for name in case["instance"].env if name.startswith("VLLM_")}
    assert used <= set(described["environment"])


@pytest.mark.parametrize("version", RELEASES)
@pytest.mark.parametrize("name", PLANS)
def test_every_plan(version: str, name: str) -> None:
    result, instance = constructed(version)[name], PLANS[name]["instance"]
    assert not result["error"]
    assert not [line for line in result["warnings"] if DEPRECATED.search(line)]
    for key in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "max_model_len"):
        assert result[key] == getattr(instance, key), key


@pytest.mark.parametrize("version", RELEASES)
@pytest.mark.parametrize("name", GROUPS)
def test_every_rank_of_a_group(version: str, name: str) -> None:
    result, instance = constructed(version)[name], GROUPS[name]["instance"]
    assert not result["error"]
    assert not [line for line in result["warnings"] if DEPRECATED.search(line)]
    assert (result["nnodes"], result["node_rank"]) == (2, instance.group.rank)
    assert result["master"] == [ADDRESSES[0], instance.group.master_port]
    assert result["local_world_size"] == max(1, len(instance.gpu_indices))
    for key in ("tensor_parallel_size", "pipeline_parallel_size", "max_model_len"):
        assert result[key] == getattr(instance, key), key


def test_the_largest_llama_spans_two_nodes_of_eight_h100() -> None:
    assert {f"405b on 2 nodes of 8xh100, rank {rank}" for rank in range(2)} <= set(GROUPS)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a headless rank with API servers", "api_server_count can't be set in headless mode"),
        ("a group that its ranks do not divide by", "must evenly divide the total world size"),
        ("swap space", "unrecognized arguments: --swap-space"),
        ("three GPUs", "Total number of attention heads (32) must be divisible by tensor parallel size (3)"),
        ("too long", "is greater than the derived max_model_len"),
        ("Meta's FP8 without its flag", "is deprecated and will be removed"),
    ],
)
def test_what_vllm_refuses(name: str, says: str) -> None:
    assert says in constructed(RELEASES[-1])[name]["error"]


def test_a_deprecated_option_would_be_seen() -> None:
    result = constructed(RELEASES[-1])["deprecated"]
    assert not result["error"]
    assert [line for line in result["warnings"] if DEPRECATED.search(line)]


def test_the_planner_refuses_what_vllm_refuses() -> None:
    result = outcome("1xh100", model="8b", extra_args={"swap-space": 16})
    assert result.plan is None
    assert "no longer has the option swap-space" in result.findings[0]


def test_the_lab_serves_with_an_older_release() -> None:
    """The CPU build of BASE must understand what the newest release's plan for the CPU says."""
    (name,) = [name for name in PLANS if name.startswith("tiny ")]
    done = prepare(BASE).run(
        HERE / "_construct.py", json.dumps([{k: PLANS[name][k] for k in ("name", "config", "hf")}])
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)[0]["error"] == ""
