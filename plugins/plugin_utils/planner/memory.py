# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory of a model per GPU, and what is left for the KV cache. Arithmetic only, no choices.

``usable = total x utilization``; ``kv = usable - weights - overhead``; a context fits when one request of that length
fits into ``kv``. vLLM decides the same way, after it has measured what is computed here.
"""

from __future__ import annotations

from dataclasses import dataclass

from .catalog import EngineSpec, ModelSpec, Policy, Shapes

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
class Footprint:
    """Memory of one replica on its fullest GPU."""

    weights_gib: float
    overhead_gib: float
    kv_gib: float
    kv_tokens: int


def _layer_parts(shapes: Shapes) -> dict[str, int]:
    """Number of parameters of one layer's linear parts."""
    queries = shapes.num_attention_heads * shapes.head_dim
    keys = shapes.num_key_value_heads * shapes.head_dim
    return {
        "attention": shapes.hidden_size * (2 * queries + 2 * keys),
        "mlp": 3 * shapes.hidden_size * shapes.intermediate_size,
    }


def _biases(shapes: Shapes) -> int:
    """Number of query, key and value biases of one layer; 0 if the model has none."""
    heads = shapes.num_attention_heads + 2 * shapes.num_key_value_heads
    return heads * shapes.head_dim if shapes.attention_bias else 0


def embedding_bytes(shapes: Shapes) -> int:
    """Bytes of the input embedding. The output head has the same size; both stay BF16 in every format."""
    return 2 * shapes.vocab_size * shapes.hidden_size


def layer_bytes(model: ModelSpec, quantised: bool = True) -> float:
    """Bytes of one layer's weights: linear parts in the model's format, norms in BF16."""
    stored = model.weights
    total = 2.0 * (2 * model.shapes.hidden_size + _biases(model.shapes))
    for part, parameters in _layer_parts(model.shapes).items():
        bits = stored.bits if quantised and part in stored.parts else 16
        scale_bits = 16 / stored.group_size if stored.group_size and bits < 16 else 0
        total += parameters * (bits + scale_bits) / 8
    return total


def weights_bytes(model: ModelSpec) -> int:
    """Bytes of all weights, as downloaded and stored on disk."""
    shapes = model.shapes
    plain = min(model.weights.skip_layers, shapes.num_hidden_layers)
    layers = (shapes.num_hidden_layers - plain) * layer_bytes(model) + plain * layer_bytes(model, quantised=False)
    ends = embedding_bytes(shapes) * (1 if shapes.tie_word_embeddings else 2)
    return round(layers + ends + 2 * shapes.hidden_size)


def layers_per_stage(shapes: Shapes, pp: int) -> int:
    """Layers on the fullest pipeline stage."""
    return -(-shapes.num_hidden_layers // pp)


def weights_gib_per_gpu(model: ModelSpec, spread: Parallel) -> float:
    """GiB of weights on the fullest GPU. Only the first and last pipeline stage hold the embedding or the head."""
    if spread.pp == 1:
        return weights_bytes(model) / spread.tp / GIB
    layers = layers_per_stage(model.shapes, spread.pp)
    plain = min(model.weights.skip_layers // 2, layers)  # the first stage has one of them, the last the other
    stage = (layers - plain) * layer_bytes(model) + plain * layer_bytes(model, quantised=False)
    return (stage + embedding_bytes(model.shapes) + 2 * model.shapes.hidden_size) / spread.tp / GIB


def kv_bytes_per_token(shapes: Shapes, spread: Parallel, kv_dtype: str) -> int:
    """Bytes of KV cache per token on one GPU. With more GPUs than KV heads, each GPU still holds one head."""
    heads = max(1, shapes.num_key_value_heads // spread.tp)
    element = 1 if kv_dtype.startswith("fp8") else 2
    return 2 * layers_per_stage(shapes, spread.pp) * heads * shapes.head_dim * element


def overhead_gib(model: ModelSpec, spread: Parallel, batched_tokens: int, engine: EngineSpec, policy: Policy) -> float:
    """GiB for everything but weights and KV cache: CUDA, NCCL, graphs and the activations of one full step."""
    hidden = policy.activation_hidden * model.shapes.hidden_size
    inner = policy.activation_intermediate * model.shapes.intermediate_size / spread.tp
    return engine.runtime_overhead_gib + 2 * batched_tokens * (hidden + inner) / GIB


def footprint(
    model: ModelSpec, spread: Parallel, kv_dtype: str, usable_gib: float, overhead: float, block_size: int
) -> Footprint:
    """One replica's memory on one GPU; `kv_tokens` is 0 if nothing is left."""
    weights = weights_gib_per_gpu(model, spread)
    kv = usable_gib - weights - overhead
    tokens = int(max(kv, 0) * GIB // kv_bytes_per_token(model.shapes, spread, kv_dtype))
    return Footprint(weights, overhead, kv, tokens // block_size * block_size)


def heads_problem(shapes: Shapes, tp: int) -> str | None:
    """Why attention cannot be split over `tp` GPUs; None if it can."""
    heads, kv_heads = shapes.num_attention_heads, shapes.num_key_value_heads
    if heads % tp:
        return f"{heads} attention heads do not divide by TP {tp}"
    if kv_heads % tp and tp % kv_heads:
        return f"{kv_heads} KV heads do not divide by TP {tp}"
    return None
