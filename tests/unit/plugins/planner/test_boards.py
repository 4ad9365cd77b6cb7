# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Boards that were recorded or derived, through the whole plan: a plan, or the sentence that says why not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.programs.gpu import Gpu, GpuProcess, MigSlice, NodeGpus
from ansible_collections.gpunode.llm.plugins.plugin_utils import service
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.host import given_gpus, numbered, read_host, spec_of
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.planning import (
    CATALOG,
    board,
    findings,
    instances,
    one,
    outcome,
    warnings,
)


@pytest.mark.parametrize(
    ("name", "model", "tp", "dp"),
    [
        ("h100x1", "8b", 1, 1),
        ("h200x2", "8b", 1, 2),
        ("h200x2", "70b", 2, 1),
        ("a100-40x8", "70b", 8, 1),
        ("a100-80x8", "70b", 4, 2),
        ("a100-40-pciex1", "8b", 1, 1),
        ("a100-80-pciex2", "8b", 1, 2),
        ("h100x8", "405b-fp8", 8, 1),
        ("h100-pciex2", "70b-fp8", 2, 1),
        ("h100-nvlx2", "70b-fp8", 2, 1),
        ("h200x8", "405b", 8, 1),
        ("gh200x1", "8b", 1, 1),
        ("b200x8", "405b", 8, 1),
        ("l40sx4", "8b", 1, 4),
        ("a10gx1", "8b", 1, 1),
        ("a10gx4", "8b", 2, 2),
    ],
)
def test_boards_that_serve(name: str, model: str, tp: int, dp: int) -> None:
    instance = one(board(name), model=model)
    assert (instance.tensor_parallel_size, instance.data_parallel_size) == (tp, dp)
    # The node's own figure for what the driver keeps may differ a little from the catalogue's.
    by_name = one([{"name": gpu.name} for gpu in board(name).gpus], model=model)
    assert instance.kv_cache_tokens == pytest.approx(by_name.kv_cache_tokens, rel=0.01)


@pytest.mark.parametrize(
    ("name", "model", "says"),
    [
        (
            "h100x8-fabric-in-progress",
            "8b",
            "GPUs 0-7 (NVIDIA H100 80GB HBM3) are on an NVSwitch board whose fabric is 'In Progress', not 'Completed', "
            "so CUDA would fail with error 802: start Fabric Manager",
        ),
        (
            "v100x4",
            "8b",
            "has compute capability 7.0, and the images of vLLM 0.33.0 have kernels for 7.5 and newer only",
        ),
        ("h100x8-driver-535", "8b", "The NVIDIA driver is 535.274.02, and the image needs at least 580.65.06"),
        ("h100x8-one-lost", "405b", "GPU 3 (NVIDIA H100 80GB HBM3) is fallen off the bus: restart the host"),
        ("a100-80x8-mig", "405b-fp8-meta", "GPUs 0, 1 (NVIDIA A100-SXM4-80GB) are in MIG mode"),
        ("h200x2-busy", "70b", "GPU 0 (NVIDIA H200) is in use: 8.5 GiB are held by python3 (pid 583): stop it"),
    ],
)
def test_boards_that_do_not(name: str, model: str, says: str) -> None:
    assert says in findings(board(name), model=model)


@pytest.mark.parametrize(
    ("name", "model", "indices", "warns"),
    [
        ("h100x8-one-lost", "70b", (0, 1, 2, 4), "GPU 3 (NVIDIA H100 80GB HBM3) is fallen off the bus"),
        ("a100-80x8-mig", "8b", (2, 3, 4, 5, 6, 7), "turn it off with `nvidia-smi -mig 0 -i` and its index"),
        ("h200x2-busy", "8b", (1,), "GPU 0 (NVIDIA H200) is in use"),
        ("mixed", "8b", (2, 3, 4, 5), "GPUs 0, 1 (NVIDIA A100-SXM4-80GB) stay idle. An engine can use GPUs of one"),
        ("h100x8-driver-575", "8b", tuple(range(8)), "using vllm/vllm-openai:v0.33.0-cu129"),
    ],
)
def test_boards_that_serve_with_what_is_left(name: str, model: str, indices: tuple[int, ...], warns: str) -> None:
    assert one(board(name), model=model).gpu_indices == indices
    assert warns in warnings(board(name), model=model)


@pytest.mark.parametrize("state", ["no_gpu", "no_driver", "driver_not_loaded", "no_devices", "gpu_lost", "failed"])
def test_no_gpus_to_be_had(state: str) -> None:
    message = findings(NodeGpus(state, "What is wrong."), model="70b")
    assert message.splitlines()[0] == "What is wrong."
    assert "70b (131.4 GiB of BF16 weights) needs NVIDIA GPUs, for example 8x NVIDIA A100-SXM4-40GB" in message


def test_the_cpu_needs_none() -> None:
    assert one(NodeGpus("no_gpu", "None."), model="tiny").gpu_indices == ()


def test_our_own_engine_does_not_stand_in_its_own_way() -> None:
    ours = board("h200x2-busy", owner="vllm-8b")
    assert one(ours, model="8b").gpu_indices == (0, 1)
    assert "vllm-8b (pid 583): plan it together with this model, or remove it" in findings(ours, model="70b")
    assert one(ours, model="70b", remove_unlisted=True).gpu_indices == (0, 1)


def gpu(**changes: Any) -> NodeGpus:
    return NodeGpus("ok", gpus=(Gpu(**{"index": 0, "name": "NVIDIA H100 80GB HBM3", "memory_mib": 81559, **changes}),))


def test_memory_in_use() -> None:
    assert one(gpu(used_mib=500), model="8b")  # a display server or an agent
    assert "by a process that is not visible on this host" in findings(gpu(used_mib=5000), model="8b")
    mine, other = GpuProcess(1, "VLLM::EngineCore", 70000, "vllm-8b"), GpuProcess(2, "python3", None)
    assert one(gpu(used_mib=70400, processes=(mine, other)), model="8b")
    assert "9.8 GiB are held by python3 (pid 2)" in findings(gpu(used_mib=80000, processes=(mine, other)), model="8b")


def test_a_desktop_is_planned_around_where_a_share_is_given() -> None:
    """6 GiB of a monitor and a desktop on a GPU of 79.6 GiB, of which the engine takes 0.8."""
    desktop = GpuProcess(7, "Xorg", 6000)
    busy = gpu(used_mib=6144, processes=(desktop,))
    assert "6.0 GiB are held by Xorg (pid 7)" in findings(busy, model="8b")
    assert "leave room for it (vllm_gpu_memory_utilization)" in findings(busy, model="8b")
    planned = one(busy, model="8b", gpu_memory_utilization=0.8)
    assert planned.config["gpu-memory-utilization"] == 0.8
    assert "held by Xorg" in findings(busy, model="8b", gpu_memory_utilization=0.95)
    # One engine of two says nothing of its share, and takes the default.
    two = [{"model": "8b", "gpu_memory_utilization": 0.5}, {"model": "8b-fp8"}]
    assert "held by Xorg" in findings(busy, models=two)


def test_mig_that_waits_for_a_reset_and_a_fabric_that_failed() -> None:
    assert "in MIG mode" in findings(gpu(mig_pending=True), model="8b")
    message = findings(gpu(fabric_state="Completed", fabric_status="Invalid State"), model="8b")
    assert "'Completed with Invalid State'" in message


def test_a_slice_is_a_gpu_of_its_own() -> None:
    sliced = board("a100-80x2-slices")
    made = instances(sliced, models=[{"model": "8b"}, {"model": "8b-fp8", "name": "part", "gpu_indices": "0:0"}])
    assert made["part"].gpu_uuids == ("MIG-a1",)
    assert service.made({**made["part"].__dict__}, service.Settings()).gpus == ["MIG-a1"]
    # No more memory than the slice has; the whole GPU beside it is used as one.
    assert made["part"].kv_cache_tokens < made["8b"].kv_cache_tokens / 2
    assert made["8b"].gpu_indices == (1,)


def test_no_engine_spans_slices() -> None:
    unnamed = board("a100-80x1-slices-unnamed")
    made = one(unnamed, model="8b-fp8", image="site/own:v0.33.0")
    assert (made.gpu_indices, made.tensor_parallel_size, made.data_parallel_size) == ((1000,), 1, 1)
    # Without a UUID it has the name that the container toolkit gives it by its index.
    assert service.made({**made.__dict__}, service.Settings()).gpus == ["0:0"]
    both = [{"model": "8b-fp8", "name": "a"}, {"model": "8b-fp8", "name": "b"}]
    two = instances(unnamed, models=both, image="site/own:v0.33.0")
    assert [item.gpu_indices for item in two.values()] == [(1000,), (1001,)]
    message = findings(unnamed, model="70b-w4a16", tensor_parallel_size=2, image="site/own:v0.33.0")
    assert "TP 2 needs 2 GPUs, 1 is available" in message
    assert "MIG slice of 39.2 GiB of NVIDIA A100-SXM4-80GB" in message


def test_many_slices_are_placed_at_once() -> None:
    """56 slices, and five engines that do not go together: alike slices are tried once."""
    part = tuple(MigSlice(index, f"MIG-{index}", 9728) for index in range(7))
    node = NodeGpus("ok", gpus=tuple(replace(gpu().gpus[0], index=at, mig=True, slices=part) for at in range(8)))
    assert len(instances(node, models=[{"model": "8b-w4a16", "name": f"m{at}"} for at in range(5)])) == 5
    small = [{"model": "8b-w4a16", "name": f"m{at}", "tensor_parallel_size": 1} for at in range(57)]
    assert "57 GPUs in all" in findings(node, models=small)


def test_a_driver_that_asks_for_recovery() -> None:
    assert "the driver asks for 'Drain and Reset'" in warnings(gpu(recovery_action="Drain and Reset"), model="8b")


def test_a_gpu_without_a_driver_beside_others() -> None:
    node = replace(gpu(), message="On the PCI bus, but not listed by nvidia-smi: 0000:00:07.0.")
    assert "not listed by nvidia-smi" in warnings(node, model="8b")


def test_nvswitches_before_hopper_need_fabric_manager() -> None:
    a100 = replace(board("a100-80x8"), nvswitches=6)
    assert one(replace(a100, fabric_manager=True), model="8b")
    assert "6 NVSwitches but Fabric Manager is not running" in findings(replace(a100, fabric_manager=False), model="8b")
    assert one(replace(board("h100x8"), nvswitches=4, fabric_manager=False), model="8b")  # its own state says more


def test_an_unknown_gpu_is_planned_from_its_own_figures() -> None:
    node = NodeGpus("ok", gpus=(Gpu(0, "NVIDIA H900", 100000, 700, architecture="Hopper"),))
    host = read_host(node, CATALOG)
    assert host.groups[0].spec.reserved_mib == 704  # the driver's own figure, rounded up
    assert host.groups[0].spec.compute_capability == "9.0"
    assert one(node, model="8b").max_model_len == 131072
    assert spec_of(Gpu(0, "NVIDIA H900", 100000), CATALOG) is None


def test_a_known_name_with_another_memory() -> None:
    spec = spec_of(Gpu(0, "NVIDIA H100 80GB HBM3", 65000), CATALOG)
    assert spec
    assert (spec.memory_mib, spec.reserved_mib) == (65000, 384)


def test_unified_memory_is_the_hosts_less_a_reserve() -> None:
    spark = replace(board("gb10x1"), host_memory_mib=122880)
    planned = one(spark, model="8b")
    assert planned.config["gpu-memory-utilization"] == 0.86  # (122880 - 16384) / 122880
    assert "The memory of NVIDIA GB10 is the host's (120.0 GiB): the engine takes 0.86 of it" in warnings(
        spark, model="8b"
    )
    half = one(replace(spark, host_memory_mib=61440), model="8b")
    assert half.kv_cache_tokens < planned.kv_cache_tokens / 2
    # Without a node the catalogue says how much it has; what the user says of the share holds.
    assert one("1xGB10", model="8b").config["gpu-memory-utilization"] == 0.86
    assert one(spark, model="8b", gpu_memory_utilization=0.5).config["gpu-memory-utilization"] == 0.5


def test_an_unknown_gpu_with_unified_memory() -> None:
    node = NodeGpus("ok", gpus=(Gpu(0, "NVIDIA GB99", architecture="Blackwell"),), host_memory_mib=122880)
    assert one(node, model="8b").config["gpu-memory-utilization"] == 0.86
    assert "reports no memory size" in findings(replace(node, host_memory_mib=None), model="8b")


def test_unified_memory_that_others_hold() -> None:
    spark = replace(board("gb10x1"), host_memory_mib=122880)
    held = replace(spark.gpus[0], processes=(GpuProcess(7, "python3", 60000),))
    assert "58.6 GiB are held by python3 (pid 7)" in findings(replace(spark, gpus=(held,)), model="8b")


@pytest.mark.parametrize(
    ("host", "model", "tp", "dtype"),
    [
        ("1xL4", "8b", 1, None),
        ("1xT4", "8b-w4a16", 1, "half"),
        ("8xT4", "8b", 2, "half"),
        ("1xRTX4090", "8b", 1, None),
        ("1x5090", "8b", 1, None),
        ("1xA6000", "70b-w4a16", 1, None),
        ("1xL40", "8b", 1, None),
        ("1xNVIDIA RTX PRO 6000 Blackwell Server Edition", "70b-fp8", 1, None),
        ("1xpro6000", "70b-fp8", 1, None),
        ("8xH20", "405b-fp8", 8, None),
        ("2xh200-nvl", "70b", 2, None),
        ("8xB300", "405b", 4, None),
        ("1xspark", "70b-fp8", 1, None),
    ],
)
def test_further_boards(host: str, model: str, tp: int, dtype: str | None) -> None:
    instance = one(host, model=model)
    assert (instance.tensor_parallel_size, instance.config.get("dtype")) == (tp, dtype)


@pytest.mark.parametrize("host", ["4xV100", "4xTesla V100-SXM2-32GB", "1xTesla V100-PCIE-16GB", "1xv100-32-pcie"])
def test_volta_is_refused_in_a_sentence(host: str) -> None:
    assert "kernels for 7.5 and newer only" in findings(host, model="8b")


@pytest.mark.parametrize(
    "gpus", ["8xH100", "8 x h100", ["4xH100", "4xH100"], [{"name": "h100", "count": "8"}], {"name": "h100", "count": 8}]
)
def test_spellings_of_gpus(gpus: Any) -> None:
    assert one(gpus, model="405b-fp8").gpu_indices == tuple(range(8))


def test_what_gpu_info_returned_can_be_given_back() -> None:
    node = board("h200x2-busy", owner="vllm-8b")
    assert given_gpus(node.as_dict()["gpus"], CATALOG).gpus == node.gpus


def test_the_order_of_entries_does_not_matter() -> None:
    first = outcome(["4xH100", "2xA100"], model="8b")
    assert first == outcome(["2xA100", "4xH100"], model="8b")
    assert outcome("1xH100", model="8b") == outcome("H100", model="8b")


@pytest.mark.parametrize(
    ("gpus", "hosts"),
    [
        ("1xGB10", "It fits 4 nodes of 1x NVIDIA GB10 (TP 1 x PP 4) or "),
        ("1xGH200", "It fits 3 nodes of 2x NVIDIA GH200 480GB (TP 2 x PP 3) or "),
        ("1xGB200", "It fits 4x NVIDIA GB200 (TP 4"),
    ],
)
def test_no_host_is_offered_that_nobody_builds(gpus: str, hosts: str) -> None:
    """GB10 stands alone, GH200 in pairs, GB200 by four."""
    assert hosts in findings(gpus, model="405b-fp8")


def test_a_mixed_host_says_once_what_is_true_of_all_its_gpus() -> None:
    said = findings("4xH100,2xL40S", model="8b", tensor_parallel_size=8)
    assert "TP 8 needs 8 GPUs, 4 NVIDIA H100 80GB HBM3 are available. TP 8 needs 8 GPUs, 2 NVIDIA L40S are" in said
    said = findings("4xH100,2xL40S", model="8b", pipeline_parallel_size=2, kv_bytes_per_token=131072)
    assert said.count("a model that is planned by its figures has no pipeline stages".capitalize()) == 1


@pytest.mark.parametrize(
    ("gpus", "says"),
    [
        ("8xH10O", "'H10O' is not in the catalogue. Did you mean h100 or "),
        ("8xzzz", "'zzz' is not in the catalogue. Known: a100-40, a100-80, "),
        ("8xM300", ", v100-32-pcie. For another GPU, give memory_mib and compute_capability, or add it with"),
        ([{"name": "h100", "memory": 1}], "unknown key 'memory'"),
        ([8], "8 is neither a text such as 8xH100 nor a dictionary"),
        ([{"name": "h100", "count": "many"}], "gpus: h100: count must be a whole number, not 'many'."),
        ({"name": "h100", "count": 10**9}, "gpus: h100: count must be between 0 and 64, not 1000000000."),
        ("999999999xH100", "gpus: H100: count must be between 0 and 64, not 999999999."),
        ("40xH100,40xL40S", "gpus: 80 GPUs are more than one host has: describe a host of 64 or fewer."),
        ("H100\nL40S", r"gpus: 'H100\nL40S' is not in the catalogue"),
        ({"name": "h100", "used_mib": float("inf")}, "used_mib must be a whole number, not inf."),
        ({"name": "h100", "memory_mib": -1}, "memory_mib must be between 1 and 16777216, not -1."),
        ({"name": "h100", "processes": "vllm"}, "gpus: h100: processes must be a list, not 'vllm'."),
        ({"name": "h100", "processes": [{"pid": 1}]}, "gpus: h100: processes: name is missing."),
        ({"name": "h100", "slices": [{"size": 1}]}, "gpus: h100: slices: unknown key 'size'"),
        ({"name": "h100", "uuid": ["GPU-1"]}, "gpus: h100: uuid must be a text, not ['GPU-1']."),
        ({"name": "x", "memory_mib": 8, "compute_capability": "new"}, "compute_capability must look like 9.0"),
        ([{"name": "h100", "index": 0}, {"name": "h100", "index": 0}], "two entries have the same index"),
    ],
)
def test_gpus_that_cannot_be_read(gpus: Any, says: str) -> None:
    with pytest.raises(ValueError, match=r"^gpus: ") as raised:
        given_gpus(gpus, CATALOG)
    assert says in str(raised.value)


def test_no_gpus_given() -> None:
    assert given_gpus(" , ", CATALOG).state == "no_gpu"
    assert "No GPU was given" in findings(",", model="8b")


@pytest.mark.parametrize(
    ("indices", "text"), [([3], "GPU 3"), ([1, 0], "GPUs 0, 1"), ([2, 0, 1], "GPUs 0-2"), ([0, 1, 3], "GPUs 0, 1, 3")]
)
def test_numbers_in_words(indices: list[int], text: str) -> None:
    assert numbered(indices) == text
