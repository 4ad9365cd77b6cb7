# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Encoders, which keep no cache, and encoder-decoders, whose decoder keeps the encoder's memory too."""

from __future__ import annotations

from .architecture import CROSS, EVEN, CacheLayers
from .config_fields import MOST_LAYERS, Fields
from .draft import Draft, padded
from .read_decoder import Quirks, heads_of, layers_of


def encoder(fields: Fields, quirks: Quirks, draft: Draft) -> int:
    """BERT and its kin: attention both ways."""
    layers = layers_of(fields)
    heads, _kv_heads, size = heads_of(fields, draft.hidden)
    gated = bool(quirks.get("gated", False))
    draft.attention(layers, heads, heads, size, biases="" if gated else "qkv o")
    inner = fields.number("intermediate_size", "n_inner", default=4 * draft.hidden)
    draft.mlp(layers, inner, gated=gated)
    if not gated:
        draft.plain("mlp.bias", inner + draft.hidden, 1, layers, EVEN)
    draft.norms(4, layers)
    positions = fields.count("max_position_embeddings") if quirks.get("positions", True) else 0
    if quirks.get("head"):  # of a masked language model
        draft.plain("cls.decoder", padded(fields.number("vocab_size")), draft.hidden)
    for name, rows in (("positions", positions), ("types", fields.count("type_vocab_size"))):  # split as words are
        draft.plain(f"embeddings.{name}", padded(rows), draft.hidden, split=EVEN)
    draft.plain("embeddings.norm", 2, draft.hidden)
    for name in ("sliding_window", "layer_types", "is_encoder_decoder"):  # there is no cache to which they matter
        fields.get(name)
    return 0


def whisper(fields: Fields, quirks: Quirks, draft: Draft) -> int:
    """Speech: an encoder of audio, and a decoder that looks at itself and at the encoder's memory."""
    encoders = tuple(range(fields.number("encoder_layers", most=MOST_LAYERS)))
    decoders = tuple(range(fields.number("decoder_layers", most=MOST_LAYERS)))
    fields.get("is_encoder_decoder", "num_hidden_layers")
    heads = fields.number("decoder_attention_heads")
    size = draft.hidden // heads
    for layers, at in ((encoders, "encoder.self_attn"), (decoders, "self_attn"), (decoders, "encoder_attn")):
        draft.attention(layers, heads, heads, size, biases="qkv o", at=at)
    for layers, at, name in ((encoders, "encoder.fc", "encoder_ffn_dim"), (decoders, "fc", "decoder_ffn_dim")):
        inner = fields.number(name)
        draft.mlp(layers, inner, gated=False, at=at)
        draft.plain(f"{at}.bias", inner + draft.hidden, 1, layers, EVEN)
    draft.norms(4, encoders)
    draft.norms(6, decoders)
    source = fields.number("max_source_positions", default=1500)
    target = fields.number("max_target_positions", default=448)
    mels = fields.number("num_mel_bins", default=80)
    draft.plain("model.encoder.conv", 3 * (mels + draft.hidden) * draft.hidden + 2 * draft.hidden, 1)
    draft.plain("model.positions", source + target, draft.hidden)
    draft.full(decoders, heads, size)
    draft.cache.append(CacheLayers(CROSS, decoders, heads, size, size, source))
    return 0
