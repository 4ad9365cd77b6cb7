# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decoders of grouped attention: dense or with experts, with or without windows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .config_fields import MOST_LAYERS, Fields
from .draft import Draft, Layers

#: What a family does in its own way; catalog/architectures.yml sets them.
Quirks = Mapping[str, Any]

WINDOWED = ("sliding_attention", "sliding", "local", "local_attention", "swa", "sliding_window")
EVERY_TOKEN = ("full_attention", "attention", "global", "global_attention", "full")
CHUNKED = ("chunked_attention",)
EXPERTS = ("num_experts", "moe_num_experts", "n_routed_experts", "num_local_experts")
PER_TOKEN = ("num_experts_per_tok", "moe_k", "num_experts_per_token", "top_k_experts", "moe_topk", "moe_top_k", "top_k")


def heads_of(fields: Fields, hidden: int) -> tuple[int, int, int]:
    """Attention heads, KV heads, elements of a head."""
    heads = fields.number("num_attention_heads", "n_head", "n_heads", "num_heads")
    kv_heads = fields.number(
        "num_key_value_heads",
        "n_head_kv",
        "num_kv_heads",
        "num_attention_groups",
        "multi_query_group_num",
        default=heads,
    )
    if fields.flag("multi_query") and not fields.flag("new_decoder_architecture"):
        kv_heads = 1
    size = fields.number("head_dim", "attention_head_dim", "kv_channels", default=hidden // heads)
    return heads, kv_heads, size


def layers_of(fields: Fields) -> Layers:
    """The indices of the layers."""
    return tuple(range(fields.number("num_hidden_layers", "n_layer", "num_layers", "n_layers", most=MOST_LAYERS)))


def windows(fields: Fields, quirks: Quirks, layers: Layers) -> tuple[Layers, Layers, Layers, int]:
    """The layers that keep every token, a window, a chunk; and the tokens of the window.

    As vLLM: by `layer_types`, else by the family's own rule, else all layers have the window that config.json names.
    """
    size = fields.count("sliding_window", "sliding_window_size", "sliding_windows", "attention_window_size")
    if not fields.flag("use_sliding_window", "use_swa", default=True) or quirks.get("window") == "never":
        size = 0
    chunk = fields.count("attention_chunk_size") if quirks.get("window") == "chunk" else 0
    kinds = [str(kind) for kind in fields.by_layer(len(layers), "layer_types")]
    pattern = fields.get("sliding_window_pattern", "interleaved_sliding_window_pattern")
    every = quirks.get("every") or pattern
    if set(fields.listed("attn_type_list")) - {1}:  # 1: full attention
        raise ValueError(f"{fields.what}: attn_type_list has other layers than those of full attention.")
    if chunk:
        no_rope = fields.by_layer(len(layers), "no_rope_layers")
        local = tuple(i for i in layers if no_rope[i]) if no_rope else tuple(i for i in layers if (i + 1) % 4)
        return tuple(i for i in layers if i not in local), (), local, chunk
    if not size or (len(set(kinds)) == 1 and kinds[0] in EVERY_TOKEN):
        return layers, (), (), 0
    if kinds:
        local = tuple(i for i in layers if kinds[i] in WINDOWED)
    elif isinstance(pattern, str):  # LLLG
        local = tuple(i for i in layers if pattern[i % len(pattern)] == "L")
    elif every:
        step = fields.whole("sliding_window_pattern", every)
        local = tuple(i for i in layers if (i + 1) % step)
    elif quirks.get("window") == "even":
        local = layers[::2]
    else:
        local = layers
    return tuple(i for i in layers if i not in local), local, (), size


def _by_list(kinds: list[Any], layers: Layers) -> Layers:
    return tuple(i for i in layers if i < len(kinds) and kinds[i] not in (0, False, "dense", None))


def expert_layers(fields: Fields, layers: Layers) -> Layers:
    """The layers whose MLP is a mixture, by whichever of the families' rules config.json has."""
    listed = fields.listed("moe_layer_freq") or fields.listed("is_moe_layer") or fields.listed("mlp_layer_types")
    if listed:
        return _by_list(listed, layers)
    named = fields.get("moe_layers_enum", "moe_layers")
    if named:
        entries = named.split(",") if isinstance(named, str) else fields.listed("moe_layers_enum", "moe_layers")
        chosen = [fields.whole("moe_layers", entry, 0) for entry in entries]
        return tuple(i for i in layers if i in chosen)
    first = fields.count("first_k_dense_replace", "moe_layer_start_index", "num_dense_layers", "n_dense_first_layers")
    last = fields.get("moe_layer_end_index")
    last = layers[-1] if last in (None, -1) else fields.whole("moe_layer_end_index", last, 0)
    step = fields.number("decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_interval", default=1)
    freq = fields.get("moe_layer_freq")
    step = fields.whole("moe_layer_freq", freq) if isinstance(freq, int) and freq else step
    dense = {fields.whole("mlp_only_layers", i, 0) for i in fields.listed("mlp_only_layers")}
    offset = 0 if fields.get("moe_layer_freq") else 1
    return tuple(i for i in layers if first <= i <= last and i not in dense and (i + offset) % step == 0)


def mixture(fields: Fields, quirks: Quirks, draft: Draft, layers: Layers) -> int:
    """The MLPs: dense, routed and shared. Returns how many experts a token takes, 0 for a dense model."""
    gated = bool(quirks.get("gated", True))
    counts = fields.one_or_more(0, *EXPERTS) if quirks.get("experts") else []
    count = max(counts, default=0)
    wide = next(iter(fields.one_or_more(0, "intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim")), 0)
    wide = wide or 4 * draft.hidden
    if count <= 1:
        draft.mlp(layers, wide, gated=gated)
        return 0
    routed = expert_layers(fields, layers)
    inner = fields.number("moe_intermediate_size", "expert_ffn_hidden_size", "intermediate_size")
    inner = wide if quirks.get("experts") == "wide" else inner
    draft.experts(routed, count, inner, gated=gated)
    # Llama 4 calls the dense layers' width by another name.
    dense = fields.count("intermediate_size_mlp", "dense_intermediate_size") or wide
    draft.mlp(tuple(i for i in layers if i not in routed), dense, gated=gated)
    draft.mlp(routed, _shared(fields, quirks, inner), gated=gated, at="mlp.shared_experts")
    return fields.count(*PER_TOKEN) or 1


def _shared(fields: Fields, quirks: Quirks, inner: int) -> int:
    """The width of the expert that every token takes; 0 where there is none."""
    if quirks.get("shared"):  # one, as wide as a routed one
        return inner
    own = fields.count(
        "shared_expert_intermediate_size",
        "shared_intermediate_size",
        "moe_shared_expert_intermediate_size",
        "share_expert_dim",
    )
    shared = fields.count("n_shared_experts", "moe_num_shared_experts", "num_shared_experts", "num_shared_expert")
    return own * max(1, shared) if own else shared * inner


def biases(fields: Fields, quirks: Quirks) -> str:
    """Which of the attention's projections have a bias."""
    if "bias" in quirks:
        return str(quirks["bias"])
    if fields.flag("attention_bias", "use_bias"):
        return "qkv o"
    return "qkv" if fields.flag("qkv_bias", "use_qkv_bias", "add_qkv_bias") else ""


def decoder(fields: Fields, quirks: Quirks, draft: Draft) -> int:
    """A decoder whose layers are alike but for their windows and their MLP. Returns the experts of a token."""
    layers = layers_of(fields)
    heads, kv_heads, size = heads_of(fields, draft.hidden)
    value = fields.count("v_head_dim") if quirks.get("value_heads") else 0
    draft.attention(layers, heads, kv_heads, size, value, biases=biases(fields, quirks))
    full, local, chunked, window = windows(fields, quirks, layers)
    # A model that looks both ways embeds, and keeps nothing.
    if fields.flag("is_causal", default=True) and fields.get("use_bidirectional_attention") is not True:
        draft.full(full, kv_heads, size, value)
        draft.window(local, kv_heads, size, window, value)
        draft.chunk(chunked, kv_heads, size, window)
    draft.norms(int(quirks.get("norms", 2)), layers)
    if quirks.get("positions"):
        draft.plain("model.embed_positions", fields.number("max_position_embeddings", "n_positions"), draft.hidden)
    return mixture(fields, quirks, draft, layers)
