# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The structure of a model: its weights in parts, its cache in layers, and the numbers that tensor parallelism divides.

A reader makes one from config.json (`architectures`). The memory of a GPU (`memory`), the KV cache (`kv_cache`), the
weight formats (`quantization`) and the widths that work (`splits`) are counted from it and from nothing else.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

#: How tensor parallelism divides a part.
WHOLE = "whole"  # each GPU has all of it
EVEN = "even"  # each GPU has an equal share: heads, the MLP's inner width, the vocabulary
KV = "kv"  # by KV heads: down to one head per GPU, which is then repeated
EXPERTS = "experts"  # as EVEN, over data-parallel ranks too, or whole experts with expert parallelism

#: Kinds of layers in the cache, as vLLM's KVCacheSpec classes.
FULL, WINDOW, CHUNK, LATENT, INDEX, STATE, CROSS = "full", "window", "chunk", "latent", "index", "state", "cross"


def within(layers: tuple[int, ...], stage: tuple[int, int]) -> tuple[int, ...]:
    """The layers of a sorted list that are in a pipeline stage."""
    return layers[bisect_left(layers, stage[0]) : bisect_left(layers, stage[1])]


@dataclass(frozen=True)
class Part:
    """Weights of one name: a matrix of so many outputs and inputs in each of its layers.

    ``name`` is what the checkpoint calls it after `layers.N.`, or in full outside the layers: weight formats list what
    they leave out by it. ``linear``: whether a weight format applies at all.
    """

    name: str
    rows: int
    columns: int
    layers: tuple[int, ...] = ()
    times: int = 1
    split: str = WHOLE
    along: str = "rows"
    heads: int = 0
    linear: bool = True
    element: int = 2

    @property
    def parameters(self) -> int:
        """In one layer."""
        return self.rows * self.columns * self.times


@dataclass(frozen=True)
class State:
    """One tensor of a request's state: (width + groups x group_width) x depth elements, the first factor split by TP.

    Groups are repeated where the width does not divide them (MambaStateShapeCalculator.extra_groups_for_head_shards).
    """

    width: int
    depth: int
    element: int
    groups: int = 0
    group_width: int = 0
    rolling: bool = False  # the last tokens' inputs: a row more for each token that is proposed

    def bytes(self, tp: int) -> int:
        """On one GPU."""
        groups = self.groups if not self.groups or self.groups % tp == 0 else tp
        return (self.width + groups * self.group_width) // tp * self.depth * self.element


@dataclass(frozen=True)
class CacheLayers:
    """Equal layers of the cache. ``k``, ``v``: elements of one head and token; ``window``: of WINDOW and CHUNK."""

    kind: str
    layers: tuple[int, ...]
    heads: int = 0
    k: int = 0
    v: int = 0
    window: int = 0
    states: tuple[State, ...] = ()
    element: int = 0  # 0: as the cache's data type
    packed: int = 0  # bytes of a token in the packed FP8 form, where there is one
    checkpoint: int = 0  # of STATE: the engine keeps one inside a prefill, at multiples of so many tokens
    checkpoint_from: tuple[int, ...] = ()  # ... on GPUs from this compute capability on


@dataclass(frozen=True)
class Whole:
    """A number that a width must divide; ``repeats``: a wider one works too, where it is a multiple of the number."""

    what: str
    number: int
    repeats: bool = False
    experts: bool = False  # divided over data-parallel ranks too, and not at all with expert parallelism

    def allows(self, width: int) -> bool:
        """Whether this number of GPUs can divide it."""
        return self.number % width == 0 or (self.repeats and width % self.number == 0)


@dataclass(frozen=True)
class Architecture:
    """One model, as the engine builds it."""

    name: str
    kind: str
    layers: int
    hidden_size: int
    inner_size: int
    context: int
    parts: tuple[Part, ...]
    cache: tuple[CacheLayers, ...]
    wholes: tuple[Whole, ...] = ()
    vocab_size: int = 0
    task: str = "generate"
    labels: int = 2  # of a classification: transformers' own default
    since: str = ""
    experts_per_token: int = 0
    expert_size: int = 0
    float16: bool = True  # whether the engine runs it in FP16
    lora: bool = True  # whether the engine takes adapters for it
    apart: bool = False  # whether the embedding is on the first pipeline stage alone, and the head on the last
    stages: bool = True  # whether the engine can cut its layers into pipeline stages
    mtp: int = 0  # further layers that propose tokens
    speculative: int = 0  # tokens that are proposed in one step, which keep states of their own
    stretch: tuple[tuple[str, Any], ...] = ()  # what YaRN needs, where the family takes it
    longest: int = 0  # the context that options may ask for, where that is beyond the one without
    captured: int = 512  # tokens of the largest step that vLLM captures in a CUDA graph
    image_activation: int = 0  # elements per image token in the vision tower

    @property
    def mixture(self) -> bool:
        """Whether it has experts."""
        return self.experts_per_token > 0

    @property
    def is_latent(self) -> bool:
        """Whether its attention is latent."""
        return any(group.kind == LATENT for group in self.cache)

    @property
    def is_sparse(self) -> bool:
        """Whether its attention looks at some tokens only, which an indexer finds."""
        return any(group.kind == INDEX for group in self.cache)

    @property
    def has_states(self) -> bool:
        """Whether layers keep a state of each request."""
        return any(group.kind == STATE for group in self.cache)

    @property
    def parameters(self) -> int:
        """All of them."""
        return sum(part.parameters * max(1, len(part.layers)) for part in self.parts)


@dataclass(frozen=True)
class Unsized:
    """A model that the planner cannot size: the reason as a sentence, and the known fields."""

    name: str
    why: str
    context: int = 0
    heads: int = 0
    gone: bool = False
