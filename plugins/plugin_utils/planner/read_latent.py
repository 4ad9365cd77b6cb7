# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decoders of latent attention (MLA): one compressed vector per token that every tensor-parallel rank keeps whole."""

from __future__ import annotations

from .architecture import EVEN, INDEX, LATENT, CacheLayers
from .config_fields import Fields
from .draft import Draft, Layers
from .read_decoder import Quirks, layers_of, mixture

#: A projection that the engine keeps in BF16 beside its quantised form, after loading (mla_attention.py).
ABSORBED = "self_attn.kv_b_proj"
#: Bytes of a token in the packed FP8 form of sparse attention: latent, rope and scales (flashmla_sparse.py).
PACKED = 656


def latent_attention(fields: Fields, draft: Draft, layers: Layers, expanded: bool = False) -> None:
    """The projections and the cache of latent attention; ``expanded``: the engine caches whole heads all the same."""
    heads = fields.number("num_attention_heads")
    rank, rope = fields.number("kv_lora_rank"), fields.number("qk_rope_head_dim", default=64)
    nope = fields.number("qk_nope_head_dim", default=128)
    value = fields.number("v_head_dim", default=nope)
    queries = fields.count("q_lora_rank")
    draft.whole("attention heads", heads)
    if queries:
        draft.linear("self_attn.q_a_proj", queries, draft.hidden, layers)
        draft.linear("self_attn.q_b_proj", heads * (nope + rope), queries, layers, EVEN)
    else:
        draft.linear("self_attn.q_proj", heads * (nope + rope), draft.hidden, layers, EVEN)
    draft.linear("self_attn.kv_a_proj_with_mqa", rank + rope, draft.hidden, layers)
    draft.linear(ABSORBED, heads * (nope + value), rank, layers, EVEN)
    draft.linear("self_attn.o_proj", draft.hidden, heads * value, layers, EVEN, "columns")
    sparse = bool(fields.count("index_topk"))
    if expanded:
        draft.full(layers, heads, nope + rope)
    elif layers:
        draft.cache.append(CacheLayers(LATENT, layers, 1, rank + rope, packed=PACKED if sparse else 0))
    if sparse:
        _indexer(fields, draft, layers, queries or draft.hidden)


def _indexer(fields: Fields, draft: Draft, layers: Layers, queries: int) -> None:
    """The indexer of sparse attention: an FP8 vector of each token, with a scale of 4 bytes for each 128 of it."""
    count, size = fields.number("index_n_heads", default=64), fields.number("index_head_dim", default=128)
    chosen = indexing(fields, layers)
    draft.linear("self_attn.indexer.wq_b", count * size, queries, chosen)
    draft.plain("self_attn.indexer.wk", size + count, draft.hidden, chosen)
    if chosen:
        draft.cache.append(CacheLayers(INDEX, chosen, 1, size + size // 128 * 4, element=1))


def indexing(fields: Fields, layers: Layers) -> Layers:
    """The layers that have an indexer of their own; the others take over what one before them has found."""
    pattern = fields.get("index_topk_pattern")
    if pattern:
        return tuple(i for i in layers if i >= len(pattern) or pattern[i] != "S")
    freq, offset = fields.number("index_topk_freq", default=1), fields.count("index_skip_topk_offset") or 2
    return tuple(i for i in layers if freq == 1 or max(i - offset + 1, 0) % freq == 0)


def latent(fields: Fields, quirks: Quirks, draft: Draft) -> int:
    """A decoder of latent attention, dense or with experts."""
    layers = layers_of(fields)
    latent_attention(fields, draft, layers, bool(quirks.get("expanded")))
    draft.norms(2, layers)
    return mixture(fields, quirks, draft, layers)
