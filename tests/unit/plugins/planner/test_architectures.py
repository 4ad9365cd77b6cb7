# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The allow-list of architectures, and what stands in a config.json of one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.architecture import Architecture, Unsized
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.architectures import READERS, listed, read_config
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog_files import HOME, _formats, _read
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.named import code_files
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.read_quantization import (
    quantization_of,
    read_quantization,
)
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.read_vision import TOWERS
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.planning import CATALOG, CONFIGS, FIXTURES

REGISTRY = json.loads((FIXTURES / "vllm" / "architectures-0.33.0.json").read_text(encoding="utf-8"))
#: vLLM has no class of these, and serves them through transformers.
BY_TRANSFORMERS = {"Mistral4ForCausalLM"}
#: vLLM takes it for a model with stages, and fails where a middle one is built.
WITHOUT_STAGES = {"Ernie4_5_MoeForCausalLM"}
KEYS = {
    "reader", "since", "task", "tower", "defaults", "float16", "yarn", "bias", "experts", "shared", "gated", "norms",
    "window", "every", "positions", "head", "vocabulary", "mamba", "why", "expanded", "lora", "captured", "stages",
    "apart",
}  # fmt: skip


def test_the_engine_serves_what_is_listed() -> None:
    assert set(listed()["architectures"]) - BY_TRANSFORMERS <= set(REGISTRY["served"])
    assert listed()["gone"].items() <= REGISTRY["gone"].items()


def test_adapters_are_for_the_architectures_whose_classes_take_them() -> None:
    without = {name for name, entry in listed()["architectures"].items() if entry.get("lora") is False}
    assert without == set(listed()["architectures"]) - BY_TRANSFORMERS - set(REGISTRY["lora"])


def test_stages_are_for_the_architectures_whose_classes_have_them() -> None:
    without = {name for name, entry in listed()["architectures"].items() if entry.get("stages") is False}
    assert without == set(listed()["architectures"]) - BY_TRANSFORMERS - set(REGISTRY["stages"]) | WITHOUT_STAGES


@pytest.mark.parametrize("name", listed()["architectures"])
def test_each_entry_can_be_read(name: str) -> None:
    entry = listed()["architectures"][name]
    assert set(entry) <= KEYS
    assert entry["reader"] in {*READERS, "refused"}
    assert entry.get("tower", "none") in {*TOWERS, "none"}
    assert entry.get("task", "generate") in {"generate", "pooling", "transcription"}
    assert entry.get("since", "0.33.0") in CATALOG.engines


def read(**changes: Any) -> Architecture | Unsized:
    return read_config("m", {**CONFIGS["8b"], **changes})


def test_an_entry_without_a_name_is_a_plain_decoder_or_nothing() -> None:
    plain = {key: value for key, value in CONFIGS["8b"].items() if key != "architectures"}
    assert read_config("m", plain) == read()
    unsized = read_config("m", {**plain, "num_local_experts": 8})
    assert isinstance(unsized, Unsized)
    assert "an entry without `architectures`, which is read as a plain LlamaForCausalLM, has none" in unsized.why
    named = read_config("m", {**plain, "model_type": "qwen2"})
    assert named.name == "Qwen2ForCausalLM"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"architectures": ["NobodyForCausalLM"]}, "the planner does not know NobodyForCausalLM"),
        ({"num_experts": 64}, "num_experts, a mixture of experts, and LlamaForCausalLM has none"),
        ({"kv_lora_rank": 512}, "kv_lora_rank, latent attention (MLA)"),
        ({"mamba_d_state": 128}, "mamba_d_state, layers with a state"),
        ({"index_topk": 2048}, "index_topk, sparse attention"),
        ({"num_kv_shared_layers": 4}, "num_kv_shared_layers, layers without a cache of their own"),
        ({"architectures": ["Step3p5ForCausalLM"]}, "does not size Step3p5ForCausalLM, since its heads differ"),
    ],
)
def test_what_is_not_guessed(changes: dict[str, Any], says: str) -> None:
    found = read(**changes)
    assert isinstance(found, Unsized)
    assert says in found.why


def test_explicitly_absent_fields_are_ignored() -> None:
    assert read(num_experts=0, kv_lora_rank=None, sliding_window=None, layer_types=["full_attention"] * 32) == read()


@pytest.mark.parametrize(
    ("changes", "context", "longest"),
    [
        ({}, 131072, 131072),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 131072, 131072),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, 524288, 524288),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, 131072, 131072),
        ({"rope_scaling": {"type": "longrope"}, "original_max_position_embeddings": 4096}, 4096, 131072),
        ({"model_max_length": 8192}, 8192, 8192),
        ({"max_position_embeddings": None}, 2048, 2048),
    ],
)
def test_the_context_is_what_the_engine_derives(changes: dict[str, Any], context: int, longest: int) -> None:
    found = read(**changes)
    assert isinstance(found, Architecture)
    assert (found.context, found.longest) == (context, longest)


def test_a_list_of_layers_must_name_them_all() -> None:
    with pytest.raises(ValueError, match="m: layer_types has 2 entries for 32 layers"):
        read(sliding_window=4096, layer_types=["full_attention", "sliding_attention"])


#: What no field of these models holds: texts, lists and numbers where others belong.
ODD: tuple[Any, ...] = (
    *(None, True, 0, 3, -1, 1.5, float("nan"), float("inf"), 10**18),
    *("", "many", "7", [], [[1]], ["x"], [0, 1], {}, {"a": 1}, {"x": None}),
)


def altered(config: Any, value: Any) -> Iterator[Any]:
    """The config with one field after the other of another value, those within others too."""
    for key, inner in config.items() if isinstance(config, dict) else ():
        yield {**config, key: value}
        for changed in altered(inner, value):
            yield {**config, key: changed}
    if isinstance(config, list) and config:
        for changed in altered(config[0], value):
            yield [changed, *config[1:]]


def one_of_each() -> dict[str, Any]:
    """A published config.json for each way to read one, and each way to store weights."""
    lines = (FIXTURES / "models" / "configs.jsonl").read_text(encoding="utf-8").splitlines()
    published = {row["repo_id"]: row["config"] for row in map(json.loads, lines)}
    by_kind: dict[tuple[str, str], str] = {}
    for name, config in published.items():
        reader = listed()["architectures"].get(next(iter(config.get("architectures", ())), ""), {}).get("reader", "")
        by_kind.setdefault((reader, str(quantization_of(config).get("quant_method", ""))), name)
    return {name: published[name] for name in by_kind.values()}


@pytest.mark.parametrize("name", one_of_each())
def test_a_field_of_another_form_is_a_finding(name: str) -> None:
    """config.json comes from the hub: whatever stands in it, it is no error of the planner's."""
    config, formats = one_of_each()[name], _formats(_read(HOME / "weight_formats.yml"))
    for value in ODD:
        for changed in altered(config, value):
            message = "m: "
            try:
                read_config("m", changed)
            except ValueError as error:
                message = str(error)
            assert message.startswith("m: ")
            read_quantization(quantization_of(changed), formats.known, formats.not_served)
            code_files(changed, [])


def test_a_number_beyond_all_models_is_not_counted_out() -> None:
    with pytest.raises(ValueError, match="m: num_hidden_layers must be at most 4096, not 1000000000000000000"):
        read(num_hidden_layers=10**18)
    with pytest.raises(ValueError, match="m: intermediate_size must be a whole number, not 'wide'"):
        read(intermediate_size="wide")


def test_weights_are_read_wherever_the_config_of_the_language_model_stands() -> None:
    """As vLLM does, which asks the config of the text, whatever the field with it is called."""
    stored = {"quant_method": "fp8"}
    assert quantization_of({"llm_config": {"quantization_config": stored}}) == stored
    assert quantization_of({"thinker_config": {"text_config": {"quantization_config": stored}}}) == stored
    assert quantization_of({"text_config": ["fp8"]}) == {}
