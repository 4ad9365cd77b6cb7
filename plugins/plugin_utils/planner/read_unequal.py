# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decoders whose layers differ in heads, width or whose cache they use: Gemma 3n and 4, MiMo V2, Nemotron NAS."""

from __future__ import annotations

from .architecture import EVEN
from .config_fields import Fields
from .draft import Draft, Layers, padded
from .read_decoder import Quirks, heads_of, layers_of, mixture


def _by_type(fields: Fields, layers: Layers) -> tuple[Layers, Layers]:
    """Full layers and those with a window, by layer_types or by Gemma's rule of one in so many."""
    kinds = fields.by_layer(len(layers), "layer_types")
    every = fields.number("sliding_window_pattern", default=5)
    full = tuple(i for i in layers if (kinds[i] == "full_attention" if kinds else (i + 1) % every == 0))
    return full, tuple(i for i in layers if i not in full)


def _per_layer_inputs(fields: Fields, draft: Draft, layers: Layers) -> None:
    """A second embedding, of so many elements for each layer, and its projections."""
    size = fields.count("hidden_size_per_layer_input")
    if not size:
        return
    words = fields.number("vocab_size_per_layer_input", default=fields.number("vocab_size"))
    draft.plain("model.embed_tokens_per_layer", padded(words), size * len(layers), split=EVEN)
    draft.plain("model.per_layer_model_projection", size * len(layers), draft.hidden, split=EVEN)
    draft.linear("per_layer_input_gate", size, draft.hidden, layers)
    draft.linear("per_layer_projection", draft.hidden, size, layers)


def gemma4(fields: Fields, quirks: Quirks, draft: Draft) -> int:
    """Wider heads in full layers, a cache shared by the last ones, an MLP beside the experts."""
    layers = layers_of(fields)
    full, local = _by_type(fields, layers)
    heads, kv_heads, size = heads_of(fields, draft.hidden)
    wide = fields.count("global_head_dim") or size
    few = fields.count("num_global_key_value_heads") if fields.flag("attention_k_eq_v") else 0
    first = len(layers) - fields.count("num_kv_shared_layers")
    for chosen, kv, dim in ((full, few or kv_heads, wide), (local, kv_heads, size)):
        own, shared = tuple(i for i in chosen if i < first), tuple(i for i in chosen if i >= first)
        draft.attention(own, heads, kv, dim)
        draft.attention(shared, heads, kv, dim, own_kv=False)
        if chosen is full:
            draft.full(own, kv, dim)
        else:
            draft.window(own, kv, dim, fields.number("sliding_window", default=1024))
    inner = fields.number("intermediate_size")
    doubled = 2 if fields.flag("use_double_wide_mlp") else 1
    draft.mlp(layers[:first], inner)
    draft.mlp(layers[first:], inner * doubled)
    draft.norms(4, layers)
    _per_layer_inputs(fields, draft, layers)
    count, inner = fields.count("num_experts"), fields.count("moe_intermediate_size", "expert_intermediate_size")
    if not count:
        return 0
    draft.experts(layers, count, inner, at="moe")
    return fields.number("top_k_experts", "num_experts_per_tok")


def gemma3n(fields: Fields, quirks: Quirks, draft: Draft) -> int:
    """Shared caches, per-layer inputs, alternating updates."""
    layers = layers_of(fields)
    full, local = _by_type(fields, layers)
    heads, kv_heads, size = heads_of(fields, draft.hidden)
    first = len(layers) - fields.count("num_kv_shared_layers")
    draft.attention(layers[:first], heads, kv_heads, size)
    draft.attention(layers[first:], heads, kv_heads, size, own_kv=False)
    draft.full(tuple(i for i in full if i < first), kv_heads, size)
    window = fields.number("sliding_window", default=512)
    draft.window(tuple(i for i in local if i < first), kv_heads, size, window)
    widths = fields.one_or_more(1, "intermediate_size")
    if len(widths) == 1:
        widths *= len(layers)
    if len(widths) < len(layers):
        raise ValueError(f"{fields.what}: intermediate_size has {len(widths)} entries for {len(layers)} layers.")
    for width in dict.fromkeys(widths):
        draft.mlp(tuple(i for i in layers if widths[i] == width), width)
    rank, streams = fields.number("laurel_rank", default=64), fields.number("altup_num_inputs", default=4)
    draft.linear("laurel.linear_left", rank, draft.hidden, layers, EVEN)
    draft.linear("laurel.linear_right", draft.hidden, rank, layers, EVEN, "columns")
    draft.plain("altup.modality_router", streams, draft.hidden, layers)
    draft.plain("model.altup_projections", 2 * (streams - 1) * draft.hidden, draft.hidden, split=EVEN)
    draft.norms(5, layers)
    _per_layer_inputs(fields, draft, layers)
    return 0


def mimo_v2(fields: Fields, quirks: Quirks, draft: Draft) -> int:
    """Heads of their own in the layers with a window, values narrower than keys."""
    layers = layers_of(fields)
    pattern = fields.by_layer(len(layers), "hybrid_layer_pattern")
    local = tuple(i for i in layers if pattern and pattern[i] == 1)
    full = tuple(i for i in layers if i not in local)
    heads, kv_heads, size = heads_of(fields, draft.hidden)
    value = fields.count("v_head_dim") or size
    fields.get("attention_chunk_size", "sliding_window")  # the engine takes neither from this family
    draft.attention(full, heads, kv_heads, size, value)
    draft.full(full, kv_heads, size, value)
    own, own_kv = (
        fields.number("swa_num_attention_heads", default=heads),
        fields.number("swa_num_key_value_heads", default=kv_heads),
    )
    own_size = fields.number("swa_head_dim", default=size)
    own_value = fields.count("swa_v_head_dim") or own_size
    draft.attention(local, own, own_kv, own_size, own_value)
    draft.window(local, own_kv, own_size, fields.number("sliding_window_size", default=128), own_value)
    draft.norms(2, layers)
    return mixture(fields, quirks, draft, layers)


def nas(fields: Fields, quirks: Quirks, draft: Draft) -> int:
    """Nemotron NAS: each layer by its own entry of block_configs, some without attention or MLP."""
    layers = layers_of(fields)
    heads = fields.number("num_attention_heads")
    size = fields.number("head_dim", default=draft.hidden // heads)
    for layer, block in zip(layers, fields.by_layer(len(layers), "block_configs"), strict=False):
        attention, mlp = block.get("attention") or {}, block.get("ffn") or {}
        if not attention.get("no_op") and not attention.get("replace_with_linear"):
            kv_heads = heads // int(attention.get("n_heads_in_group") or 1)
            draft.attention((layer,), heads, kv_heads, size)
            draft.full((layer,), kv_heads, size)
        elif attention.get("replace_with_linear"):
            draft.linear("self_attn.linear_attn", draft.hidden, draft.hidden, (layer,), EVEN)
        if not mlp.get("no_op") and not mlp.get("replace_with_linear"):
            wide = int(2 * float(mlp.get("ffn_mult") or 1) * draft.hidden / 3)
            draft.mlp((layer,), -(-wide // 256) * 256)
        elif mlp.get("replace_with_linear"):
            draft.linear("mlp.linear_mlp", draft.hidden, draft.hidden, (layer,), EVEN)
    draft.norms(2, layers)
    return 0
