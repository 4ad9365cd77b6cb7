# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One engine over several nodes: groups, stages, what each rank is told, and whether the plans of a group agree."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog_files import load_catalog
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.group import differences, nameless, read_group
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.planning import (
    FIXTURES,
    findings,
    one,
    outcome,
    warnings,
)

SHAPES = (FIXTURES / "models" / "configs.jsonl").read_text(encoding="utf-8").splitlines()
CONFIGS = {shape["repo_id"]: shape["config"] for shape in map(json.loads, SHAPES)}
NAMES = ["a", "b", "c", "d"]
ADDRESSES = [f"10.0.0.{number}" for number in range(1, 5)]


def group(count: int = 2, rank: int = 0, **more: Any) -> dict[str, Any]:
    """The option `group` of a node of a play."""
    return {"nodes": NAMES[:count], "rank": rank, "addresses": ADDRESSES[:count], **more}


def test_the_head_and_a_headless_rank() -> None:
    network = {"interface": "ens1", "hcas": ["mlx5_0", "mlx5_1"]}
    head = one("8xH100", model="405b", nodes_per_engine=2, group=group(head="10.0.0.1", **network))
    peer = one("8xH100", model="405b", nodes_per_engine=2, group=group(rank=1, **network))
    assert head.config["host"] == "127.0.0.1"
    own = {"host", "port", "node-rank", "headless"}
    assert {k: v for k, v in head.config.items() if k not in own} == {
        k: v for k, v in peer.config.items() if k not in own
    }
    assert (head.config["node-rank"], peer.config["node-rank"]) == (0, 1)
    assert peer.config["headless"] is True
    assert "headless" not in head.config
    assert not own & {"host", "port"} & set(peer.config)
    assert (head.config["nnodes"], head.config["master-addr"], head.config["master-port"]) == (2, "10.0.0.1", 29501)
    assert (head.tensor_parallel_size, head.pipeline_parallel_size, head.gpu_indices) == (8, 2, tuple(range(8)))
    assert {name: peer.env[name] for name in peer.env if name.startswith(("NCCL", "GLOO", "VLLM_HOST"))} == {
        "VLLM_HOST_IP": "10.0.0.2",
        "GLOO_SOCKET_IFNAME": "ens1",
        "NCCL_SOCKET_IFNAME": "=ens1",
        "NCCL_IB_HCA": "=mlx5_0,mlx5_1",
    }
    assert peer.group
    assert (peer.group.layers, peer.group.head, peer.group.rank, peer.group.decided) == ((63, 63), "10.0.0.1", 1, False)


def test_the_api_servers_are_the_heads() -> None:
    wanted = {"model": "405b", "nodes_per_engine": 2, "extra_args": {"api-server-count": 4}}
    assert one("8xH100", group=group(), **wanted).config["api-server-count"] == 4
    assert "api-server-count" not in one("8xH100", group=group(rank=1), **wanted).config


def test_the_plan_takes_several_nodes_where_one_is_too_small() -> None:
    instance = one("8xH100", model="405b", group=group(4, 3))
    assert instance.group
    assert (instance.group.nodes, instance.group.rank, instance.group.decided) == (("c", "d"), 1, True)
    assert instance.group.addresses == ("10.0.0.3", "10.0.0.4")
    assert "405b: one node is too small, so it runs over 2 nodes (a, b)" in warnings(
        "8xH100", model="405b", group=group()
    )
    assert one("8xH100", model="405b-fp8", group=group(4)).group is None
    assert "does not fit 1x" in findings("1xA10G", model="405b", group=group(4))


@pytest.mark.parametrize(
    ("gpus", "options", "says"),
    [
        ("8xH100", {"group": group(3, 2)}, "the play has 3: a, b, c, which make 1 group, and c is left over"),
        ("8xH100", {"group": group(1), "nodes_per_engine": 2}, "the play has one: a: run the play with"),
        (
            "8xH100",
            {"nodes_per_engine": 2, "tensor_parallel_size": 16},
            "TP 16 would exchange every layer between nodes",
        ),
        (
            "8xH100",
            {"nodes_per_engine": 2, "tensor_parallel_size": 16},
            "own numbers it fits: TP 8 x PP 2 over 2 nodes",
        ),
        ("8xH100", {"nodes_per_engine": 2, "data_parallel_size": 2}, "405b: data_parallel_size 2 makes replicas"),
        (
            "8xH100",
            {"nodes_per_engine": 2, "pipeline_parallel_size": 3},
            "3 pipeline stages (pipeline_parallel_size) cannot",
        ),
        ("8xH100", {"nodes_per_engine": 2, "gpu_share": 0.5}, "has whole GPUs: leave out gpu_share"),
        ("8xH100", {"nodes_per_engine": 2, "extra_args": {"distributed-executor-backend": "ray"}}, "need no Ray"),
        ("8xL40S", {"nodes_per_engine": 2}, "does not fit 2 nodes of 8x NVIDIA L40S"),
        ("8xL40S", {"nodes_per_engine": 2}, "It fits 3 nodes of 8x NVIDIA L40S (TP 8 x PP 3)"),
        ("8xH100", {"nodes_per_engine": 65}, "nodes_per_engine must be between 1 and 64, not 65"),
        ("8xH100", {"nodes_per_engine": 2, "env": {"VLLM_PP_LAYER_PARTITION": "60,60"}}, "120 layers in 2 stages"),
        (
            "8xH100",
            {"nodes_per_engine": 2, "env": {"VLLM_PP_LAYER_PARTITION": "x"}},
            "must list the layers of each stage",
        ),
        ("8xH100", {"nodes_per_engine": 2, "extra_args": {"nnodes": 2}}, "nnodes is for an engine over several nodes"),
    ],
)
def test_what_is_refused(gpus: str, options: dict[str, Any], says: str) -> None:
    assert says in findings(gpus, model="405b", **options)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("a,b", "group must be a dictionary"),
        ({"node": ["a"]}, "unknown key 'node'"),
        ({"nodes": []}, "nodes must list the names"),
        ({"nodes": "a"}, "nodes must be a list"),
        ({"nodes": ["a", "a"]}, "each once"),
        ({"nodes": ["a"], "rank": 1}, "rank must be a whole number from 0 to 0, not 1"),
        ({"nodes": ["a", "b"], "addresses": ["10.0.0.1"]}, "2 nodes need an address each"),
        ({"nodes": ["a", "b"], "addresses": ["10.0.0.1", "10.0.0.1"]}, "all different"),
        ({"nodes": ["a"], "addresses": ["127.0.0.1"]}, "other nodes do not reach a node at 127.0.0.1"),
        ({"nodes": ["a"], "addresses": ["node-a"]}, "must be an IP address, not 'node-a'"),
        ({"nodes": ["a", "b"], "addresses": ADDRESSES[:2], "head": "10.0.0.2"}, "head must be the first"),
    ],
)
def test_groups_that_contradict_themselves(value: Any, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        read_group(value)


def test_a_group_that_is_read() -> None:
    assert read_group({}) is None
    read = read_group(group(2, "1", interface=None))
    assert read
    assert (read.rank, read.node, read.interface) == (1, "b", "")


def plan(gpus: str, rank: int, **options: Any) -> dict[str, Any]:
    """What serving_plan returns for a node."""
    wanted = {"model": "405b", "group": group(2, rank), "nodes_per_engine": 2, **options}
    if "name" in wanted:
        wanted["models"] = [{"model": wanted.pop("model"), "name": wanted.pop("name")}]
    made = outcome(gpus, **wanted)
    assert made.plan, made.findings
    count, name = gpus.split("x")
    return {"plan": made.plan.as_dict(), "findings": [], "gpus": [{"name": name}] * int(count)}


def test_plans_that_agree() -> None:
    assert differences({"a": plan("8xH100", 0), "b": plan("8xH100", 1)}) == []
    assert differences({"a": plan("8xH100", 1, model="8b", nodes_per_engine=1)}) == []


@pytest.mark.parametrize("other", [{}, {"b": {}}, {"b": {"plan": None, "findings": ["no GPU"], "gpus": []}}])
def test_a_node_without_a_plan_tells_why_itself(other: dict[str, Any]) -> None:
    assert differences({"a": plan("8xH100", 0), **other}) == []


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"b": plan("8xH100", 1, model="8b")}, "405b runs over a and b, and b does not serve it: give both the same"),
        ({"b": plan("8xH100", 1, nodes_per_engine=1, model="405b-fp8", name="405b")}, "differ in the size"),
        ({"b": plan("8xH200", 1)}, "a has 8x H100, and b 8x H200: an engine over several nodes needs the same GPUs"),
        (
            {"b": plan("8xH100", 1, image="b/c:d")},
            "image is vllm/vllm-openai:v0.33.0 on a and b/c:d on b: set vllm_image",
        ),
        ({"b": plan("8xH100", 1, port=9000)}, "port is 8000 on a and 9000 on b"),
        ({"b": plan("8xH100", 1, max_model_len=8192)}, "max-model-len is 131072 on a and 8192 on b"),
        ({"b": plan("8xH100", 1, group=group(4, 1), nodes_per_engine=4)}, "differ in the size of the group (2 and 4)"),
    ],
)
def test_plans_that_differ(other: dict[str, Any], says: str) -> None:
    found = differences({"a": plan("8xH100", 0), **other})
    assert says in "\n".join(found)


def some_gpus(gib: float) -> list[dict[str, Any]]:
    return [{"name": "Some GPU", "memory_mib": int(gib * 1024), "compute_capability": "9.0", "count": 8}]


def test_layers_are_cut_unevenly_where_the_first_ones_are_smaller() -> None:
    """Of DeepSeek's 61 layers three have no experts: with vLLM's 31 and 30 the second stage is the fuller one."""
    tight = one(some_gpus(47.0), model="deepseek-r1", nodes_per_engine=2, group=group())
    assert tight.group
    assert (tight.group.layers, tight.env["VLLM_PP_LAYER_PARTITION"]) == ((32, 29), "32,29")
    roomy = one(some_gpus(80), model="deepseek-r1", nodes_per_engine=2, group=group())
    assert roomy.group
    assert roomy.group.layers == (31, 30)
    assert "VLLM_PP_LAYER_PARTITION" not in roomy.env
    own = {"VLLM_PP_LAYER_PARTITION": " 31, 30"}
    asked = one(some_gpus(48), model="deepseek-r1", nodes_per_engine=2, group=group(), env=own)
    assert asked.group
    assert (asked.group.layers, asked.env["VLLM_PP_LAYER_PARTITION"]) == ((31, 30), "31,30")
    assert asked.max_model_len < one(some_gpus(48), model="deepseek-r1", nodes_per_engine=2).max_model_len


def test_more_memory_never_allows_a_shorter_context() -> None:
    made = [one(some_gpus(gib / 5), model="deepseek-r1", nodes_per_engine=2) for gib in range(233, 245)]
    lengths = [instance.max_model_len for instance in made]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]


def test_an_engine_on_the_cpu_has_a_stage_on_each_node() -> None:
    head, peer = (one("1xH100", model="tiny", nodes_per_engine=2, group=group(rank=rank)) for rank in range(2))
    assert (head.pipeline_parallel_size, head.config["pipeline-parallel-size"]) == (2, 2)
    assert peer.config["headless"] is True
    assert head.kv_cache_tokens == 2 * one("1xH100", model="tiny").kv_cache_tokens
    assert "NCCL_SOCKET_IFNAME" not in peer.env
    assert "2 layers cannot be split into 3 stages" in findings("1xH100", model="tiny", nodes_per_engine=3)
    assert "the play has one: a" in findings("1xH100", model="tiny", nodes_per_engine=2, group=group(1))
    draft = {"method": "mtp", "tokens": 1}
    assert "mtp" in findings("1xH100", model="tiny", nodes_per_engine=2, speculative=draft)


def test_each_group_of_a_node_has_a_port_of_its_own() -> None:
    wanted = [{"model": "tiny", "name": name, "nodes_per_engine": 2} for name in ("x", "y")]
    made = outcome("1xH100", models=wanted, group=group())
    assert made.plan
    assert [instance.config["master-port"] for instance in made.plan.instances] == [29501, 29502]


@pytest.mark.parametrize("name", ["google/gemma-3n-E4B", "openai/whisper-tiny", "BAAI/bge-m3"])
def test_what_has_no_stages_does_not_span_nodes(name: str) -> None:
    said = findings(
        "8xH100", load_catalog({"m": {"repo_id": name, "config": CONFIGS[name]}}), model="m", nodes_per_engine=2
    )
    assert "vLLM has no pipeline stages for" in said
    assert "so it cannot span 2 nodes" in said


def test_a_model_by_its_figures_has_no_stages() -> None:
    unknown = load_catalog({"m": {"repo_id": "a/b", "config": {"architectures": ["NobodyForCausalLM"]}}})
    figures = {"weights_bytes": 16_000_000_000, "kv_bytes_per_token": 131072, "max_model_len": 2048}
    said = findings("8xH100", unknown, model="m", nodes_per_engine=2, **figures)
    assert "planned by its figures has no pipeline stages" in said


def test_a_draft_stays_on_one_node() -> None:
    wanted = {"model": "qwen3.5-122b-a10b", "speculative": "auto"}
    said = findings("8xH100", nodes_per_engine=2, **wanted)
    assert "the speculative method mtp is not planned over pipeline stages" in said
    assert one("8xH100", **wanted).config["speculative-config"]
    by_text = {"method": "ngram", "tokens": 3}
    assert one("8xH100", model="405b", nodes_per_engine=2, speculative=by_text).pipeline_parallel_size == 2


def test_kv_cache_in_the_hosts_memory_stays_on_one_node() -> None:
    assert "405b: it runs over 2 nodes" in findings("8xH100", model="405b", nodes_per_engine=2, kv_host_gib=64)
    # Also where the plan takes them by itself.
    assert "405b: it runs over 2 nodes" in findings("8xH100", model="405b", group=group(), kv_host_gib=64)
    assert one("8xH100", model="405b", group=group(), kv_host_gib="auto").kv_host_gib == 0


def test_presets_are_for_one_node() -> None:
    assert one("1xH100", model="8b").faster_weights
    assert not one("1xH100", model="8b", nodes_per_engine=2).faster_weights


def test_other_weights_may_need_one_node_only() -> None:
    made = outcome("8xH100", model="405b", group=group())
    assert made.plan
    gains = {way["choice"]: way["gain"] for way in made.plan.rejected}
    assert gains["model 405b-fp8"] == "on one node"
    both = outcome("8xH100", model="405b", group=group(), nodes_per_engine=2)
    assert both.plan
    assert {way["choice"]: way["gain"] for way in both.plan.rejected}["model 405b-fp8"] == "roomier"


def test_the_longest_context_takes_the_cache_that_holds_it() -> None:
    wanted = {"model": "deepseek-r1", "nodes_per_engine": 2}
    instance = one(some_gpus(47), objective="context", **wanted)
    assert instance.max_model_len > one(some_gpus(47), **wanted).max_model_len
    assert instance.config["kv-cache-dtype"] == "fp8"


def test_engines_on_nodes_without_names_are_not_served() -> None:
    assert nameless([one("8xH100", model="405b", nodes_per_engine=2, group=group())]) == []
    (said,) = nameless([one("8xH100", model="405b", nodes_per_engine=2)])
    assert said.startswith("405b runs over 2 nodes, and their names are not given (vllm_group)")
    # The plays ask for addresses once the plan is made.
    named = one("8xH100", model="405b", nodes_per_engine=2, group={"nodes": ["a", "b"], "rank": 1})
    assert nameless([named]) == []
    assert (named.group.nodes, named.group.addresses, named.group.head) == (("a", "b"), (), "")
    assert "master-addr" not in named.config


def test_a_width_of_the_users_leaves_gpus_idle() -> None:
    instance = one("8xH100", model="405b-fp8", nodes_per_engine=2, tensor_parallel_size=4)
    assert (instance.tensor_parallel_size, instance.pipeline_parallel_size, len(instance.gpu_indices)) == (4, 2, 4)
    deep = one("8xH100", model="405b-fp8", nodes_per_engine=2, pipeline_parallel_size=4)
    assert (deep.tensor_parallel_size, deep.pipeline_parallel_size, len(deep.gpu_indices)) == (4, 4, 8)
    assert deep.group
    assert deep.group.layers == (31, 32, 32, 31)
