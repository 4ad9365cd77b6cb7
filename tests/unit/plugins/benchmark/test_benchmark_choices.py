# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is decided on the controller: how a benchmark measures, what a tune tries, and what becomes of the winner."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.action import benchmark, serving_plan, tune
from ansible_collections.gpunode.llm.plugins.module_utils.benchmark import load, quality, search
from ansible_collections.gpunode.llm.plugins.plugin_utils.benchmark import axes, profiles, winners
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner import preset_files
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog_files import load_catalog
from ansible_collections.gpunode.llm.plugins.plugin_utils.refusal import Refusal
from ansible_collections.gpunode.llm.tests.unit import as_ansible
from ansible_collections.gpunode.llm.tests.unit.plugins.benchmark import jobs, records
from ansible_collections.gpunode.llm.tests.unit.plugins.planner import planning

CATALOG = load_catalog()
NEWEST = CATALOG.engine(None)
IMAGE = NEWEST.images[0].image
FLAGS = list(NEWEST.flags)
H100 = {"index": 0, "name": "NVIDIA H100 80GB HBM3", "memory_mib": 81559, "compute_capability": "9.0"}
INSTANCE: dict[str, Any] = {
    **{"name": "8b", "model": "8b", "image": IMAGE, "precision": "BF16", "gpu_indices": [0]},
    **{"weights_gib_per_gpu": 15.0, "config": {"max-model-len": 4096, "max-num-seqs": 256}},
}


# -- runs -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", profiles.catalog())
def test_a_profile_that_comes_along_can_be_measured(name: str) -> None:
    (run,) = profiles.runs([name], {}, seed=1)
    assert run["headline"] in run["concurrency"]
    assert run["concurrency"] == sorted(run["concurrency"])
    drawn = load.requests(run["profile"], 12, run["seed"], 32000)
    assert len(drawn) == 12
    assert max(one.prompt_tokens + one.output_tokens for one in drawn) <= load.longest(run["profile"])


def test_a_run_has_what_the_user_sets() -> None:
    own = {"mine": {"prompt_tokens": 10, "output_tokens": 5, "concurrency": [4, 2, 2], "headline": 4}}
    settings = {
        **{"extra_profiles": own, "repeats": 3, "clients": 2, "goals": {"ttft_ms": "500"}, "concurrency": ["8", 1]},
    }
    (run,) = profiles.runs(["mine"], settings, seed=5)
    assert run == {
        **{"name": "mine", "profile": {"prompt_tokens": 10, "output_tokens": 5}, "concurrency": [1, 8]},
        # The profile's own is not in the sweep.
        **{"headline": 8, "repeats": 3, "per_client": 2, "least": 8, "clients": 2, "seed": 5},
        **{"goals": {"ttft_ms": 500.0}, "rows": []},
    }
    (as_it_is,) = profiles.runs(["mine"], {"extra_profiles": own})
    assert (as_it_is["concurrency"], as_it_is["headline"]) == ([2, 4], 4)


def test_a_seed_is_new_each_time() -> None:
    seeds = {profiles.runs(["chat"], {})[0]["seed"] for _time in range(4)}
    assert len(seeds) == 4


def test_own_requests_are_a_run_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "Hello", "output_tokens": 8}\n')
    named, own = profiles.runs(["chat"], {"requests": str(path)})
    assert (named["rows"], own["name"], own["rows"]) == ([], "own", [path.read_text().strip()])
    assert len(profiles.runs([], {"requests": str(path)})) == 1
    path.write_text("{}\n")
    with pytest.raises(ValueError, match="The requests of .*mine.jsonl cannot be read: Line 1 is not a request"):
        profiles.runs([], {"requests": str(path)})
    with pytest.raises(ValueError, match="cannot be read"):
        profiles.runs([], {"requests": "/none"})


@pytest.mark.parametrize(
    ("names", "settings", "said"),
    [
        (["chta"], {}, "There is no benchmark profile 'chta'. Did you mean chat"),
        (["#"], {}, "There is no benchmark profile '#'. There are guide, chat"),
        ([], {}, "benchmark_profiles names no profile; there are guide, chat"),
        (["x"], {"extra_profiles": {"x": [1]}}, "The benchmark profile x must be a dictionary"),
        (["x"], {"extra_profiles": {"x": {"prompt_tokens": 1}}}, "x lacks output_tokens, concurrency, headline"),
        (["x"], {"extra_profiles": {"x": {**profiles.catalog()["chat"], "trun": 1}}}, "x has 'trun', which it cannot"),
        (["chat"], {"concurrency": [0]}, "benchmark_concurrency must be whole numbers of 1 or more, not 0"),
        (["chat"], {"concurrency": ["many"]}, "benchmark_concurrency must be whole numbers of 1 or more, not 'many'"),
        (["chat"], {"repeats": -1}, "benchmark_repeats must be whole numbers of 1 or more, not -1"),
        (["chat"], {"goals": {"tpot_ms": 1}}, "benchmark_goals has 'tpot_ms'; it can have ttft_ms and itl_ms"),
        (["chat"], {"goals": {"itl_ms": "fast"}}, "benchmark_goals: itl_ms must be milliseconds above 0, not 'fast'"),
    ],
)
def test_what_no_run_can_be_made_of(names: list[str], settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        profiles.runs(names, settings)


def test_the_release_is_found_in_a_checkout_and_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiles.release.cache_clear()
    assert profiles.release().count(".") == 2
    profiles.release.cache_clear()
    (tmp_path / "catalog").mkdir()
    (tmp_path / "MANIFEST.json").write_text('{"collection_info": {"version": "9.8.7"}}')
    monkeypatch.setattr(profiles, "HOME", tmp_path / "catalog")
    assert profiles.release() == "9.8.7"
    profiles.release.cache_clear()


# -- axes -------------------------------------------------------------------------------------------------------------
def chosen(instance: dict[str, Any] = INSTANCE, gpus: Any = (H100,), **settings: Any) -> dict[str, list[str]]:
    found = axes.axes(instance, list(gpus), FLAGS, settings)
    return {name: [choice["name"] for choice in choices] for name, choices in found.items()}


def test_by_default_all_that_fits_is_tried_in_the_order_of_the_catalogue() -> None:
    found = chosen(quality=True)
    assert list(found)[:2] == ["weights", "max-num-batched-tokens"]
    assert "layout" not in found  # of one GPU
    assert found["max-num-seqs"] == [f"max-num-seqs={number}" for number in (64, 128, 512, 1024, 2048)]
    assert not {"kv-offloading-size", "front", "power-limit"} & found.keys()
    assert found["speculation"] == ["ngram"]
    assert found["async-scheduling"] == ["async-scheduling=true", "async-scheduling=false"]


def test_what_changes_answers_is_tried_where_they_are_compared_or_it_is_named() -> None:
    inexact = {"weights", "kv-cache-dtype", "speculation"}
    assert not inexact & chosen().keys()
    assert inexact <= chosen(quality=True).keys()
    assert chosen(axes=["kv-cache-dtype"]) == {"kv-cache-dtype": ["kv-cache-dtype=fp8"]}
    assert chosen(values={"kv_cache_dtype": "fp8"}) == {"kv-cache-dtype": ["kv-cache-dtype=fp8"]}


def test_choices_say_whether_answers_may_change() -> None:
    found = axes.axes(INSTANCE, [H100], FLAGS, {"quality": True, "values": {"dtype": ["half"]}, "axes": ["weights"]})
    assert {name: choice["exact"] for name, (choice, *_more) in found.items()} == {"weights": False, "dtype": False}
    assert axes.axes(INSTANCE, [H100], FLAGS, {})["max-num-seqs"][0]["exact"]
    # The job takes them as they are.
    assert search.choices_from(found)["weights"][0].options == {"quantization": "fp8"}
    assert "speculative-config" in quality.CHANGES_NUMBERS


@pytest.mark.parametrize(
    ("change", "gone"),
    [
        ({"config": {"quantization": "awq"}}, "weights"),
        ({"config": {"load-format": "dummy"}}, "weights"),
        ({"precision": "FP8"}, "weights"),
    ],
)
def test_an_axis_has_its_conditions(change: dict[str, Any], gone: str) -> None:
    assert gone not in chosen({**INSTANCE, **change}, quality=True)


def test_older_gpus_and_none_have_fewer_axes() -> None:
    assert not {"weights", "kv-cache-dtype"} & chosen(gpus=[{**H100, "compute_capability": "8.0"}], quality=True).keys()
    assert {"max-num-seqs", "api-server-count"} <= chosen(gpus=[], quality=True).keys()
    assert "max-num-batched-tokens" not in chosen(gpus=[])
    assert "power-limit" not in chosen(gpus=[], power_limits_w=[500])


@pytest.mark.parametrize(
    ("gpu", "capability"),
    [
        ({"compute_capability": "8.9", "name": "NVIDIA H100 80GB HBM3"}, "8.9"),
        ({"compute_capability": "", "name": "NVIDIA H100 80GB HBM3"}, "9.0"),
        ({"name": "NVIDIA Unheard Of", "architecture": "Hopper", "memory_mib": 81559}, "9.0"),
        ({"name": "NVIDIA Unheard Of", "architecture": ""}, ""),
    ],
)
def test_what_a_gpu_can_compute_is_known_by_its_name(gpu: dict[str, str], capability: str) -> None:
    """nvidia-smi does not say it, and no FP8 was tried on any node."""
    instance = {"gpu_indices": (1,)}
    (own,) = axes.own_gpus(instance, [{"index": 0, **gpu}, {"index": 1, **gpu}], CATALOG)
    assert (own["index"], own["compute_capability"]) == (1, capability)
    assert axes.own_gpus({"gpu_indices": None}, [own], CATALOG) == []


def test_fp8_is_tried_on_the_gpus_of_a_real_node() -> None:
    board = planning.board("h100x1").as_dict()
    planned = as_ansible.action(serving_plan.ActionModule, {"model": "8b"}, board).run(task_vars={})
    plan = json.loads(json.dumps({key: planned[key] for key in ("plan", "gpus")}))  # as a play registers it
    (instance,) = plan["plan"]["instances"]
    given = {"instance": instance, "gpus": plan["gpus"], "quality": {"shots": 8}, "profiles": ["guide"]}
    result, _node = run(tune, {"name": "8b", **given}, {})
    assert {"weights", "kv-cache-dtype"} <= result["axes"].keys()


def test_an_option_that_the_release_does_not_know_is_not_tried() -> None:
    known = [name for name in FLAGS if name not in ("max-num-seqs", "speculative-config")]
    found = axes.axes(INSTANCE, [H100], known, {"quality": True})
    assert not {"max-num-seqs", "speculation"} & found.keys()


def test_the_users_own_values_stand_alone_or_beside_axes() -> None:
    assert chosen(values={"max-num-seqs": [256, 300]}) == {"max-num-seqs": ["max-num-seqs=300"]}
    found = chosen(values={"enforce-eager": True}, axes=["front"], power_limits_w=[500])
    assert found == {
        "front": ["rust-front"],
        "enforce-eager": ["enforce-eager=true"],
        "power-limit": ["500 W"],
    }
    assert axes.axes(INSTANCE, [H100], FLAGS, {"axes": ["power-limit"]}) == {}
    assert chosen(axes=["power-limit"], power_limits_w=[400]) == {"power-limit": ["400 W"]}


def test_no_speculation_is_tried_where_there_is_one() -> None:
    speculating = {**INSTANCE, "config": {"speculative-config": {"method": "eagle3"}}}
    assert chosen(speculating, axes=["speculation"])["speculation"] == ["ngram", "no speculation"]


def test_layouts_are_all_splits_with_room_for_the_weights() -> None:
    four = {**INSTANCE, "gpu_indices": [0, 1, 2, 3], "config": {"tensor-parallel-size": 4}}
    gpus = [{**H100, "index": index} for index in range(4)]
    assert chosen(four, gpus, axes=["layout"])["layout"] == ["tp1-dp4", "tp2-dp2"]
    large = {**four, "weights_gib_per_gpu": 33.0}
    assert chosen(large, gpus, axes=["layout"])["layout"] == ["tp2-dp2"]
    assert chosen({**four, "config": {"pipeline-parallel-size": 4}}, gpus, axes=["layout"]) == {}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"axes": ["nothing"]}, "tune_axes names 'nothing'; there are weights, layout"),
        ({"values": {"no-such": [1]}}, "tune_values names 'no-such', which is no option of this vLLM"),
        ({"values": {"port": [1]}}, "tune_values names 'port', which the plan sets"),
        ({"values": {"api-key": ["x"]}}, "tune_values names 'api-key', which the plan sets"),
        ({"values": {"max-model-len": [1]}}, "tune_values names 'max-model-len', which the plan sets"),
    ],
)
def test_what_cannot_be_tried(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        axes.axes(INSTANCE, [H100], FLAGS, settings)


def test_options_are_those_of_the_image() -> None:
    older = replace(NEWEST, version="0.1", images=(replace(NEWEST.images[0], image="old:image"),), flags={"one": None})
    catalog = replace(CATALOG, engines={"0.1": older, **CATALOG.engines})
    assert axes.flags("old:image", catalog) == ["one"]
    assert axes.flags("our/own:image", CATALOG) == FLAGS


# -- winners ----------------------------------------------------------------------------------------------------------
def a_tune(options: dict[str, Any], **more: Any) -> dict[str, Any]:
    base = {"name": "base", "options": {}, "env": {}, "score": 7400.55}
    best = {"name": "the best", "options": options, "env": {}, "score": 9811.04}
    return {
        **{"id": "20261127T000000Z-gpu01-8b-tune", "date": "2026-11-27T00:00:00Z", "objective": "throughput"},
        **{"profile": "guide", "concurrency": 1000, "baseline": "base", "best": "the best"},
        **{"engine": records.engine(), "node": records.node(), "candidates": [base, best], **more},
    }


def made(options: dict[str, Any], **more: Any) -> tuple[dict[str, Any], str]:
    return winners.preset(a_tune(options, **more), INSTANCE, CATALOG)


@pytest.mark.parametrize("objective", winners.OBJECTIVES)
@pytest.mark.parametrize(
    "options",
    [
        {"max-num-seqs": 512},
        {"kv-cache-dtype": "fp8"},
        {"tensor-parallel-size": 1, "data-parallel-size": 1},
        {"async-scheduling": False},
    ],
)
def test_the_winner_is_a_preset_that_the_planner_takes(objective: str, options: dict[str, Any]) -> None:
    found, advice = made(options, objective=objective)
    assert advice == ""
    ((name, preset),) = preset_files.read_presets({"presets": found}, CATALOG).items()
    assert name == f"8b-1xh100-{objective}"
    assert preset.objective == ("latency" if objective == "latency" else "throughput")
    assert (preset.gpu, preset.count, preset.options) == ("h100", 1, options)
    assert preset.measured.concurrency == (1 if objective == "latency" else 1000)
    unit = "requests/s within the goals" if objective == "goodput" else "output tokens/s"
    assert preset.measured.gain.startswith(f"9811 {unit} in place of 740")


def test_few_requests_per_second_keep_their_digits() -> None:
    rows = a_tune({"max-num-seqs": 512}, objective="goodput")["candidates"]
    rows = [{**rows[0], "score": 0.03123}, {**rows[1], "score": 0.04567}]
    found, _advice = made({}, objective="goodput", candidates=[rows[0], rows[1]])
    (preset,) = preset_files.read_presets({"presets": found}, CATALOG).values()
    assert (preset.measured.before, preset.measured.after) == (0.03123, 0.04567)


def test_environment_and_the_cpu_make_a_preset_too() -> None:
    rows = a_tune({})["candidates"]
    rows[1]["env"] = {"VLLM_USE_RUST_FRONTEND": "1"}
    found, _advice = made({}, candidates=rows, node=records.node(gpus=[]))
    (preset,) = preset_files.read_presets({"presets": found}, CATALOG).values()
    assert (preset.name, preset.gpu, preset.count) == ("8b-cpu-throughput", "cpu", 0)
    assert preset.env == {"VLLM_USE_RUST_FRONTEND": "1"}


def test_nothing_better_is_no_preset() -> None:
    assert made({}, best="base") == ({}, "")


@pytest.mark.parametrize(
    ("options", "named", "variables"),
    [
        ({"quantization": "fp8"}, "quantization", {"vllm_extra_args": {"quantization": "fp8"}}),
        (
            {"speculative-config": {"method": "ngram", "num_speculative_tokens": 3}, "max-num-seqs": 64},
            "speculative-config",
            {"vllm_speculative": {"method": "ngram", "tokens": 3}, "vllm_extra_args": {"max-num-seqs": 64}},
        ),
        ({"speculative-config": None}, "speculative-config", {"vllm_speculative": {}}),
        (
            {"kv-offloading-size": 16, "kv-cache-dtype": "fp8"},
            "kv-offloading-size",
            {"vllm_kv_host_gib": 16, "vllm_kv_cache_dtype": "fp8"},
        ),
    ],
)
def test_what_no_preset_may_have_is_said_with_what_to_set(
    options: dict[str, Any], named: str, variables: dict[str, Any]
) -> None:
    found, advice = made(options)
    assert found == {}
    assert named in advice
    assert json.loads(advice[advice.index("{") : advice.rindex("}") + 1]) == variables
    # As a preset, the planner would leave it out.
    assert named in (*winners.UNCOUNTED, "kv-offloading-size")


def test_a_power_limit_and_an_unknown_gpu_are_said() -> None:
    assert "no preset sets the power limit" in made({})[1]
    rows = a_tune({"max-num-seqs": 512})["candidates"]
    rows[1]["env"] = {"A": "1"}
    other = records.node(gpus=[{**records.GPU, "name": "NVIDIA Unheard Of"}])
    found, advice = made({}, candidates=rows, node=other)
    assert found == {}
    assert "no preset can name NVIDIA Unheard Of" in advice
    assert '"vllm_env": {"A": "1"}' in advice


# -- the actions ------------------------------------------------------------------------------------------------------
def run(kind: Any, options: dict[str, Any], *answers: Any, **task: Any) -> tuple[dict[str, Any], as_ansible.Node]:
    name = f"gpunode.llm.{kind.__name__.rpartition('.')[2]}"
    action = as_ansible.action(kind.ActionModule, options, *answers, resolved_action=name, **task)
    action._connection.reset = lambda: None
    return action.run(task_vars={"inventory_hostname": "gpu01"}), action._execute_module


def test_a_benchmark_hands_over_runs_and_not_what_they_are_made_of() -> None:
    answer = {"changed": False, "done": True, "records": [{"id": "one"}], "paths": []}
    result, node = run(benchmark, {"name": "8b", "profiles": "chat", "repeats": "3", "busy": True}, answer)
    assert result["records"] == [{"id": "one"}]
    name, given = node.call
    assert name == "benchmark"
    assert set(given) == {"name", "runs", "busy", "collection"}
    assert (given["runs"][0]["name"], given["runs"][0]["repeats"]) == ("chat", 3)
    assert given["collection"] == profiles.release()
    _result, node = run(benchmark, {"name": "8b", "runs": [jobs.RUN]}, answer)
    assert node.call[1]["runs"] == [jobs.RUN]


def test_only_named_models_are_measured() -> None:
    result, node = run(benchmark, {"name": "8b", "profiles": ["chat"], "models": ["70b"]}, {})
    assert (result["skipped"], result["records"], node.calls) == (True, [], [])
    _result, node = run(benchmark, {"name": "8b", "profiles": ["chat"], "models": ["8b"]}, {"done": True})
    assert len(node.calls) == 1
    # With a model that there is not, all would have been measured.
    with pytest.raises(Refusal, match="There is no model such as 8bb. Nothing was measured."):
        run(benchmark, {"name": "8b", "profiles": ["chat"], "models": ["8bb"]}, {})
    with pytest.raises(Refusal, match="There is no benchmark profile 'no'.*Nothing was measured."):
        run(benchmark, {"name": "8b", "profiles": ["no"]}, {})


TUNE = {"name": "8b", "instance": INSTANCE, "gpus": [H100], "profiles": "guide", "objective": "throughput"}
TRIAL = {"in_place_of": "vllm-8b.service"}


def test_a_tune_decides_without_the_node() -> None:
    result, node = run(tune, TUNE, {})
    assert node.calls == []
    assert result["text"][0] == "max-num-batched-tokens: 2048, 4096, 8192, 16384, 32768"
    assert "api-server-count: 2, 4" in result["text"]
    assert result["runs"][0]["concurrency"] == [1, 1000]
    assert result["changed"] is False


def test_what_was_decided_is_handed_over_and_its_winner_a_preset() -> None:
    decided, _node = run(tune, TUNE, {})
    given = {"axes": decided["axes"], "runs": decided["runs"], "trial": TRIAL, "consent": True, "instance": INSTANCE}
    answer = {"changed": False, "done": True, "tune": a_tune({"max-num-seqs": 512})}
    result, node = run(tune, {"name": "8b", **given, "budget_minutes": 5}, answer)
    assert set(node.call[1]) == {"name", "axes", "runs", "trial", "budget_minutes", "collection"}
    assert list(result["preset"]) == ["8b-1xh100-throughput"]
    assert (result["advice"], result["axes"]) == ("", decided["axes"])
    unset, _node = run(tune, {"name": "8b", **given}, {"changed": False, "done": True, "tune": {}})
    assert (unset["preset"], unset["advice"]) == ({}, "")


def test_without_consent_nothing_is_taken_out_of_service() -> None:
    with pytest.raises(Refusal, match="no free GPU.*for about 5 minutes.*-e tune_in_place=true. Nothing was changed."):
        run(tune, {**TUNE, "trial": TRIAL, "budget_minutes": "5"}, {})
    _result, node = run(tune, {**TUNE, "trial": {"in_place_of": ""}}, {"done": True})
    assert len(node.calls) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"objective": "goodput"}, "The objective goodput needs goals.*benchmark_goals"),
        ({"profiles": "guide,chat"}, "A tune is for one load, and tune_profile has guide, chat"),
        ({"try_axes": ["layout"]}, "There is nothing to try for 8b with these tune_axes"),
        ({"try_axes": ["layuot"]}, "tune_axes names 'layuot'"),
        ({"budget_minutes": 0}, "tune_minutes must be above 0, not 0"),
        ({"profiles": ["no"]}, "There is no benchmark profile 'no'"),
    ],
)
def test_a_tune_that_cannot_be(change: dict[str, Any], said: str) -> None:
    with pytest.raises(Refusal, match=f"{said}.*Nothing was changed."):
        run(tune, {**TUNE, **change}, {})


def test_a_tune_of_own_requests_needs_no_profile(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "Hello", "output_tokens": 8}\n')
    result, _node = run(tune, {**TUNE, "requests": str(path)}, {})
    assert [one["name"] for one in result["runs"]] == ["own"]
