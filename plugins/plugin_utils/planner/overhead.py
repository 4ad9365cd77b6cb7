# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory per GPU that neither weights nor KV cache take: CUDA, the largest step, CUDA graphs.

vLLM measures it before it gives the rest to the KV cache. catalog/planner.yml gives the source of each number.
"""

from __future__ import annotations

from dataclasses import dataclass

from .architecture import WINDOW
from .catalog import EngineSpec, ModelSpec, Policy
from .memory import GIB, Parallel, absorbed_parameters, even_cut, repacked_bytes
from .read_latent import ABSORBED


@dataclass(frozen=True)
class Step:
    """The largest step of an engine: tokens, and sequences of which it samples one each.

    ``replicas``: whose tokens come together at the experts that they share. ``sizes``: how many sizes of a step are
    captured in CUDA graphs.
    """

    tokens: int
    sequences: int
    replicas: int = 1
    sizes: int = 0


def overhead_gib(model: ModelSpec, spread: Parallel, step: Step, engine: EngineSpec, policy: Policy) -> float:
    """GiB for everything but weights and KV cache."""
    images = policy.image_tokens * model.sized.image_activation
    again = 2 * absorbed_parameters(model.stored) + repacked_bytes(model.stored)
    fixed = engine.runtime_overhead_gib + policy.activation_base_gib + (2 * images + again / spread.gpus) / GIB
    graphs = graphs_gib(model, spread, step, policy) if engine.counts_graphs else 0.0
    by_kind = _mixed_step if model.sized.mixture or model.sized.has_states else _dense_step
    return fixed + graphs + by_kind(model, spread, step, policy)


def _dense_step(model: ModelSpec, spread: Parallel, step: Step, policy: Policy) -> float:
    """GiB of a step of a dense decoder."""
    sized = model.sized
    hidden = policy.activation_hidden * sized.hidden_size
    inner = policy.activation_intermediate * sized.inner_size / spread.tp
    # The activations were recorded with a vocabulary of this size, whose logits are in them.
    more = max(0, sized.vocab_size - policy.measured_vocabulary) * step.sequences * policy.logit_bytes
    return (2 * step.tokens * (hidden + inner) + more) / GIB


def _mixed_step(model: ModelSpec, spread: Parallel, step: Step, policy: Policy) -> float:
    """GiB of a step of a mixture or a model with states: its layers, or its logits where they are larger."""
    sized = model.sized
    # The kernels of MXFP4 need no room for each token's experts apart.
    apart = not any(stored.pad_to > 1 for stored in model.formats) or step.replicas > 1
    routed = sized.experts_per_token * (sized.hidden_size + sized.expert_size / spread.tp) if apart else 0.0
    routed = step.replicas * routed + (step.replicas - 1) * sized.hidden_size
    forward = 2 * step.tokens * (policy.activation_hidden * sized.hidden_size + routed)
    if sized.is_latent:
        heads = max(part.rows for part in sized.parts if part.name == ABSORBED)
        forward += 2 * policy.expanded_tokens * heads / spread.tp
    states = policy.states_step_gib if sized.has_states else 0.0
    logits = step.sequences * sized.vocab_size * policy.sampled_logit_bytes
    return max(forward / GIB + states, logits / GIB - policy.activation_base_gib)


def graphs_gib(model: ModelSpec, spread: Parallel, step: Step, policy: Policy) -> float:
    """GiB of CUDA graphs: each size is captured in each layer of a stage."""
    sized = model.sized
    if not step.sizes:
        return 0.0
    windowed = any(group.kind == WINDOW for group in sized.cache)
    kind = "latent" if sized.is_latent else "mixture" if sized.mixture else "windowed" if windowed else "dense"
    shared = policy.graphs_parallel if spread.tp > 1 else 1.0
    layers = max(spread.cut or even_cut(sized.layers, spread.pp))
    return policy.graphs_base_gib + policy.graphs_layer_gib[kind] * shared * layers * step.sizes / policy.graphs_sizes


def captured_sizes(largest: int) -> int:
    """How many sizes vLLM captures up to the largest (config/vllm.py, _set_cudagraph_sizes)."""
    few = sum(size <= largest for size in (1, 2, 4))
    return few + len(range(8, min(largest + 1, 256), 8)) + len(range(256, largest + 1, 16))
