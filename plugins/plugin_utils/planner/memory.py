# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory of a model per GPU, and what is left for the KV cache. Arithmetic only, no choices.

``usable = total x utilization``; ``kv = usable - weights - overhead``; a context fits when one request of that length
fits into ``kv``. vLLM decides the same way, after it has measured what is computed here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from .architecture import EVEN, EXPERTS, KV, within
from .catalog import ModelSpec
from .kv_cache import Layout
from .quantization import Stored
from .read_latent import ABSORBED

GIB = 2**30


@dataclass(frozen=True)
class Parallel:
    """How one replica is split over GPUs: tensor (tp) and pipeline (pp) parallelism, and over how many nodes.

    ``cut``: the layers of each stage, where they are not those of vLLM's own cut.
    """

    tp: int = 1
    pp: int = 1
    nodes: int = 1
    cut: tuple[int, ...] = ()

    @property
    def gpus(self) -> int:
        """GPUs of one replica, on all of its nodes."""
        return self.tp * self.pp

    @property
    def on_a_node(self) -> int:
        """GPUs of one replica on one node."""
        return -(-self.gpus // self.nodes)

    def __str__(self) -> str:
        text = f"TP {self.tp}" + (f" x PP {self.pp}" if self.pp > 1 else "")
        return text + (f" over {self.nodes} nodes" if self.nodes > 1 else "")


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


def even_cut(layers: int, pp: int) -> tuple[int, ...]:
    """The layers of each pipeline stage as vLLM cuts them (distributed/utils.py, get_pp_indices).

    The last stage, and the first one if it can be, have fewer: the embeddings are on them.

    >>> even_cut(126, 4), even_cut(61, 2)
    ((31, 32, 32, 31), (31, 30))
    """
    more = layers % pp
    return tuple(layers // pp + (pp - 1 - more <= stage < pp - 1) for stage in range(pp))


def stages(layers: int, pp: int, cut: Sequence[int] = ()) -> list[tuple[int, int]]:
    """The first layer of each pipeline stage and the one after its last."""
    ends = list(accumulate(cut or even_cut(layers, pp)))
    return list(zip([0, *ends[:-1]], ends))


def stages_of(model: ModelSpec, spread: Parallel) -> list[tuple[int, int]]:
    """The pipeline stages that differ: of a model whose layers are alike, one of each size and end."""
    layers = model.sized.layers
    each = stages(layers, spread.pp, spread.cut)
    if not model.equal_stages:
        return each
    alike = {(end - start, start == 0, end == layers): (start, end) for start, end in each}
    return list(alike.values())


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


#: Parts outside the layers that are not on the first stage alone, as towers are.
EMBEDDINGS, ENDS = ("model.embed_tokens", "model.embed_positions"), ("lm_head", "norm")


def stage_bytes(stored: Iterable[Stored], tp: int, experts: Experts, stage: tuple[int, int] | None = None) -> float:
    """Bytes of weights on one GPU: in the layers of a pipeline stage, or in all and outside of them."""
    total = 0.0
    for weight in stored:
        if weight.part.layers:
            count = len(within(weight.layers, stage)) if stage else len(weight.layers)
        else:
            count = int(stage is None)
        total += count * weight.layer_bytes * _share(weight, tp, experts)
    return total


def ends_bytes(model: ModelSpec, tp: int, experts: Experts, first: bool, last: bool) -> float:
    """Bytes outside the layers on one GPU of a stage. A model whose head is its embedding has that on both ends."""
    outside = [weight for weight in model.stored if not weight.part.layers]
    tied = not any(weight.part.name == "lm_head" for weight in outside)
    whole = not model.sized.apart

    def there(name: str) -> bool:
        if name in EMBEDDINGS:
            return whole or first or (last and tied)
        return whole or last if name in ENDS else first

    return sum(weight.layer_bytes * _share(weight, tp, experts) for weight in outside if there(weight.part.name))


def weights_by_stage(model: ModelSpec, spread: Parallel, experts: Experts) -> tuple[float, ...]:
    """GiB of weights on one GPU of each stage of ``stages_of``."""
    if (spread, experts) not in model.counted:
        last = model.sized.layers
        if spread.pp == 1:
            sizes = [stage_bytes(model.stored, spread.tp, experts)]
        else:
            sizes = [
                stage_bytes(model.stored, spread.tp, experts, stage)
                + ends_bytes(model, spread.tp, experts, stage[0] == 0, stage[1] == last)
                for stage in stages_of(model, spread)
            ]
        model.counted[(spread, experts)] = tuple(size / GIB for size in sizes)
    return model.counted[(spread, experts)]


def weights_gib_per_gpu(model: ModelSpec, spread: Parallel, experts: Experts | None = None) -> float:
    """GiB of weights on the fullest GPU. ``experts``: None splits each of them by TP."""
    return max(weights_by_stage(model, spread, experts or Experts(cut=spread.tp)))


def balanced_cut(costs: Sequence[float], pp: int) -> tuple[int, ...]:
    """Layers of consecutive stages so that the costliest stage costs as little as it can, with a layer in each.

    ``costs``: of each layer; what an end of the model costs is in its first and its last one.

    >>> balanced_cut([3, 1, 1, 1, 1, 1], 2)
    (2, 4)
    """
    low, high = max(costs), sum(costs)
    for _halving in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if len(_filled(costs, middle, pp)) <= pp else (middle, high)
    return _filled(costs, high, pp)


def _filled(costs: Sequence[float], most: float, pp: int) -> tuple[int, ...]:
    """Stages filled one after the other up to so much; the last ones keep a layer each."""
    cut: list[int] = []
    size, total = 0, 0.0
    for place, cost in enumerate(costs):
        left = len(costs) - place
        if size and (total + cost > most * (1 + 1e-9) or left < pp - len(cut)):
            cut.append(size)
            size, total = 0, 0.0
        size, total = size + 1, total + cost
    return (*cut, size)


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
