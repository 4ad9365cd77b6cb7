# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages about models that do not fit: what is available, what is needed, what would fit instead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from ...module_utils.programs.gpu import Gpu
from .catalog import Catalog, EngineSpec, GpuSpec, ModelSpec
from .host import Group, Host, spec_of
from .memory import GIB, shaped_bytes, weights_bytes
from .request import InstanceRequest
from .spread import Candidate, Choice, lowest_context, options, shortfall, too_old

#: GPUs per host to suggest, and numbers of hosts to suggest joining.
HOST_SIZES = (1, 2, 4, 8)
NODES = (2, 3, 4)


@dataclass(frozen=True)
class Advice:
    """Finds alternatives for a model that does not fit."""

    engine: EngineSpec
    catalog: Catalog

    def best(self, request: InstanceRequest, group: Group) -> Choice | None:
        """The best choice for a request that has the group to itself; None if it does not fit."""
        candidate = self.candidate(request, group)
        return None if too_old(candidate) else options(candidate, len(group.indices)).best

    def candidate(self, request: InstanceRequest, group: Group) -> Candidate:
        """The request on this group."""
        return Candidate(request, group, request.engine or self.engine, self.catalog.policy)

    def host(self, spec: GpuSpec, count: int) -> Group:
        """A hypothetical host with `count` GPUs of this type."""
        gpu = Gpu(0, spec.names[0], memory_mib=spec.memory_mib, compute_capability=spec.compute_capability)
        return Group(spec_of(gpu, self.catalog) or spec, tuple(range(count)))


def sentence(reason: str) -> str:
    """A reason as a sentence; a name such as intermediate_size or vLLM stays as it is written."""
    first = reason.partition(" ")[0]
    return f"{reason[:1].upper() if first.isalpha() and first.islower() else reason[:1]}{reason[1:]}."


def weight_text(model: ModelSpec) -> str:
    """Size and format, such as: 131.4 GiB of BF16 weights; as they are in the GPUs, whatever the files have."""
    kind = model.precision if model.precision.endswith("weights") else f"{model.precision} weights"
    return f"{shaped_bytes(model) / GIB:.1f} GiB of {kind}"


def without_layout(request: InstanceRequest) -> InstanceRequest:
    """The request without its layout and GPU indices, which were chosen for another host."""
    return replace(request, tp=None, pp=None, dp=None, nodes=None, gpu_indices=None)


def _described(choice: Choice, group: Group, full: int) -> str:
    shorter = f", context {choice.context}" if choice.context < full else ""
    return f"{group.title} ({choice.spread}{shorter})"


def larger_host(request: InstanceRequest, group: Group, advice: Advice) -> str | None:
    """The smallest larger host with the same GPUs that fits the model."""
    for count in (size for size in HOST_SIZES if len(group.indices) < size <= group.spec.most_in_a_host):
        wider = advice.host(group.spec, count)
        best = advice.best(without_layout(request), wider)
        if best:
            return _described(best, wider, request.model.context)
    return None


def nodes_needed(request: InstanceRequest, group: Group, advice: Advice) -> tuple[int, Choice] | None:
    """How many such hosts fit the model: tensor parallel within a host, pipeline stages across hosts."""
    for nodes in (count for count in NODES if count > (request.nodes or 1)):
        best = advice.best(replace(without_layout(request), nodes=nodes), group)
        if best:
            return nodes, best
    return None


def other_gpus(request: InstanceRequest, than: Group | None, advice: Advice) -> Iterator[str]:
    """For each other GPU type in the catalogue, the smallest host that fits the full context."""
    for spec in advice.catalog.gpus.values():
        if than is not None and spec.key == than.spec.key:
            continue
        for count in sorted(spec.matrix_counts):
            host = advice.host(spec, count)
            best = advice.best(without_layout(request), host)
            if best and best.context >= (request.max_model_len or request.model.context):
                yield _described(best, host, request.model.context)
                break


def _base(model: ModelSpec, catalog: Catalog) -> str:
    """The key of the model of which this one may be a variant; of a repository that the catalogue has, its entry's."""
    if model.folder:
        return model.variant_of or model.key
    repo_id = model.repo_id.casefold()
    known = next(entry for entry in catalog.models.values() if entry.repo_id.casefold() == repo_id)
    return known.variant_of or known.key


def siblings(model: ModelSpec, catalog: Catalog) -> list[ModelSpec]:
    """The same model with smaller weights, largest first. The shapes alone do not tell it from a fine-tune."""
    same = [
        other
        for other in catalog.models.values()
        if not other.missing
        and _base(other, catalog) == _base(model, catalog)
        and other.architecture == model.architecture
        and weights_bytes(other) < weights_bytes(model)
    ]
    return sorted(same, key=lambda other: (-weights_bytes(other), other.key))


def _other_models(request: InstanceRequest, group: Group, advice: Advice) -> list[str]:
    """Up to three models that fit this group: the same one with smaller weights, else the largest others."""

    def fitting(models: Iterable[ModelSpec]) -> Iterator[str]:
        for model in models:
            best = advice.best(replace(without_layout(request), model=model, max_model_len=None), group)
            if best:
                shorter = f" (context {best.context})" if best.context < model.context else ""
                yield f"{model.key}{shorter}"

    known = (model for model in advice.catalog.models.values() if model.in_matrix and not model.missing)
    served = [model for model in known if model.key != request.model.key]
    by_size = sorted(served, key=lambda model: (-weights_bytes(model), model.key))
    same = list(islice(fitting(siblings(request.model, advice.catalog)), 3))
    return same or list(islice(fitting(by_size), 3))


def _planner_choice(request: InstanceRequest, group: Group, advice: Advice) -> str:
    """What the planner would choose without the user's numbers, if that fits."""
    unset = replace(without_layout(request), nodes=request.nodes)
    unset = replace(unset, max_model_len=None, kv_cache_dtype=None, gpu_memory_utilization=None)
    best = None if unset == request else advice.best(unset, group)
    return f" With the planner's own numbers it fits: {best}, context {best.context}." if best else ""


def _alternatives(request: InstanceRequest, group: Group, advice: Advice) -> str:
    """What would fit instead: other hosts for this model, or other models for this host."""
    hosts = [text for text in (larger_host(request, group, advice),) if text]
    full = advice.host(group.spec, min(max(HOST_SIZES), group.spec.most_in_a_host))
    joined = None if hosts else nodes_needed(request, full, advice)
    if joined:
        hosts.append(f"{joined[0]} nodes of {full.title} ({replace(joined[1].spread, nodes=1)})")
    hosts += islice(other_gpus(request, group, advice), 3 - len(hosts))
    models = _other_models(request, group, advice)
    text = f" It fits {' or '.join(hosts)}." if hosts else ""
    return text + (f" Models that fit {group.title}: {', '.join(models)}." if models else "")


def _why(request: InstanceRequest, group: Group, advice: Advice) -> str:
    """Why the model does not fit this group."""
    candidate = advice.candidate(request, group)
    outdated = too_old(candidate)
    if outdated:
        return f"{outdated}."
    ways = options(candidate, len(group.indices))
    if ways.nearest:
        fit, spread = ways.nearest
        return f"On {group.title} with {spread}: {shortfall(candidate, fit)}."
    return " ".join(dict.fromkeys(sentence(way.reason) for way in ways.rejected))


def short_why(request: InstanceRequest, group: Group, advice: Advice) -> str:
    """Why the model does not fit this group, in a few words for a table."""
    candidate = advice.candidate(request, group)
    outdated = too_old(candidate)
    if outdated:
        return outdated
    ways = options(candidate, len(group.indices))
    if ways.nearest:
        fit, spread = ways.nearest
        if fit.kv_gib > 0:
            return f"{fit.kv_tokens} tokens fit the KV cache with {spread}, {lowest_context(candidate)} are needed"
        wanted = fit.weights_gib + fit.overhead_gib
        return f"{wanted:.1f} GiB per GPU are needed with {spread}, {candidate.usable_gib:.1f} GiB of each can be used"
    return ways.rejected[0].reason


def does_not_fit(request: InstanceRequest, groups: Sequence[Group], advice: Advice) -> str:
    """The message for a model that does not fit this host."""
    available = " and ".join(group.title for group in groups)
    available = f"{request.nodes} nodes of {available}" if (request.nodes or 1) > 1 else available
    context = f" with a context of {request.max_model_len}" if request.max_model_len else ""
    reasons = " ".join(dict.fromkeys(_why(request, group, advice) for group in groups))
    planner_choice = next((text for group in groups if (text := _planner_choice(request, group, advice))), "")
    # A model that was named by its repository is not told of twice.
    repository = "" if request.model.repo_id in request.model.key else f"{request.model.repo_id}, "
    model = f"{request.model.key} ({repository}{weight_text(request.model)})"
    head = f"{model} does not fit {available}{context}."
    return f"{head} {reasons}{planner_choice or _alternatives(request, groups[0], advice)}"


def no_gpus(request: InstanceRequest, advice: Advice) -> str:
    """The message for a model that needs GPUs, on a host without any."""
    hosts = list(islice(other_gpus(request, None, advice), 3))
    return f"{request.model.key} ({weight_text(request.model)}) needs NVIDIA GPUs, for example {' or '.join(hosts)}."


def not_together(needs: Sequence[tuple[InstanceRequest, int]], host: Host, catalog: Catalog) -> str:
    """The message for models that fit alone but not together."""
    names = " and ".join(request.name for request, _count in needs)
    minimums = ", ".join(f"{request.name} at least {count}" for request, count in needs)
    total = sum(count for _request, count in needs)
    smaller = [other.key for request, _count in needs for other in siblings(request.model, catalog)]
    remedy = f", or smaller weights: {', '.join(dict.fromkeys(smaller))}" if smaller else ""
    return (
        f"{names} do not fit {host.title} together: {minimums}, {total} GPUs in all. "
        f"Each fits alone: serve fewer of them on this host{remedy}."
    )


def smaller_that_fits(request: InstanceRequest, groups: Sequence[Group], advice: Advice) -> InstanceRequest | None:
    """The request with the largest smaller weights that fit; None if none do. For `vllm_weights: smaller`."""
    for model in siblings(request.model, advice.catalog):
        other = replace(request, model=model)
        if any(advice.best(other, group) for group in groups):
            return other
    return None
