# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Models with layers that keep a state of fixed size per request: Mamba, gated delta nets, short convolutions."""

from __future__ import annotations

from .architecture import EVEN, State
from .config_fields import Fields
from .draft import Draft, Layers
from .read_decoder import Quirks, biases, heads_of, layers_of, mixture
from .read_latent import latent_attention

#: Bytes of the state's own data type, where the engine takes it from config.json or from the family.
ELEMENTS = {"float32": 4, "float16": 2, "bfloat16": 2, "auto": 2}

#: FlashInfer's delta net takes checkpoints at multiples of so many tokens, from this compute capability on.
DELTA_NET = (64, (9, 0))


def _attention(
    fields: Fields, quirks: Quirks, draft: Draft, layers: Layers, gates: int = 0, at: str = "self_attn"
) -> None:
    """Layers of full attention among the others."""
    heads, kv_heads, size = heads_of(fields, draft.hidden)
    draft.attention(layers, heads, kv_heads, size, biases=biases(fields, quirks), gates=gates, at=at)
    draft.full(layers, kv_heads, size)


def delta_net(fields: Fields, quirks: Quirks, draft: Draft) -> int:
    """Gated delta nets with every fourth layer of full attention: Qwen3-Next, Qwen3.5."""
    layers = layers_of(fields)
    kinds = fields.by_layer(len(layers), "layer_types")
    every = fields.number("full_attention_interval", default=4)
    full = tuple(i for i in layers if (kinds[i] == "full_attention" if kinds else (i + 1) % every == 0))
    linear = tuple(i for i in layers if i not in full)
    k_heads, v_heads = fields.number("linear_num_key_heads"), fields.number("linear_num_value_heads")
    k_size, v_size = fields.number("linear_key_head_dim"), fields.number("linear_value_head_dim")
    kernel = fields.number("linear_conv_kernel_dim", default=4)
    keys, values = k_heads * k_size, v_heads * v_size
    draft.whole("linear-attention key heads", k_heads)
    draft.whole("linear-attention value heads", v_heads)
    draft.linear("linear_attn.in_proj_qkvz", 2 * keys + 2 * values, draft.hidden, linear, EVEN)
    draft.linear("linear_attn.in_proj_ba", 2 * v_heads, draft.hidden, linear)
    draft.linear("linear_attn.out_proj", draft.hidden, values, linear, EVEN, "columns")
    draft.plain("linear_attn.conv1d", 2 * keys + values, kernel, linear, EVEN)
    element = ELEMENTS.get(str(fields.get("mamba_ssm_dtype", default="auto")), 4)
    states = (State(2 * keys + values, kernel - 1, 2, rolling=True), State(v_heads, v_size * k_size, element))
    draft.state(linear, states, *DELTA_NET)
    _attention(fields, quirks, draft, full, 1 if fields.flag("attn_output_gate", default=True) else 0)
    draft.norms(2, layers)
    return mixture(fields, quirks, draft, layers)


def mamba2(draft: Draft, layers: Layers, sizes: tuple[int, int, int, int, int, int], element: int, at: str) -> None:
    """Layers of Mamba 2. ``sizes``: inner width, heads, elements of a head, groups, state, kernel."""
    inner, heads, size, groups, state, kernel = sizes
    if not layers:
        return
    draft.whole("Mamba heads", heads)
    draft.whole("Mamba groups", groups, repeats=groups == 1)
    draft.linear(f"{at}.in_proj", 2 * inner + 2 * groups * state + heads, draft.hidden, layers, EVEN)
    draft.linear(f"{at}.out_proj", draft.hidden, inner, layers, EVEN, "columns")
    draft.plain(f"{at}.conv1d", inner + 2 * groups * state, kernel + 1, layers, EVEN)
    draft.plain(f"{at}.norm", inner, 1, layers, EVEN)
    convolved = State(inner, kernel - 1, 2, groups, 2 * state, rolling=True)
    draft.state(layers, (convolved, State(heads, size * state, element)), 1)


def nemotron_h(fields: Fields, quirks: Quirks, draft: Draft) -> int:
    """One block per layer by a pattern: M Mamba 2, * attention, - MLP, E experts."""
    names = {"mamba": "M", "attention": "*", "mlp": "-", "moe": "E"}
    pattern = fields.get("hybrid_override_pattern", default="")
    blocks = fields.listed("layers_block_type")
    kinds = [names.get(str(block), "?") for block in blocks] if blocks else list(str(pattern).replace("|", ""))
    where = {kind: tuple(i for i, block_kind in enumerate(kinds) if block_kind == kind) for kind in "M*-E"}
    fields.get("num_hidden_layers")
    heads, size = fields.number("mamba_num_heads"), fields.number("mamba_head_dim")
    state, kernel = fields.number("ssm_state_size", default=128), fields.number("conv_kernel", default=4)
    element = ELEMENTS.get(str(fields.get("mamba_ssm_cache_dtype", default="float32")), 4)
    sizes = (heads * size, heads, size, fields.number("n_groups", default=8), state, kernel)
    mamba2(draft, where["M"], sizes, element, "mixer")
    _attention(fields, quirks, draft, where["*"], at="mixer")
    draft.norms(1, tuple(range(len(kinds))))
    widths = fields.one_or_more(0, "intermediate_size") or [0]
    for number, layer in enumerate(where["-"]):
        draft.mlp((layer,), widths[number % len(widths)], gated=False, at="mixer")
    return _nemotron_experts(fields, draft, where["E"])


def _nemotron_experts(fields: Fields, draft: Draft, layers: Layers) -> int:
    """Experts without a gate of their own, on a narrower vector where the model has one."""
    count, inner = fields.count("n_routed_experts"), fields.count("moe_intermediate_size")
    if not layers or not count:
        return 0
    narrow = fields.count("moe_latent_size")
    draft.experts(layers, count, inner, gated=False, at="mixer", width=narrow)
    if narrow:
        draft.linear("mixer.fc1_latent_proj", narrow, draft.hidden, layers)
        draft.linear("mixer.fc2_latent_proj", draft.hidden, narrow, layers)
    shared = fields.count("n_shared_experts") * fields.count("moe_shared_expert_intermediate_size")
    draft.mlp(layers, shared, gated=False, at="mixer.shared_experts")
    return fields.number("num_experts_per_tok", default=1)


def _mamba_d(fields: Fields, draft: Draft) -> tuple[int, int, int, int, int, int]:
    """The sizes of Mamba 2 by the names of Bamba, Granite and Falcon."""
    inner = fields.count("mamba_d_ssm") or fields.number("mamba_expand", default=2) * draft.hidden
    heads = fields.number("mamba_n_heads")
    size = fields.get("mamba_d_head", default="auto")
    size = inner // heads if size == "auto" else fields.whole("mamba_d_head", size)
    state = fields.number("mamba_d_state", default=256)
    groups, kernel = fields.number("mamba_n_groups", default=1), fields.number("mamba_d_conv", default=4)
    return inner, heads, size, groups, state, kernel


def granite_hybrid(fields: Fields, quirks: Quirks, draft: Draft) -> int:
    """Mamba 2 and attention by `layer_types`, each with an MLP or experts and a shared one: Granite 4, Bamba."""
    layers = layers_of(fields)
    kinds = fields.by_layer(len(layers), "layer_types", "layers_block_type")
    full = tuple(i for i in layers if kinds[i] == "attention") if kinds else ()
    full = full or tuple(fields.whole("attn_layer_indices", i, 0) for i in fields.listed("attn_layer_indices"))
    mamba2(draft, tuple(i for i in layers if i not in full), _mamba_d(fields, draft), 2, "mamba")
    _attention(fields, quirks, draft, full)
    draft.norms(2, layers)
    count = fields.count("num_local_experts")
    if not count and not fields.count("shared_intermediate_size"):
        return mixture(fields, quirks, draft, layers)
    if count:
        draft.experts(layers, count, fields.number("intermediate_size"), at="block_sparse_moe")
    draft.mlp(layers, fields.count("shared_intermediate_size"), at="shared_mlp")
    return fields.count("num_experts_per_tok") if count else 0


def falcon_h1(fields: Fields, quirks: Quirks, draft: Draft) -> int:
    """Mamba 2 and attention side by side in every layer."""
    layers = layers_of(fields)
    mamba2(draft, layers, _mamba_d(fields, draft), 2, "mamba")
    _attention(fields, quirks, draft, layers)
    draft.norms(2, layers)
    return mixture(fields, quirks, draft, layers)


def mamba1(draft: Draft, layers: Layers, inner: int, state: int, kernel: int, rank: int) -> None:
    """Layers of Mamba 1."""
    if not layers:
        return
    draft.whole("Mamba's inner width", inner)
    draft.plain("mamba.in_proj", 2 * inner, draft.hidden, layers, EVEN)
    draft.plain("mamba.x_proj", rank + 2 * state, inner, layers, EVEN)
    draft.plain("mamba.dt_proj", inner, rank + 1, layers, EVEN)
    draft.plain("mamba.out_proj", draft.hidden, inner, layers, EVEN)
    draft.plain("mamba.conv1d", inner, kernel + 2 * state + 2, layers, EVEN)
    draft.state(layers, (State(inner, kernel - 1, 2, rolling=True), State(inner, state, 2)))


def _step_rank(fields: Fields, draft: Draft, name: str) -> int:
    """The rank of the time steps of Mamba 1."""
    rank = fields.get(name, default="auto")
    return -(-draft.hidden // 16) if rank == "auto" else fields.whole(name, rank)


def jamba(fields: Fields, quirks: Quirks, draft: Draft) -> int:
    """Mamba 1 with attention now and then, and experts in every other layer."""
    layers = layers_of(fields)
    period, offset = fields.number("attn_layer_period", default=8), fields.count("attn_layer_offset") or 4
    full = tuple(i for i in layers if i % period == offset)
    rank = _step_rank(fields, draft, "mamba_dt_rank")
    inner = fields.number("mamba_expand", default=2) * draft.hidden
    others = tuple(i for i in layers if i not in full)
    state, kernel = fields.number("mamba_d_state", default=16), fields.number("mamba_d_conv", default=4)
    mamba1(draft, others, inner, state, kernel, rank)
    _attention(fields, quirks, draft, full)
    draft.norms(2, layers)
    every = fields.number("expert_layer_period", default=2)
    first = fields.whole("expert_layer_offset", fields.get("expert_layer_offset", default=1), 0)
    count = fields.count("num_experts")
    routed = tuple(i for i in layers if i % every == first) if count > 1 else ()
    wide = fields.number("intermediate_size")
    draft.experts(routed, count, wide, at="feed_forward")
    draft.mlp(tuple(i for i in layers if i not in routed), wide, at="feed_forward")
    return fields.count("num_experts_per_tok") if routed else 0


def pure_mamba(fields: Fields, quirks: Quirks, draft: Draft) -> int:
    """Nothing but Mamba, 1 or 2: no KV cache at all."""
    layers = layers_of(fields)
    state, kernel = fields.number("state_size", default=128), fields.number("conv_kernel", default=4)
    inner = fields.number("expand", default=2) * draft.hidden
    if quirks.get("mamba") == 1:
        inner = fields.count("intermediate_size") or inner
        mamba1(draft, layers, inner, state, kernel, _step_rank(fields, draft, "time_step_rank"))
    else:
        heads, size = fields.number("num_heads"), fields.number("head_dim")
        groups = fields.number("n_groups", default=1)
        mamba2(draft, layers, (inner, heads, size, groups, state, kernel), 2, "mixer")
    draft.norms(1, layers)
    return 0


def short_conv(fields: Fields, quirks: Quirks, draft: Draft) -> int:
    """Short convolutions with attention now and then: LFM2."""
    layers = layers_of(fields)
    kinds = fields.by_layer(len(layers), "layer_types")
    listed = fields.listed("full_attn_idxs")
    full = tuple(i for i in layers if (kinds[i] == "full_attention" if kinds else i in listed))
    others = tuple(i for i in layers if i not in full)
    width, kernel = fields.number("conv_dim", default=draft.hidden), fields.number("conv_L_cache", default=3)
    draft.whole("the convolution's width", width)
    draft.linear("conv.in_proj", 3 * width, draft.hidden, others, EVEN)
    draft.linear("conv.out_proj", draft.hidden, width, others, EVEN, "columns")
    draft.plain("conv.conv", width, kernel, others, EVEN)
    draft.state(others, (State(width, kernel - 1, 2, rolling=True),))
    _attention(fields, quirks, draft, full)
    draft.norms(2, layers)
    if fields.count("num_experts"):
        return mixture(fields, quirks, draft, layers)
    wide = fields.number("block_ff_dim", "intermediate_size")
    if fields.flag("block_auto_adjust_ff_dim", default=True):
        multiple = fields.number("block_multiple_of", default=256)
        wide = int(float(fields.get("block_ffn_dim_multiplier", default=1.0)) * int(2 * wide / 3))
        wide = -(-wide // multiple) * multiple
    draft.mlp(layers, wide, at="feed_forward")
    return 0


def kimi_linear(fields: Fields, quirks: Quirks, draft: Draft) -> int:
    """Kimi delta attention, with latent attention now and then."""
    layers = layers_of(fields)
    linear = fields.inner("linear_attn_config")
    full = tuple(linear.whole("full_attn_layers", i) - 1 for i in linear.listed("full_attn_layers"))
    others = tuple(i for i in layers if i not in full)
    heads, size = linear.number("num_heads"), linear.number("head_dim")
    kernel = linear.number("short_conv_kernel_size", default=4)
    width = heads * size
    draft.whole("linear-attention heads", heads)
    for name in ("q_proj", "k_proj", "v_proj"):
        draft.linear(f"self_attn.{name}", width, draft.hidden, others, EVEN)
    draft.linear("self_attn.f_a_proj", size, draft.hidden, others)
    draft.linear("self_attn.f_b_proj", width, size, others, EVEN)
    if linear.flag("use_full_rank_gate"):
        draft.linear("self_attn.g_proj", width, draft.hidden, others, EVEN)
    else:
        draft.linear("self_attn.g_a_proj", size, draft.hidden, others)
        draft.linear("self_attn.g_b_proj", width, size, others, EVEN)
    draft.linear("self_attn.b_proj", heads, draft.hidden, others, EVEN)
    draft.linear("self_attn.o_proj", draft.hidden, width, others, EVEN, "columns")
    draft.plain("self_attn.conv1d", 3 * width, kernel, others, EVEN)
    draft.state(others, (State(3 * width, kernel - 1, 2, rolling=True), State(heads, size * size, 4)))
    latent_attention(fields, draft, full)
    draft.norms(2, layers)
    return mixture(fields, quirks, draft, layers)
