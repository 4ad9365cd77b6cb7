# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An architecture in the making: the blocks that models are built from, each as its parts, cache and whole numbers."""

from __future__ import annotations

from collections.abc import Sequence

from .architecture import CHUNK, EVEN, EXPERTS, FULL, KV, STATE, WHOLE, WINDOW, CacheLayers, Part, State, Whole

#: vLLM pads a vocabulary to a multiple of this.
VOCABULARY = 64

Layers = tuple[int, ...]


def padded(vocabulary: int) -> int:
    """The rows of an embedding."""
    return -(-vocabulary // VOCABULARY) * VOCABULARY


class Draft:
    """Collects what a model is built of."""

    def __init__(self, hidden: int) -> None:
        self.hidden = hidden
        self.parts: list[Part] = []
        self.cache: list[CacheLayers] = []
        self.wholes: dict[tuple[str, int], Whole] = {}
        self.inner = 0  # the widest MLP
        self.expert = 0
        self.images = 0  # elements per image token in the vision tower

    def whole(self, what: str, number: int, repeats: bool = False, experts: bool = False) -> None:
        """A number that widths must divide."""
        self.wholes[(what, number)] = Whole(what, number, repeats, experts)

    def linear(
        self, name: str, rows: int, columns: int, layers: Layers, split: str = WHOLE, along: str = "rows"
    ) -> None:
        """One matrix that a weight format may apply to."""
        if layers:
            self.parts.append(Part(name, rows, columns, layers, split=split, along=along))

    def plain(
        self, name: str, rows: int, columns: int, layers: Layers = (), split: str = WHOLE, times: int = 1
    ) -> None:
        """Weights that stay as they are: norms, biases, gates, embeddings."""
        self.parts.append(Part(name, rows, columns, layers, times, split, linear=False))

    def norms(self, count: int, layers: Layers) -> None:
        """Norms of the hidden size. Counted as if they were split: 8 MB at most, and the overhead was taken so."""
        if layers and count:
            self.plain("norms", self.hidden, count, layers, EVEN)

    def embedding(self, vocabulary: int, tied: bool, split: str = EVEN) -> None:
        """The vocabulary at both ends."""
        if split == EVEN:
            self.whole("the vocabulary, padded to 64,", padded(vocabulary))
        self.plain("model.embed_tokens", padded(vocabulary), self.hidden, split=split)
        if not tied:
            self.plain("lm_head", padded(vocabulary), self.hidden, split=split)

    def attention(
        self,
        layers: Layers,
        heads: int,
        kv_heads: int,
        k: int,
        v: int = 0,
        *,
        biases: str = "",
        gates: int = 0,
        own_kv: bool = True,
        at: str = "self_attn",
    ) -> None:
        """Grouped heads. ``biases``: of qkv, o or both; ``gates``: 1 where queries carry a gate; own_kv: or shared."""
        if not layers:
            return
        v = v or k
        self.whole("attention heads", heads)
        self.whole("KV heads", kv_heads, repeats=True)
        self.linear(f"{at}.q_proj", heads * k * (1 + gates), self.hidden, layers, EVEN)
        if own_kv:
            for name, size in (("k_proj", k), ("v_proj", v)):
                self.parts.append(Part(f"{at}.{name}", kv_heads * size, self.hidden, layers, split=KV, heads=kv_heads))
        self.linear(f"{at}.o_proj", self.hidden, heads * v, layers, EVEN, "columns")
        if "qkv" in biases:
            self.plain(f"{at}.qkv_bias", heads * k + kv_heads * (k + v), 1, layers, EVEN)
        if "o" in biases.replace("qkv", ""):
            self.plain(f"{at}.o_bias", self.hidden, 1, layers)

    def mlp(self, layers: Layers, inner: int, *, gated: bool = True, at: str = "mlp", whole: bool = False) -> None:
        """A feed-forward block; ``whole``: each GPU has all of it."""
        if not layers or not inner:
            return
        self.inner = max(self.inner, inner)
        split = WHOLE if whole else EVEN
        if not whole:
            self.whole("intermediate_size", inner)
        for name in ("gate_proj", "up_proj") if gated else ("up_proj",):
            self.linear(f"{at}.{name}", inner, self.hidden, layers, split)
        self.linear(f"{at}.down_proj", self.hidden, inner, layers, split, "columns")

    def experts(
        self, layers: Layers, count: int, inner: int, *, gated: bool = True, at: str = "mlp", width: int = 0
    ) -> None:
        """Routed experts and their gate. ``width``: of what they work on, where that is not the hidden size."""
        if not layers or not count:
            return
        width = width or self.hidden
        self.expert = max(self.expert, inner)
        self.whole("the experts' intermediate size", inner, experts=True)
        self.plain(f"{at}.gate", count, self.hidden, layers)
        for name in ("gate_proj", "up_proj") if gated else ("up_proj",):
            part = Part(f"{at}.experts.0.{name}", inner, width, layers, count, EXPERTS)
            self.parts.append(part)
        down = Part(f"{at}.experts.0.down_proj", width, inner, layers, count, EXPERTS, "columns")
        self.parts.append(down)

    def full(self, layers: Layers, kv_heads: int, k: int, v: int = 0) -> None:
        """A cache of every token."""
        if layers:
            self.cache.append(CacheLayers(FULL, layers, kv_heads, k, v or k))

    def window(self, layers: Layers, kv_heads: int, k: int, size: int, v: int = 0) -> None:
        """A cache of the last tokens."""
        if layers:
            self.cache.append(CacheLayers(WINDOW, layers, kv_heads, k, v or k, size))

    def chunk(self, layers: Layers, kv_heads: int, k: int, size: int) -> None:
        """A cache of the chunk that a token is in."""
        if layers:
            self.cache.append(CacheLayers(CHUNK, layers, kv_heads, k, k, size))

    def state(self, layers: Layers, states: Sequence[State], checkpoint: int = 0, since: tuple[int, ...] = ()) -> None:
        """A fixed state of each request; ``checkpoint``, ``since``: as CacheLayers has them."""
        if layers:
            cache = CacheLayers(STATE, layers, states=tuple(states), checkpoint=checkpoint, checkpoint_from=since)
            self.cache.append(cache)
