# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for plans of every kind of model."""

from __future__ import annotations

from typing import Any

from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.architecture import Architecture, Unsized
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.architectures import read_config
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog import Catalog
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog_files import load_catalog
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.config_fields import MARKERS
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.instance import Instance
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.kv_cache import Setting
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.memory import (
    GIB,
    Experts,
    Parallel,
    stages_of,
    weights_by_stage,
)
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.overhead import Step, overhead_gib
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.splits import problem
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.planning import outcome
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.random_models import configs
from hypothesis import HealthCheck, given, settings, strategies as st

SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
OBJECTIVES = st.sampled_from(["throughput", "latency", "context"])


def catalog_of(config: dict[str, Any]) -> Catalog:
    return load_catalog({"m": {"repo_id": "a/b", "config": config}})


def gpu(gib: int, count: int = 1) -> dict[str, Any]:
    return {"name": "Some GPU", "memory_mib": gib * 1024, "compute_capability": "9.0", "count": count}


def taken_gib(instance: Instance, catalog: Catalog) -> float:
    """Weights, overhead and one request of the planned context, on the fullest GPU: counted anew."""
    model = catalog.models["m"]
    cut = instance.group.layers if instance.group else ()
    spread = Parallel(instance.tensor_parallel_size, instance.pipeline_parallel_size, cut=cut)
    whole = bool(instance.config.get("enable-expert-parallel"))
    gpus = spread.tp * instance.data_parallel_size
    weights = weights_by_stage(model, spread, Experts(over=gpus) if whole else Experts(cut=gpus))
    step = instance.config.get("max-num-batched-tokens", 2048)
    overhead = overhead_gib(model, spread, Step(step, 256), catalog.engine(None), catalog.policy)
    fp8 = str(instance.config.get("kv-cache-dtype", model.cache_dtype)).startswith("fp8")
    requests = (
        model.layout(Setting(tp=spread.tp, layers=stage, fp8=fp8, in_flight=step, step=step))
        for stage in stages_of(model, spread)
    )
    each = zip(weights, (layout.request_bytes(instance.max_model_len) for layout in requests))
    return overhead + max(stage + request / GIB for stage, request in each)


@SLOW
@given(configs(), st.integers(1, 8), st.integers(8, 200), OBJECTIVES)
def test_no_plan_exceeds_a_board(config: dict[str, Any], count: int, gib: int, objective: str) -> None:
    catalog = catalog_of(config)
    made = outcome([gpu(gib, count)], catalog, model="m", objective=objective)
    for instance in made.plan.instances if made.plan else ():
        assert taken_gib(instance, catalog) <= gib * 0.92 + 0.01
        assert 0 < instance.max_model_len <= catalog.models["m"].context
        assert len(instance.gpu_indices) <= count
    assert made.plan or made.findings


@SLOW
@given(configs(), st.integers(1, 8), st.integers(8, 160), st.integers(2, 3), OBJECTIVES)
def test_no_stage_on_a_node_exceeds_a_board(
    config: dict[str, Any], count: int, gib: int, nodes: int, objective: str
) -> None:
    catalog = catalog_of(config)
    made = outcome([gpu(gib, count)], catalog, model="m", objective=objective, nodes_per_engine=nodes)
    sized = catalog.models["m"].sized
    for instance in made.plan.instances if made.plan else ():
        assert instance.group
        assert sized.stages
        assert (instance.group.size, sum(instance.group.layers)) == (nodes, sized.layers)
        assert instance.pipeline_parallel_size == len(instance.group.layers) == nodes
        assert len(instance.gpu_indices) == instance.tensor_parallel_size <= count
        assert taken_gib(instance, catalog) <= gib * 0.92 + 0.01
    assert made.plan or made.findings


@SLOW
@given(configs(), st.integers(1, 8), OBJECTIVES)
def test_no_width_that_the_rules_forbid(config: dict[str, Any], count: int, objective: str) -> None:
    catalog = catalog_of(config)
    made = outcome([gpu(180, count)], catalog, model="m", objective=objective)
    model = catalog.models["m"]
    for instance in made.plan.instances if made.plan else ():
        whole = bool(instance.config.get("enable-expert-parallel"))
        cut = 1 if whole else instance.tensor_parallel_size * instance.data_parallel_size
        assert problem(model.sized, model.stored, instance.tensor_parallel_size, cut) is None


@SLOW
@given(configs(), st.integers(1, 8), st.integers(8, 160), st.integers(0, 40), OBJECTIVES)
def test_more_memory_never_hurts(config: dict[str, Any], count: int, gib: int, more: int, objective: str) -> None:
    catalog = catalog_of(config)

    def fits(size: int) -> bool:
        return outcome([gpu(size, count)], catalog, model="m", objective=objective).plan is not None

    if fits(gib):
        assert fits(gib + more)


def read(config: dict[str, Any]) -> Architecture | Unsized | str:
    """What a config.json is taken for; the finding where a field of it cannot be read."""
    try:
        return read_config("m", config)
    except ValueError as error:
        return str(error)


def shape(found: Architecture) -> tuple[Any, ...]:
    """What makes an architecture the kind that it is."""
    return (found.kind, found.mixture, found.is_latent, found.is_sparse, {group.kind for group in found.cache})


#: Fields that make a model something else, by what they make it.
TELLING = sorted({name for names in MARKERS.values() for name in names})


@SLOW
@given(configs(), st.sampled_from(TELLING), st.sampled_from([2, 8, 64, [0, 1]]))
def test_a_field_more_never_turns_a_kind_into_another_without_a_word(config: Any, field: str, value: Any) -> None:
    """Either the reader reads it, and counts by it, or the model is no longer sized."""
    before = read_config("m", config)
    assert isinstance(before, Architecture)
    after = read({**config, field: value})
    if not isinstance(after, Architecture) or config.get(field):
        return
    assert shape(after) == shape(before) or field in read_by(config, field, value)


def read_by(config: Any, field: str, value: Any) -> set[str]:
    """The fields that a reader asks for, of those that are there: they are what its kind is made of."""
    from ansible_collections.gpunode.llm.plugins.plugin_utils.planner import architectures

    numbers: set[str] = set()
    get = architectures.Fields.get

    def noted(fields: Any, *names: str, default: Any = None) -> Any:
        numbers.update(names)
        return get(fields, *names, default=default)

    architectures.Fields.get = noted  # type: ignore[method-assign]
    try:
        read_config("m", {**config, field: value})
    finally:
        architectures.Fields.get = get  # type: ignore[method-assign]
    return numbers


@SLOW
@given(configs(), st.data())
def test_a_missing_field_is_a_finding(config: Any, data: st.DataObject) -> None:
    """Without one of its fields a model is of the same kind, is not sized, or cannot be read: it is never another."""
    field = data.draw(st.sampled_from(sorted(set(config) - {"architectures", "quantization_config"})))
    before = read_config("m", config)
    assert isinstance(before, Architecture)
    after = read({key: value for key, value in config.items() if key != field})
    assert not isinstance(after, Architecture) or after.kind == before.kind
