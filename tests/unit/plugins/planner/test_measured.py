# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What real GPUs left for the KV cache, with real vLLM and random weights, is what the planner says."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog import Catalog
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.host import given_gpus, read_host
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.memory import Experts, Parallel, stage_bytes
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.overhead import graphs_gib, overhead_gib
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.request import read_request
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.spread import Candidate, Choice, evaluate
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.planning import FIXTURES, recorded
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.test_engine_figures import CATALOG

MEASURED = json.loads((FIXTURES / "measurements" / "vllm-0.26.0-kinds.json").read_text(encoding="utf-8"))
LLAMA = json.loads((FIXTURES / "measurements" / "vllm-0.26.0-hopper.json").read_text(encoding="utf-8"))
FITS = MEASURED["fit"]
SCARCE = [point for point in FITS if "largest_context" in point]
CAPTURED = [point for point in FITS if "graphs_gib" in point]
Point = dict[str, Any]


def named(point: Point) -> str:
    at = point.get("gpu_memory_utilization")
    return f"{point['repo_id']}-{point['gpu']}-tp{point.get('tp', 1)}" + (f"-{at}" if at else "")


def candidate(point: Point, catalog: Catalog) -> Candidate:
    """The point's model on its board, by its own options."""
    options = {"tensor_parallel_size": point.get("tp", 1), "kv_cache_dtype": "auto"}
    if "gpu_memory_utilization" in point:
        options["gpu_memory_utilization"] = point["gpu_memory_utilization"]
    if "max_num_seqs" in point:
        options["extra_args"] = {"max-num-seqs": point["max_num_seqs"]}
    board = f"{point.get('tp', 1)}x{point['gpu'].upper()}"
    request = read_request({"model": point["repo_id"], **options}, catalog)
    (group,) = read_host(given_gpus(board, catalog), catalog).groups
    return Candidate(request.instances[0], group, catalog.engine(None), catalog.policy)


def choice(point: Point, catalog: Catalog) -> Choice:
    tp = point.get("tp", 1)
    found = evaluate(candidate(point, catalog), Parallel(tp), tp, "auto", None)
    assert isinstance(found, Choice)
    return found


@pytest.mark.parametrize("point", [*FITS, *MEASURED["shared_gpu"]], ids=named)
def test_the_kv_cache_of_each_kind(point: Point) -> None:
    found = choice(point, recorded(CATALOG))
    near = max(0.03 * point["kv_gib"], CATALOG.policy.mixed_overhead_error_gib)
    assert found.fit.kv_gib == pytest.approx(point["kv_gib"], abs=near)
    # 0.26.0 counted one block of a state for each request, 0.33.0 counts three (tests/fixtures/models has its figures).
    if found.context == point.get("max_model_len") and "block_size" not in point:
        assert found.fit.kv_tokens == pytest.approx(point["kv_tokens"], rel=0.03)


@pytest.mark.parametrize("point", SCARCE, ids=named)
def test_no_context_is_offered_that_a_real_gpu_refused(point: Point) -> None:
    """Where little is left for the KV cache, a small error of the rest is a large one of the context."""
    found = choice(point, recorded(CATALOG))
    assert 0.6 * point["largest_context"] < found.context <= point["largest_context"]


@pytest.mark.parametrize("point", CAPTURED, ids=named)
def test_cuda_graphs_take_what_was_recorded(point: Point) -> None:
    """A little more rather than less: an engine that has less than was planned may not start."""
    asked = candidate(point, CATALOG)
    spread = Parallel(point.get("tp", 1))
    graphs = graphs_gib(asked.request.model, spread, asked.step(asked.default_step), asked.policy)
    assert point["graphs_gib"] - 0.1 <= graphs <= point["graphs_gib"] + 0.5


@pytest.mark.parametrize(("model", "tp"), [("8b", 1), ("8b", 2), ("70b", 2)])
def test_cuda_graphs_of_llama(model: str, tp: int) -> None:
    point = {"repo_id": model, "gpu": "h200", "tp": tp, "max_model_len": 8192}
    graphs = LLAMA["defaults"]["cudagraph_gib"][f"{model}_tp{tp}"]
    test_cuda_graphs_take_what_was_recorded({**point, "graphs_gib": graphs})


def test_cuda_graphs_of_layers_with_windows() -> None:
    """Of Gemma 3 the text model was recorded, and graphs are captured of its layers alone."""
    point = next(point for point in MEASURED["not_in_the_table"] if point["what"].startswith("google/gemma-3-27b-it"))
    test_cuda_graphs_take_what_was_recorded({**point, "repo_id": "google/gemma-3-27b-it", "gpu": "h200"})


def test_what_is_neither_weights_nor_cache_is_known_to_a_third_of_a_gib() -> None:
    """On a large GPU 3 % of the KV cache is more than all of it."""
    catalog = recorded(CATALOG)
    for point in FITS:
        assert choice(point, catalog).fit.kv_gib == pytest.approx(point["kv_gib"], abs=0.3), named(point)


def test_each_gpu_expands_its_own_heads_of_latent_attention() -> None:
    asked = candidate({"repo_id": "zai-org/GLM-4.7-Flash", "gpu": "h200"}, recorded(CATALOG))
    model, step = asked.request.model, asked.step(asked.default_step)
    one, two = (overhead_gib(model, Parallel(tp), step, asked.engine, asked.policy) for tp in (1, 2))
    # 20 heads of 448 elements, 65536 tokens of them: 1.09 GiB.
    assert one - two > 0.5 * 1.09


def test_graphs_are_taken_off_where_the_engine_does_so() -> None:
    point = next(point for point in FITS if point["repo_id"] == "Qwen/Qwen3-30B-A3B")
    without, taken = choice(point, recorded(CATALOG)).fit.kv_gib, choice(point, CATALOG).fit.kv_gib
    assert without - taken == pytest.approx(point["graphs_gib"], abs=0.25)


@pytest.mark.parametrize(
    ("options", "share"),
    [
        ({"enforce-eager": True}, 0),
        ({"max-cudagraph-capture-size": 8}, 4 / 51),
        ({"max-num-seqs": 16}, 7 / 51),
        ({}, 1),
    ],
)
def test_graphs_go_by_the_sizes_that_are_captured(options: dict[str, Any], share: float) -> None:
    request = read_request({"model": "8b", "extra_args": options}, CATALOG)
    (group,) = read_host(given_gpus("1xH100", CATALOG), CATALOG).groups
    asked = Candidate(request.instances[0], group, CATALOG.engine(None), CATALOG.policy)
    assert asked.step(8192).sizes == round(51 * share)
    (blackwell,) = read_host(given_gpus("1xB200", CATALOG), CATALOG).groups
    assert replace(asked, group=blackwell).step(8192).sizes == (83 if not options else round(51 * share))


def test_a_hybrid_runs_as_many_requests_as_it_has_room_for() -> None:
    """vLLM does not start with more max-num-seqs than blocks: an H100 had 888 for the 1024 of its default."""
    refused = MEASURED["first_runner"][-1]
    found = choice({**refused, "max_num_seqs": 512}, CATALOG)
    assert found.context == 262144
    chosen = evaluate(candidate({"repo_id": refused["repo_id"], "gpu": "h100"}, CATALOG), Parallel(), 1, "auto", None)
    assert isinstance(chosen, Choice)
    assert chosen.sequences
    blocks = chosen.fit.kv_gib * refused["state_blocks"] / refused["kv_gib"]
    assert 0.9 * blocks <= chosen.sequences <= (1 - CATALOG.policy.calibration_error) * blocks
    roomy = choice({"repo_id": refused["repo_id"], "gpu": "b200"}, CATALOG)
    assert roomy.sequences is None


@pytest.mark.parametrize("point", MEASURED["loaded"], ids=lambda point: f"{point['repo_id']}-tp{point['tp']}")
def test_weights_are_those_that_real_gpus_loaded(point: Point) -> None:
    tp = point["tp"]
    counted = stage_bytes(CATALOG.models[point["repo_id"]].stored, tp, Experts(cut=tp))
    assert counted / 2**30 == pytest.approx(point["weights_gib_per_gpu"], rel=0.015)


@pytest.mark.parametrize(
    ("name", "utilization"),
    [
        ("deepseek-ai/DeepSeek-V2-Lite", 0.46),
        ("Qwen/Qwen3-30B-A3B", 0.78),
        pytest.param("Qwen/Qwen3.5-9B", 0.34, id="with states, and no mixture"),
    ],
)
def test_an_offered_context_leaves_the_margin_free(name: str, utilization: float) -> None:
    found = choice({"repo_id": name, "gpu": "h100", "gpu_memory_utilization": utilization}, CATALOG)
    assert found.context < CATALOG.models[name].context
    free = found.fit.kv_gib * (1 - found.context / found.fit.kv_tokens)
    assert free >= max(CATALOG.policy.mixed_overhead_error_gib, found.fit.kv_gib * CATALOG.policy.calibration_error)
