# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner's sentences about what does not fit: what is there, what is needed, what would work instead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ansible_collections.gpunode.llm.plugins.module_utils._gpu import Gpu
from ansible_collections.gpunode.llm.plugins.plugin_utils._boards import Group, Host, spec_of
from ansible_collections.gpunode.llm.plugins.plugin_utils._catalog import Catalog, EngineSpec, GpuSpec, ModelSpec
from ansible_collections.gpunode.llm.plugins.plugin_utils._choice import Bench, Choice, lack, options, too_old
from ansible_collections.gpunode.llm.plugins.plugin_utils._memory import GIB, weights_bytes
from ansible_collections.gpunode.llm.plugins.plugin_utils._request import InstanceRequest

#: Sizes that hosts are sold in, and how many of them are worth a hint.
HOST_SIZES = (1, 2, 4, 8)
NODES = (2, 3, 4)


def weight_text(model: ModelSpec) -> str:
    """131.4 GiB of BF16 weights."""
    stored = model.weights
    kind = stored.title if stored.title.endswith("weights") else f"{stored.title} weights"
    return f"{weights_bytes(model) / GIB:.1f} GiB of {kind}"


def sized(spec: GpuSpec, count: int, catalog: Catalog) -> Group:
    """A host that is not there: so many GPUs of a kind."""
    known = spec_of(Gpu(0, spec.names[0], memory_mib=spec.memory_mib), catalog) or spec
    return Group(known, (known.memory_mib - (known.reserved_mib or 0)) / 1024, tuple(range(count)))


def best_on(wish: InstanceRequest, group: Group, engine: EngineSpec, catalog: Catalog) -> Choice | None:
    """What would be chosen for a wish on a group, alone."""
    bench = Bench(wish, group, engine, catalog.policy)
    return None if too_old(bench) else options(bench, len(group.indices)).best


def _free(wish: InstanceRequest) -> InstanceRequest:
    """The same wish without its numbers of GPUs, which were made for another host."""
    return replace(wish, tp=None, pp=None, dp=None, gpu_indices=None)


def _shown(choice: Choice, group: Group, full: int) -> str:
    shorter = f", context {choice.context}" if choice.context < full else ""
    return f"{group.title} ({choice.spread}{shorter})"


def _same_gpus(wish: InstanceRequest, group: Group, engine: EngineSpec, catalog: Catalog) -> str | None:
    """More of the GPUs that are there, in one host; and if none has enough, in several."""
    for count in (size for size in HOST_SIZES if size > len(group.indices)):
        wider = sized(group.spec, count, catalog)
        best = best_on(_free(wish), wider, engine, catalog)
        if best:
            return _shown(best, wider, wish.model.context)
    return None


def nodes_needed(wish: InstanceRequest, group: Group, engine: EngineSpec, catalog: Catalog) -> tuple[int, Choice] | None:
    """How many hosts of this kind hold the model: tensor parallel within, pipeline stages across."""
    for nodes in NODES:
        count = len(group.indices)
        spread = replace(_free(wish), tp=count, pp=nodes)
        best = best_on(spread, replace(group, indices=tuple(range(count * nodes))), engine, catalog)
        if best:
            return nodes, best
    return None


def _other_gpus(wish: InstanceRequest, group: Group | None, engine: EngineSpec, catalog: Catalog) -> Iterator[str]:
    """The smallest host of each other kind that is sold for this."""
    for spec in catalog.gpus.values():
        if group is not None and spec.key == group.spec.key:
            continue
        for count in sorted(spec.matrix_counts):
            candidate = sized(spec, count, catalog)
            best = best_on(_free(wish), candidate, engine, catalog)
            if best and best.context >= wish.model.context:
                yield _shown(best, candidate, wish.model.context)
                break


def _other_models(wish: InstanceRequest, group: Group, engine: EngineSpec, catalog: Catalog) -> list[str]:
    """Models that fit what is there: the same one in smaller weights first, then the largest others."""
    fitting: list[tuple[bool, int, ModelSpec]] = []
    for model in catalog.models.values():
        if model.device != "cuda" or model.key == wish.model.key or not model.in_matrix:
            continue
        if best_on(replace(_free(wish), model=model, max_model_len=None), group, engine, catalog):
            fitting.append((model.shapes != wish.model.shapes, -weights_bytes(model), model))
    fitting.sort(key=lambda item: (item[0], item[1], item[2].key))
    same = [model for other, _size, model in fitting if not other]
    return [model.key for model in (same or [model for _other, _size, model in fitting])[:3]]


def _works(wish: InstanceRequest, group: Group, engine: EngineSpec, catalog: Catalog) -> str:
    """What would fit instead: other hosts for this model, other models for this host."""
    hosts = [text for text in (_same_gpus(wish, group, engine, catalog),) if text]
    if not hosts:
        found = nodes_needed(wish, sized(group.spec, max(HOST_SIZES), catalog), engine, catalog)
        if found:
            hosts.append(f"{found[0]} nodes of {max(HOST_SIZES)}x {group.name} ({found[1].spread})")
    if len(hosts) < 2:
        hosts += list(_other_gpus(wish, group, engine, catalog))[:2]
    models = _other_models(wish, group, engine, catalog)
    text = f" {wish.model.key} fits {' or '.join(hosts)}." if hosts else ""
    return text + (f" On {group.title}: {', '.join(models)}." if models else " No model of the catalogue fits this host.")


def does_not_fit(wish: InstanceRequest, groups: Sequence[Group], engine: EngineSpec, catalog: Catalog) -> str:
    """One model, one host, one message."""
    sentences = []
    for group in groups:
        bench = Bench(wish, group, engine, catalog.policy)
        old = too_old(bench)
        if old:
            sentences.append(f"{old}.")
            continue
        ways = options(bench, len(group.indices))
        if ways.nearest:
            sentences.append(f"On {group.title} with {ways.nearest_spread}: {lack(bench, ways.nearest)}.")
        else:
            sentences += [f"{ways.rejected[-1].choice}: {ways.rejected[-1].reason}."] if ways.rejected else []
    there = " and ".join(group.title for group in groups)
    head = f"{wish.model.key} ({wish.model.repo_id}, {weight_text(wish.model)}) does not fit {there}."
    return f"{head} {' '.join(sentences)}{_works(wish, groups[0], engine, catalog)}"


def no_gpus(wish: InstanceRequest, engine: EngineSpec, catalog: Catalog) -> str:
    """A model that wants GPUs on a host that offers none."""
    hosts = list(_other_gpus(wish, None, engine, catalog))[:3]
    return f"{wish.model.key} ({weight_text(wish.model)}) needs NVIDIA GPUs, for example {', '.join(hosts)}."


def not_together(needs: Sequence[tuple[InstanceRequest, int]], host: Host) -> str:
    """Models that fit one by one and not all at once."""
    listed = ", ".join(f"{wish.name} at least {count}" for wish, count in needs)
    total = sum(count for _wish, count in needs)
    return (
        f"{' and '.join(wish.name for wish, _count in needs)} do not fit {host.title} together: {listed}, {total} GPUs in "
        "all. Each fits alone: serve fewer of them here, or smaller weights of them (…-fp8, …-w4a16)."
    )
