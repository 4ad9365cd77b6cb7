# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Towers that turn images into embeddings. They have no cache; their weights count, in BF16 whatever the format."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .architecture import EVEN, WHOLE
from .config_fields import Fields
from .draft import Draft

NAME = "vision_tower"


def _blocks(draft: Draft, layers: int, hidden: int, inner: int, matrices: int = 2, split: str = EVEN) -> None:
    """Transformer blocks: attention of equal heads, an MLP of so many matrices."""
    parameters = layers * (4 * hidden * hidden + matrices * hidden * inner + 9 * hidden + inner)
    draft.plain(f"{NAME}.blocks", parameters, 1, split=split)
    draft.images = 4 * (4 * hidden + matrices * inner)


def _patches(vision: Fields, hidden: int, channels: int = 3) -> int:
    """Parameters of the patch embedding."""
    side = next(iter(vision.one_or_more(1, "patch_size")), 14)
    return channels * side * side * vision.number("temporal_patch_size", default=1) * hidden


def qwen(vision: Fields, draft: Draft) -> None:
    """Qwen2-VL, Qwen2.5-VL, Qwen3-VL, Qwen3.5: blocks, then a merger of 2 x 2 patches."""
    gated = bool(vision.get("fullatt_block_indexes"))
    # Qwen2-VL calls its own width embed_dim, and the language model's hidden_size.
    hidden = vision.number("embed_dim", "hidden_size")
    out = vision.number("out_hidden_size", default=draft.hidden)
    inner = vision.count("intermediate_size") or vision.number("mlp_ratio", default=4) * hidden
    depth = vision.number("depth", "num_hidden_layers")
    _blocks(draft, depth, hidden, inner, 3 if gated else 2)
    merged = hidden * vision.number("spatial_merge_size", default=2) ** 2
    mergers = 1 + len(vision.listed("deepstack_visual_indexes"))
    draft.plain(f"{NAME}.merger", mergers * (merged * merged + merged * out), 1, split=EVEN)
    positions = vision.count("num_position_embeddings")
    channels = vision.number("in_channels", "in_chans", default=3)
    draft.plain(f"{NAME}.patches", _patches(vision, hidden, channels) + positions * hidden, 1)


def siglip(vision: Fields, draft: Draft) -> None:
    """SigLIP and CLIP with a projection of one matrix (Gemma 3, PaliGemma) or two (LLaVA)."""
    hidden, inner = vision.number("hidden_size"), vision.number("intermediate_size")
    _blocks(draft, vision.number("num_hidden_layers"), hidden, inner)
    side = vision.number("image_size", default=224) // vision.number("patch_size", default=14)
    draft.plain(f"{NAME}.patches", _patches(vision, hidden) + side * side * hidden, 1)
    draft.plain("multi_modal_projector", hidden, draft.hidden)


def gemma4(vision: Fields, draft: Draft) -> None:
    """Gemma 4: gated blocks, learned positions in two directions, a projection. Each GPU has all of it."""
    hidden, inner = vision.number("hidden_size"), vision.number("intermediate_size")
    _blocks(draft, vision.number("num_hidden_layers"), hidden, inner, 3, WHOLE)
    positions = 2 * vision.number("position_embedding_size", default=10240)
    draft.plain(f"{NAME}.patches", _patches(vision, hidden) + positions * hidden, 1)
    draft.plain("embed_vision", hidden, draft.hidden)


def llava(vision: Fields, draft: Draft) -> None:
    """A tower with a projection of two matrices."""
    siglip(vision, draft)
    draft.plain("multi_modal_projector.linear_2", draft.hidden, draft.hidden, split=EVEN)


def pixtral(vision: Fields, draft: Draft) -> None:
    """Pixtral: gated blocks, a merger of 2 x 2 patches, a projection of two matrices."""
    hidden, inner = vision.number("hidden_size"), vision.number("intermediate_size")
    _blocks(draft, vision.number("num_hidden_layers"), hidden, inner, 3)
    draft.plain(f"{NAME}.patches", _patches(vision, hidden), 1)
    draft.plain("multi_modal_projector.patch_merger", hidden, 4 * hidden)
    draft.plain("multi_modal_projector.linear_1", draft.hidden, hidden, split=EVEN)
    draft.plain("multi_modal_projector.linear_2", draft.hidden, draft.hidden, split=EVEN)


def lfm2(vision: Fields, draft: Draft) -> None:
    """LFM2-VL: SigLIP 2, and a projection of 2 x 2 patches in two matrices."""
    hidden, inner = vision.number("hidden_size"), vision.number("intermediate_size")
    _blocks(draft, vision.number("num_hidden_layers"), hidden, inner)
    positions = vision.number("num_patches", default=256)
    draft.plain(f"{NAME}.patches", _patches(vision, hidden) + positions * hidden, 1)
    draft.plain("multi_modal_projector", 4 * hidden + draft.hidden, draft.hidden)


def llama4(vision: Fields, draft: Draft) -> None:
    """Llama 4: blocks, pixel shuffle, an adapter."""
    hidden, inner = vision.number("hidden_size"), vision.number("intermediate_size")
    _blocks(draft, vision.number("num_hidden_layers"), hidden, inner)
    out, mid = vision.number("vision_output_dim"), vision.number("projector_input_dim", default=4096)
    draft.plain(f"{NAME}.adapter", inner * mid + mid * out, 1, split=EVEN)
    draft.plain(f"{NAME}.patches", _patches(vision, hidden), 1)
    draft.plain("multi_modal_projector", out, draft.hidden, split=EVEN)


def intern(vision: Fields, draft: Draft) -> None:
    """InternViT and its projection of 2 x 2 patches."""
    hidden, inner = vision.number("hidden_size"), vision.number("intermediate_size")
    _blocks(draft, vision.number("num_hidden_layers"), hidden, inner)
    draft.plain(f"{NAME}.patches", _patches(vision, hidden) + 1025 * hidden, 1)
    draft.plain("mlp1", 4 * hidden * draft.hidden + draft.hidden * draft.hidden, 1)


def glm(vision: Fields, draft: Draft) -> None:
    """GLM-4V: gated blocks, a downsampling convolution, a gated merger."""
    hidden, out = vision.number("hidden_size"), vision.number("out_hidden_size", default=draft.hidden)
    inner = vision.number("intermediate_size")
    _blocks(draft, vision.number("depth", "num_hidden_layers"), hidden, out, 3)
    positions = (vision.number("image_size", default=336) // vision.number("patch_size", default=14)) ** 2
    draft.plain(f"{NAME}.patches", _patches(vision, hidden) + positions * hidden, 1)
    draft.plain(f"{NAME}.downsample", 4 * hidden, out)
    draft.plain(f"{NAME}.merger", out * out + 3 * out * inner, 1, split=EVEN)


def moon(vision: Fields, draft: Draft) -> None:
    """MoonViT and its projection of 2 x 2 patches (Kimi)."""
    hidden = vision.number("hidden_size", "vt_hidden_size")
    inner = vision.number("intermediate_size", "vt_intermediate_size")
    _blocks(draft, vision.number("num_hidden_layers", "vt_num_hidden_layers"), hidden, inner)
    draft.plain(f"{NAME}.patches", _patches(vision, hidden) + 64 * 64 * hidden, 1)
    draft.plain("multi_modal_projector", 16 * hidden * hidden + 4 * hidden * draft.hidden, 1)


TOWERS: Mapping[str, Callable[[Fields, Draft], None]] = {
    "gemma4": gemma4,
    "glm": glm,
    "intern": intern,
    "lfm2": lfm2,
    "llama4": llama4,
    "llava": llava,
    "moon": moon,
    "pixtral": pixtral,
    "qwen": qwen,
    "siglip": siglip,
}
