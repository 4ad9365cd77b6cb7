# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory of a model per GPU, and what is left for the KV cache. Arithmetic only, no choices.

``usable = total x utilization``; ``kv = usable - weights - overhead``; a context fits when one request of that length
fits into ``kv``. vLLM decides the same way, after it has measured what is computed here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .architecture import EVEN, EXPERTS, KV, Part
from .catalog import EngineSpec, ModelSpec, Policy
from .kv_cache import Layout
from .quantization import Stored

GIB = 2**30


@dataclass(frozen=True)
class Parallel:
    """How one replica is split over GPUs: tensor (tp) and pipeline (pp) parallelism."""

    tp: int = 1
    pp: int = 1

    @property
    def gpus(self) -> int:
        """GPUs of one replica."""
        return self.tp * self.pp

    def __str__(self) -> str:
        return f"TP {self.tp}" + (f" x PP {self.pp}" if self.pp > 1 else "")


@dataclass(frozen=True)
class Experts:
    """How the experts of a mixture are split: ``cut``, into how many shares each; ``over``, how many GPUs hold them."""

    cut: int = 1
    over: int = 1


@dataclass(frozen=True)
class Footprint:
    """Memory of one replica on its fullest GPU. ``kv_tokens``: of requests with the chosen context."""

    weights_gib: float
    overhead_gib: float
    kv_gib: float
    kv_tokens: int


def weights_bytes(model: ModelSpec) -> int:
    """Bytes of all weights, as downloaded and stored on disk: by the files if they are known, else by the shapes."""
    return model.weights_bytes or shaped_bytes(model)


def shaped_bytes(model: ModelSpec) -> int:
    """Bytes of all weights by the shapes and formats of the parts, as the engine loads them."""
    return round(sum(one.layer_bytes * max(1, len(one.layers)) for one in model.stored))


def layers_per_stage(layers: int, pp: int) -> int:
    """Layers on the fullest pipeline stage."""
    return -(-layers // pp)


def stages(layers: int, pp: int) -> list[tuple[int, int]]:
    """The first layer of each pipeline stage and the one after its last."""
    size = layers_per_stage(layers, pp)
    return [(start, min(start + size, layers)) for start in range(0, layers, size)]


def _share(part: Part, tp: int, experts: Experts) -> float:
    """The share of a part that one GPU holds."""
    if part.split == EXPERTS:
        return -(-part.times // experts.over) / part.times / experts.cut
    if part.split == KV:
        return max(1 / tp, 1 / part.heads)
    return 1 / tp if part.split == EVEN else 1


def stage_bytes(stored: Iterable[Stored], tp: int, experts: Experts, stage: tuple[int, int] | None = None) -> float:
    """Bytes of weights on one GPU of a pipeline stage. A stage holds one end of the model, not both."""
    total = 0.0
    for one in stored:
        if not one.part.layers:
            count = 0 if stage and one.part.name == "lm_head" else 1
        else:
            count = len(one.layers) if not stage else sum(stage[0] <= layer < stage[1] for layer in one.layers)
        total += count * one.layer_bytes * _share(one.part, tp, experts)
    return total


def weights_gib_per_gpu(model: ModelSpec, spread: Parallel, experts: Experts | None = None) -> float:
    """GiB of weights on the fullest GPU. ``experts``: None splits each of them by TP."""
    experts = experts or Experts(cut=spread.tp)
    if spread.pp == 1:
        return stage_bytes(model.stored, spread.tp, experts) / GIB
    each = stages(model.sized.layers, spread.pp)
    return max(stage_bytes(model.stored, spread.tp, experts, stage) for stage in each) / GIB


def overhead_gib(model: ModelSpec, spread: Parallel, batched_tokens: int, engine: EngineSpec, policy: Policy) -> float:
    """GiB for everything but weights and KV cache: CUDA, NCCL, graphs and the activations of one full step."""
    sized = model.sized
    hidden = policy.activation_hidden * sized.hidden_size
    inner = policy.activation_intermediate * sized.inner_size / spread.tp
    if sized.mixture:  # each token's share of its experts, as fused_moe's two buffers hold it
        share = sized.expert_size / spread.tp
        inner = max(inner, sized.experts_per_token * (max(2 * share, sized.hidden_size) + share))
    images = policy.image_tokens * sized.image_activation if sized.image_activation else 0
    return engine.runtime_overhead_gib + 2 * (batched_tokens * (hidden + inner) + images) / GIB


def footprint(weights_gib: float, overhead: float, usable_gib: float, layout: Layout, context: int) -> Footprint:
    """One replica's memory on one GPU, with the tokens of requests of this context; 0 if nothing is left."""
    kv = usable_gib - weights_gib - overhead
    return Footprint(weights_gib, overhead, kv, layout.tokens(blocks(kv, layout), context))


def blocks(kv_gib: float, layout: Layout) -> int:
    """Blocks of the KV cache that so much memory holds."""
    return int(max(kv_gib, 0) * GIB // layout.block_bytes) if layout.block_bytes else 0
