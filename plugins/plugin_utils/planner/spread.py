# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options for one model on identical GPUs: which fit, which is best for the objective, and why others are not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from . import group as node_group, speculation
from .catalog import EngineSpec, Policy, version_key
from .flags import BF16
from .host import Group
from .kv_cache import Layout, Setting
from .lora import slots_gib
from .memory import (
    GIB,
    Experts,
    Footprint,
    Parallel,
    balanced_cut,
    blocks,
    ends_bytes,
    even_cut,
    footprint,
    stage_bytes,
    stages_of,
    weights_by_stage,
)
from .overhead import Step, captured_sizes, overhead_gib
from .request import InstanceRequest
from .splits import OFFERED, problem
from .tasks import GENERATE

#: vLLM's step size for small GPUs, which frees activation memory.
SMALL_STEP = 2048
FP8_CACHE = "8.9"
#: max-num-seqs that the planner chooses are multiples of this.
SEQUENCES = 8
#: Older GPUs compute in FP16.
BFLOAT16 = "8.0"
#: The major compute capability of data-centre Blackwell, on which CUDA graphs of larger steps are captured.
BLACKWELL = 10
CAPTURED_BY_BLACKWELL = 1024


@dataclass(frozen=True)
class Choice:
    """A layout that fits: how to serve one model."""

    spread: Parallel
    replicas: int
    kv_dtype: str
    batched_tokens: int | None  # None: vLLM's default
    context: int
    fit: Footprint
    usable_gib: float
    sequences: int | None = None  # max-num-seqs; None: vLLM's default, or the user's

    @property
    def gpus(self) -> int:
        """GPUs of all replicas, on one node."""
        return self.spread.on_a_node * self.replicas

    @property
    def kv_share(self) -> float:
        """The share of the usable memory that is KV cache."""
        return self.fit.kv_gib / self.usable_gib

    def __str__(self) -> str:
        text = str(self.spread) + (f" x {self.replicas} replicas" if self.replicas > 1 else "")
        text += ", KV cache in FP8" if self.kv_dtype.startswith("fp8") else ""
        return text + (f", steps of {self.batched_tokens} tokens" if self.batched_tokens else "")


@dataclass(frozen=True)
class Rejected:
    """A layout that was not chosen."""

    choice: str
    reason: str
    gain: str = ""  # its advantage, if it fits


@dataclass(frozen=True)
class Options:
    """All layouts of one model on a number of identical GPUs: those that fit, best first, and the rejected ones."""

    fitting: tuple[Choice, ...]
    rejected: tuple[Rejected, ...]
    nearest: tuple[Footprint, Parallel] | None = (
        None  # among those that do not fit, the one with the smallest shortfall
    )

    @property
    def best(self) -> Choice | None:
        """The best for the objective; None if none fits."""
        return self.fitting[0] if self.fitting else None


@dataclass(frozen=True)
class Candidate:
    """A request on a group of GPUs, with the engine and the policy that decide whether it fits."""

    request: InstanceRequest
    group: Group
    engine: EngineSpec
    policy: Policy

    @property
    def utilization(self) -> float:
        """The share of a GPU's memory that vLLM may use."""
        planned = min(self.engine.gpu_memory_utilization, self.group.spec.most)
        whole = self.request.gpu_memory_utilization or planned
        share = self.request.gpu_share
        return math.floor(whole * share * 10000 + 1e-6) / 10000 if isinstance(share, float) else whole

    @property
    def usable_gib(self) -> float:
        """GiB of one GPU that vLLM may use."""
        return self.group.total_gib * self.utilization

    @property
    def default_step(self) -> int:
        """max-num-batched-tokens: the user's, else vLLM's default on this GPU."""
        default = self.engine.batched_tokens(self.group.total_gib, self.group.name)
        if self.request.whole_prompts:
            default = max(default, self.request.max_model_len or self.request.model.context)
        return self.request.batched_tokens or default

    def step(self, tokens: int, replicas: int = 1) -> Step:
        """A full step of so many tokens, with as many sequences as the user or vLLM allows."""
        default = self.engine.batch_default(self.group.total_gib, self.group.name).sequences
        setting = self.request.option("max-num-seqs")
        sequences = min(tokens, setting if isinstance(setting, int) else default)
        return Step(tokens, sequences, replicas, self._sizes(sequences))

    def _sizes(self, sequences: int) -> int:
        """How many sizes of a step are captured in CUDA graphs (config/vllm.py, _set_cudagraph_sizes)."""
        if self.request.option("enforce-eager", False):
            return 0
        proposed = self.request.speculative.tokens if self.request.speculative else 0
        setting = self.request.option("max-cudagraph-capture-size")
        if isinstance(setting, int):
            return captured_sizes(setting)
        blackwell = version_key(self.group.spec.compute_capability)[0] == BLACKWELL
        most = CAPTURED_BY_BLACKWELL if blackwell else self.request.model.sized.captured
        sizes = captured_sizes(min(2 * sequences * (1 + proposed), most))
        # With a draft, steps that check what it proposed have a series of their own.
        return 2 * sizes if proposed else sizes

    def replicas(self, spread: Parallel, budget: int) -> int:
        """The requested number of replicas, else as many as fit; an engine over several nodes has none beside it."""
        return self.request.dp or (budget // spread.gpus if spread.nodes == 1 else 1)


def _nodes(candidate: Candidate) -> int:
    """Over how many nodes it runs."""
    return candidate.request.nodes or 1


def _widths(candidate: Candidate, budget: int) -> list[int]:
    """The user's width, else each that the GPUs suffice for; the least of them where they suffice for none."""
    request = candidate.request
    widest = budget * _nodes(candidate) // ((request.dp or 1) * max(request.pp or 1, _nodes(candidate)))
    return [request.tp] if request.tp else list(range(1, max(1, widest) + 1))


def _depths(candidate: Candidate, tp: int, budget: int) -> list[int]:
    if _nodes(candidate) > 1:
        return []
    deepest = min(budget // (tp * (candidate.request.dp or 1)), candidate.request.model.sized.layers)
    return [candidate.request.pp] if candidate.request.pp else list(range(2, deepest + 1))


def _kv_dtypes(candidate: Candidate) -> list[str]:
    if candidate.request.kv_cache_dtype:
        return [candidate.request.kv_cache_dtype]
    model = candidate.request.model
    # Sparse attention has no kernel for a plain FP8 cache on Hopper, and a checkpoint may want FP8 by itself.
    only = model.sized.is_sparse or model.cache_dtype
    return ["auto"] if only or not candidate.group.has(FP8_CACHE) else ["auto", "fp8"]


def _steps(candidate: Candidate) -> list[int | None]:
    smaller = candidate.default_step > SMALL_STEP and not candidate.request.batched_tokens
    if candidate.request.whole_prompts:
        smaller = smaller and (candidate.request.max_model_len or candidate.request.model.context) <= SMALL_STEP
    return [None, SMALL_STEP] if smaller else [None]


def lowest_context(candidate: Candidate) -> int:
    """The shortest acceptable context: the requested one, else the policy's minimum."""
    return candidate.request.max_model_len or min(candidate.policy.min_context, candidate.request.model.context)


def context_for(candidate: Candidate, layout: Layout, held: int) -> int:
    """The context that so many blocks of KV cache allow; 0 if it is too short."""
    if candidate.request.max_model_len:
        # An encoder takes no blocks, and none are held.
        enough = layout.blocks(candidate.request.max_model_len) <= max(held, 0)
        return candidate.request.max_model_len if enough else 0
    full = candidate.request.model.context
    safe = layout.longest(held - _margin(candidate, layout, held), full)
    step = candidate.policy.context_step if safe >= candidate.policy.context_step else candidate.engine.block_size
    offered = full if safe >= full else safe // step * step
    return offered if offered >= lowest_context(candidate) else 0


def layouts(candidate: Candidate, spread: Parallel, kv_dtype: str, step: int) -> list[Layout]:
    """The layout of the KV cache on each pipeline stage of ``stages_of``."""
    request, model = candidate.request, candidate.request.cached_model
    setting = Setting(
        tp=spread.tp,
        fp8=(kv_dtype if kv_dtype != "auto" else model.cache_dtype).startswith("fp8"),
        block=candidate.engine.block_size,
        step=step,
        in_flight=step * _batches(request, spread),
        capability=version_key(candidate.group.spec.compute_capability),
        prefix_caching=bool(request.option("enable-prefix-caching", True)),
        hybrid_manager=not request.option("disable-hybrid-kv-cache-manager", False),
    )
    if spread.pp == 1:
        return [model.layout(setting)]
    return [model.layout(replace(setting, layers=stage)) for stage in stages_of(candidate.request.model, spread)]


def _margin(candidate: Candidate, layout: Layout, held: int) -> int:
    """Blocks that an offered context leaves free: with one that is a little too long the engine does not start."""
    sized, policy = candidate.request.model.sized, candidate.policy
    error = policy.mixed_overhead_error_gib if sized.mixture or sized.has_states else 0.0
    of_overhead = error * GIB / layout.block_bytes if layout.block_bytes else 0
    return math.ceil(max(held * policy.calibration_error, of_overhead))


def sequences_for(candidate: Candidate, layout: Layout, held: int) -> int | None:
    """How many requests at once, where a cache with states has fewer blocks than vLLM's default; None: the default.

    vLLM does not start where max-num-seqs exceeds the blocks of such a cache.
    """
    default = candidate.engine.batch_default(candidate.group.total_gib, candidate.group.name).sequences
    safe = held - _margin(candidate, layout, held)
    if candidate.request.option("max-num-seqs") or safe >= default or not layout.has_states:
        return None
    return max(1, safe // SEQUENCES * SEQUENCES)


def _batches(request: InstanceRequest, spread: Parallel) -> int:
    """Batches that run at once: one for each stage, and one more that is prepared for generating models."""
    ahead = request.option("async-scheduling", True) and request.task == GENERATE
    return spread.pp + 1 if ahead else spread.pp


def experts_of(candidate: Candidate, spread: Parallel, replicas: int) -> Experts:
    """How experts are split: over all replicas, whole with expert parallelism and in shares without it."""
    gpus = spread.tp * replicas
    if candidate.request.expert_parallel(spread.tp, replicas):
        return Experts(over=gpus)
    return Experts(cut=gpus)


def evaluate(
    candidate: Candidate, spread: Parallel, budget: int, kv_dtype: str, step: int | None
) -> Choice | Footprint:
    """Evaluate one layout: a choice if it fits, else the footprint that shows why not.

    Replicas share the experts of a mixture, so together they may fit where none does alone. That is for who asks for it
    (data_parallel_size): each waits for the others in every layer.
    """
    replicas = candidate.replicas(spread, budget)
    if candidate.request.model.sized.mixture and replicas > 1 and not candidate.request.dp:
        alone = _with_replicas(candidate, spread, 1, kv_dtype, step)
        if isinstance(alone, Footprint):
            return alone
    outcome = _with_replicas(candidate, spread, replicas, kv_dtype, step)
    if spread.nodes == 1 or spread.cut or _context_of(outcome) >= candidate.request.model.context:
        return outcome
    # vLLM's own stages allow less than the whole context: others may allow more.
    other = _uneven(candidate, spread, kv_dtype)
    uneven = _with_replicas(candidate, other, replicas, kv_dtype, step) if other else outcome
    return uneven if _context_of(uneven) > _context_of(outcome) else outcome


def _context_of(outcome: Choice | Footprint) -> int:
    return outcome.context if isinstance(outcome, Choice) else 0


def _uneven(candidate: Candidate, spread: Parallel, kv_dtype: str) -> Parallel | None:
    """The stages that take about the same memory each; None where vLLM's own are these."""
    model, experts = candidate.request.model, experts_of(candidate, spread, 1)
    layers = model.sized.layers
    step = lowest_context(candidate)
    (whole,) = layouts(candidate, Parallel(spread.tp), kv_dtype, 1)
    room = whole.token_bytes * step / layers
    costs = [stage_bytes(model.stored, spread.tp, experts, (layer, layer + 1)) + room for layer in range(layers)]
    costs[0] += ends_bytes(model, spread.tp, experts, first=True, last=False)
    costs[-1] += ends_bytes(model, spread.tp, experts, first=False, last=True)
    cut = balanced_cut(costs, spread.pp)
    return None if cut == even_cut(layers, spread.pp) else replace(spread, cut=cut)


def _with_replicas(
    candidate: Candidate, spread: Parallel, replicas: int, kv_dtype: str, step: int | None
) -> Choice | Footprint:
    """Evaluate one layout with so many replicas."""
    model, tokens = candidate.request.model, step or candidate.default_step
    overhead = overhead_gib(model, spread, candidate.step(tokens, replicas), candidate.engine, candidate.policy)
    experts = experts_of(candidate, spread, replicas)
    draft = speculation.weights_gib(candidate.request, spread, experts)
    overhead += slots_gib(candidate.request, spread, experts)
    overhead += speculation.step_gib(candidate.request, candidate.step(tokens, replicas), candidate.policy)
    each = zip(weights_by_stage(model, spread, experts), layouts(candidate, spread, kv_dtype, tokens))
    stages = (_stage(candidate, weights + draft, overhead, layout) for weights, layout in each)
    # The tightest stage decides.
    context, fit, sequences = min(stages, key=lambda stage: (stage[0], stage[1].kv_tokens, stage[1].kv_gib))
    if not context:
        return fit
    return Choice(spread, replicas, kv_dtype, step, context, fit, candidate.usable_gib, sequences)


def _stage(candidate: Candidate, weights: float, overhead: float, layout: Layout) -> tuple[int, Footprint, int | None]:
    """The context that a stage allows, 0 for none; its memory; and how many requests at once."""
    kv_gib = candidate.usable_gib - weights - overhead
    # The engine keeps one block for itself.
    context = context_for(candidate, layout, blocks(kv_gib, layout) - 1) if kv_gib > 0 else 0
    fit = footprint(weights, overhead, candidate.usable_gib, layout, context or lowest_context(candidate))
    return context, fit, sequences_for(candidate, layout, blocks(kv_gib, layout))


def _problem(candidate: Candidate, spread: Parallel, budget: int) -> str:
    """Why a spread is impossible regardless of memory; "" if it is possible."""
    model = candidate.request.model
    needed = spread.on_a_node * (candidate.request.dp or 1)
    staged = spread.pp > 1 and (
        node_group.stage_problem(candidate.request, spread) or speculation.staged(candidate.request)
    )
    if staged or (staged := node_group.across(spread, budget)):
        return staged
    if needed > budget:
        replicas = f" x {candidate.request.dp} replicas" if (candidate.request.dp or 1) > 1 else ""
        are = "is" if budget == 1 else f"{candidate.group.name} are"
        each = " on each of them" if spread.nodes > 1 else ""
        return f"{spread}{replicas} needs {needed} GPUs{each}, {budget} {are} available"
    cut = experts_of(candidate, spread, candidate.replicas(spread, budget)).cut
    reason = problem(model.sized, model.stored, spread.tp, cut)
    if reason and candidate.request.tp:
        reason += f"; widths that work: {', '.join(map(str, _working_widths(candidate)))}"
    return reason or ""


def _working_widths(candidate: Candidate) -> list[int]:
    """The widths of one replica that cut through nothing."""
    model = candidate.request.model
    cuts = ((tp, experts_of(candidate, Parallel(tp), 1).cut) for tp in OFFERED)
    return [tp for tp, cut in cuts if problem(model.sized, model.stored, tp, cut) is None]


def _without_stages(candidate: Candidate, budget: int) -> list[Parallel]:
    """Spreads without pipeline stages, unless the user requested stages; over several nodes, with a stage on each."""
    pp, nodes = candidate.request.pp or _nodes(candidate), _nodes(candidate)
    return [_cut(candidate, Parallel(tp, pp, nodes)) for tp in _widths(candidate, budget)]


def _cut(candidate: Candidate, spread: Parallel) -> Parallel:
    """The spread with the layers of each stage that the user sets."""
    cut = node_group.cut_of(candidate.request.variables) if spread.pp > 1 else ()
    return replace(spread, cut=cut) if cut else spread


def _with_stages(candidate: Candidate, budget: int) -> list[Parallel]:
    """Spreads with pipeline stages. Stages wait for each other, so they are the last resort."""
    if candidate.request.pp:
        return []
    each = (Parallel(tp, pp) for tp in _widths(candidate, budget) for pp in _depths(candidate, tp, budget))
    return [_cut(candidate, spread) for spread in each]


def shortfall(candidate: Candidate, fit: Footprint) -> str:
    """Why a footprint does not fit, in GiB per GPU."""
    if fit.kv_gib <= 0:
        return (
            f"{fit.weights_gib:.1f} GiB of weights and {fit.overhead_gib:.1f} GiB of overhead per GPU, "
            f"{candidate.usable_gib:.1f} GiB of each are usable "
            f"({candidate.group.total_gib:.1f} GiB x {candidate.utilization:g})"
        )
    return (
        f"{fit.kv_gib:.1f} GiB per GPU are left for KV cache, which holds {fit.kv_tokens} tokens; "
        f"{lowest_context(candidate)} are needed"
    )


def tier(choice: Choice, candidate: Candidate) -> int:
    """Rank of compromises: 0 none, 1 smaller steps, 2 FP8 cache not requested, 3 pipeline stages not requested."""
    if choice.spread.pp > choice.spread.nodes and not candidate.request.pp:
        return 3
    if choice.kv_dtype != "auto" and not candidate.request.kv_cache_dtype:
        return 2
    return 1 if choice.batched_tokens else 0


def _throughput(choice: Choice, candidate: Candidate) -> tuple[Any, ...]:
    roomy = choice.kv_share >= candidate.policy.kv_share
    return (tier(choice, candidate), not roomy, choice.spread.gpus if roomy else -choice.kv_share, choice.spread.pp)


def _latency(choice: Choice, candidate: Candidate) -> tuple[Any, ...]:
    crossing = choice.spread.tp > candidate.group.spec.nvlink_domain > 1
    return (tier(choice, candidate), crossing, -choice.spread.tp, choice.spread.pp)


def _context(choice: Choice, candidate: Candidate) -> tuple[Any, ...]:
    return (-choice.context, tier(choice, candidate), choice.spread.gpus, -choice.fit.kv_tokens)


def _of_nodes(choice: Choice, candidate: Candidate) -> tuple[Any, ...]:
    """Over several nodes: all GPUs of each, as wide as they go."""
    context = -choice.context if candidate.request.objective == "context" else 0
    return (context, tier(choice, candidate), -choice.spread.tp)


RANKS: dict[str, Callable[[Choice, Candidate], tuple[Any, ...]]] = {
    "throughput": _throughput,
    "latency": _latency,
    "context": _context,
}


def _why_not(choice: Choice, best: Choice, candidate: Candidate) -> str:
    """Why a layout that fits was not chosen."""
    room = f"{choice.fit.kv_tokens} tokens of KV cache per replica and a context of {choice.context}"
    if candidate.request.objective == "context":
        return f"{room}; the chosen one reaches {best.context} with the fewest GPUs and the best precision that do"
    if tier(choice, candidate) > tier(best, candidate):
        return f"{room}, but {TIERS[tier(choice, candidate)]}"
    if choice.spread.nodes > 1:
        return f"{room}, and leaves GPUs of each node idle"
    if candidate.request.objective == "latency":
        return f"a single answer is slower than with {best.spread}"
    if choice.kv_share < candidate.policy.kv_share:
        wanted = f"{candidate.policy.kv_share:.0%}"
        return f"leaves {choice.kv_share:.0%} of the usable memory for the KV cache, {wanted} are wanted"
    return f"wider than the model needs: {best} answers more requests on the same GPUs"


def _gain(choice: Choice, best: Choice) -> str:
    """The advantage of a layout that was not chosen."""
    if choice.spread.tp > best.spread.tp:
        return "faster for a single answer"
    room = (choice.context, choice.fit.kv_tokens * choice.replicas)
    return "roomier" if room > (best.context, best.fit.kv_tokens * best.replicas) else ""


TIERS = {
    1: "smaller steps than vLLM's default, which is not necessary",
    2: "at a lower precision, which is not necessary (vllm_kv_cache_dtype: fp8 chooses it)",
    3: "with pipeline stages, which wait for each other and are not necessary",
}


Way = tuple[Parallel, "str | Choice | Footprint", str]


def _ways(candidate: Candidate, budget: int, spreads: list[Parallel]) -> Iterator[Way]:
    """Evaluate each spread in each precision. Yields the spread, the outcome and a label."""
    for spread in spreads:
        problem = _problem(candidate, spread, budget)
        if problem:
            yield spread, problem, str(spread)
            continue
        for kv_dtype in _kv_dtypes(candidate):
            for step in _steps(candidate):
                outcome = evaluate(candidate, spread, budget, kv_dtype, step)
                label = ", KV cache in FP8" if kv_dtype.startswith("fp8") else ""
                yield spread, outcome, f"{spread}{label}"
                if isinstance(outcome, Choice):
                    break  # smaller steps only matter if the default does not fit
            if isinstance(outcome, Footprint) and outcome.kv_gib <= 0:
                break  # the cache's precision cannot help if the weights alone are too large


class _Evaluations:
    """Collects outcomes: those that fit, and those that do not with reasons."""

    def __init__(self) -> None:
        self.fitting: list[Choice] = []
        self.rejected: dict[str, str] = {}
        self.nearest: tuple[Footprint, Parallel] | None = None

    def add(self, candidate: Candidate, budget: int, spreads: list[Parallel]) -> None:
        """Evaluate more spreads."""
        for spread, outcome, label in _ways(candidate, budget, spreads):
            if isinstance(outcome, Choice):
                self.fitting.append(outcome)
                self.rejected.pop(label, None)
                continue
            self.rejected[label] = outcome if isinstance(outcome, str) else shortfall(candidate, outcome)
            if isinstance(outcome, Footprint) and (self.nearest is None or outcome.kv_gib > self.nearest[0].kv_gib):
                self.nearest = (outcome, spread)


def _stages_useless(candidate: Candidate, fitting: list[Choice]) -> bool:
    """Whether pipeline stages cannot improve the objective."""
    if candidate.request.objective != "context":
        return bool(fitting)
    return any(
        choice.context >= (candidate.request.max_model_len or candidate.request.model.context) for choice in fitting
    )


def options(candidate: Candidate, budget: int) -> Options:
    """All layouts on `budget` GPUs of the group, best first."""
    evaluated = _Evaluations()
    evaluated.add(candidate, budget, _without_stages(candidate, budget))
    staged = _with_stages(candidate, budget)
    if staged and _stages_useless(candidate, evaluated.fitting):
        evaluated.rejected["pipeline stages"] = "the model fits without them, and stages wait for each other"
    else:
        evaluated.add(candidate, budget, staged)
    rank = _of_nodes if _nodes(candidate) > 1 else RANKS[candidate.request.objective]
    fitting = sorted(evaluated.fitting, key=lambda choice: rank(choice, candidate))
    others = [Rejected(str(way), _why_not(way, fitting[0], candidate), _gain(way, fitting[0])) for way in fitting[1:]]
    return Options(
        tuple(fitting),
        (*others, *(Rejected(label, reason) for label, reason in evaluated.rejected.items())),
        evaluated.nearest,
    )


def too_old(candidate: Candidate) -> str | None:
    """Why the GPUs cannot compute with this model's weights; None if they can."""
    group, model, engine = candidate.group, candidate.request.model, candidate.engine
    if not group.has(engine.min_compute_capability):
        return (
            f"{group.name} has compute capability {group.spec.compute_capability}, and the images of vLLM "
            f"{engine.version} have kernels for {engine.min_compute_capability} and newer only"
        )
    for stored in model.formats:
        if not group.has(stored.min_compute_capability):
            return (
                f"{group.name} has compute capability {group.spec.compute_capability}, and {stored.title} weights "
                f"need {stored.min_compute_capability} or newer"
            )
    if not group.has(BFLOAT16) and not model.sized.float16:
        return (
            f"{group.name} has compute capability {group.spec.compute_capability} and computes in FP16, which vLLM "
            f"refuses for {model.sized.name}; BF16 needs {BFLOAT16} or newer"
        )
    if not group.has(BFLOAT16) and candidate.request.option("dtype") == BF16:
        return (
            f"{group.name} has compute capability {group.spec.compute_capability}, and BF16 needs {BFLOAT16} or newer: "
            "leave dtype out"
        )
    return None


def weight_only(candidate: Candidate) -> str | None:
    """A warning if the weights are small but the arithmetic is not faster."""
    group = candidate.group
    for stored in candidate.request.model.formats:
        native = stored.native_compute_capability
        if version_key(native) != (0, 0) and not group.has(native):
            return (
                f"{group.name} (compute capability {group.spec.compute_capability}) has no {stored.cores} tensor "
                f"cores: the weights stay in {stored.title} and save memory, the arithmetic runs in "
                f"{'BF16' if group.has(BFLOAT16) else 'FP16'} (Marlin) and gains no speed."
            )
    return None


def half_precision(candidate: Candidate) -> str | None:
    """A warning if the GPUs compute in FP16 what was made for BF16."""
    if candidate.group.has(BFLOAT16):
        return None
    return (
        f"{candidate.group.name} (compute capability {candidate.group.spec.compute_capability}) has no BF16: vLLM "
        "computes in FP16 (dtype: half), whose smaller range may spoil answers of a model made for BF16."
    )
