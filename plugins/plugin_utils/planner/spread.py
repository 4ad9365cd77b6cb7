# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One model on some equal GPUs: every way to spread it, the best one by the objective, and why not the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from .catalog import EngineSpec, Policy, version_key
from .host import Group
from .memory import Footprint, Parallel, footprint, heads_problem, overhead_gib
from .request import InstanceRequest

#: The step size that vLLM itself takes on small GPUs: frees activation memory where every GiB counts.
SMALL_STEP = 2048
FP8_CACHE = "8.9"


@dataclass(frozen=True)
class Choice:
    """One way to serve a model that fits."""

    spread: Parallel
    replicas: int
    kv_dtype: str
    batched_tokens: int | None  # None: vLLM's own default
    context: int
    fit: Footprint
    usable_gib: float

    @property
    def gpus(self) -> int:
        """GPUs of all replicas."""
        return self.spread.gpus * self.replicas

    @property
    def kv_share(self) -> float:
        """The part of the usable memory that is KV cache."""
        return self.fit.kv_gib / self.usable_gib

    def __str__(self) -> str:
        text = str(self.spread) + (f" x {self.replicas} replicas" if self.replicas > 1 else "")
        text += ", KV cache in FP8" if self.kv_dtype.startswith("fp8") else ""
        return text + (f", steps of {self.batched_tokens} tokens" if self.batched_tokens else "")


@dataclass(frozen=True)
class Rejected:
    """One way that was not taken."""

    choice: str
    reason: str
    gain: str = ""  # what it would be better at, where it fits


@dataclass(frozen=True)
class Options:
    """All ways to serve one model on a number of equal GPUs: those that fit, best first, and those that do not."""

    fitting: tuple[Choice, ...]
    rejected: tuple[Rejected, ...]
    nearest: tuple[Footprint, Parallel] | None = None  # of those that do not fit, the one that lacks least

    @property
    def best(self) -> Choice | None:
        """What the objective prefers."""
        return self.fitting[0] if self.fitting else None


@dataclass(frozen=True)
class Bench:
    """What a choice is judged against: the wish, the GPUs, the engine's arithmetic, the planner's rules."""

    wish: InstanceRequest
    group: Group
    engine: EngineSpec
    policy: Policy

    @property
    def utilization(self) -> float:
        """The share of a GPU that may be used."""
        return self.wish.gpu_memory_utilization or self.engine.gpu_memory_utilization

    @property
    def usable_gib(self) -> float:
        """What vLLM asks for at its start, of one GPU."""
        return self.group.total_gib * self.utilization

    @property
    def default_step(self) -> int:
        """max-num-batched-tokens: the user's own, else vLLM's own on this GPU."""
        return self.wish.batched_tokens or self.engine.batched_tokens(self.group.total_gib, self.group.name)

    def replicas(self, spread: Parallel, budget: int) -> int:
        """As many as there is room for, or as asked."""
        return self.wish.dp or budget // spread.gpus


def _widths(bench: Bench, budget: int) -> list[int]:
    return [bench.wish.tp] if bench.wish.tp else list(range(1, budget + 1))


def _depths(bench: Bench, tp: int, budget: int) -> list[int]:
    deepest = min(budget // tp, bench.wish.model.shapes.num_hidden_layers)
    return [bench.wish.pp] if bench.wish.pp else list(range(2, deepest + 1))


def _kv_dtypes(bench: Bench) -> list[str]:
    if bench.wish.kv_cache_dtype:
        return [bench.wish.kv_cache_dtype]
    return ["auto", "fp8"] if bench.group.has(FP8_CACHE) else ["auto"]


def _steps(bench: Bench) -> list[int | None]:
    smaller = bench.default_step > SMALL_STEP and not bench.wish.batched_tokens
    return [None, SMALL_STEP] if smaller else [None]


def lowest_context(bench: Bench) -> int:
    """The context under which a plan is no use: what was asked for, else the policy's floor."""
    return bench.wish.max_model_len or min(bench.policy.min_context, bench.wish.model.context)


def context_for(bench: Bench, tokens: int) -> int:
    """The context to offer in a cache of so many tokens; 0 where it is too little."""
    block = bench.engine.block_size
    if bench.wish.max_model_len:
        needed = -(-bench.wish.max_model_len // block) * block
        return bench.wish.max_model_len if tokens >= needed else 0
    safe = int(tokens * (1 - bench.policy.calibration_error))
    full = bench.wish.model.context
    step = bench.policy.context_step if safe >= bench.policy.context_step else block
    offered = full if safe >= full else safe // step * step
    return offered if offered >= lowest_context(bench) else 0


def evaluate(bench: Bench, spread: Parallel, budget: int, kv_dtype: str, step: int | None) -> Choice | Footprint:
    """One way: a choice where it fits, else the footprint that shows why not."""
    overhead = overhead_gib(bench.wish.model, spread, step or bench.default_step, bench.engine, bench.policy)
    fit = footprint(bench.wish.model, spread, kv_dtype, bench.usable_gib, overhead, bench.engine.block_size)
    context = context_for(bench, fit.kv_tokens)
    if not context:
        return fit
    return Choice(spread, bench.replicas(spread, budget), kv_dtype, step, context, fit, bench.usable_gib)


def _problem(bench: Bench, spread: Parallel, budget: int) -> str:
    """What is wrong with a spread before any memory is counted; "" for nothing."""
    shapes = bench.wish.model.shapes
    needed = spread.gpus * (bench.wish.dp or 1)
    if spread.pp > shapes.num_hidden_layers:
        return f"{shapes.num_hidden_layers} layers cannot be split into {spread.pp} stages"
    if needed > budget:
        replicas = f" x {bench.wish.dp} replicas" if bench.wish.dp else ""
        return f"{spread}{replicas} takes {needed} GPUs, {budget} are there"
    return heads_problem(shapes, spread.tp) or ""


def _flat(bench: Bench, budget: int) -> list[Parallel]:
    """Without pipeline stages, unless they were asked for."""
    return [Parallel(tp, bench.wish.pp or 1) for tp in _widths(bench, budget)]


def _deep(bench: Bench, budget: int) -> list[Parallel]:
    """With pipeline stages: they wait for each other, so they are for what does not fit without."""
    if bench.wish.pp:
        return []
    return [Parallel(tp, pp) for tp in _widths(bench, budget) for pp in _depths(bench, tp, budget)]


def lack(bench: Bench, fit: Footprint) -> str:
    """Why a footprint does not fit, in GiB per GPU."""
    if fit.kv_gib <= 0:
        return (
            f"{fit.weights_gib:.1f} GiB of weights and {fit.overhead_gib:.1f} GiB of overhead per GPU, "
            f"{bench.usable_gib:.1f} GiB of each are usable ({bench.group.total_gib:.1f} GiB x {bench.utilization:g})"
        )
    return (
        f"{fit.kv_gib:.1f} GiB per GPU are left for KV cache, which holds {fit.kv_tokens} tokens; "
        f"{lowest_context(bench)} are needed"
    )


def _tier(choice: Choice, bench: Bench) -> int:
    """0 as published; then smaller steps; then FP8 cache where nobody asked for it; then pipeline stages."""
    if choice.spread.pp > 1 and not bench.wish.pp:
        return 3
    if choice.kv_dtype != "auto" and not bench.wish.kv_cache_dtype:
        return 2
    return 1 if choice.batched_tokens else 0


def _throughput(choice: Choice, bench: Bench) -> tuple[Any, ...]:
    roomy = choice.kv_share >= bench.policy.kv_share
    return (_tier(choice, bench), not roomy, choice.spread.gpus if roomy else -choice.kv_share, choice.spread.pp)


def _latency(choice: Choice, bench: Bench) -> tuple[Any, ...]:
    crossing = choice.spread.tp > bench.group.spec.nvlink_domain > 1
    return (_tier(choice, bench), crossing, -choice.spread.tp, choice.spread.pp)


def _context(choice: Choice, bench: Bench) -> tuple[Any, ...]:
    return (-choice.context, _tier(choice, bench), choice.spread.gpus, -choice.fit.kv_tokens)


RANKS: dict[str, Callable[[Choice, Bench], tuple[Any, ...]]] = {
    "throughput": _throughput,
    "latency": _latency,
    "context": _context,
}


def _gone(choice: Choice, best: Choice, bench: Bench) -> str:
    """Why a way that fits is not the one that was taken."""
    room = f"{choice.fit.kv_tokens} tokens of KV cache per replica and a context of {choice.context}"
    if bench.wish.objective == "context":
        return f"{room}; the chosen one reaches {best.context} with the fewest GPUs and the best precision that do"
    if _tier(choice, bench) > _tier(best, bench):
        return f"{room}, but {TIERS[_tier(choice, bench)]}"
    if bench.wish.objective == "latency":
        return f"a single answer is slower than with {best.spread}"
    if choice.kv_share < bench.policy.kv_share:
        wanted = f"{bench.policy.kv_share:.0%}"
        return f"leaves {choice.kv_share:.0%} of the usable memory to the KV cache, {wanted} are wanted"
    return f"wider than the model needs: {best} answers more requests on the same GPUs"


def _gain(choice: Choice, best: Choice) -> str:
    """What a way that was not taken would be better at."""
    if choice.spread.tp > best.spread.tp:
        return "faster for a single answer"
    room = (choice.context, choice.fit.kv_tokens * choice.replicas)
    return "roomier" if room > (best.context, best.fit.kv_tokens * best.replicas) else ""


TIERS = {
    1: "smaller steps than vLLM's own, which nothing demands here",
    2: "at a lower precision, which nothing demands here (vllm_kv_cache_dtype: fp8 takes it)",
    3: "with pipeline stages, which wait for each other and which nothing demands here",
}


Way = tuple[Parallel, "str | Choice | Footprint", str]


def _ways(bench: Bench, budget: int, spreads: list[Parallel]) -> Iterator[Way]:
    """Each spread in each precision, with its outcome and how it is called."""
    for spread in spreads:
        problem = _problem(bench, spread, budget)
        if problem:
            yield spread, problem, str(spread)
            continue
        for kv_dtype in _kv_dtypes(bench):
            for step in _steps(bench):
                outcome = evaluate(bench, spread, budget, kv_dtype, step)
                named = ", KV cache in FP8" if kv_dtype.startswith("fp8") else ""
                yield spread, outcome, f"{spread}{named}"
                if isinstance(outcome, Choice):
                    break  # smaller steps are for where the default does not fit
            if isinstance(outcome, Footprint) and outcome.kv_gib <= 0:
                break  # no precision of the cache helps where the weights alone are too large


class _Sieve:
    """Sorts outcomes into those that fit and those that do not."""

    def __init__(self) -> None:
        self.fitting: list[Choice] = []
        self.rejected: dict[str, str] = {}
        self.nearest: tuple[Footprint, Parallel] | None = None

    def take(self, bench: Bench, budget: int, spreads: list[Parallel]) -> None:
        """Judge some more spreads."""
        for spread, outcome, named in _ways(bench, budget, spreads):
            if isinstance(outcome, Choice):
                self.fitting.append(outcome)
                self.rejected.pop(named, None)
                continue
            self.rejected[named] = outcome if isinstance(outcome, str) else lack(bench, outcome)
            if isinstance(outcome, Footprint) and (self.nearest is None or outcome.kv_gib > self.nearest[0].kv_gib):
                self.nearest = (outcome, spread)


def _reached(bench: Bench, fitting: list[Choice]) -> bool:
    """Whether pipeline stages could add nothing to the objective."""
    if bench.wish.objective != "context":
        return bool(fitting)
    return any(choice.context >= (bench.wish.max_model_len or bench.wish.model.context) for choice in fitting)


def options(bench: Bench, budget: int) -> Options:
    """All ways on so many GPUs of the group, best first."""
    sieve = _Sieve()
    sieve.take(bench, budget, _flat(bench, budget))
    deep = _deep(bench, budget)
    if deep and _reached(bench, sieve.fitting):
        sieve.rejected["pipeline stages"] = "the model fits without them, and they wait for each other"
    else:
        sieve.take(bench, budget, deep)
    rank = RANKS[bench.wish.objective]
    fitting = sorted(sieve.fitting, key=lambda choice: rank(choice, bench))
    others = [Rejected(str(way), _gone(way, fitting[0], bench), _gain(way, fitting[0])) for way in fitting[1:]]
    return Options(
        tuple(fitting),
        (*others, *(Rejected(named, reason) for named, reason in sieve.rejected.items())),
        sieve.nearest,
    )


def too_old(bench: Bench) -> str | None:
    """Why these GPUs cannot compute with this model's weights at all."""
    stored = bench.wish.model.weights
    if bench.group.has(stored.min_compute_capability):
        return None
    return (
        f"{bench.group.name} has compute capability {bench.group.spec.compute_capability}, and {stored.title} weights "
        f"need {stored.min_compute_capability} or newer"
    )


def weight_only(bench: Bench) -> str | None:
    """A warning where the weights are smaller but the arithmetic is not faster."""
    stored = bench.wish.model.weights
    if version_key(stored.native_compute_capability) == (0, 0) or bench.group.has(stored.native_compute_capability):
        return None
    return (
        f"{bench.group.name} (compute capability {bench.group.spec.compute_capability}) has no FP8 tensor cores: the "
        "weights stay in FP8 and save memory, the arithmetic runs in BF16 (Marlin) and gains no speed."
    )
