# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts have the router, which engines are behind it, and what is refused before anything changes."""

from __future__ import annotations

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.instance import names
from ansible_collections.gpunode.llm.plugins.plugin_utils.fleet import router

SMALL = {"name": "8b", "model": "8b", "served_model_name": "org/small", "host": "10.0.0.1", "port": 8000}
EMBEDDING = {**SMALL, "name": "e5", "model": "org/e5", "served_model_name": "org/e5", "task": "embed", "port": 8001}


@pytest.mark.parametrize(
    ("given", "groups", "gateways", "expected"),
    [
        ([], {"routers": ["r1", "r2"]}, ["gpu-1"], ["r1", "r2"]),
        ([], {}, ["gpu-1", "gpu-2"], ["gpu-1"]),
        ([], {"routers": []}, [], []),
        ("gpu-2,gpu-3", {"routers": ["r1"]}, ["gpu-1"], ["gpu-2", "gpu-3"]),
    ],
)
def test_the_hosts_with_a_router(given, groups, gateways, expected):
    assert router.hosts(given, groups, gateways) == expected


def test_a_worker_is_an_engine_whose_requests_name_the_model():
    score = {**SMALL, "name": "rank", "task": "rerank"}
    second_rank = {**SMALL, "name": "405b", "group": {"rank": 1}}
    first_rank = {**SMALL, "name": "405b", "host": "0.0.0.0", "served_model_name": "org/large", "group": {"rank": 0}}
    assert router.rows([SMALL, EMBEDDING, score, second_rank, first_rank], "gpu-1", "10.9.9.9") == [
        {"id": "gpu-1-8b", "url": "http://10.0.0.1:8000", "model": "org/small", "aliases": ["8b"]},
        {"id": "gpu-1-e5", "url": "http://10.0.0.1:8001", "model": "org/e5", "aliases": ["e5"]},
        {"id": "gpu-1-405b", "url": "http://10.9.9.9:8000", "model": "org/large", "aliases": ["405b", "8b"]},
    ]


def test_an_address_of_ipv6_is_in_brackets():
    assert router.rows([{**SMALL, "host": "::"}], "a", "fd00::1")[0]["url"] == "http://[fd00::1]:8000"


@pytest.mark.parametrize(
    ("given", "ansible_host", "route", "expected"),
    [
        ("", "gpu-1.example.net", "10.0.0.1", "10.0.0.1"),
        ("", "10.0.0.2", "10.0.0.1", "10.0.0.2"),
        ("10.0.0.3", "10.0.0.2", "10.0.0.1", "10.0.0.3"),
        ("", "gpu-1", "", ""),
        # ssh through a tunnel, or a forwarded port of a virtual machine's host.
        ("", "127.0.0.1", "10.0.0.1", "10.0.0.1"),
        ("", "::1", "", ""),
        ("gpu-1.example.net", "10.0.0.2", "", "gpu-1.example.net"),
    ],
)
def test_the_address_that_the_router_reaches(given, ansible_host, route, expected):
    assert router.node_address(given, ansible_host, route) == expected


def test_an_address_that_is_none_is_refused():
    with pytest.raises(ValueError, match="must be an address or a name such as 10.0.0.11, not 'http://gpu'"):
        router.node_address("http://gpu", "10.0.0.2", "")


LOOPBACK = {**SMALL, "host": "127.0.0.1"}
SAME, OTHER = [["a", "b"], ["a"]], [["a"], ["b"], []]
BOTH = ["gpu-1", "gpu-2"]


@pytest.mark.parametrize(
    ("instance", "address", "routers", "keys", "expected"),
    [
        (SMALL, "10.0.0.1", ["r1"], SAME, []),
        (LOOPBACK, "10.0.0.1", ["gpu-1"], SAME, []),
        (LOOPBACK, "10.0.0.1", BOTH, SAME, ["router on gpu-2 does not reach it: set vllm_host to 10.0.0.1"]),
        (LOOPBACK, "", ["r1"], SAME, ["set vllm_host to an address of this node, and vllm_api_keys"]),
        ({**SMALL, "host": "0.0.0.0"}, "", ["r1"], SAME, ["set router_node_address"]),
        (SMALL, "10.0.0.1", ["r1"], OTHER, ["vllm_api_keys differs from that on r1"]),
        (SMALL, "10.0.0.1", [], SAME, ["no host has the router: put a host into the group routers"]),
        ({**LOOPBACK, "task": "rerank"}, "10.0.0.1", ["r1"], OTHER, []),
    ],
)
def test_what_is_refused(instance, address, routers, keys, expected):
    found = router.findings([instance], "gpu-1", address, routers, keys)
    assert len(found) == len(expected)
    assert all(part in finding for part, finding in zip(expected, found, strict=True))


def test_the_plan_has_two_processes_on_ports_of_their_own():
    plan = router.plan({"port": "31000", "check_interval_s": "5"})
    assert plan["findings"] == []
    assert [process["port"] for process in plan["processes"]] == [31000, 30001]
    assert [process["unit"] for process in plan["processes"]] == list(names.ROUTER_UNITS)
    assert plan["upstream"] == {"first": "127.0.0.1:31000", "second": "127.0.0.1:30001"}
    assert sorted(one["port"] for one in plan["listens"]) == [29000, 29001, 30001, 31000]
    assert plan["launch"]["check_timeout_s"] == 5
    for process in plan["processes"]:
        assert process["unit_path"] in process["runs"]["files"]
        assert process["control_key"] == names.router_control_key(process["unit"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"port": 30001}, "The router's four ports must differ, and are 30001, 30001, 29000, 29001."),
        ({"policy": "best"}, "router_policy must be one of cache_aware, "),
        ({"check_failures": 0}, "router_check_failures must be"),
        ({"drain_timeout_s": "long"}, "router_drain_timeout_s must be a whole number such as 300, not 'long'."),
    ],
)
def test_settings_that_the_router_cannot_work_with(options, expected):
    (finding,) = router.plan(options)["findings"]
    assert expected in finding


@pytest.mark.parametrize(
    ("options", "engine", "ports"),
    [
        ({}, "smg", 4),
        ({"obstacle": "smg has no wheel for ppc64le"}, "nginx", 0),
        ({"engine": "nginx"}, "nginx", 0),
    ],
)
def test_where_smg_cannot_be_had_the_gateway_does_its_work(options, engine, ports):
    plan = router.plan(options)
    assert (plan["engine"], len(plan["listens"]), plan["findings"]) == (engine, ports, [])


def test_a_router_that_is_asked_for_and_cannot_be_had_is_refused():
    (finding,) = router.plan({"engine": "smg", "obstacle": "smg has no wheel for ppc64le"})["findings"]
    assert finding == "router_engine is smg, but smg has no wheel for ppc64le. Leave it at auto, or set nginx."
