# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""LoRA adapters: asked for with the models, refused where vLLM would, counted as vLLM allocates them, and served."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.action import serving_plan
from ansible_collections.gpunode.llm.plugins.plugin_utils import hub_models
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.adapters import SERVED_RANKS
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.listed import listed
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.lora import slots_gib
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.memory import GIB, Experts, Parallel
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.request import InstanceRequest, read_request
from ansible_collections.gpunode.llm.plugins.plugin_utils.screen.plan import card, plan_text
from ansible_collections.gpunode.llm.tests.unit.plugins.planner import planning
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.planning import CATALOG, findings, one, warnings
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.test_named_models import (
    NAME,
    hub_answer as model_answer,
)
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.test_plan_by_name import action, called, node

COMMIT = "1605565b47bb9346c5515c34102e054115b4f98b"
SQL, LAW = "Acme/sql-lora", "Acme/law-lora@v2"
BASE = "meta-llama/Llama-3.1-8B-Instruct"
CONFIG = {
    "peft_type": "LORA",
    "base_model_name_or_path": BASE,
    "r": 16,
    "lora_alpha": 32,
    "target_modules": ["q_proj", "v_proj"],
}
FILES = {"adapter_config.json": 700, "adapter_model.safetensors": 27_000_000, "optimizer.pt": 50_000_000}


def hub_answer(files: dict[str, int] | None = None, reference: str = SQL, **config: Any) -> dict[str, Any]:
    repo_id, _at, branch = reference.partition("@")
    answer = {"repo_id": repo_id, "revision": COMMIT, "branch": branch or "main", "gated": False, "license": "mit"}
    return {**answer, "files": files or FILES, "config": None, "adapter_config": {**CONFIG, **config}}


def catalog(*references: str, **config: Any) -> Any:
    options = {"extra_models": {}, "extra_gpus": {}, "extra_engines": {}, "lora": {r: r for r in references or (SQL,)}}
    answers = {reference: hub_answer(reference=reference, **config) for reference in options["lora"]}
    return hub_models.with_answers({**options, "models": ["8b"]}, answers, CATALOG)


def plan(gpus: str = "1xH100", model: Any = "8b", lora: Any = None, known: Any = None, **config: Any) -> Any:
    return one(gpus, known or catalog(**config), model=model, lora=lora or {"sql": SQL})


def refused(lora: Any = None, model: Any = "8b", **config: Any) -> str:
    return findings("1xH100", catalog(**config), model=model, lora=lora or {"sql": SQL})


# -- asking -----------------------------------------------------------------------------------------------------------
def test_an_adapter_is_asked_for_in_the_call_that_reads_the_gpus() -> None:
    made = action(
        serving_plan.ActionModule,
        node(**{SQL: hub_answer(), NAME: model_answer()}),
        model=NAME,
        lora={"sql": SQL},
        fail_on_findings=False,
    )
    result = made.run(task_vars={})
    name, args = called(made)
    assert (name, args["models"]) == (
        "model_info",
        [
            {"name": NAME, "repo_id": NAME, "revision": "main"},
            {"name": SQL, "repo_id": "Acme/sql-lora", "revision": "main"},
        ],
    )
    assert "trained on meta-llama/Llama-3.1-8B-Instruct" in result["findings"][0]


def test_each_adapter_is_asked_for_once_wherever_it_is_named() -> None:
    request = hub_models.question(
        ["8b", {"model": "8b", "name": "b", "lora": {"law": LAW, "again": {"adapter": SQL, "base": "x/y"}}}],
        {"lora": {"sql": SQL}, "hub": {}, "hub_token": ""},
        CATALOG,
    )
    assert [model["name"] for model in request["models"]] == [SQL, LAW]
    assert request["models"][1] == {"name": LAW, "repo_id": "Acme/law-lora", "revision": "v2"}


@pytest.mark.parametrize("reference", ["sql", "/srv/sql", "a/b/c", "Acme/sql@", "Acme/sql@../x", 7, None, ["a/b"]])
def test_an_invalid_name_of_an_adapter_is_a_finding(reference: Any) -> None:
    made = action(serving_plan.ActionModule, node(), model="8b", lora={"sql": reference}, fail_on_findings=False)
    (finding,) = made.run(task_vars={})["findings"]
    assert "vllm_lora: sql" in finding
    assert "ORG/ADAPTER" in finding
    assert called(made)[0] == "gpu_info"


@pytest.mark.parametrize(
    ("lora", "says"),
    [
        ({"": SQL}, "'' names no adapter"),
        ({"a b": SQL}, "'a b' names no adapter"),
        ({"sql": {"adapter": SQL, "rank": 3}}, "vllm_lora: sql has an unknown key 'rank'"),
        ("sql", "vllm_lora must be a dictionary"),
    ],
)
def test_an_invalid_list_of_adapters_is_a_finding(lora: Any, says: str) -> None:
    assert says in findings("1xH100", catalog(), model="8b", lora=lora)
    assert says.replace("vllm_lora", "models: lora") in findings(
        "1xH100", catalog(), models=[{"model": "8b", "lora": lora}]
    )


def test_the_hub_knows_no_such_adapter() -> None:
    answer = node(**{SQL: {"refused": "Acme/sql-lora does not exist.", "kind": "no_repository"}})
    made = action(serving_plan.ActionModule, answer, model="8b", lora={"sql": SQL}, fail_on_findings=False)
    assert made.run(task_vars={})["findings"] == ["Acme/sql-lora does not exist."]


def test_models_are_listed_without_the_hub() -> None:
    assert listed([{"model": "8b", "lora": {"sql": SQL}}]) == {"8b"}


# -- what is served ---------------------------------------------------------------------------------------------------
def test_an_adapter_is_fetched_at_its_commit_and_served_from_there() -> None:
    made = plan()
    (adapter,) = made.lora
    assert {key: adapter[key] for key in ("name", "repo_id", "revision", "branch", "gated", "weights_bytes")} == {
        "name": "sql",
        "repo_id": "Acme/sql-lora",
        "revision": COMMIT,
        "branch": "main",
        "gated": False,
        "weights_bytes": 27_000_000,
    }
    assert adapter["allow_patterns"] == ("adapter_config.json", "adapter_model.safetensors")
    assert made.config["enable-lora"] is True
    (module,) = made.config["lora-modules"]
    assert json.loads(module) == {
        "name": "sql",
        "path": f"~/.cache/huggingface/hub/models--Acme--sql-lora/snapshots/{COMMIT}",
        "base_model_name": BASE,
    }
    assert made.config["max-lora-rank"] == 16
    assert made.config["lora-target-modules"] == ["q_proj", "v_proj"]
    assert made.config["max-loras"] == 1
    assert "max-cpu-loras" not in made.config
    assert made.served_model_name == BASE
    assert made.download_bytes == made.weights_bytes + 27_000_000


def test_without_adapters_nothing_changes() -> None:
    made = one("1xH100", model="8b")
    assert made.lora == ()
    assert not [key for key in made.config if "lora" in key]


@pytest.mark.parametrize(("r", "served"), [(1, 1), (2, 8), (8, 8), (17, 32), (256, 256), (257, 320), (512, 512)])
def test_the_rank_is_the_next_that_vllm_has(r: int, served: int) -> None:
    assert plan(r=r).config["max-lora-rank"] == served
    assert served in SERVED_RANKS


def test_a_pattern_of_ranks_counts() -> None:
    assert plan(rank_pattern={"layers.3.self_attn.q_proj": 64}).config["max-lora-rank"] == 64


def test_several_adapters_are_in_one_batch_and_the_rest_waits_in_the_hosts_memory() -> None:
    names = {f"a{number}": f"Acme/a{number}" for number in range(10)}
    made = plan(lora=names, known=catalog(*names.values()))
    assert len(made.config["lora-modules"]) == 10
    assert (made.config["max-loras"], made.config["max-cpu-loras"]) == (8, 10)


def test_targets_that_are_no_plain_names_leave_all_modules_open() -> None:
    assert "lora-target-modules" not in plan(target_modules="all-linear").config
    assert "lora-target-modules" not in plan(target_modules=["q_proj", "w9"]).config
    both = {SQL: hub_answer(), LAW: hub_answer(reference=LAW, target_modules=["down_proj", "v_proj"])}
    options = {
        "extra_models": {},
        "extra_gpus": {},
        "extra_engines": {},
        "models": ["8b"],
        "lora": {"a": SQL, "b": LAW},
    }
    made = plan(lora=options["lora"], known=hub_models.with_answers(options, both, CATALOG))
    assert made.config["lora-target-modules"] == ["down_proj", "q_proj", "v_proj"]


def test_the_users_own_options_win() -> None:
    made = one("1xH100", catalog(), model="8b", lora={"sql": SQL}, extra_args={"max-loras": 4, "max-lora-rank": 64})
    assert (made.config["max-loras"], made.config["max-lora-rank"]) == (4, 64)
    assert "lora-modules is written from vllm_lora" in findings(
        "1xH100", catalog(), model="8b", lora={"sql": SQL}, extra_args={"lora-modules": ["a=/b"]}
    )
    low = findings("1xH100", catalog(), model="8b", lora={"sql": SQL}, extra_args={"max-lora-rank": 8})
    assert "max-lora-rank is 8, and sql has the rank 16: leave it out, or set 16 or more" in low


# -- what is refused --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"r": 1024}, "has the rank 1024, and vLLM takes 512 at most"),
        ({"rank_pattern": {"q_proj": 600}}, "has the rank 600, and vLLM takes 512 at most"),
        ({"r": 0}, "says no rank (r: 0)"),
        ({"peft_type": "IA3"}, "is no LoRA adapter (peft_type: IA3)"),
        ({"use_dora": True}, "is made with DoRA (use_dora)"),
        ({"modules_to_save": ["lm_head"]}, "brings whole modules (modules_to_save: lm_head)"),
        ({"modules_to_save": "lm_head"}, "brings whole modules (modules_to_save: lm_head)"),
        ({"modules_to_save": 1}, "brings whole modules (modules_to_save: 1)"),
        ({"bias": "all"}, "brings biases (bias: all)"),
        (
            {"init_lora_weights": "pissa"},
            "changes the model's own weights when it is loaded (init_lora_weights: pissa)",
        ),
        ({"layer_replication": [[0, 16], [8, 24]]}, "repeats layers (layer_replication)"),
        ({"alora_invocation_tokens": [1]}, "is an activated LoRA (alora_invocation_tokens)"),
        ({"base_model_name_or_path": "meta-llama/Llama-3.1-70B"}, "was trained on meta-llama/Llama-3.1-70B"),
        ({"base_model_name_or_path": "/data/llama"}, "was trained on /data/llama"),
        ({"base_model_name_or_path": None}, "does not say what it was trained on"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(config: dict[str, Any], says: str) -> None:
    problems = refused(**config)
    assert says in problems
    assert problems.startswith("8b: the adapter sql (Acme/sql-lora at 1605565b) ")
    assert len(problems.splitlines()) == 1


def test_an_adapter_without_weights_or_configuration_is_refused() -> None:
    bare = {**hub_answer(files={"adapter_config.json": 1, "README.md": 2})}
    options = {"extra_models": {}, "extra_gpus": {}, "extra_engines": {}, "models": ["8b"], "lora": {"sql": SQL}}
    known = hub_models.with_answers(options, {SQL: bare}, CATALOG)
    assert "has no adapter_model.safetensors" in findings("1xH100", known, model="8b", lora={"sql": SQL})
    with pytest.raises(ValueError, match=r"Acme/sql-lora at \w+ has no adapter_config.json, so it is no LoRA adapter"):
        hub_models.with_answers(options, {SQL: {**hub_answer(), "adapter_config": None}}, CATALOG)


@pytest.mark.parametrize("base", [BASE, BASE.lower(), "meta-llama/Llama-3.1-8B-Instruct/"])
def test_the_base_is_the_model_whatever_its_revision(base: str) -> None:
    assert plan(base_model_name_or_path=base, revision="somewhere").lora


def test_the_same_model_in_another_weight_format_is_the_base() -> None:
    assert plan(model="8b-fp8").lora
    # Of the same shapes, and another model.
    old = {"base_model_name_or_path": "meta-llama/Llama-3.1-70B-Instruct"}
    assert "was trained on meta-llama/Llama-3.1-70B-Instruct" in refused(model="3.3-70b", **old)


def test_a_base_under_another_name_is_the_users_word() -> None:
    config = {"base_model_name_or_path": "unsloth/llama-3.1-8b"}
    problems = refused(**config)
    word = {"sql": {"adapter": SQL, "base": "unsloth/llama-3.1-8b"}}
    assert "lora: {sql: {adapter: Acme/sql-lora, base: unsloth/llama-3.1-8b}}" in problems
    assert plan(lora=word, **config).lora
    assert "was trained on unsloth/llama-3.1-8b" in refused(lora={"sql": {"adapter": SQL, "base": "x/y"}}, **config)


@pytest.mark.parametrize(("megabytes", "fits"), [(13.7, True), (27.3, True), (6.9, True), (4.0, False), (19.0, False)])
def test_the_users_word_is_held_to_the_size_of_the_file(megabytes: float, fits: bool) -> None:
    """32 layers x 16 x (4096 + 4096 + 4096 + 1024) numbers are 13.6 MB in BF16."""
    files = {"adapter_config.json": 700, "adapter_model.safetensors": int(megabytes * 1e6)}
    answer = hub_answer(files, base_model_name_or_path="x/y")
    options = {"extra_models": {}, "extra_gpus": {}, "extra_engines": {}, "models": ["8b"], "lora": {"sql": SQL}}
    known = hub_models.with_answers(options, {SQL: answer}, CATALOG)
    word = {"sql": {"adapter": SQL, "base": "x/y"}}
    if fits:
        assert plan(lora=word, known=known).lora
    else:
        problems = findings("1xH100", known, model="8b", lora=word)
        assert f"q_proj and v_proj of {BASE} have 13.6 MB in BF16 or 27.3 MB in FP32" in problems
        assert f"has {megabytes:.1f} MB: it was trained on another model." in problems


def test_a_name_is_served_once() -> None:
    problems = refused(lora={BASE: SQL})
    assert f"the adapter {BASE} has a name of the model itself ({BASE}, 8b)" in problems


def test_an_architecture_without_adapters() -> None:
    model = {"mine": {"repo_id": BASE, "config": {**planning.CONFIGS["8b"], "architectures": ["OrionForCausalLM"]}}}
    options = {"extra_models": model, "extra_gpus": {}, "extra_engines": {}, "models": ["mine"], "lora": {"sql": SQL}}
    known = hub_models.with_answers(options, {SQL: hub_answer()}, hub_models.known(options))
    problems = findings("1xH100", known, model="mine", lora={"sql": SQL})
    assert "mine: vLLM takes no LoRA adapters for OrionForCausalLM" in problems


# -- memory -----------------------------------------------------------------------------------------------------------
def request(model: str = "8b", known: Any = None, **options: Any) -> InstanceRequest:
    known = known or catalog()
    (found,) = read_request({"model": model, "lora": {"sql": SQL}, **options}, known).instances
    return found


def bytes_of(instance: InstanceRequest, tp: int = 1, pp: int = 1, **experts: int) -> int:
    return round(slots_gib(instance, Parallel(tp, pp), Experts(**experts) if experts else Experts(cut=tp)) * GIB)


def test_slots_are_counted_as_vllm_allocates_them() -> None:
    """By hand, from lora/layers/{base_linear,column_parallel_linear}.py: A is rank x inputs, B outputs x rank.

    vLLM 0.32.0 itself (LoRAModelManager over the model on the meta device) allocates 18874368 bytes for this one,
    17301504 for the attention of Qwen3-30B-A3B, and 184713216 for two slots of all modules of 8b.
    """
    # The fused qkv has three slices although v and q are wanted: k is allocated with them.
    whole = 32 * 16 * 2 * (3 * 4096 + 4096 + 1024 + 1024)
    assert bytes_of(request()) == whole == 18874368
    # A is on each GPU, B is divided: 8 KV heads over 8 GPUs, one each.
    assert bytes_of(request(), tp=8) == 32 * 16 * 2 * (3 * 4096 + 512 + 128 + 128)
    # ... and repeated beyond.
    assert bytes_of(request(), tp=16) == 32 * 16 * 2 * (3 * 4096 + 256 + 128 + 128)
    assert bytes_of(request(), pp=2) == whole // 2
    assert bytes_of(request(extra_args={"max-loras": 4})) == 4 * whole
    assert bytes_of(request(extra_args={"max-lora-rank": 64})) == 4 * whole
    assert bytes_of(replace(request(), lora=())) == 0


def test_a_row_parallel_module_divides_its_inputs() -> None:
    instance = request(known=catalog(target_modules=["down_proj"]))
    assert bytes_of(instance, tp=2) == 32 * 16 * 2 * (14336 // 2 + 4096)


def test_open_modules_are_all_counted_with_both_ends() -> None:
    instance = request(known=catalog(target_modules="all-linear"))
    linear = (3 * 4096 + 4096 + 1024 + 1024) + (4096 + 4096) + 2 * (4096 + 14336) + (14336 + 4096)
    ends = 2 * (128256 + 4096)
    assert bytes_of(instance) == 16 * 2 * (32 * linear + ends) == 184713216 // 2


def test_experts_are_counted_each() -> None:
    known = catalog(target_modules=["gate_proj", "up_proj", "down_proj"], base_model_name_or_path="Qwen/Qwen3-30B-A3B")
    model = next(m for m in known.models.values() if m.sized.mixture and m.sized.name == "Qwen3MoeForCausalLM")
    instance = request(model.key, known)
    attention = (3 * 2048 + 4096 + 512 + 512) + (4096 + 2048)
    one_expert = 2 * (2048 + 768) + (768 + 2048)
    gate, ends = 2048 + 128, 2 * (151936 + 2048)
    assert model.sized.expert_size == 768
    assert bytes_of(instance) == 16 * 2 * (48 * (attention + 128 * one_expert + gate) + ends)
    shared = bytes_of(instance, tp=2, over=2) - bytes_of(instance, tp=2, cut=2)
    # Whole experts, half as many; or all of them, each cut: A of gate and up and B of down are not.
    assert shared == 16 * 2 * 48 * (64 * one_expert - 128 * (2 * (2048 + 384) + (384 + 2048)))


def test_a_mixture_with_adapters_of_its_attention_alone_counts_no_experts() -> None:
    known = catalog(base_model_name_or_path="Qwen/Qwen3-30B-A3B")
    model = next(m for m in known.models.values() if m.sized.mixture and m.sized.name == "Qwen3MoeForCausalLM")
    assert bytes_of(request(model.key, known)) == 48 * 16 * 2 * (3 * 2048 + 4096 + 512 + 512) == 17301504


def test_the_plan_counts_adapter_slots_with_a_note() -> None:
    plain, with_it = one("1xH100", model="8b"), plan(r=512, target_modules="all-linear")
    assert with_it.kv_cache_tokens < plain.kv_cache_tokens
    notes = warnings("1xH100", catalog(r=512, target_modules="all-linear"), model="8b", lora={"sql": SQL})
    assert "8b: its 1 LoRA adapter takes" in notes
    assert "max-loras 1, max-lora-rank 512" in notes


def test_a_model_that_is_not_sized_counts_the_files_of_its_adapters() -> None:
    mine = {"repo_id": BASE, "config": {"architectures": ["NobodyForCausalLM"], "max_position_embeddings": 8192}}
    options = {
        "extra_models": {"mine": mine},
        "extra_gpus": {},
        "extra_engines": {},
        "models": [],
        "lora": {"sql": SQL},
    }
    known = hub_models.with_answers(options, {SQL: hub_answer(r=12)}, hub_models.known(options))
    figures = {"weights_bytes": 10 * GIB, "kv_bytes_per_token": 100_000}
    instance = request("mine", known, **figures)
    assert bytes_of(instance) == round(27_000_000 * 16 / 12)


def test_the_plan_on_the_screen_names_them() -> None:
    made = asdict(plan())
    decided = {"gpus": [], "plan": {"warnings": [], "rejected": []}}
    text = plan_text("n1", decided, {"instances": [made], "fetch": [], "disks": []}, {})
    assert f"adapters  sql (Acme/sql-lora at {COMMIT[:8]})" in "\n".join(text)


def test_the_card_names_adapters() -> None:
    instance = {"name": "8b", "host": "127.0.0.1", "port": 8000, "served_model_name": "m", "lora": [{"name": "sql"}]}
    (line,) = [line for line in card([instance], "n1", {}, False) if line.strip().startswith("8b ")]
    assert line.endswith("as m or sql")
