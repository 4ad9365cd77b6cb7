# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Models of other kinds than Llama, from the fields of their config.json through the whole plan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog import Catalog
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog_files import load_catalog
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.memory import GIB, weights_bytes
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.planning import findings, one, outcome, warnings

ERNIE_300B: dict[str, Any] = {
    "architectures": ["Ernie4_5_MoeForCausalLM"],
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 54,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 103424,
    "max_position_embeddings": 131072,
    "moe_num_experts": 64,
    "moe_k": 8,
    "moe_intermediate_size": 3584,
    "moe_layer_start_index": 3,
    "moe_layer_end_index": 53,
    "moe_layer_interval": 1,
    "moe_num_shared_experts": 0,
    "tie_word_embeddings": False,
}
QWEN35_9B: dict[str, Any] = {
    "architectures": ["Qwen3_5ForConditionalGeneration"],
    "text_config": {
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 248320,
        "max_position_embeddings": 262144,
        "full_attention_interval": 4,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_conv_kernel_dim": 4,
        "mamba_ssm_dtype": "float32",
        "layer_types": (["linear_attention"] * 3 + ["full_attention"]) * 8,
    },
}
GEMMA2_9B: dict[str, Any] = {
    "architectures": ["Gemma2ForCausalLM"],
    "hidden_size": 3584,
    "intermediate_size": 14336,
    "num_hidden_layers": 42,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 256,
    "vocab_size": 256000,
    "max_position_embeddings": 8192,
    "sliding_window": 4096,
}
QWEN25_14B_AWQ: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_hidden_layers": 48,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "vocab_size": 152064,
    "max_position_embeddings": 32768,
    "sliding_window": 131072,
    "use_sliding_window": False,
    "rope_theta": 1000000.0,
    "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True},
}


def catalog_of(config: dict[str, Any], **entry: Any) -> Catalog:
    """The catalogue with a model `m` of these fields."""
    return load_catalog({"m": {"repo_id": "a/b", "config": config, **entry}})


def gib(config: dict[str, Any]) -> float:
    return weights_bytes(catalog_of(config).models["m"]) / GIB


def test_a_mixture_by_another_name_of_its_experts() -> None:
    """300 B parameters, which were taken for a dense decoder of 90 GiB."""
    assert gib(ERNIE_300B) == pytest.approx(300e9 * 2 / GIB, rel=0.01)
    assert "GiB of BF16 weights) does not fit 4x NVIDIA H100" in findings("4xH100", catalog_of(ERNIE_300B), model="m")


def test_a_mixture_in_a_dense_class_is_not_guessed() -> None:
    config = {**ERNIE_300B, "architectures": ["Ernie4_5ForCausalLM"]}
    problems = findings("4xH100", catalog_of(config), model="m")
    assert "its config.json has moe_num_experts, a mixture of experts, and Ernie4_5ForCausalLM has none" in problems
    assert "vllm_weights_bytes" in problems
    assert "vllm_kv_bytes_per_token" in problems


def test_a_hybrid_is_counted_by_its_layers() -> None:
    """9 B with 24 delta nets, which were counted as attention and without their states."""
    assert gib(QWEN35_9B) == pytest.approx(16.68, rel=0.01)
    instance = one("1xL40S", catalog_of(QWEN35_9B), model="m")
    assert instance.max_model_len == 262144


def test_gemma_2_9b_on_an_a10g() -> None:
    """Half of its layers keep a window of 4096 tokens only."""
    instance = one("1xA10G", catalog_of(GEMMA2_9B), model="m")
    assert instance.tensor_parallel_size == 1
    assert instance.weights_gib_per_gpu == pytest.approx(17.21, abs=0.05)


def test_groups_of_the_quantised_parts_are_not_cut() -> None:
    catalog = catalog_of(QWEN25_14B_AWQ)
    problems = findings("8xH100", catalog, model="m", tensor_parallel_size=8)
    assert "13824 inputs of mlp.down_proj, 1728 for each of 8 GPUs, are no whole groups of 128" in problems
    assert "widths that work: 1, 2, 4" in problems
    assert one("8xH100", catalog, model="m", objective="latency").tensor_parallel_size == 4


def scheme(kind: str, bits: int, **weights: Any) -> dict[str, Any]:
    """compressed-tensors with one scheme for all linear layers."""
    group = {"targets": ["Linear"], "weights": {"type": kind, "num_bits": bits, **weights}}
    group["input_activations"] = {"type": kind, "num_bits": bits, "dynamic": True}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}, "ignore": ["lm_head"]}


def test_int8_is_not_fp8() -> None:
    plain = {key: value for key, value in QWEN25_14B_AWQ.items() if key != "quantization_config"}
    int8 = catalog_of({**plain, "quantization_config": scheme("int", 8, strategy="channel")})
    fp8 = catalog_of({**plain, "quantization_config": scheme("float", 8, strategy="channel")})
    assert (one("1xA100", int8, model="m").precision, one("1xA100", fp8, model="m").precision) == ("INT8", "FP8")
    assert "Marlin" not in warnings("1xA100", int8, model="m")
    assert "has no FP8 tensor cores" in warnings("1xA100", fp8, model="m")


def test_mixtures_share_their_experts_among_replicas() -> None:
    config = {
        **QWEN25_14B_AWQ,
        "architectures": ["Qwen3MoeForCausalLM"],
        "hidden_size": 2048,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
        "quantization_config": None,
    }
    many, single = (one(f"{count}xH100", catalog_of(config), model="m") for count in (4, 1))
    assert (many.data_parallel_size, many.config["enable-expert-parallel"]) == (4, True)
    assert "enable-expert-parallel" not in single.config
    assert many.weights_gib_per_gpu < single.weights_gib_per_gpu / 3
    blocks = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    catalog = catalog_of({**config, "quantization_config": blocks})
    assert one("4xH100", catalog, model="m", tensor_parallel_size=4).config["enable-expert-parallel"] is True
    assert (
        "enable-expert-parallel"
        not in one("4xH100", catalog, model="m", tensor_parallel_size=2, data_parallel_size=1).config
    )
    cut = {"extra_args": {"enable-expert-parallel": False}, "tensor_parallel_size": 4}
    problems = findings("4xH100", catalog, model="m", **cut)
    assert "768 outputs of mlp.experts.0.gate_proj, 192 for each of 4 GPUs, are no whole blocks of 128" in problems


def test_latent_attention_is_not_split() -> None:
    config = {
        "architectures": ["DeepseekV3ForCausalLM"],
        "hidden_size": 7168,
        "intermediate_size": 18432,
        "moe_intermediate_size": 2048,
        "num_hidden_layers": 61,
        "first_k_dense_replace": 3,
        "num_attention_heads": 128,
        "num_key_value_heads": 128,
        "n_routed_experts": 256,
        "n_shared_experts": 1,
        "num_experts_per_tok": 8,
        "kv_lora_rank": 512,
        "q_lora_rank": 1536,
        "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 128,
        "v_head_dim": 128,
        "vocab_size": 129280,
        "max_position_embeddings": 163840,
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    }
    instance = one("8xH200", catalog_of(config), model="m", tensor_parallel_size=8)
    assert instance.weights_gib_per_gpu == pytest.approx(626.9 / 8, rel=0.02)  # its smallest parts are repeated
    assert 61 * 576 * 2 * instance.kv_cache_tokens < 60 * GIB  # one GPU holds all of it


UNKNOWN: dict[str, Any] = {
    "architectures": ["NobodyForCausalLM"],
    "num_attention_heads": 12,
    "max_position_embeddings": 65536,
}


def test_an_unlisted_architecture_is_planned_with_two_figures() -> None:
    catalog = catalog_of(UNKNOWN)
    problems = findings("2xH100", catalog, model="m")
    assert "m: the planner does not know NobodyForCausalLM. It is planned with vllm_weights_bytes" in problems
    figures = {"weights_bytes": 40 * GIB, "kv_bytes_per_token": 200_000}
    instance = one("2xH100", catalog, model="m", **figures)
    assert (instance.tensor_parallel_size, instance.max_model_len, instance.weights_bytes) == (1, 65536, 40 * GIB)
    assert "12 attention heads do not divide by TP 8" in findings(
        "8xH100", catalog, model="m", tensor_parallel_size=8, **figures
    )
    only = findings("2xH100", catalog, model="m", weights_bytes=40 * GIB)
    assert "vllm_kv_bytes_per_token" in only
    assert "vllm_weights_bytes" not in only


def test_the_context_of_an_unlisted_architecture_can_be_left_to_the_engine() -> None:
    catalog = catalog_of(UNKNOWN, weights_bytes=40 * GIB)
    instance = one("1xH100", catalog, model="m", max_model_len="auto")
    assert instance.config["max-model-len"] == "auto"
    assert "The engine decides the context at its start, up to 65536" in " ".join(instance.warnings)
    assert one("2xH100", load_catalog(), model="8b", max_model_len="auto").config["max-model-len"] == 131072
    assert outcome("1xA10G", catalog, model="m", max_model_len="auto").plan is None


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (
            {**UNKNOWN, "architectures": ["MiniMaxText01ForCausalLM"]},
            "vLLM served MiniMaxText01ForCausalLM up to 0.23.0",
        ),
        (
            {**QWEN25_14B_AWQ, "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
            "vLLM does not serve weights in bitsandbytes",
        ),
    ],
)
def test_a_model_that_the_engine_cannot_serve_is_always_refused(config: dict[str, Any], says: str) -> None:
    given = {"weights_bytes": GIB, "kv_bytes_per_token": 1000}
    assert says in findings("8xH100", catalog_of(config), model="m", **given)


def test_yarn_makes_a_context_longer() -> None:
    catalog = catalog_of(QWEN25_14B_AWQ)
    instance = one("2xH100", catalog, model="m", max_model_len=131072)
    assert instance.config["hf-overrides"] == {
        "rope_parameters": {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 32768,
            "rope_theta": 1000000.0,
        },
        "max_position_embeddings": 131072,
    }
    assert "YaRN with a factor of 4 over 32768" in " ".join(instance.warnings)
    assert "hf-overrides" not in one("2xH100", catalog, model="m").config
    beyond = findings("2xH100", catalog, model="m", max_model_len=131073)
    assert "exceeds the model's context of 32768; set it to 32768 or less, or up to 131072 with YaRN" in beyond
    assert "YaRN" not in findings("1xH100", load_catalog(), model="8b", max_model_len=262144)


ROPE = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32768}


def test_the_users_own_overrides_stand_beside_those_of_yarn() -> None:
    catalog = catalog_of(QWEN25_14B_AWQ)

    def planned(overrides: Any, context: int | None = 65536) -> Any:
        return one("2xH100", catalog, model="m", max_model_len=context, extra_args={"hf-overrides": overrides})

    beside = planned({"sliding_window": 8}).config["hf-overrides"]
    assert (beside["rope_parameters"]["factor"], beside["sliding_window"]) == (2.0, 8)
    own = planned({"rope_parameters": ROPE, "max_position_embeddings": 65536})
    assert own.config["hf-overrides"] == {"rope_parameters": ROPE, "max_position_embeddings": 65536}
    assert "YaRN" not in " ".join(own.warnings)
    assert planned('{"max_position_embeddings": 65536}', None).max_model_len == 65536
    # vLLM refuses a context that is longer than the config.json that it was told of.
    assert planned({"max_position_embeddings": 4096}, None).max_model_len == 4096
    args = {"hf-overrides": {"max_position_embeddings": 4096}}
    said = findings("2xH100", catalog, model="m", max_model_len=8192, extra_args=args)
    assert "max_model_len 8192 exceeds the model's context of 4096; set it to 4096 or less." in said
    said = warnings("2xH100", catalog, model="m", extra_args={"hf-overrides": {"num_hidden_layers": 2}})
    assert "hf-overrides sets num_hidden_layers, and the plan counts the model as its config.json has it." in said


def test_replicas_that_would_cut_experts_are_fewer() -> None:
    """Four or five replicas without expert parallelism would cut experts of 768 into no whole blocks of 128."""
    catalog = load_catalog()
    args = {"enable-expert-parallel": False}
    widths = {"tensor_parallel_size": 1, "pipeline_parallel_size": 1}
    made = one("5xH100", catalog, model="qwen3-30b-a3b-fp8", extra_args=args, **widths)
    assert made.data_parallel_size == 3
    given = one("5xH100", catalog, model="qwen3-30b-a3b", tensor_parallel_size=1, kv_bytes_per_token=98304)
    assert given.data_parallel_size == 5


ENCODER: dict[str, Any] = {
    "architectures": ["XLMRobertaModel"],
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "vocab_size": 250002,
    "max_position_embeddings": 8194,
}


def test_an_encoder_keeps_no_cache_that_a_context_must_fit() -> None:
    assert one("1xH100", catalog_of(ENCODER), model="m", max_model_len=2048).max_model_len == 2048
    assert one("1xL4", catalog_of(ENCODER), model="m", max_model_len="8194", gpu_share=0.5).max_model_len == 8194


def test_without_chunked_prefill_a_step_holds_a_whole_prompt() -> None:
    """As encoders have it: vLLM refuses steps that are shorter than the context, and raises its own default to it."""
    catalog = catalog_of(ENCODER)
    said = findings("1xH100", catalog, model="m", extra_args={"max-num-batched-tokens": 2048})
    assert "up to 8194 tokens goes through in one step: set it to 8194 or more, or vllm_max_model_len to 2048" in said
    assert one("1xH100", catalog, model="m", max_model_len=2048, extra_args={"max-num-batched-tokens": 2048})
    for share in (0.02, 0.03, 0.04, 0.05, 0.06):
        made = outcome("1xH100", catalog, model="m", gpu_share=share).plan
        assert not made or "max-num-batched-tokens" not in made.instances[0].config


def test_a_dtype_that_vllm_refuses() -> None:
    turing = [{"name": "Tesla T4", "memory_mib": 15360, "compute_capability": "7.5", "count": 2}]
    said = findings(turing, model="8b-w4a16", extra_args={"dtype": "bfloat16"})
    assert "Tesla T4 has compute capability 7.5, and BF16 needs 8.0 or newer: leave dtype out" in said
    said = findings("1xH100", catalog_of(GEMMA2_9B), model="m", extra_args={"dtype": "half"})
    assert "vLLM refuses FP16 (dtype: half) for Gemma2ForCausalLM" in said
    assert "float32 doubles weights and KV cache" in warnings("1xH100", model="8b", extra_args={"dtype": "float32"})


def test_older_gpus_compute_in_fp16() -> None:
    turing = [{"name": "Tesla T4", "memory_mib": 15360, "compute_capability": "7.5", "count": 2}]
    plain = {**QWEN25_14B_AWQ, "num_hidden_layers": 12, "quantization_config": None}
    instance = one(turing, catalog_of(plain), model="m")
    assert instance.config["dtype"] == "half"
    assert "computes in FP16 (dtype: half)" in " ".join(instance.warnings)
    problems = findings(turing, catalog_of({**GEMMA2_9B, "num_hidden_layers": 12}), model="m")
    assert "computes in FP16, which vLLM refuses for Gemma2ForCausalLM" in problems
    assert "dtype" not in one("1xH100", catalog_of(plain), model="m").config


def test_long_rope_is_offered_and_not_taken_by_itself() -> None:
    plain = {
        **QWEN25_14B_AWQ,
        "architectures": ["Phi3ForCausalLM"],
        "quantization_config": None,
        "sliding_window": None,
    }
    longer = {"rope_scaling": {"type": "longrope"}, "original_max_position_embeddings": 4096}
    catalog = catalog_of({**plain, **longer, "max_position_embeddings": 131072})
    assert one("1xH200", catalog, model="m").max_model_len == 4096
    assert "the model takes up to 131072 (vllm_max_model_len)" in warnings("1xH200", catalog, model="m")
    chosen = one("1xH200", catalog, model="m", max_model_len=131072)
    assert (chosen.max_model_len, "hf-overrides" in chosen.config) == (131072, False)


def test_an_architecture_that_the_release_does_not_serve_yet() -> None:
    catalog = catalog_of(QWEN25_14B_AWQ)
    model = catalog.models["m"]
    newer = replace(model, architecture=replace(model.sized, since="0.33.0"))
    catalog = replace(catalog, models={**catalog.models, "m": newer})
    assert "vLLM 0.32.0 does not serve Qwen2ForCausalLM, but 0.33.0 does" in findings(
        "1xH100", catalog, model="m", engine="0.32.0"
    )
    assert one("1xH100", catalog, model="m").tensor_parallel_size == 1
