# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which preset a plan takes, what it leaves to the user, and when it leaves one out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.instance.serving import NodeServing, Serving
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog import Catalog, Measured, Preset
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog_files import load_catalog
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.instance import Instance
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.named import entries
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.planning import (
    CATALOG,
    CONFIGS,
    board,
    instances,
    one,
    outcome,
    warnings,
)

STEP = {"max-num-batched-tokens": 16384}
GAIN = (
    "9000 output tokens/s in place of 7000 (+29%), measured on 2026-11-27 with vLLM 0.33.0, profile guide, 1000 at once"
)


def preset(name: str = "p", after: float = 9000, engine: str = "0.33.0", **fields: Any) -> Preset:
    """A preset for 8b on one H100."""
    by = Measured("2026-11-27", engine, "guide", 1000, 7000, after)
    found = Preset(name, "8b", "h100", 1, "throughput", by, options=STEP)
    return replace(found, **fields)


def catalog(*presets: Preset, extra: dict[str, Any] | None = None) -> Catalog:
    return replace(load_catalog(extra), presets=presets)


def step(instance: Instance) -> int | None:
    return instance.config.get("max-num-batched-tokens")


# -- which matches -----------------------------------------------------------------------------------------------------
def test_a_plan_takes_the_preset_that_matches_and_says_what_it_gains() -> None:
    taken = one("1xH100", catalog(preset(env={"VLLM_X": "1"})), model="8b")
    assert (step(taken), taken.env["VLLM_X"]) == (16384, "1")
    assert (taken.preset, taken.preset_gain, taken.faster_weights) == ("p", GAIN, "")
    bare = one("1xH100", catalog(), model="8b")
    assert (step(bare), bare.preset, bare.preset_gain) == (None, "", "")
    # Its memory is counted: a longer step leaves less for the KV cache.
    assert taken.kv_cache_tokens < bare.kv_cache_tokens
    same = one("1xH100", catalog(), model="8b", extra_args=STEP)
    assert taken.kv_cache_tokens == same.kv_cache_tokens


@pytest.mark.parametrize(
    ("gpus", "options"),
    [
        ("2xH100", {"model": "8b"}),
        ("1xH200", {"model": "8b"}),
        ("1xH100", {"model": "8b-fp8"}),
        ("1xH100", {"model": "8b", "objective": "latency"}),
        ("1xH100", {"model": "8b", "presets": False}),
        ("1xH100", {"models": [{"model": "8b", "presets": "no"}]}),
        ("1xH100", {"model": "8b", "gpu_share": "0.6"}),
        ("1xH100", {"model": "8b", "engine": "unplanned", "image": "a/b:1"}),
        ([{"name": "NVIDIA H100 80GB HBM3", "memory_mib": 40960}], {"model": "8b"}),
    ],
)
def test_another_model_number_of_gpus_type_or_objective_takes_none(gpus: Any, options: dict[str, Any]) -> None:
    assert one(gpus, catalog(preset()), **options).preset == ""


def test_a_model_is_known_by_its_repository_and_under_another_key() -> None:
    repo_id = CATALOG.models["8b"].repo_id
    known = catalog(preset(), extra={"mine": {"repo_id": repo_id.upper(), "config": CONFIGS["8b"]}})
    assert one("1xH100", known, model="mine").preset == "p"
    assert one("1xH100", known, model=repo_id).preset == "p"
    assert one("1xH100", catalog(preset(model=repo_id)), model="8b").preset == "p"
    described = {"repo_id": repo_id, "revision": "b" * 40, "gated": False, "shards": [], "config": CONFIGS["8b"]}
    name = f"{repo_id}@v1"
    answer = {**described, "files": {"config.json": 1, "model.safetensors": 16_060_000_000}}
    revised = load_catalog(entries({name: answer}, CATALOG))
    assert one("1xH100", replace(revised, presets=(preset(),)), model=name).preset == "p"


def test_each_instance_has_its_own_by_its_number_of_gpus() -> None:
    two = preset("two", count=2, options={"api-server-count": 4})
    known = catalog(preset(), two)
    made = instances("3xH100", known, models=[{"model": "8b", "gpu_indices": [0]}, {"model": "8b", "name": "b"}])
    assert [made[name].preset for name in ("8b", "b")] == ["p", "two"]


def test_the_users_comes_first_then_those_of_the_release_then_the_best_measured() -> None:
    best, newer = preset("best", 9900, "0.26.0"), preset("newer", 9000)
    slower, last = preset("a-slower", 8000), preset("zz", 9000)
    own = preset("own", 7100, "0.26.0", path="/srv/own.yml")

    def said(*presets: Preset) -> tuple[str, str]:
        found = one("1xH100", catalog(*presets), model="8b").preset
        return found, warnings("1xH100", catalog(*presets), model="8b")

    assert said(best, newer, own, slower) == (
        "own",
        "8b: The preset own is taken and not newer and a-slower and best, which match, too: it is yours.",
    )
    assert said(best, slower) == (
        "a-slower",
        "8b: The preset a-slower is taken and not best, which matches, too: it is for vLLM 0.33.0.",
    )
    assert said(slower, newer)[1].endswith("not a-slower, which matches, too: it was measured to be the fastest.")
    within = replace(
        preset("within"), measured=replace(preset().measured, unit="requests/s within the goals", after=9e9)
    )
    assert said(within, newer)[1].endswith("not within, which matches, too: it was measured in output tokens/s.")
    assert said(last, newer)[1].endswith(
        "not zz, which matches, too: it is the first by its name of those that are as fast."
    )
    of_line = preset("line", 7100, "0.26.0", release="0.33")
    assert said(best, of_line)[0] == "line"


def test_one_of_an_older_release_is_taken_if_the_served_release_has_its_options() -> None:
    old = preset(engine="0.26.0")
    taken = one("1xH100", catalog(old), model="8b")
    assert (taken.preset, "with vLLM 0.26.0" in taken.preset_gain) == ("p", True)
    gone = preset(engine="0.26.0", options={"max-seq-len-to-capture": 1})
    assert one("1xH100", catalog(gone), model="8b").preset == ""
    assert warnings("1xH100", catalog(gone), model="8b") == (
        "8b: The preset p is left out: vLLM 0.33.0 no longer has the option max-seq-len-to-capture: use"
        " max-cudagraph-capture-size."
    )


# -- what the user sets ------------------------------------------------------------------------------------------------
def test_what_the_user_sets_wins_key_by_key() -> None:
    known = catalog(preset(options={**STEP, "max-num-seqs": 512}, env={"A": "1", "B": "1"}))
    asked = {"model": "8b", "extra_args": {"max_num_seqs": 64}, "env": {"A": "2"}}
    taken = one("1xH100", known, **asked)
    assert (step(taken), taken.config["max-num-seqs"]) == (16384, 64)
    assert (taken.env["A"], taken.env["B"]) == ("2", "1")
    assert warnings("1xH100", known, **asked) == (
        "8b: What is set already wins over the preset p: max-num-seqs, A. What the preset gains may differ."
    )
    assert (
        one("1xH100", known, models=[{"model": "8b", "extra_args": {"max-num-seqs": 64}}]).config["max-num-seqs"] == 64
    )


@pytest.mark.parametrize(
    ("theirs", "own"),
    [
        ({"async-scheduling": True}, {"no-async-scheduling": True}),
        ({"no-async-scheduling": True}, {"async-scheduling": True}),
        ({"async-scheduling": True}, {"async-scheduling": None}),
    ],
)
def test_another_spelling_and_null_are_the_users_word(theirs: dict[str, Any], own: dict[str, Any]) -> None:
    known = catalog(preset(options={**STEP, **theirs}))
    config = one("1xH100", known, model="8b", extra_args=own).config
    assert {name: value for name, value in config.items() if name.endswith("async-scheduling")} == {
        name: value for name, value in own.items() if value is not None
    }
    assert config["max-num-batched-tokens"] == 16384


def test_a_number_is_read_as_the_releases_parser_reads_it() -> None:
    taken = one("1xH100", catalog(preset(options={"max-num-batched-tokens": "16K"})), model="8b")
    assert (step(taken), taken.preset) == (16384, "p")


def test_an_entry_of_the_model_and_of_the_release_win() -> None:
    known = catalog(preset(), extra={"8b": {"vllm": {"max-num-batched-tokens": 4096}}})
    entered = one("1xH100", known, model="8b")
    assert (step(entered), entered.preset) == (4096, "")
    engine = replace(CATALOG.engine(None), config={"max-num-batched-tokens": 4096})
    known = replace(catalog(preset()), engines={engine.version: engine})
    assert step(one("1xH100", known, model="8b")) == 4096


def test_nothing_is_said_of_a_preset_that_the_user_has_set_altogether() -> None:
    asked = {"model": "8b", "extra_args": {"max-num-batched-tokens": 4096}}
    assert one("1xH100", catalog(preset()), **asked).preset == ""
    assert warnings("1xH100", catalog(preset()), **asked) == ""


def test_the_kv_cache_the_share_of_memory_and_the_layout_are_the_plans_own_options() -> None:
    known = catalog(preset(options={"kv-cache-dtype": "fp8", "gpu-memory-utilization": 0.9}))
    taken = one("1xH100", known, model="8b")
    assert (taken.config["kv-cache-dtype"], taken.config["gpu-memory-utilization"]) == ("fp8", 0.9)
    bare = one("1xH100", catalog(), model="8b", kv_cache_dtype="fp8", gpu_memory_utilization=0.9)
    assert taken.kv_cache_tokens == bare.kv_cache_tokens
    asked = {"model": "8b", "kv_cache_dtype": "auto"}
    assert "kv-cache-dtype" not in one("1xH100", known, **asked).config
    assert "wins over the preset p: kv-cache-dtype." in warnings("1xH100", known, **asked)


def test_the_layout_of_a_preset_is_its_condition() -> None:
    wide = catalog(preset(count=2, options={"tensor-parallel-size": 2}))
    taken = one("2xH100", wide, model="8b")
    assert (taken.tensor_parallel_size, taken.data_parallel_size, taken.preset) == (2, 1, "p")
    for other in ({"tensor_parallel_size": 1}, {"data_parallel_size": 2}):
        assert one("2xH100", wide, model="8b", **other).preset == ""
        assert warnings("2xH100", wide, model="8b", **other) == ""
    same = one("2xH100", wide, model="8b", tensor_parallel_size=2)
    assert (same.tensor_parallel_size, same.preset) == (2, "")
    both = catalog(preset(count=2, options={"data-parallel-size": 2, "api-server-count": 4}))
    asked = {"model": "8b", "extra_args": {"api-server-count": 2}}
    assert one("2xH100", both, **asked).preset == ""
    assert warnings("2xH100", both, **asked) == "8b: The preset p is left out: what it would change is set already."


# -- what is left out --------------------------------------------------------------------------------------------------
LEFT_OUT: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("1xH100", {"max-num-bached-tokens": 1}, {}, "vLLM 0.33.0 has no option max-num-bached-tokens. Did you mean"),
    ("1xH100", {"max-num-seqs": 0}, {}, "max-num-seqs must be at least 1, not 0."),
    (
        "1xH100",
        {"max-num-seqs": 9000},
        {"extra_args": STEP | {"max-num-batched-tokens": 8192}},
        "must be at least max-num-seqs (9000)",
    ),
    (
        "1xH100",
        {"quantization": "fp8"},
        {},
        "the plan does not count the memory that quantization takes: leave it out.",
    ),
    ("1xH100", {"speculative-config": {}}, {}, "speculative-config takes: set vllm_speculative for it."),
    ("1xH100", {"kv-offloading-size": 9}, {}, "kv-offloading-size takes: set vllm_kv_host_gib for it."),
    ("1xH100", {"max-num-batched-tokens": 1 << 20}, {}, "with it the model does not fit: "),
    (
        "1xH100",
        {"max-num-batched-tokens": 400_000},
        {},
        "with it the context would be 95232 in place of 131072; vllm_max_model_len: 95232 takes it.",
    ),
    ("2xH100", {"tensor-parallel-size": 4}, {}, "with it the model does not fit: TP 4 needs 4 GPUs, 2 "),
    ("2xH100", {"data-parallel-size": 1, "tensor-parallel-size": 1}, {}, "TP 1 takes 1 of 2 GPUs."),
    (
        "2xH100",
        {"max-num-batched-tokens": 400_000},
        {"max_model_len": 8192},
        "with it the model would be served with TP 2 in place of TP 1 x 2",
    ),
    (
        "1xH100",
        {"max-num-batched-tokens": 400_000},
        {"max_model_len": 131072},
        "with it the model would be served with TP 1, KV cache in FP8 in place of TP 1.",
    ),
]


@pytest.mark.parametrize(("gpus", "options", "asked", "message"), LEFT_OUT)
def test_what_does_not_fit_or_is_refused_is_left_out_with_a_note(
    gpus: str, options: dict[str, Any], asked: dict[str, Any], message: str
) -> None:
    known = catalog(preset(count=int(gpus[0]), options=options))
    asked = {"model": "8b", **asked}
    assert "The preset p is left out: " in warnings(gpus, known, **asked)
    assert message in warnings(gpus, known, **asked)
    bare = one(gpus, catalog(), **asked)
    assert one(gpus, known, **asked) == bare


def test_one_for_other_gpus_than_compute_with_it_is_left_out() -> None:
    known = catalog(preset(gpu="t4", options={"dtype": "bfloat16"}, model="8b-fp8"))
    assert "left out: with it the model does not fit: Tesla T4 has compute capability 7.5, and BF16 needs 8.0" in (
        warnings("1xT4", known, model="8b-fp8")
    )


def test_what_else_fits_is_told_as_without_a_preset() -> None:
    """One that states the layout rules out the others, which are told still."""
    known = catalog(preset(count=2, options={"data-parallel-size": 2, "api-server-count": 4}))
    made, bare = (outcome("2xH100", found, model="8b").plan for found in (known, catalog()))
    assert made
    assert bare
    assert made.instances[0].preset == "p"
    assert made.rejected == bare.rejected


def test_the_next_one_is_taken_in_place_of_one_that_is_left_out() -> None:
    known = catalog(preset("bad", 9900, options={"max-num-seqs": 0}), preset("good"))
    assert one("1xH100", known, model="8b").preset == "good"
    assert "preset bad is left out" in warnings("1xH100", known, model="8b")


def test_a_deprecated_option_of_a_preset_is_told() -> None:
    engine = replace(CATALOG.engine(None), deprecated={"max-num-batched-tokens": "use another"})
    known = replace(catalog(preset()), engines={engine.version: engine})
    assert "max-num-batched-tokens is deprecated in vLLM 0.33.0" in warnings("1xH100", known, model="8b")


# -- other weights -----------------------------------------------------------------------------------------------------
FP8 = preset("w", weights="8b-fp8", options={})


def test_fastest_takes_the_weights_that_were_measured_to_be_faster() -> None:
    taken = one("1xH100", catalog(FP8), model="8b", weights="fastest")
    assert (taken.name, taken.model, taken.precision, taken.preset) == ("8b", "8b-fp8", "FP8", "w")
    assert (taken.preset_gain, taken.faster_weights) == (GAIN, "")
    assert warnings("1xH100", catalog(FP8), model="8b", weights="fastest") == (
        "8b: Serving 8b-fp8 (RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8, 8.5 GiB of FP8 weights) in place of 8b, since it"
        " is faster by the preset w (vllm_weights: fastest): answers may differ slightly."
    )


def test_without_it_the_plan_says_what_they_would_gain() -> None:
    for asked in ({}, {"presets": False}, {"weights": "smaller"}):
        found = one("1xH100", catalog(FP8), model="8b", **asked)
        assert (found.model, found.preset) == ("8b", "")
        assert found.faster_weights == f"8b-fp8: {GAIN}"


@pytest.mark.parametrize("gpus", ["1xL40S", "1xA100", "2xH100"])
def test_nothing_is_claimed_of_gpus_without_a_measurement(gpus: str) -> None:
    found = one(gpus, catalog(FP8), model="8b", weights="fastest")
    assert (found.model, found.faster_weights) == ("8b", "")
    name = {"L40S": "NVIDIA L40S", "A100": "NVIDIA A100-SXM4-80GB", "H100": "NVIDIA H100 80GB HBM3"}[gpus[2:]]
    assert warnings(gpus, catalog(FP8), model="8b", weights="fastest").startswith(
        f"8b: No other weights of 8b were measured to be faster on {gpus[0]} x {name} (vllm_weights: fastest): the"
    )
    assert one(gpus, catalog(FP8), model="8b").faster_weights == ""


@pytest.mark.parametrize(
    ("fields", "gpus", "message"),
    [
        ({"gpu": "a100-80"}, "1xA100", "has no FP8 tensor cores"),
        ({"weights": "70b-fp8"}, "1xH100", "70b-fp8 is not the model as it is served here with smaller weights."),
        ({"options": {"max-num-seqs": 0}}, "1xH100", "max-num-seqs must be at least 1"),
        ({"options": {"max-num-batched-tokens": 1 << 20}}, "1xH100", "with it the model does not fit"),
    ],
)
def test_weights_that_cannot_be_served_faster_are_left_out(fields: dict[str, Any], gpus: str, message: str) -> None:
    known = catalog(replace(FP8, **fields))
    found = one(gpus, known, model="8b", weights="fastest")
    assert (found.model, found.preset) == ("8b", "")
    noted = warnings(gpus, known, model="8b", weights="fastest")
    assert "The preset w is left out: " in noted
    assert message in noted
    assert "No other weights" not in noted
    assert one(gpus, known, model="8b").faster_weights == ""


def test_weights_bring_the_options_that_they_were_measured_with() -> None:
    known = catalog(replace(FP8, options=STEP), preset("q", 9999, model="8b-fp8", options={"max-num-seqs": 512}))
    taken = one("1xH100", known, model="8b", weights="fastest")
    assert (taken.model, taken.preset, step(taken), taken.config.get("max-num-seqs")) == ("8b-fp8", "w", 16384, None)
    off = one("1xH100", known, model="8b", weights="fastest", presets=False)
    assert (off.model, off.preset, step(off)) == ("8b", "", None)


def test_bare_weights_have_the_options_of_their_own_preset() -> None:
    known = catalog(FP8, preset("q", 9999, model="8b-fp8", options={"max-num-seqs": 512}))
    taken = one("1xH100", known, model="8b", weights="fastest")
    assert (taken.model, taken.preset, taken.config["max-num-seqs"]) == ("8b-fp8", "q", 512)
    assert "faster by the preset w" in warnings("1xH100", known, model="8b", weights="fastest")


def test_a_name_from_a_repository_stays_that_of_the_fastest_weights() -> None:
    """The engine runs other weights than those that are named, and is not taken for another model's."""
    model = CATALOG.models["8b"]
    known = replace(load_catalog({"o/8b": {"repo_id": model.repo_id, "config": CONFIGS["8b"]}}), presets=(FP8,))
    serving = NodeServing((Serving("8b", 8000, 8000, (), model=CATALOG.models["8b-fp8"].repo_id),))
    made = outcome("1xH100", known, serving=serving, model="o/8b", weights="fastest")
    assert made.plan
    assert made.plan.instances[0].model == "8b-fp8"


# -- on the CPU --------------------------------------------------------------------------------------------------------
ON_CPU = preset(model="tiny", gpu="cpu", count=0, options={"max-num-seqs": 8})


def test_an_engine_on_the_cpu_has_presets_too() -> None:
    taken = one([], catalog(ON_CPU), model="tiny")
    assert (taken.preset, taken.config["max-num-seqs"]) == ("p", 8)
    assert one([], catalog(ON_CPU), model="tiny", presets=False).preset == ""
    assert one([], catalog(preset(model="tiny")), model="tiny").preset == ""


def test_one_that_shortens_the_context_on_the_cpu_is_left_out() -> None:
    small = replace(ON_CPU, model="8b", env={"VLLM_CPU_KVCACHE_SPACE": "1"})
    asked = {"model": "8b", "device": "cpu"}
    assert one([], catalog(small), **asked).preset == ""
    noted = warnings([], catalog(small), **asked)
    assert "8b: The preset p is left out: with it the context would be " in noted


# -- the same plan twice -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("asked", [{"model": "8b"}, {"model": "8b", "weights": "fastest"}])
def test_the_same_input_gives_the_same_plan(asked: dict[str, Any]) -> None:
    node, known = board("h100x8"), catalog(preset(count=8, options={"api-server-count": 4}), replace(FP8, count=8))
    first = instances(node, known, **asked)["8b"]
    assert first.preset
    serving = NodeServing((Serving("8b", first.port, first.port_base, first.gpu_uuids, model=first.repo_id),))
    again = instances(node, replace(known, presets=known.presets[::-1]), serving=serving, **asked)["8b"]
    assert again == first
