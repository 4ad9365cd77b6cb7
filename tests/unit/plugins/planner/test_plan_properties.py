# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for every plan, whatever the models and the GPUs."""

from __future__ import annotations

from typing import Any

from ansible_collections.gpunode.llm.plugins.module_utils.instance.serving import NodeServing, Serving
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog import Catalog
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog_files import load_catalog
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.kv_cache import Setting
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.memory import (
    GIB,
    Parallel,
)
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.overhead import Step, overhead_gib
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.plan import Outcome
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.splits import problem
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.planning import CATALOG, outcome
from hypothesis import HealthCheck, example, given, settings, strategies as st

SERVED = sorted(key for key, model in CATALOG.models.items() if model.device == "cuda")
KINDS = sorted(CATALOG.gpus)
OBJECTIVES = st.sampled_from(["throughput", "latency", "context"])
SLOW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

models = st.sampled_from(SERVED)
entries = st.fixed_dictionaries({"name": st.sampled_from(KINDS), "count": st.integers(1, 8)})
hosts = st.lists(entries, min_size=1, max_size=3)


@st.composite
def strange_models(draw: st.DrawFn) -> Catalog:
    """A model with shapes that nobody has trained."""
    kv_heads = draw(st.sampled_from([1, 2, 3, 4, 5, 8, 12]))
    heads = kv_heads * draw(st.integers(1, 8))
    head_dim = draw(st.sampled_from([32, 64, 128]))
    config = {
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "hidden_size": heads * head_dim,
        "intermediate_size": draw(st.integers(256, 60000)),
        "num_hidden_layers": draw(st.integers(1, 130)),
        "vocab_size": draw(st.integers(100, 200000)),
        "max_position_embeddings": draw(st.sampled_from([512, 4096, 32768, 131072])),
        "tie_word_embeddings": draw(st.booleans()),
    }
    weights = draw(st.sampled_from(["bf16", "fp8", "w4a16"]))
    return load_catalog({"strange": {"repo_id": "a/b", "config": config, "weights": weights}})


def counted(gpus: list[dict[str, Any]]) -> int:
    return sum(entry["count"] for entry in gpus)


def check(made: Outcome, gpus: list[dict[str, Any]], catalog: Catalog) -> None:
    """Never more GPUs than there are, never two instances on one, heads divide, memory within the board."""
    if made.plan is None:
        assert made.findings
        return
    taken: list[int] = []
    for instance in made.plan.instances:
        taken += instance.gpu_indices
        model = catalog.models[instance.model]
        spread = Parallel(instance.tensor_parallel_size, instance.pipeline_parallel_size)
        cut = 1 if instance.config.get("enable-expert-parallel") else spread.tp  # experts stay whole
        assert problem(model.sized, model.stored, spread.tp, cut) is None
        assert len(instance.gpu_indices) == spread.gpus * instance.data_parallel_size
        assert 0 < instance.max_model_len <= model.sized.context
        assert instance.kv_cache_tokens // instance.data_parallel_size >= instance.max_model_len
    assert len(taken) == len(set(taken)) <= counted(gpus)
    assert all(0 <= index < counted(gpus) for index in taken)
    ports = [instance.port for instance in made.plan.instances]
    assert len(ports) == len(set(ports))


def predicted_gib(instance: Any, catalog: Catalog) -> float:
    """Weights, overhead and KV cache of one replica on one GPU."""
    model = catalog.models[instance.model]
    spread = Parallel(instance.tensor_parallel_size, instance.pipeline_parallel_size)
    kv_dtype = instance.config.get("kv-cache-dtype", "auto")
    layers = (0, -(-model.sized.layers // spread.pp))
    fp8 = (kv_dtype if kv_dtype != "auto" else getattr(model.weights, "kv_cache", "")).startswith("fp8")
    step = instance.config.get("max-num-batched-tokens", 2048)
    # Of requests as long as the context, with the fewest tokens in flight that the engine has.
    layout = model.layout(Setting(tp=spread.tp, layers=layers, fp8=fp8, step=step, in_flight=step))
    requests = instance.kv_cache_tokens / instance.data_parallel_size / instance.max_model_len
    kv = requests * layout.request_bytes(instance.max_model_len)
    overhead = overhead_gib(model, spread, Step(step, 256), catalog.engine(None), catalog.policy)
    return instance.weights_gib_per_gpu + overhead + kv / GIB


#: Figures of a plan are rounded, and a hybrid's states are counted in whole blocks of other sizes than its tokens.
ROUNDED_GIB = 0.05


@SLOW
@given(st.lists(models, min_size=1, max_size=3, unique=True), hosts, OBJECTIVES)
def test_a_plan_stays_within_the_host(wanted: list[str], gpus: list[dict[str, Any]], objective: str) -> None:
    check(outcome(gpus, models=wanted, objective=objective), gpus, CATALOG)


@SLOW
@given(strange_models(), entries, OBJECTIVES)
def test_strange_shapes(catalog: Catalog, gpu: dict[str, Any], objective: str) -> None:
    check(outcome([gpu], catalog, model="strange", objective=objective), [gpu], catalog)


@SLOW
@given(models, entries, st.floats(0.1, 1.0), OBJECTIVES)
@example("qwen3.5-9b", {"name": "a100-80", "count": 1}, 1.0, "throughput")
def test_predicted_memory_is_never_above_the_board(
    model: str, gpu: dict[str, Any], utilization: float, objective: str
) -> None:
    made = outcome([gpu], model=model, gpu_memory_utilization=utilization, objective=objective)
    for instance in made.plan.instances if made.plan else ():
        memory = CATALOG.gpus[gpu["name"]].memory_mib / 1024
        assert predicted_gib(instance, CATALOG) <= memory * utilization + ROUNDED_GIB


@SLOW
@given(st.lists(models, min_size=1, max_size=2, unique=True), entries, hosts, OBJECTIVES)
@example(["3.3-70b", "405b"], {"name": "b200", "count": 6}, [{"name": "b200", "count": 2}], "throughput")
def test_another_gpu_never_hurts(
    wanted: list[str], gpu: dict[str, Any], more: list[dict[str, Any]], objective: str
) -> None:
    if outcome([gpu], models=wanted, objective=objective).plan:
        assert outcome([gpu, *more], models=wanted, objective=objective).plan


@SLOW
@given(models, st.integers(1, 8), st.integers(8, 200), st.integers(0, 40), OBJECTIVES)
def test_more_memory_never_hurts(model: str, count: int, gib: int, more: int, objective: str) -> None:
    def fits(size: int) -> bool:
        gpu = {"name": "Some GPU", "memory_mib": size * 1024, "compute_capability": "9.0", "count": count}
        return outcome([gpu], model=model, objective=objective).plan is not None

    if fits(gib):
        assert fits(gib + more)


@SLOW
@given(st.data(), st.lists(models, min_size=1, max_size=3, unique=True), hosts)
def test_the_order_of_the_inputs_does_not_matter(
    data: st.DataObject, wanted: list[str], gpus: list[dict[str, Any]]
) -> None:
    first = outcome(gpus, models=wanted)
    again = outcome(data.draw(st.permutations(gpus)), models=data.draw(st.permutations(wanted)))
    assert first.plan == again.plan
    assert bool(first.findings) == bool(again.findings)


@SLOW
@given(st.lists(models, min_size=1, max_size=3, unique=True), hosts, OBJECTIVES)
def test_a_running_engine_is_planned_unchanged(wanted: list[str], gpus: list[dict[str, Any]], objective: str) -> None:
    first = outcome(gpus, models=wanted, objective=objective)
    if first.plan:
        engines = tuple(
            Serving(item.name, item.port, item.port_base, tuple(map(str, item.gpu_indices)))
            for item in first.plan.instances
        )
        assert outcome(gpus, models=wanted, objective=objective, serving=NodeServing(engines)) == first


@SLOW
@given(st.lists(models, min_size=1, max_size=2, unique=True), models, st.sampled_from(KINDS), st.integers(1, 8))
def test_who_comes_later_takes_nobodys_port(wanted: list[str], later: str, kind: str, count: int) -> None:
    gpus = [{"name": kind, "count": count}]
    first = outcome(gpus, models=wanted)
    if first.plan and later not in wanted:
        engines = tuple(Serving(item.name, item.port, item.port_base) for item in first.plan.instances)
        second = outcome(gpus, models=[*wanted, later], serving=NodeServing(engines))
        kept = {item.name: item.port for item in second.plan.instances if item.name in wanted} if second.plan else {}
        assert not kept or kept == {item.name: item.port for item in first.plan.instances}
