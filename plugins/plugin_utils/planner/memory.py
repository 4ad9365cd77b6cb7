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

from .architecture import EVEN, EXPERTS, KV, within
from .catalog import ModelSpec
from .kv_cache import Layout
from .quantization import Stored
from .read_latent import ABSORBED

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
    return round(sum(weight.layer_bytes * max(1, len(weight.layers)) for weight in model.stored))


def layers_per_stage(layers: int, pp: int) -> int:
    """Layers on the fullest pipeline stage."""
    return -(-layers // pp)


def stages(layers: int, pp: int) -> list[tuple[int, int]]:
    """The first layer of each pipeline stage and the one after its last."""
    size = layers_per_stage(layers, pp)
    return [(start, min(start + size, layers)) for start in range(0, layers, size)]


def _share(weight: Stored, tp: int, experts: Experts) -> float:
    """The share of a part that one GPU holds."""
    part = weight.part
    if part.split == EXPERTS:
        whole = part.columns if part.along == "columns" else part.rows
        step = weight.stored.pad_to if weight.stored and experts.cut > 1 else 1
        share = -(-whole // (experts.cut * step)) * step / whole
        return -(-part.times // experts.over) / part.times * share
    if part.split == KV:
        return max(1 / tp, 1 / part.heads)
    return 1 / tp if part.split == EVEN else 1


def stage_bytes(stored: Iterable[Stored], tp: int, experts: Experts, stage: tuple[int, int] | None = None) -> float:
    """Bytes of weights on one GPU of a pipeline stage. A stage holds one end of the model, not both."""
    total = 0.0
    for weight in stored:
        if not weight.part.layers:
            count = 0 if stage and weight.part.name == "lm_head" else 1
        else:
            count = len(within(weight.layers, stage)) if stage else len(weight.layers)
        total += count * weight.layer_bytes * _share(weight, tp, experts)
    return total


def weights_gib_per_gpu(model: ModelSpec, spread: Parallel, experts: Experts | None = None) -> float:
    """GiB of weights on the fullest GPU. ``experts``: None splits each of them by TP."""
    experts = experts or Experts(cut=spread.tp)
    if (spread, experts) not in model.counted:
        if spread.pp == 1:
            size = stage_bytes(model.stored, spread.tp, experts)
        else:
            each = stages(model.sized.layers, spread.pp)[: 1 if model.equal_stages else None]
            size = max(stage_bytes(model.stored, spread.tp, experts, stage) for stage in each)
        model.counted[(spread, experts)] = size / GIB
    return model.counted[(spread, experts)]


def absorbed_parameters(stored: Iterable[Stored]) -> int:
    """Parameters of latent attention that are kept a second time, in BF16: where they are stored in another format."""
    absorbed = (weight for weight in stored if weight.stored and weight.part.name == ABSORBED)
    return sum(weight.part.parameters * len(weight.layers) for weight in absorbed)


def repacked_bytes(stored: Iterable[Stored]) -> float:
    """Bytes that weights grow by when they are laid out for the kernels, after loading."""
    repacked = (weight for weight in stored if weight.stored and weight.stored.repacked)
    return sum(weight.layer_bytes * len(weight.layers) * weight.stored.repacked for weight in repacked if weight.stored)


def footprint(weights_gib: float, overhead: float, usable_gib: float, layout: Layout, context: int) -> Footprint:
    """One replica's memory on one GPU, with the tokens of requests of this context; 0 if nothing is left."""
    kv = usable_gib - weights_gib - overhead
    return Footprint(weights_gib, overhead, kv, layout.tokens(blocks(kv, layout), context))


def blocks(kv_gib: float, layout: Layout) -> int:
    """Blocks of the KV cache that so much memory holds."""
    return int(max(kv_gib, 0) * GIB // layout.block_bytes) if layout.block_bytes else 0
