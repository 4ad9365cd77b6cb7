# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The contract of a plan, the way from a choice to a configuration, and what is sentences beside it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.instance.serving import NodeServing, Serving
from ansible_collections.gpunode.llm.plugins.module_utils.programs.gpu import NodeGpus
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog_files import load_catalog
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.instance import Instance
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.quantization import plain
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.planning import (
    CATALOG,
    CONFIGS,
    board,
    findings,
    instances,
    one,
    outcome,
    warnings,
)

CONTRACT = (
    "name model repo_id revision image device gpu_indices gpu_uuids tensor_parallel_size pipeline_parallel_size "
    "data_parallel_size max_model_len model_context precision weights_gib_per_gpu kv_cache_tokens config env "
    "host port port_base served_model_name weights_bytes gated ignore_patterns start_timeout_s shm_size "
    "branch allow_patterns folder task kv_cache_gib_per_gpu kv_request_bytes gpu_share starts_after lora draft "
    "auto_draft kv_host_gib preset preset_gain faster_weights group warnings"
)


def test_the_contract() -> None:
    plan = outcome("8xH100", model="405b-fp8").plan
    assert plan
    plain = plan.as_dict()
    assert sorted(plain) == ["instances", "rejected", "warnings"]
    assert " ".join(plain["instances"][0]) == CONTRACT


def test_a_request_of_the_context_is_counted_on_one_gpu() -> None:
    whole, half = (one("2xH100", model="8b", tensor_parallel_size=width) for width in (1, 2))
    assert whole.kv_request_bytes == 131072 * 32 * 2 * 8 * 128 * 2
    assert half.kv_request_bytes == whole.kv_request_bytes // 2
    tiny = one("1xH100", model="tiny")
    assert 0 < tiny.kv_request_bytes <= tiny.kv_cache_gib_per_gpu * 2**30


def test_an_instance() -> None:
    instance = one("8xH100", model="405b-fp8")
    assert instance.config == {
        "model": "RedHatAI/Meta-Llama-3.1-405B-Instruct-FP8",
        "revision": "ca6a4018496537951173ffa7345083883edf69ff",
        "served-model-name": ["RedHatAI/Meta-Llama-3.1-405B-Instruct-FP8", "405b-fp8"],
        "host": "0.0.0.0",
        "port": 8000,
        "tensor-parallel-size": 8,
        "max-model-len": 131072,
        "gpu-memory-utilization": 0.92,
        "enable-auto-tool-choice": True,
        "tool-call-parser": "llama3_json",
        "disable-access-log-for-endpoints": "/health,/metrics,/ping",
    }
    assert instance.env == {"VLLM_NO_USAGE_STATS": "1", "VLLM_ENGINE_READY_TIMEOUT_S": "2240"}
    assert (instance.start_timeout_s, instance.shm_size) == (2240, "16g")
    assert (instance.image, instance.host, instance.port) == ("vllm/vllm-openai:v0.33.0", "127.0.0.1", 8000)
    assert instance.ignore_patterns == ("original/*", "metal/*")


def serving_of(plan: dict[str, Instance]) -> NodeServing:
    """What a node's units say once a plan is carried out."""
    return NodeServing(tuple(Serving(item.name, item.port, item.port_base, item.gpu_uuids) for item in plan.values()))


def without(node: NodeGpus, index: int) -> NodeGpus:
    """A node that has lost a GPU and counts the rest anew, as after a boot."""
    rest = [gpu for gpu in node.gpus if gpu.index != index]
    return replace(node, gpus=tuple(replace(gpu, index=place) for place, gpu in enumerate(rest)))


TWO = ["8b", {"model": "8b", "name": "b"}]


def test_a_gpu_is_named_by_its_uuid_where_containers_can_have_it_so() -> None:
    node = board("h100x8")
    assert one(node, model="405b-fp8").gpu_uuids == tuple(gpu.uuid for gpu in node.gpus)
    assert one(node, model="405b-fp8", serving=NodeServing(gpus_by_uuid=False)).gpu_uuids == ()
    assert "names GPUs by index only" in warnings(node, model="405b-fp8", serving=NodeServing(gpus_by_uuid=False))
    assert one("8xH100", model="405b-fp8").gpu_uuids == ()


@pytest.mark.parametrize("index", range(8))
def test_engines_keep_their_gpus_when_another_one_is_lost(index: int) -> None:
    node = board("h100x8")
    before = instances(node, models=TWO)
    uuid = node.gpus[index].uuid
    after = instances(without(node, index), models=TWO, serving=serving_of(before))
    hit = [name for name, item in before.items() if uuid in item.gpu_uuids]
    for name, item in before.items():
        if name not in hit:
            assert (after[name].gpu_uuids, after[name].port) == (item.gpu_uuids, item.port)
        assert uuid not in after[name].gpu_uuids
    sentences = warnings(without(node, index), models=TWO, serving=serving_of(before))
    assert [f"{name} ran on GPU {uuid}, which this node has lost" in sentences for name in hit] == [True]


def test_units_that_named_indices_keep_those_gpus_by_uuid() -> None:
    node = board("h100x8")
    serving = NodeServing((Serving("8b", 8000, None, ("6", "7")), Serving("b", 8001, None, ("0", "1"))))
    models = [{"model": "8b", "data_parallel_size": 2}, {"model": "8b", "name": "b", "data_parallel_size": 2}]
    planned = instances(node, models=models, serving=serving)
    assert (planned["8b"].gpu_indices, planned["b"].gpu_indices) == ((6, 7), (0, 1))
    assert planned["8b"].gpu_uuids == (node.gpus[6].uuid, node.gpus[7].uuid)


def test_who_comes_later_takes_gpus_that_nobody_has() -> None:
    node = board("h100x8")
    alone = {"model": "8b", "data_parallel_size": 2}
    serving = serving_of(instances(node, models=[{**alone, "name": "m"}]))
    planned = instances(node, models=[{**alone, "name": "m"}, {**alone, "name": "a"}], serving=serving)
    assert (planned["m"].gpu_indices, planned["a"].gpu_indices) == ((0, 1), (2, 3))


def test_who_comes_later_takes_what_another_gives_up_where_nobodys_do_not_suffice() -> None:
    node = board("h100x8")
    serving = NodeServing((Serving("8b", 8000, None, ("0", "1", "2", "3", "4", "5")),))
    models = [{"model": "8b", "data_parallel_size": 2}, {"model": "8b", "name": "b", "data_parallel_size": 6}]
    planned = instances(node, models=models, serving=serving)
    assert (planned["8b"].gpu_indices, planned["b"].gpu_indices) == ((0, 1), (2, 3, 4, 5, 6, 7))


def test_the_tiny_one() -> None:
    instance = one("8xH100", model="tiny")
    assert (instance.device, instance.gpu_indices, instance.image) == ("cpu", (), "vllm/vllm-openai-cpu:v0.33.0")
    assert (instance.max_model_len, instance.weights_bytes) == (2048, 2886144)
    assert instance.env["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert instance.config["enforce-eager"] is True
    assert "gpu-memory-utilization" not in instance.config
    assert one("1xH100", model="tiny", image="my/cpu:1").image == "my/cpu:1"


def test_a_model_on_the_cpu_by_request() -> None:
    instance = one("1xH100", model="8b", device="cpu")
    assert (instance.env["VLLM_CPU_KVCACHE_SPACE"], instance.kv_cache_tokens, instance.max_model_len) == (
        "4",
        32768,
        31784,
    )
    wide = one("1xH100", model="8b", device="cpu", kv_cache_dtype="fp8", env={"VLLM_CPU_KVCACHE_SPACE": 8})
    assert (wide.kv_cache_tokens, wide.config["kv-cache-dtype"]) == (131072, "fp8")
    sentences = findings("1xH100", model="8b", device="cpu", max_model_len="40K")
    assert "a context of 40960 does not fit a KV cache of 32768 tokens; raise VLLM_CPU_KVCACHE_SPACE" in sentences


def test_the_flag_that_metas_own_fp8_needs() -> None:
    assert one("8xH100", model="405b-fp8-meta").config["allow-deprecated-quantization"] is True


@pytest.mark.parametrize(
    ("driver", "env", "image"),
    [
        ("580.65.06", {}, "vllm/vllm-openai:v0.33.0"),
        ("590.44.01", {}, "vllm/vllm-openai:v0.33.0"),
        ("575.57.08", {}, "vllm/vllm-openai:v0.33.0-cu129"),
        ("570.1", {"VLLM_ENABLE_CUDA_COMPATIBILITY": "1"}, "vllm/vllm-openai:v0.33.0"),
        ("", {}, "vllm/vllm-openai:v0.33.0"),
    ],
)
def test_images_follow_the_driver(driver: str, env: dict[str, str], image: str) -> None:
    node = replace(board("h100x1"), driver_version=driver)
    assert one(node, model="8b", env=env).image == image


def test_a_driver_that_is_too_old() -> None:
    node = board("h100x8-driver-535")
    sentences = findings(node, model="8b")
    assert (
        "needs at least 580.65.06 (vllm/vllm-openai:v0.33.0) or 575.51.03 (vllm/vllm-openai:v0.33.0-cu129)" in sentences
    )
    assert (
        "set VLLM_ENABLE_CUDA_COMPATIBILITY=1 in vllm_env on a data-centre GPU with driver branch 535 or 570"
        in sentences
    )
    assert one(node, model="8b", image="registry.example/vllm:v0.33.0").image == "registry.example/vllm:v0.33.0"
    assert "575.51.03" in findings(node, model="8b", image="vllm/vllm-openai:v0.33.0-cu129")
    assert "or set" not in findings(node, model="8b", image="vllm/vllm-openai:v0.33.0-cu129")


def test_a_release_without_an_image_for_the_device() -> None:
    catalog = load_catalog(extra_engines={"0.33.0": {"images": [{"image": "a/b:1", "device": "cuda"}]}})
    assert "vLLM 0.33.0 has no image for cpu in the catalogue: set vllm_image." in findings(
        "1xH100", catalog, model="tiny"
    )


def test_what_a_default_context_gave_up() -> None:
    assert "context" not in warnings("4xA10G", model="8b")
    sentences = warnings("1xA10G", model="8b")
    room = "31168 tokens of KV cache fit, and 1472 stay free as a margin"
    assert f"8b: The context is 29696 of the model's 131072: {room}." in sentences
    assert "would hold it" not in sentences
    sentences = warnings("4xL40S", model="70b-w4a16")
    assert "margin. TP 4 would hold it (vllm_objective: context)" in sentences
    assert "context" not in warnings("1xA10G", model="8b", max_model_len=8192)


def test_wide_without_nvlink() -> None:
    assert "TP 4 spans GPUs without NVLink between them" in warnings("4xL40S", model="70b-fp8")


def test_fp8_cache_where_nothing_else_holds_the_context() -> None:
    instance = one("2xH100", model="70b", max_model_len="48K")
    assert instance.config["kv-cache-dtype"] == "fp8"
    assert "answers may differ slightly" in warnings("2xH100", model="70b", max_model_len="48K")
    assert "differ" not in warnings("2xH100", model="70b", max_model_len="48K", kv_cache_dtype="fp8")


def test_smaller_steps_where_every_gib_counts() -> None:
    """What fits a board with vLLM's own steps must not stop fitting a slightly larger one, whose steps are larger."""
    gpu = {"name": "X", "compute_capability": "9.0", "reserved_mib": 0}
    below = one([{**gpu, "memory_mib": 72100}], model="8b", gpu_memory_utilization=0.247)
    above = one([{**gpu, "memory_mib": 72200}], model="8b", gpu_memory_utilization=0.247)
    assert "max-num-batched-tokens" not in below.config
    assert above.config["max-num-batched-tokens"] == 2048
    assert above.max_model_len >= below.max_model_len


def test_rejected_choices_and_their_reasons() -> None:
    plan = outcome("8xH100", model="70b").plan
    assert plan
    reasons = {item["choice"]: item["reason"] for item in plan.rejected}
    assert all(item["instance"] == "70b" for item in plan.rejected)
    assert reasons["TP 2 x 4 replicas"] == "leaves 5% of the usable memory for the KV cache, 20% are wanted"
    assert reasons["TP 8"].startswith("wider than the model needs")
    assert reasons["TP 1"].startswith("131.4 GiB of weights")
    assert reasons["TP 3"] == "64 attention heads do not divide by TP 3"
    assert reasons["pipeline stages"] == "the model fits without them, and stages wait for each other"
    assert "at a lower precision" in reasons["TP 4 x 2 replicas, KV cache in FP8"]
    assert "they would run as TP 2 x 4 replicas" in reasons["model 70b-fp8"]


def test_smaller_weights_that_the_gpus_cannot_compute_with_are_no_hint() -> None:
    fp8 = CATALOG.models["70b-fp8"]
    newer = replace(fp8, weights=plain(replace(fp8.formats[0], min_compute_capability="10.0")))
    catalog = replace(CATALOG, models={**CATALOG.models, "70b-fp8": newer})
    plan = outcome("8xH100", catalog, model="70b").plan
    assert plan
    assert [item["choice"] for item in plan.rejected if item["choice"].startswith("model")] == ["model 70b-w4a16"]


def test_reasons_under_other_objectives() -> None:
    latency = outcome("8xH100", model="8b", objective="latency").plan
    context = outcome("4xH100", model="70b", objective="context").plan
    small = outcome("6xH100", model="405b-fp8").plan
    assert latency
    assert context
    assert small
    assert any("a single answer is slower than with TP 8" in item["reason"] for item in latency.rejected)
    assert any("the chosen one reaches 131072" in item["reason"] for item in context.rejected)
    assert any("stages" in item["reason"] for item in small.rejected) is False
    assert any("PP" in item["choice"] for item in small.rejected)


def test_smaller_weights_by_leave() -> None:
    instance = one("1xH100", model="70b", weights="smaller")
    assert (instance.name, instance.model) == ("70b", "70b-fp8")
    assert "70b-fp8 (RedHatAI/Meta-Llama-3.1-70B-Instruct-FP8, 67.7 GiB of FP8 weights) instead" in warnings(
        "1xH100", model="70b", weights="smaller"
    )
    assert one("8xH100", model="70b", weights="smaller").model == "70b"
    assert "does not fit" in findings("1xA10G", model="405b", weights="smaller")


def test_smaller_weights_are_never_another_models_of_the_same_shape() -> None:
    assert "does not fit" in findings("1xH100", model="3.3-70b", weights="smaller")
    tuned = {"mine": {"repo_id": "Acme/8b-tuned", "config_of": "8b"}}
    assert "does not fit" in findings("1xT4", load_catalog(tuned), model="mine", weights="smaller")
    tuned["mine-fp8"] = {"repo_id": "Acme/8b-tuned-FP8", "config_of": "8b", "weights": "fp8", "variant_of": "mine"}
    assert one("1xT4", load_catalog(tuned), model="mine", weights="smaller").model == "mine-fp8"
    folders = {name: {**tuned["mine"], "folder": f"/srv/{name}"} for name in ("one", "two")}
    folders["two"]["weights"] = "fp8"
    assert "does not fit" in findings("1xT4", load_catalog(folders), model="one", weights="smaller")


def test_nothing_of_the_catalogue_fits() -> None:
    sentences = findings([{"name": "Old", "memory_mib": 4000, "compute_capability": "9.0"}], model="8b")
    assert "What fits" not in sentences
    catalog = load_catalog({"huge": {"repo_id": "a/b", "config": {**CONFIGS["405b"], "num_hidden_layers": 4096}}})
    assert "It fits" not in findings("1xA10G", catalog, model="huge")


def test_bridged_pairs_stay_together() -> None:
    """GPU 1 is taken, so the pair 2-3 goes to the model that needs two."""
    gpus = [{"name": "h100-nvl", "index": i, "used_mib": 9000 if i == 1 else 0} for i in range(4)]
    planned = instances(gpus, models=["8b", {"model": "70b-fp8", "tensor_parallel_size": 2}])
    assert planned["70b-fp8"].gpu_indices == (2, 3)
    assert planned["8b"].gpu_indices == (0,)


def test_islands_are_left_only_where_there_is_no_other_way() -> None:
    gpus = [{"name": "h100-nvl", "index": i} for i in (0, 2, 3, 5)]
    planned = instances(gpus, models=[{"model": "8b", "tensor_parallel_size": 2, "data_parallel_size": 2}])
    assert planned["8b"].gpu_indices == (2, 3, 0, 5)


def test_pipeline_stages_by_request() -> None:
    instance = one("8xH100", model="70b", pipeline_parallel_size=2)
    assert (instance.tensor_parallel_size, instance.pipeline_parallel_size, instance.data_parallel_size) == (2, 2, 2)
    assert instance.config["pipeline-parallel-size"] == 2


def test_idle_gpus() -> None:
    assert "GPU 2 (NVIDIA H100 80GB HBM3) stays idle." in warnings("3xH100", model="70b")
    assert "idle" not in warnings("3xH100", model="8b")


def test_a_group_that_is_too_small_for_everybody() -> None:
    planned = instances("2xA100-80,2xH200", models=["70b", "8b"])
    assert planned["70b"].gpu_indices == (2, 3)  # 141 GB do not fit two A100 with room to spare, so it takes the H200
    assert planned["8b"].gpu_indices == (0, 1)
