# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner's sentences about what does not fit: what is there, what is needed, what would work instead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ...module_utils.programs.gpu import Gpu
from .catalog import Catalog, EngineSpec, GpuSpec, ModelSpec
from .host import Group, Host, spec_of
from .memory import GIB, weights_bytes
from .request import InstanceRequest
from .spread import Bench, Choice, lack, lowest_context, options, too_old

#: Sizes that hosts are sold in, and numbers of hosts that are worth a hint.
HOST_SIZES = (1, 2, 4, 8)
NODES = (2, 3, 4)


@dataclass(frozen=True)
class Advice:
    """What is known when something else must be found."""

    engine: EngineSpec
    catalog: Catalog

    def best(self, wish: InstanceRequest, group: Group) -> Choice | None:
        """What would be chosen for a wish on a group, alone."""
        bench = self.bench(wish, group)
        return None if too_old(bench) else options(bench, len(group.indices)).best

    def bench(self, wish: InstanceRequest, group: Group) -> Bench:
        """What a wish is judged against."""
        return Bench(wish, group, wish.engine or self.engine, self.catalog.policy)

    def host(self, spec: GpuSpec, count: int) -> Group:
        """A host that is not there: so many GPUs of a kind."""
        gpu = Gpu(0, spec.names[0], memory_mib=spec.memory_mib, compute_capability=spec.compute_capability)
        return Group(spec_of(gpu, self.catalog) or spec, tuple(range(count)))


def weight_text(model: ModelSpec) -> str:
    """131.4 GiB of BF16 weights."""
    stored = model.weights
    kind = stored.title if stored.title.endswith("weights") else f"{stored.title} weights"
    return f"{weights_bytes(model) / GIB:.1f} GiB of {kind}"


def unbound(wish: InstanceRequest) -> InstanceRequest:
    """The same wish without its numbers, which were made for another host."""
    return replace(wish, tp=None, pp=None, dp=None, gpu_indices=None)


def _shown(choice: Choice, group: Group, full: int) -> str:
    shorter = f", context {choice.context}" if choice.context < full else ""
    return f"{group.title} ({choice.spread}{shorter})"


def more_of(wish: InstanceRequest, group: Group, advice: Advice) -> str | None:
    """More of the GPUs that are there, in one host."""
    for count in (size for size in HOST_SIZES if size > len(group.indices)):
        wider = advice.host(group.spec, count)
        best = advice.best(unbound(wish), wider)
        if best:
            return _shown(best, wider, wish.model.context)
    return None


def nodes_needed(wish: InstanceRequest, group: Group, advice: Advice) -> tuple[int, Choice] | None:
    """How many hosts of this kind hold the model: tensor parallel within, pipeline stages across."""
    count = len(group.indices)
    for nodes in NODES:
        spread = replace(unbound(wish), tp=count, pp=nodes)
        best = advice.best(spread, replace(group, indices=tuple(range(count * nodes))))
        if best:
            return nodes, best
    return None


def other_gpus(wish: InstanceRequest, than: Group | None, advice: Advice) -> Iterator[str]:
    """The smallest host of each other kind in the catalogue that gives the full context."""
    for spec in advice.catalog.gpus.values():
        if than is not None and spec.key == than.spec.key:
            continue
        for count in sorted(spec.matrix_counts):
            host = advice.host(spec, count)
            best = advice.best(unbound(wish), host)
            if best and best.context >= (wish.max_model_len or wish.model.context):
                yield _shown(best, host, wish.model.context)
                break


def siblings(model: ModelSpec, catalog: Catalog) -> list[ModelSpec]:
    """The same shapes in smaller weights, the largest first."""
    same = [
        other
        for other in catalog.models.values()
        if other.shapes == model.shapes and weights_bytes(other) < weights_bytes(model)
    ]
    return sorted(same, key=lambda other: (-weights_bytes(other), other.key))


def _other_models(wish: InstanceRequest, group: Group, advice: Advice) -> list[str]:
    """Models that fit what is there: the same one in smaller weights, else the largest others."""

    def fitting(models: Sequence[ModelSpec]) -> list[str]:
        found = []
        for model in models:
            best = advice.best(replace(unbound(wish), model=model, max_model_len=None), group)
            if best:
                shorter = f" (context {best.context})" if best.context < model.context else ""
                found.append(f"{model.key}{shorter}")
        return found[:3]

    served = [model for model in advice.catalog.models.values() if model.in_matrix and model.key != wish.model.key]
    by_size = sorted(served, key=lambda model: (-weights_bytes(model), model.key))
    return fitting(siblings(wish.model, advice.catalog)) or fitting(by_size)


def _own_choice(wish: InstanceRequest, group: Group, advice: Advice) -> str:
    """What the planner would do here if it were not told numbers that do not fit."""
    free = replace(unbound(wish), max_model_len=None, kv_cache_dtype=None, gpu_memory_utilization=None)
    best = None if free == wish else advice.best(free, group)
    return f" With the planner's own numbers it fits: {best}, context {best.context}." if best else ""


def _works(wish: InstanceRequest, group: Group, advice: Advice) -> str:
    """What would fit instead: other hosts for this model, other models for this host."""
    hosts = [text for text in (more_of(wish, group, advice),) if text]
    full = advice.host(group.spec, max(HOST_SIZES))
    found = None if hosts else nodes_needed(wish, full, advice)
    if found:
        hosts.append(f"{found[0]} nodes of {full.title} ({found[1].spread})")
    hosts += list(other_gpus(wish, group, advice))[: 3 - len(hosts)]
    models = _other_models(wish, group, advice)
    text = f" It fits {' or '.join(hosts)}." if hosts else ""
    return text + (f" What fits {group.title}: {', '.join(models)}." if models else "")


def _why(wish: InstanceRequest, group: Group, advice: Advice) -> str:
    """Why nothing fits on one group."""
    bench = advice.bench(wish, group)
    old = too_old(bench)
    if old:
        return f"{old}."
    ways = options(bench, len(group.indices))
    if ways.nearest:
        fit, spread = ways.nearest
        return f"On {group.title} with {spread}: {lack(bench, fit)}."
    return " ".join(dict.fromkeys(f"{way.reason[0].upper()}{way.reason[1:]}." for way in ways.rejected))


def short_why(wish: InstanceRequest, group: Group, advice: Advice) -> str:
    """The same in a few words, for a table."""
    bench = advice.bench(wish, group)
    old = too_old(bench)
    if old:
        return old
    ways = options(bench, len(group.indices))
    if ways.nearest:
        fit, spread = ways.nearest
        if fit.kv_gib > 0:
            return f"{fit.kv_tokens} tokens fit the KV cache with {spread}, {lowest_context(bench)} are needed"
        wanted = fit.weights_gib + fit.overhead_gib
        return f"{wanted:.1f} GiB per GPU are needed with {spread}, {bench.usable_gib:.1f} GiB of each can be used"
    return ways.rejected[0].reason


def does_not_fit(wish: InstanceRequest, groups: Sequence[Group], advice: Advice) -> str:
    """One model, one host, one message."""
    there = " and ".join(group.title for group in groups)
    context = f" with a context of {wish.max_model_len}" if wish.max_model_len else ""
    reasons = " ".join(_why(wish, group, advice) for group in groups)
    own = next((text for group in groups if (text := _own_choice(wish, group, advice))), "")
    head = f"{wish.model.key} ({wish.model.repo_id}, {weight_text(wish.model)}) does not fit {there}{context}."
    return f"{head} {reasons}{own or _works(wish, groups[0], advice)}"


def no_gpus(wish: InstanceRequest, advice: Advice) -> str:
    """A model that wants GPUs on a host that offers none."""
    hosts = list(other_gpus(wish, None, advice))[:3]
    return f"{wish.model.key} ({weight_text(wish.model)}) needs NVIDIA GPUs, for example {' or '.join(hosts)}."


def not_together(needs: Sequence[tuple[InstanceRequest, int]], host: Host, catalog: Catalog) -> str:
    """Models that fit one by one and not all at once."""
    listed = ", ".join(f"{wish.name} at least {count}" for wish, count in needs)
    total = sum(count for _wish, count in needs)
    smaller = [other.key for wish, _count in needs for other in siblings(wish.model, catalog)]
    cure = f", or smaller weights: {', '.join(dict.fromkeys(smaller))}" if smaller else ""
    return (
        f"{' and '.join(wish.name for wish, _count in needs)} do not fit {host.title} together: {listed}, {total} GPUs "
        f"in all. Each fits alone: serve fewer of them here{cure}."
    )


def smaller_that_fits(wish: InstanceRequest, groups: Sequence[Group], advice: Advice) -> InstanceRequest | None:
    """The wish with the largest smaller weights that fit, for who allows that."""
    for model in siblings(wish.model, advice.catalog):
        other = replace(wish, model=model)
        if any(advice.best(other, group) for group in groups):
            return other
    return None
