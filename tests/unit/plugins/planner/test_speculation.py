# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Speculative decoding: a draft is asked for, fetched and counted with its model, and refused where it does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.action import serving_matrix, serving_plan
from ansible_collections.gpunode.llm.plugins.plugin_utils import hub_models
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.host import given_gpus, read_host
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.kv_cache import Setting
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.listed import listed
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.memory import GIB, Experts, Parallel
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.request import InstanceRequest, read_request
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.speculation import weights_gib
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.spread import Candidate
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.planning import (
    CATALOG,
    CONFIGS,
    FIXTURES,
    findings,
    one,
    recorded,
)
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.test_plan_by_name import action, called, node

COMMIT = "1605565b47bb9346c5515c34102e054115b4f98b"
HEAD, SMALL = "Acme/8b-eagle3", "Acme/1b@v2"
EAGLE3 = {
    "architectures": ["LlamaForCausalLMEagle3"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 1,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 128256,
    "draft_vocab_size": 32000,
    "max_position_embeddings": 2048,
}
LLAMA_1B = {
    **CONFIGS["8b"],
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "head_dim": 64,
    "tie_word_embeddings": True,
}
BY_HEAD = {"model": HEAD, "method": "eagle3", "tokens": 3}
BY_MODEL = {"model": SMALL, "method": "draft_model", "tokens": 4}
SIZE = 850_000_000


def hub_answer(reference: str = HEAD, config: Any = None, **more: Any) -> dict[str, Any]:
    repo_id, _at, branch = reference.partition("@")
    files = {"config.json": 700, "model.safetensors": SIZE, "training_args.bin": 5000}
    answer = {"repo_id": repo_id, "revision": COMMIT, "branch": branch or "main", "gated": False, "license": "mit"}
    config = config or (EAGLE3 if reference == HEAD else LLAMA_1B)
    return {**answer, "files": files, "config": config, "index": "", "shards": [], **more}


def catalog(speculative: dict[str, Any], models: Any = None, **answer: Any) -> Any:
    options = {"extra_models": models, "extra_gpus": {}, "extra_engines": {}, "models": [], "speculative": speculative}
    reference = speculative.get("model")
    known = hub_models.known(options)
    described = {reference: hub_answer(reference, **answer)} if reference else {}
    return hub_models.with_answers(options, described, known) if described else known


def plan(speculative: dict[str, Any], model: str = "8b", gpus: str = "1xH100", **answer: Any) -> Any:
    return one(gpus, catalog(speculative, **answer), model=model, speculative=speculative)


def refused(speculative: dict[str, Any], model: str = "8b", **answer: Any) -> str:
    return findings("1xH100", catalog(speculative, **answer), model=model, speculative=speculative)


def request(speculative: dict[str, Any], model: str = "8b", **answer: Any) -> InstanceRequest:
    read = read_request({"model": model, "speculative": speculative}, catalog(speculative, **answer))
    assert not read.findings
    return read.instances[0]


# -- asking -----------------------------------------------------------------------------------------------------------
def test_a_draft_is_asked_for_in_the_call_that_reads_the_gpus() -> None:
    made = action(serving_plan.ActionModule, node(**{HEAD: hub_answer()}), model="8b", speculative=BY_HEAD)
    (instance,) = made.run(task_vars={})["plan"]["instances"]
    name, args = called(made)
    assert (name, args["models"]) == ("model_info", [{"name": HEAD, "repo_id": HEAD, "revision": "main"}])
    assert instance["draft"]["repo_id"] == HEAD


@pytest.mark.parametrize("reference", ["/srv/draft", "draft", "a/b/c", "a/b@"])
def test_an_invalid_name_of_a_draft_is_a_finding(reference: str) -> None:
    wanted = {**BY_HEAD, "model": reference}
    made = action(serving_plan.ActionModule, node(), model="8b", speculative=wanted, fail_on_findings=False)
    (finding,) = made.run(task_vars={})["findings"]
    assert f"vllm_speculative: model cannot be {reference!r}" in finding
    assert called(made)[0] == "gpu_info"


@pytest.mark.parametrize(
    ("speculative", "says"),
    [
        ({"model": HEAD, "tokens": 3}, "vllm_speculative has no method"),
        ({**BY_HEAD, "tokens": 0}, "tokens must be a whole number from 1 to 128, not 0"),
        ({**BY_HEAD, "tokens": 129}, "tokens must be a whole number from 1 to 128, not 129"),
        ({"method": "ngram"}, "tokens must be a whole number from 1 to 128, not None"),
        ({**BY_HEAD, "num_speculative_tokens": 3}, "has an unknown key 'num_speculative_tokens'"),
        ({**BY_HEAD, "model": 7}, "model must name a repository, not 7"),
        ("eagle3", "vllm_speculative must be auto or a dictionary, not 'eagle3'"),
        (True, "vllm_speculative must be auto or a dictionary, not True"),
        ("model=Acme/8b-eagle3 tokens=3", "vllm_speculative has no method"),
    ],
)
def test_an_invalid_draft_is_a_finding(speculative: Any, says: str) -> None:
    assert says in findings("1xH100", CATALOG, model="8b", speculative=speculative)


def test_models_are_listed_without_the_hub() -> None:
    assert listed([{"model": "8b", "speculative": BY_HEAD}]) == {"8b"}


# -- what the catalogue has -------------------------------------------------------------------------------------------
KNOWN = "RedHatAI/Llama-3.1-8B-Instruct-speculator.eagle3"
#: As the library speculators writes a head: its shape is one level below, and Python stands beside it.
SPECULATORS = {
    "architectures": ["Eagle3Speculator"],
    "auto_map": {"": "eagle3.Eagle3SpeculatorConfig"},
    "draft_vocab_size": 32000,
    "speculators_config": {"algorithm": "eagle3", "verifier": {"name_or_path": "meta-llama/Llama-3.1-8B-Instruct"}},
    "transformer_layer_config": {key: value for key, value in EAGLE3.items() if not key.startswith(("arch", "draft"))},
}
WITH_CODE = {"config.json": 1, "model.safetensors": SIZE, "eagle3.py": 570}


def served_by(model: Any, speculative: Any, **answers: Any) -> Any:
    """The plan of a node whose module answers about these repositories, and what was asked."""
    options = {"models": [model], "speculative": speculative, "fail_on_findings": False}
    made = action(serving_plan.ActionModule, node(**answers), **options)
    result = made.run(task_vars={})
    return result["findings"] or result["plan"]["instances"][0], called(made)


@pytest.mark.parametrize("auto", ["auto", " auto "])
def test_auto_takes_what_the_catalogue_has(auto: str) -> None:
    """In the call that is made anyway."""
    instance, (module, args) = served_by("8b", auto, **{KNOWN: hub_answer(KNOWN, SPECULATORS, files=WITH_CODE)})
    assert (module, args["models"]) == ("model_info", [{"name": KNOWN, "repo_id": KNOWN, "revision": "main"}])
    assert instance["config"]["speculative-config"] == {
        "method": "eagle3",
        "num_speculative_tokens": 3,
        "model": KNOWN,
        "revision": COMMIT,
    }
    assert (instance["draft"]["repo_id"], instance["auto_draft"]) == (KNOWN, "")


def test_auto_is_for_each_model_its_own() -> None:
    options = {"models": ["8b", {"model": "70b-fp8", "speculative": {}}], "speculative": "auto", "gpus": "4xH100"}
    made = action(serving_plan.ActionModule, node(**{KNOWN: hub_answer(KNOWN, SPECULATORS)}), **options)
    by_name = {item["name"]: item for item in made.run(task_vars={})["plan"]["instances"]}
    assert [one["name"] for one in called(made)[1]["models"]] == [KNOWN]
    assert (by_name["8b"]["draft"]["repo_id"], by_name["70b-fp8"]["draft"]) == (KNOWN, None)


def test_auto_of_a_model_with_layers_for_it_asks_nobody() -> None:
    made = action(serving_plan.ActionModule, node(), model="qwen3.5-9b", speculative="auto")
    (instance,) = made.run(task_vars={})["plan"]["instances"]
    assert called(made)[0] == "gpu_info"
    assert instance["config"]["speculative-config"] == {"method": "mtp", "num_speculative_tokens": 1}


def test_auto_of_another_revision_and_of_another_format_is_the_same() -> None:
    ours = "meta-llama/Llama-3.1-8B-Instruct"
    named, (_module, args) = served_by(
        f"{ours}@v2",
        "auto",
        **{f"{ours}@v2": hub_answer(f"{ours}@v2", CONFIGS["8b"]), KNOWN: hub_answer(KNOWN, SPECULATORS)},
    )
    assert [one["name"] for one in args["models"]] == [f"{ours}@v2", KNOWN]
    assert named["draft"]["repo_id"] == KNOWN
    assert CATALOG.models["8b-fp8"].drafts == CATALOG.models["8b"].drafts


def test_auto_takes_the_first_of_several() -> None:
    drafts = [{"method": "mtp", "tokens": tokens, "source": "https://docs.vllm.ai"} for tokens in (1, 3)]
    more = {"qwen3.5-9b": {"drafts": drafts}}
    made = action(serving_plan.ActionModule, node(), model="qwen3.5-9b", speculative="auto", extra_models=more)
    (instance,) = made.run(task_vars={})["plan"]["instances"]
    assert instance["config"]["speculative-config"]["num_speculative_tokens"] == 1


@pytest.mark.parametrize("model", ["405b-w4a16", "Acme/mine"])
def test_auto_is_refused_where_the_catalogue_has_nothing(model: str) -> None:
    options = {"gpus": "4xH100", "fail_on_findings": False}
    answers = node(**{"Acme/mine": hub_answer("Acme/mine", CONFIGS["8b"])})
    made = action(serving_plan.ActionModule, answers, model=model, speculative="auto", **options)
    (finding,) = made.run(task_vars={})["findings"]
    assert "the catalogue has no draft for " in finding
    assert finding.endswith(
        "in place of auto write {model: ORG/DRAFT, method: eagle3, tokens: 3} in vllm_speculative, or leave it out."
    )


def test_without_a_hub_it_is_told_what_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_models.constants, "DEFAULT_LOCAL_TMP", str(tmp_path))  # answers of other nodes
    cut_off = {"refused": "https://huggingface.co cannot be reached: no route.", "kind": "unreachable"}
    (finding,), _asked = served_by("8b", "auto", **{KNOWN: cut_off})
    assert finding == f"The draft {KNOWN} is not known here (vllm_speculative): {cut_off['refused']}"


def test_a_draft_is_also_a_text() -> None:
    for text in ("{model: Acme/8b-eagle3, method: eagle3, tokens: 3}", "model=Acme/8b-eagle3,method=eagle3,tokens=3"):
        instance, _asked = served_by("8b", text, **{HEAD: hub_answer()})
        assert instance["draft"]["repo_id"] == HEAD


def test_a_draft_that_is_known_to_be_for_another_model_is_refused() -> None:
    wanted = {"model": "RedHatAI/Llama-3.3-70B-Instruct-speculator.eagle3@v1", "method": "eagle3", "tokens": 3}
    config = {**EAGLE3, "hidden_size": 8192}
    problems = findings("8xH100", catalog(wanted, config=config), model="70b", speculative=wanted)
    assert (
        f"the draft {wanted['model']} is for meta-llama/Llama-3.3-70B-Instruct by the catalogue, and not for"
        in problems
    )
    assert len(problems.splitlines()) == 1
    assert one("8xH100", catalog(wanted, config=config), model="3.3-70b", speculative=wanted).draft
    # What the catalogue does not have may be made from it, and a user may know better.
    mine = catalog(
        wanted, {"70b": {"drafts": [{"repo_id": wanted["model"][:-3], "method": "eagle3", "tokens": 3}]}}, config=config
    )
    assert one("8xH100", mine, model="70b", speculative=wanted).draft


def test_a_head_on_a_real_gpu() -> None:
    """Real vLLM on one H200 with a head of this shape and random weights: what it loaded, and what was left."""
    recorded_figures = json.loads((FIXTURES / "measurements" / "vllm-0.26.0-kinds.json").read_text(encoding="utf-8"))
    (measured,) = recorded_figures["drafts"]
    loaded = {"config.json": 700, "model.safetensors": 623_000_000}
    known = recorded(catalog(BY_HEAD, files=loaded))
    instance = one("1xH200", known, model="8b", speculative=BY_HEAD)
    assert instance.weights_gib_per_gpu == pytest.approx(measured["weights_gib"], rel=0.01)
    assert instance.kv_cache_tokens == pytest.approx(measured["kv_tokens"], rel=0.01)


@pytest.mark.parametrize(("sequences", "sizes"), [(1024, 2 * 51), (16, 2 * 19)])
def test_cuda_graphs_have_a_series_more_for_what_was_proposed(sequences: int, sizes: int) -> None:
    """16 sequences with three proposed tokens each are captured up to 128 tokens: 19 sizes."""
    known = catalog(BY_HEAD)
    read = read_request({"model": "8b", "speculative": BY_HEAD, "extra_args": {"max-num-seqs": sequences}}, known)
    (group,) = read_host(given_gpus("1xH100", known), known).groups
    assert Candidate(read.instances[0], group, known.engine(None), known.policy).step(8192).sizes == sizes


def test_the_head_of_a_model_serves_what_was_made_from_it() -> None:
    wanted = {"model": KNOWN, "method": "eagle3", "tokens": 2}
    made, _asked = served_by(
        "Acme/mine",
        wanted,
        **{"Acme/mine": hub_answer("Acme/mine", CONFIGS["8b"]), KNOWN: hub_answer(KNOWN, SPECULATORS)},
    )
    assert made["config"]["speculative-config"]["num_speculative_tokens"] == 2


def test_code_beside_a_head_that_vllm_has_classes_for_does_not_run() -> None:
    assert plan(BY_HEAD, config=SPECULATORS, files=WITH_CODE).draft


def test_a_plan_names_the_draft_that_auto_takes() -> None:
    assert one("1xH100", model="8b").auto_draft == f"eagle3 by {KNOWN}, 3 tokens"
    assert one("1xH100", model="qwen3.5-9b").auto_draft == "mtp, 1 token"
    assert (one("4xH100", model="70b").auto_draft, plan({"method": "ngram", "tokens": 2}).auto_draft) == ("", "")


def test_a_table_of_many_models_asks_for_all_of_their_drafts() -> None:
    models = {"8b": {"in_matrix": True}, **{key: {"in_matrix": False} for key in CATALOG.models if key != "8b"}}
    options = {"models": ["all"], "speculative": "auto", "gpus": "1xH100", "extra_models": models}
    made = action(serving_matrix.ActionModule, node(**{KNOWN: hub_answer(KNOWN, SPECULATORS)}), **options)
    (row,) = made.run(task_vars={})["rows"]
    assert row["download_bytes"] == one("1xH100", model="8b").download_bytes + SIZE
    assert (row["model"], row["fits"], called(made)[1]["models"][0]["name"]) == ("8b", True, KNOWN)


# -- what is served ---------------------------------------------------------------------------------------------------
def test_a_draft_is_fetched_at_its_commit_and_served_from_there() -> None:
    made = plan(BY_HEAD)
    assert made.config["speculative-config"] == {
        "method": "eagle3",
        "num_speculative_tokens": 3,
        "model": HEAD,
        "revision": COMMIT,
    }
    assert made.draft == {
        "repo_id": HEAD,
        "revision": COMMIT,
        "branch": "main",
        "gated": False,
        "allow_patterns": (),
        "ignore_patterns": ("*.bin",),
        "weights_bytes": SIZE,
    }
    assert made.download_bytes == made.weights_bytes + SIZE
    assert json.dumps(made.config)


def test_the_text_itself_needs_no_draft() -> None:
    made = plan({"method": "ngram", "tokens": "5"})
    assert made.config["speculative-config"] == {"method": "ngram", "num_speculative_tokens": 5}
    assert made.draft is None
    assert one("1xH100", model="8b").draft is None
    assert "speculative-config" not in one("1xH100", model="8b").config


# -- what is refused --------------------------------------------------------------------------------------------------
def test_the_methods_are_those_of_the_release() -> None:
    recorded = json.loads((FIXTURES / "vllm" / "speculative-methods.json").read_text(encoding="utf-8"))
    for version, engine in CATALOG.engines.items():
        assert sorted(engine.speculative_methods) == recorded[version]


@pytest.mark.parametrize(
    ("speculative", "says"),
    [
        ({"method": "medusa", "tokens": 3}, "vLLM 0.33.0 has no speculative method 'medusa': use draft_model, eagle,"),
        ({"method": "suffix", "tokens": 3}, "the planner does not count the speculative method suffix"),
        ({"method": "eagle3", "tokens": 3}, "eagle3 needs a draft: set model: ORG/DRAFT"),
        ({"method": "ngram", "tokens": 3, "model": HEAD}, "ngram proposes from the text itself: leave out model"),
        ({"method": "mtp", "tokens": 1}, "Llama-3.1-8B-Instruct has no layers for mtp"),
    ],
)
def test_a_method_that_does_not_fit_is_refused(speculative: dict[str, Any], says: str) -> None:
    problems = refused(speculative)
    assert says in problems
    assert len(problems.splitlines()) == 1


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("speculative", [BY_HEAD, BY_MODEL])
def test_another_vocabulary_is_refused(speculative: dict[str, Any], nested: bool) -> None:
    config = {**(EAGLE3 if speculative is BY_HEAD else LLAMA_1B), "vocab_size": 151936}
    if nested and speculative is BY_HEAD:
        config = {"architectures": ["Eagle3Speculator"], "transformer_layer_config": config}
    problems = refused(speculative, config=config)
    assert "has a vocabulary of 151936 tokens, and meta-llama/Llama-3.1-8B-Instruct one of 128256" in problems


def test_a_head_of_another_model_is_refused() -> None:
    problems = refused(BY_HEAD, config={**EAGLE3, "hidden_size": 8192})
    assert "reads hidden states of 8192 numbers, and those of meta-llama/Llama-3.1-8B-Instruct have 4096" in problems
    assert plan(BY_HEAD, config={**EAGLE3, "hidden_size": 2048, "target_hidden_size": 4096}).draft


def test_a_draft_that_is_not_sized_is_refused() -> None:
    problems = refused(BY_MODEL, config={**LLAMA_1B, "architectures": ["NobodyForCausalLM"]})
    assert "the draft Acme/1b@v2 is not sized by the planner: the planner does not know NobodyForCausalLM" in problems


def test_code_of_a_draft_needs_consent() -> None:
    files = {"config.json": 1, "model.safetensors": SIZE, "modeling_mine.py": 9}
    config = {**EAGLE3, "auto_map": {"AutoModel": "modeling_mine.Mine"}}
    assert "brings code that would run in the engine: modeling_mine.py" in refused(BY_HEAD, config=config, files=files)
    known = catalog(BY_HEAD, config=config, files=files)
    for consent in ({"trust_remote_code": True}, {"extra_args": {"trust-remote-code": True}}):
        assert one("1xH100", known, model="8b", speculative=BY_HEAD, **consent).draft


def test_models_that_do_not_generate_and_options_that_contradict() -> None:
    pooling = {"mine": {"repo_id": "Acme/mine", "config": {**CONFIGS["8b"], "architectures": ["MistralModel"]}}}
    problems = findings("1xH100", catalog({}, pooling), model="mine", speculative={"method": "ngram", "tokens": 3})
    assert "mine: vllm_speculative is for models that generate" in problems
    problems = findings(
        "1xH100",
        CATALOG,
        model="8b",
        speculative={"method": "ngram", "tokens": 3},
        extra_args={"speculative-config": {"method": "suffix"}},
    )
    assert "speculative-config is written from vllm_speculative" in problems


# -- memory -----------------------------------------------------------------------------------------------------------
def test_a_head_has_its_own_layer_in_the_cache() -> None:
    plain, with_head = request({}).cached_model.layout(Setting()), request(BY_HEAD).cached_model.layout(Setting())
    assert plain.token_bytes == 32 * 2 * 8 * 128 * 2
    assert with_head.token_bytes == 33 * 2 * 8 * 128 * 2
    latent = request(BY_HEAD, config={**EAGLE3, "kv_lora_rank": 512, "qk_rope_head_dim": 64})
    assert latent.cached_model.layout(Setting()).token_bytes == plain.token_bytes + 576 * 2


def test_a_draft_model_has_all_of_its_layers_there() -> None:
    found = request(BY_MODEL).cached_model.layout(Setting(tp=2))
    assert found.token_bytes == 32 * 2 * 4 * 128 * 2 + 16 * 2 * 4 * 64 * 2


def test_the_weights_of_a_draft_are_its_files() -> None:
    assert round(weights_gib(request(BY_HEAD), Parallel(2), Experts(cut=2)) * GIB) == SIZE // 2
    assert weights_gib(request({"method": "ngram", "tokens": 3}), Parallel(), Experts()) == 0


def test_the_plan_counts_both() -> None:
    plain, with_head = one("1xH100", model="8b"), plan(BY_HEAD)
    assert with_head.weights_gib_per_gpu == pytest.approx(plain.weights_gib_per_gpu + SIZE / GIB, abs=0.02)
    assert with_head.kv_cache_tokens < plain.kv_cache_tokens * 32 / 33


def test_smaller_weights_are_found_with_a_draft_as_without() -> None:
    known = catalog(BY_HEAD)
    made = one("1xL4", known, model="8b", weights="smaller", max_model_len="64K", speculative=BY_HEAD)
    assert made.model in ("8b-fp8", "8b-w4a16")
    assert made.config["speculative-config"]["model"] == HEAD


def mtp_model(layers: int = 1) -> dict[str, Any]:
    config = {**CONFIGS["8b"], "num_nextn_predict_layers": layers}
    return {"mine": {"repo_id": "Acme/mine", "config": config}}


def test_own_layers_are_as_the_last_one() -> None:
    wanted = {"method": "mtp", "tokens": 2}
    instance = read_request({"model": "mine", "speculative": wanted}, catalog(wanted, mtp_model())).instances[0]
    assert instance.cached_model.layout(Setting()).token_bytes == 33 * 2 * 8 * 128 * 2
    layer = 2 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336 + 2 * 4096)
    assert round(weights_gib(instance, Parallel(), Experts()) * GIB) == layer + 4 * 4096 * 4096
    problems = findings("1xH100", catalog({}, mtp_model(2)), model="mine", speculative={"method": "mtp", "tokens": 3})
    assert "3 tokens are no multiple of the 2 layers that Acme/mine has for mtp" in problems


def test_a_state_is_kept_for_each_proposed_token() -> None:
    hybrid = next(key for key, m in CATALOG.models.items() if not m.missing and m.sized.has_states)
    plain, ahead = (request(s, hybrid).cached_model for s in ({}, {"method": "ngram", "tokens": 3}))
    (before,) = {page.blocks for page in plain.layout(Setting()).groups if page.kind == "state"}
    (after,) = {page.blocks for page in ahead.layout(Setting()).groups if page.kind == "state"}
    assert after == before + 3
    depths = [[s.depth for g in m.sized.cache for s in g.states if s.rolling] for m in (plain, ahead)]
    assert depths[0]
    assert depths[1] == [depth + 3 for depth in depths[0]]
