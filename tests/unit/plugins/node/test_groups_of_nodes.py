# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes that run one engine together: who they are, what each tells the others, and what keeps them from starting."""

from __future__ import annotations

import pytest
from ansible_collections.gpunode.llm.plugins.plugin_utils.node import group

INSTANCE = {
    "name": "big",
    "image": "vllm:1",
    "device": "cuda",
    "config": {"host": "127.0.0.1", "port": 8000, "max-model-len": 4096},
    "env": {"A": "b", "GLOO_SOCKET_IFNAME": "mine"},
    "gpu_uuids": ["GPU-1", "GPU-2"],
    "group": {
        "size": 2,
        "rank": 1,
        "head": "",
        "nodes": ["n1", "n2"],
        "addresses": [],
        "master_port": 29501,
        "interface": "",
        "hcas": [],
        "layers": [40, 40],
        "step_bytes": 1,
        "decided": False,
    },
}
ALONE = {"name": "small", "image": "vllm:1", "group": None}
LINKS = {
    "n1": {"address": "10.0.0.1", "interface": "eth0", "hcas": ["mlx5_0"], "proved": ""},
    "n2": {"address": "10.0.0.2", "interface": "eth7", "hcas": ["mlx5_1"], "proved": ""},
}


@pytest.mark.parametrize(
    ("hosts", "listed", "placed"),
    [
        (["n1", "n2", "n3"], [], {"nodes": ["n1", "n2", "n3"], "rank": 1}),
        (["n1", "n2", "n3"], ["n2", "n3"], {"nodes": ["n2", "n3"], "rank": 0}),
        (["n2"], [], {"nodes": ["n2"], "rank": 0}),
        (["n1", "n2"], ["n1", "n3"], {}),
    ],
)
def test_an_engine_may_run_over_the_nodes_of_the_play_or_those_listed(hosts, listed, placed):
    assert group.place(hosts, "n2", listed) == placed


def test_a_rank_gets_the_addresses_of_all_and_its_own_network():
    (joined, alone) = group.joined([INSTANCE, ALONE], LINKS)
    assert alone is ALONE
    whole = joined["group"]
    assert (whole["head"], list(whole["addresses"])) == ("10.0.0.1", ["10.0.0.1", "10.0.0.2"])
    assert (whole["interface"], list(whole["hcas"]), whole["rank"]) == ("eth7", ["mlx5_1"], 1)
    told = {"nnodes": 2, "node-rank": 1, "master-addr": "10.0.0.1", "master-port": 29501, "headless": True}
    assert joined["config"] == {"max-model-len": 4096, **told}
    assert joined["env"]["VLLM_HOST_IP"] == "10.0.0.2"
    assert joined["env"]["NCCL_IB_HCA"] == "=mlx5_1"
    # What the user sets stays.
    assert joined["env"]["GLOO_SOCKET_IFNAME"] == "mine"


def test_without_the_network_of_all_nodes_nothing_is_told():
    assert group.joined([INSTANCE], {"n2": LINKS["n2"]}) == [INSTANCE]
    assert group.proofs([INSTANCE], {"n2": LINKS["n2"]}) == []


def test_an_address_that_others_do_not_reach_is_refused():
    with pytest.raises(ValueError, match="127.0.0.1"):
        group.joined([INSTANCE], {**LINKS, "n1": {**LINKS["n1"], "address": "127.0.0.1"}})


@pytest.mark.parametrize(
    ("here", "later", "ready", "words"),
    [
        (["n1", "n2"], ["n1", "n2"], {}, None),
        (["n2"], ["n1", "n2"], {}, "nodes_at_a_time comes to n1 later: set it to a multiple of 2"),
        (["n2"], ["n2"], {}, "the play does not go on with n1"),
        (["n2"], ["n2"], {"n1": {"settled": True}}, None),
        (["n2"], ["n2"], {"n1": {"skipped": True}}, "the play does not go on with n1"),
        ([], [], {}, "the play does not go on with n1 and n2"),
    ],
)
def test_an_engine_starts_on_all_of_its_nodes_or_on_none(here, later, ready, words):
    found = group.missing([ALONE, INSTANCE], here, later, ready)
    assert [words in sentence for sentence in found] == ([True] if words else [])


def test_more_nodes_are_named_as_people_do():
    three = {**INSTANCE, "group": {**INSTANCE["group"], "nodes": ["n1", "n2", "n3"]}}
    assert group.missing([three], []) == [
        "big runs over n1, n2 and n3, and the play does not go on with n1, n2 and n3: see its message, or --limit."
    ]


def pulled(image_id, digest=""):
    return [{"image": "vllm:1", "image_id": image_id, "digest": digest}, {"image": "other:1", "image_id": "x"}]


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (pulled("sha256:1"), pulled("sha256:1"), True),
        # Docker's two stores have different IDs for the same image.
        (pulled("sha256:1", "sha256:d"), pulled("sha256:2", "sha256:d"), True),
        (pulled("sha256:d"), pulled("sha256:2", "sha256:d"), True),
        (pulled("sha256:1"), pulled("sha256:2"), False),
        (pulled("sha256:1"), [], True),
    ],
)
def test_an_image_of_one_name_is_the_same_on_all_nodes(first, second, same):
    found = group.other_images([ALONE, INSTANCE], {"n1": first, "n2": second}, "n2")
    assert found == (
        []
        if same
        else ["big: vllm:1 is another image on n1 than on n2: name it by its digest, or pull it again on both."]
    )


def test_a_network_is_proved_once_by_all_of_its_nodes():
    (proof,) = group.proofs([ALONE, INSTANCE, {**INSTANCE, "name": "bigger"}], LINKS)
    head = {**INSTANCE, "group": {**INSTANCE["group"], "rank": 0}}
    (other,) = group.proofs([head], LINKS)
    assert proof["key"] == other["key"]
    assert (proof["name"], proof["head"], proof["rank"], proof["size"]) == ("big", "10.0.0.1", 1, 2)
    assert (other["rank"], other["address"], other["interface"]) == (0, "10.0.0.1", "eth0")
    assert (proof["gpu"], proof["floor_gbit_s"]) == ("GPU-1", 20.0)
    proved = {node: {**link, "proved": proof["key"]} for node, link in LINKS.items()}
    assert group.proofs([INSTANCE], proved) == []
    assert len(group.proofs([INSTANCE], proved, due_only=False)) == 1
    # A node that was made anew has none, so all prove it again; likewise another adapter.
    assert group.proofs([INSTANCE], {**proved, "n1": LINKS["n1"]})[0]["key"] == proof["key"]
    assert group.proofs([INSTANCE], {**proved, "n1": {**proved["n1"], "hcas": []}})[0]["key"] != proof["key"]


def test_without_rdma_and_gpus_less_is_asked_of_a_network():
    plain = {node: {**link, "hcas": []} for node, link in LINKS.items()}
    assert group.proofs([INSTANCE], plain)[0]["floor_gbit_s"] == 1.0
    cpu = {**INSTANCE, "gpu_uuids": [], "gpu_indices": []}
    (proof,) = group.proofs([cpu], LINKS)
    assert (proof["gpu"], proof["floor_gbit_s"]) == ("", 1.0)
