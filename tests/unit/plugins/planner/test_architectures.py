# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The allow-list of architectures, and what stands in a config.json of one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.architecture import Architecture, Unsized
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.architectures import READERS, listed, read_config
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.read_vision import TOWERS
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.planning import CATALOG, CONFIGS, FIXTURES

REGISTRY = json.loads((FIXTURES / "vllm" / "architectures-0.33.0.json").read_text(encoding="utf-8"))
#: vLLM has no class of these, and serves them through transformers.
BY_TRANSFORMERS = {"Mistral4ForCausalLM"}
KEYS = {
    "reader", "since", "task", "tower", "defaults", "float16", "yarn", "bias", "experts", "shared", "gated", "norms",
    "window", "every", "positions", "head", "vocabulary", "mamba", "why", "expanded", "lora",
}  # fmt: skip


def test_the_engine_serves_what_is_listed() -> None:
    assert set(listed()["architectures"]) - BY_TRANSFORMERS <= set(REGISTRY["served"])
    assert listed()["gone"].items() <= REGISTRY["gone"].items()


def test_adapters_are_for_the_architectures_whose_classes_take_them() -> None:
    without = {name for name, entry in listed()["architectures"].items() if entry.get("lora") is False}
    assert without == set(listed()["architectures"]) - BY_TRANSFORMERS - set(REGISTRY["lora"])


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


def test_what_says_that_it_is_not_there_does_no_harm() -> None:
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


@pytest.mark.parametrize("value", [[0, 1], {"a": 1}, "many", -1, 1.5])
@pytest.mark.parametrize("field", ["num_hidden_layers", "sliding_window_pattern", "sliding_window", "moe_layer_freq"])
def test_a_field_of_another_form_is_a_finding(field: str, value: Any) -> None:
    """config.json comes from the hub: whatever stands in it, it is no error of the planner's."""
    for base in (CONFIGS["8b"], {**CONFIGS["8b"], "sliding_window": 4096}):
        try:
            read_config("m", {**base, field: value})
        except ValueError as error:
            said = str(error)
        else:
            said = "m: "
        assert said.startswith("m: ")
