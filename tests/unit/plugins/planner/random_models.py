# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Random config.json of every kind that the planner sizes, in random weight formats."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

FORMATS: dict[str, dict[str, Any]] = {
    "bf16": {},
    "fp8": {"quant_method": "fp8"},
    "fp8-block": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 128},
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 64, "modules_to_not_convert": ["down_proj"]},
    "int8": {
        "quant_method": "compressed-tensors",
        "ignore": ["lm_head", "re:.*layers\\.[0-3]\\..*"],
        "config_groups": {"g": {"weights": {"type": "int", "num_bits": 8}, "input_activations": {"num_bits": 8}}},
    },
    "nvfp4": {
        "quant_method": "compressed-tensors",
        "ignore": ["re:.*self_attn.*"],
        "config_groups": {"g": {"weights": {"type": "float", "num_bits": 4, "group_size": 16}}},
    },
    "mxfp4": {"quant_method": "mxfp4"},
}
KINDS = ("dense", "windows", "mixture", "latent", "sparse", "delta", "mamba", "hybrid", "shared", "encoder")


def number(draw: st.DrawFn, *choices: int) -> int:
    return draw(st.sampled_from(choices))


def _attention(draw: st.DrawFn) -> dict[str, Any]:
    kv_heads = number(draw, 1, 2, 3, 4, 8, 12)
    size = number(draw, 64, 80, 128, 256)
    heads = kv_heads * draw(st.integers(1, 8))
    return {
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": size,
        "hidden_size": number(draw, 512, 1024, 2880, 4096, 8192),
        "intermediate_size": number(draw, 1000, 2880, 11008, 13824, 28672),
        "num_hidden_layers": draw(st.integers(2, 90)),
        "vocab_size": number(draw, 1000, 32000, 128256, 262144),
        "max_position_embeddings": number(draw, 512, 4096, 32768, 262144),
        "tie_word_embeddings": draw(st.booleans()),
    }


def _experts(draw: st.DrawFn, name: str) -> dict[str, Any]:
    size = number(draw, 512, 704, 768, 1536, 2048)
    return {
        name: number(draw, 8, 60, 64, 128),
        "num_experts_per_tok": number(draw, 1, 2, 8),
        "moe_intermediate_size": size,
    }


def _latent(draw: st.DrawFn) -> dict[str, Any]:
    ranks = {"kv_lora_rank": number(draw, 256, 512), "q_lora_rank": number(draw, 768, 1536)}
    return {**ranks, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "first_k_dense_replace": 1}


def _delta(draw: st.DrawFn) -> dict[str, Any]:
    heads = number(draw, 2, 8, 16)
    keys = {"linear_num_key_heads": heads, "linear_num_value_heads": heads * number(draw, 1, 2, 4)}
    sizes = {"linear_key_head_dim": 128, "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4}
    return {**keys, **sizes, "mamba_ssm_dtype": draw(st.sampled_from(["float32", "bfloat16"]))}


def _blocks(draw: st.DrawFn) -> dict[str, Any]:
    pattern = "".join(draw(st.lists(st.sampled_from("MM-E*"), min_size=3, max_size=60)))
    heads = number(draw, 8, 64, 128)
    sizes = {"mamba_num_heads": heads, "mamba_head_dim": 64, "ssm_state_size": 128, "n_groups": number(draw, 1, 8)}
    return {**sizes, **_experts(draw, "n_routed_experts"), "hybrid_override_pattern": "M*" + pattern}


def _shared(draw: st.DrawFn, base: dict[str, Any]) -> dict[str, Any]:
    shared = draw(st.integers(0, base["num_hidden_layers"] // 3))
    return {"num_kv_shared_layers": shared, "global_head_dim": 512, "sliding_window": 1024}


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    """The fields of one config.json, with `kind` beside them."""
    kind = draw(st.sampled_from(KINDS))
    base = _attention(draw)
    own: dict[str, Any] = {"architectures": ["LlamaForCausalLM"]}
    if kind == "windows":
        own = {"architectures": ["Gemma3ForCausalLM"], "sliding_window": number(draw, 128, 1024, 4096)}
    elif kind == "mixture":
        own = {"architectures": ["Qwen3MoeForCausalLM"], **_experts(draw, "num_experts")}
    elif kind in ("latent", "sparse"):
        own = {"architectures": ["DeepseekV3ForCausalLM"], **_latent(draw), **_experts(draw, "n_routed_experts")}
        own |= {"index_topk": 2048, "index_n_heads": 64, "index_head_dim": 128} if kind == "sparse" else {}
    elif kind == "delta":
        own = {"architectures": ["Qwen3NextForCausalLM"], **_delta(draw), **_experts(draw, "num_experts")}
    elif kind == "mamba":
        own = {"architectures": ["Mamba2ForCausalLM"], "num_heads": 64, "state_size": 128, "n_groups": 8}
    elif kind == "hybrid":
        own = {"architectures": ["NemotronHForCausalLM"], **_blocks(draw)}
    elif kind == "shared":
        own = {"architectures": ["Gemma4ForCausalLM"], **_shared(draw, base)}
    elif kind == "encoder":
        own = {"architectures": ["BertModel"]}
    stored = FORMATS[draw(st.sampled_from(sorted(FORMATS)))]
    return {**base, **own, **({"quantization_config": stored} if stored else {})}
