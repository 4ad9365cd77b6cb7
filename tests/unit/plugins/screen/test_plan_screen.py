# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan and the card as a person reads them: whole texts, for several hosts."""

from __future__ import annotations

import ast
import shlex
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog_files import load_catalog
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.host import given_gpus
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.plan import make_plan
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.request import read_request
from ansible_collections.gpunode.llm.plugins.plugin_utils.screen import plan as screen_plan, text as screen_text

GOLDEN = Path(__file__).parent / "golden_plans"
HERE = {"paths": ["/var/lib/huggingface", "/var/lib/docker"], "free": 1_200_000_000_000, "bytes": 0}
NODES = {
    "nodes": ["gpu-1", "gpu-2"],
    "addresses": ["10.0.0.1", "10.0.0.2"],
    "interface": "ens1",
    "hcas": ["mlx5_0", "mlx5_1"],
}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "h100x8-405b-fp8": (
        "8xH100",
        {"model": "405b-fp8"},
        {
            "fetch": [{"kind": "weights", "bytes": 410_060_000_000}, {"kind": "image", "bytes": 30_000_000_000}],
            "disks": [{**HERE, "bytes": 440_060_000_000}],
        },
    ),
    "h100x8-405b-head": (
        "8xH100",
        {"model": "405b", "group": {**NODES, "rank": 0}},
        {"fetch": [{"kind": "weights", "bytes": 811_710_000_000}], "disks": [{**HERE, "bytes": 811_710_000_000}]},
    ),
    "h100x8-405b-headless": (
        "8xH100",
        {"model": "405b", "group": {**NODES, "rank": 1}},
        {"fetch": [{"kind": "weights", "bytes": 811_710_000_000}], "disks": [{**HERE, "bytes": 811_710_000_000}]},
    ),
    "cpu-tiny": ("", {"model": "tiny"}, {"fetch": [], "disks": [HERE]}),
    "h100x4-several": (
        "4xH100",
        {"models": ["8b", {"model": "70b-fp8", "port": 9000, "host": "0.0.0.0"}], "api_key_set": True},
        {
            "fetch": [{"kind": "weights", "bytes": 72_660_000_000}],
            "disks": [
                {"paths": ["/var/lib/huggingface"], "free": 900_000_000_000, "bytes": 72_660_000_000},
                {"paths": ["/var/lib/docker"], "free": 60_000_000_000, "bytes": 0},
            ],
        },
    ),
    "h100-8b": ("1xH100", {"model": "8b"}, {"fetch": [], "disks": [HERE]}),
    "l40s-8b": ("1xL40S", {"model": "8b", "max_model_len": "16K"}, {"fetch": [], "disks": [HERE]}),
}


def planned(gpus: str, options: dict[str, Any]) -> dict[str, Any]:
    catalog = load_catalog({}, {}, {})
    node = given_gpus(gpus, catalog) if gpus else given_gpus([], catalog)
    made = make_plan(read_request(options, catalog), node, catalog)
    assert made.plan, made.findings
    return {"plan": made.plan.as_dict(), "gpus": node.as_dict()["gpus"]}


def text(case: str) -> list[str]:
    gpus, options, check = CASES[case]
    plan = planned(gpus, options)
    instances = plan["plan"]["instances"]
    restarts = {instance["name"]: screen_plan.restart({}, None) for instance in instances}
    check = {**check, "instances": instances}
    return screen_plan.plan_text("gpu-1", plan, check, restarts, system="Ubuntu 24.04", link_mbit_s=1000.0)


@pytest.mark.parametrize("case", CASES)
def test_the_plan_as_a_person_reads_it(case: str) -> None:
    """To make them anew: write what this says into the file, and read the difference."""
    assert text(case) == (GOLDEN / f"{case}.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("case", CASES)
def test_no_line_is_wider_than_a_screen(case: str) -> None:
    assert [line for line in text(case) if len(line) > screen_text.WIDTH] == []


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (None, "no, this is its first start"),
        ({"started_from": {}}, "it does not run, and is started"),
        ({"started_from": {"/e/a.yaml": "1", "/e/a.env": "2", "/s/vllm-a.service": "3"}}, "no"),
        (
            {"started_from": {"/e/a.yaml": "0", "/e/a.env": "2", "/s/vllm-a.service": "0"}},
            "yes, its configuration and its unit change",
        ),
        ({"started_from": {"/e/a.yaml": "1", "/s/vllm-a.service": "3"}}, "yes, its environment changes"),
        (
            {"started_from": {"/e/a.yaml": "1", "/e/a.env": "2", "/s/vllm-a.service": "3", "/e/a.keys.yaml": "4"}},
            "yes, its API keys change",
        ),
    ],
)
def test_an_engine_is_started_anew_only_from_other_files(engine: dict[str, Any] | None, message: str) -> None:
    wanted = {"/e/a.yaml": "1", "/e/a.env": "2", "/s/vllm-a.service": "3"}
    assert screen_plan.restart(wanted, engine) == message


@pytest.mark.parametrize(
    ("fetch", "speed", "message"),
    [
        ([], 1000.0, "nothing, all of it is here"),
        ([{"kind": "weights", "bytes": 16_060_000_000}], 1000.0, "weights 16.1 GB: about 2 min 8 s at 1 Gbit/s"),
        ([{"kind": "image", "bytes": 6_000_000_000}], 250.0, "image at most 6.0 GB: about 3 min 12 s at 250 Mbit/s"),
        ([{"kind": "image", "bytes": 6_000_000_000}], None, "image at most 6.0 GB"),
    ],
)
def test_downloads_are_shown_with_their_duration(
    fetch: list[dict[str, Any]], speed: float | None, message: str
) -> None:
    assert screen_plan.download(fetch, speed) == message


def test_the_draft_is_shown() -> None:
    draft = {"repo_id": "Acme/head", "revision": "0123456789"}
    option = {"method": "eagle3", "num_speculative_tokens": 3}
    by_head = {"config": {"speculative-config": option}, "draft": draft, "auto_draft": ""}
    assert screen_plan.proposes(by_head) == [("draft", "Acme/head at 01234567, 3 tokens at a time (eagle3)")]
    (instance,) = planned("1xH100", {"model": "qwen3.5-9b", "speculative": "auto"})["plan"]["instances"]
    assert screen_plan.proposes(instance) == [("draft", "none is needed, 1 token at a time (mtp)")]
    (instance,) = planned("4xH100", {"model": "70b"})["plan"]["instances"]
    assert screen_plan.proposes(instance) == []


def test_the_best_rejected_layout_of_each_gain_is_shown() -> None:
    ways = [
        {"instance": "a", "choice": "TP 2", "reason": "wide", "gain": "roomier"},
        {"instance": "a", "choice": "TP 4", "reason": "wider", "gain": "roomier"},
        {"instance": "a", "choice": "TP 8", "reason": "slow", "gain": "faster"},
        {"instance": "a", "choice": "PP 8", "reason": "no room", "gain": ""},
    ]
    assert screen_plan.better(ways) == ["a with TP 2 would be roomier; wide.", "a with TP 8 would be faster; slow."]
    assert screen_plan.better(ways[:2]) == [
        "a with TP 2 would be roomier; wide.",
        "a with TP 4 would be roomier; wider.",
    ]
    assert screen_plan.better(ways[3:]) == []


def test_a_wider_spread_answers_faster_and_a_smaller_cache_is_roomier() -> None:
    """8b on eight GPUs is eight engines, for the sake of all requests together."""
    notes = screen_plan.better(planned("8xH100", {"model": "8b"})["plan"]["rejected"])
    assert [line.split("; ")[0] for line in notes] == [
        "8b with TP 2 x 4 replicas would be faster for a single answer",
        "8b with TP 1 x 8 replicas, KV cache in FP8 would be roomier",
    ]


ENDPOINTS = [{"name": "8b", "seconds": {"load": 31.4, "compile": 62.0, "token": 0.13}}]


@pytest.mark.parametrize("keyed", [False, True])
def test_the_card_has_lines_that_can_be_copied(keyed: bool) -> None:
    instances = planned("1xH100", {"model": "8b"})["plan"]["instances"]
    lines = screen_plan.ending(
        instances, "gpu-1", {"image": 95.2, "weights": 141.0, "endpoints": ENDPOINTS}, keyed, changed=True
    )
    assert lines[0] == "gpu-1: it answers"
    took = next(" ".join(lines[at : at + 2]) for at, line in enumerate(lines) if line.startswith("  took"))
    assert "image 1 min 35 s, weights 2 min 21 s, load 31 s, compile and warm up 1 min 2 s, first token 0.13 s" in (
        " ".join(took.split())
    )
    (curl,) = [line for line in lines if line.startswith("  curl ")]
    assert shlex.split(curl)[:3] == ["curl", "-s", "http://127.0.0.1:8000/v1/chat/completions"]
    assert ("$VLLM_API_KEY" in curl) is keyed
    (python,) = [line for line in lines if "from openai import OpenAI" in line]
    ast.parse(python.strip())
    assert ("VLLM_API_KEY" in python) is keyed
    assert any("gpunode.llm.status" in line for line in lines)
    assert any("journalctl -eu vllm-8b" in line for line in lines)


def test_each_of_several_has_its_own_times() -> None:
    instances = planned("4xH100", {"models": ["8b", "70b-fp8"]})["plan"]["instances"]
    lines = screen_plan.ending(instances, "gpu-1", {"image": 5, "endpoints": ENDPOINTS}, False, changed=True)
    assert lines[0] == "gpu-1: all of them answer"
    durations = [" ".join(line.split()) for line in lines if " took " in line]
    assert durations == ["took image 5.0 s", "8b took load 31 s, compile and warm up 1 min 2 s, first token 0.13 s"]


@pytest.mark.parametrize(
    ("task", "first"),
    [("embed", "first embedding"), ("rerank", "first answer"), ("generate", "first token"), (None, "first token")],
)
def test_the_first_answer_of_a_model_is_called_what_it_is(task: str | None, first: str) -> None:
    """An embedding model gives no token."""
    (instance,) = planned("1xH100", {"model": "8b"})["plan"]["instances"]
    instance = {**instance, "task": task} if task else {k: v for k, v in instance.items() if k != "task"}
    lines = screen_plan.ending([instance], "gpu-1", {"endpoints": ENDPOINTS}, False, changed=True)
    (duration,) = [" ".join(line.split()) for line in lines if " took " in line]
    assert duration == f"took load 31 s, compile and warm up 1 min 2 s, {first} 0.13 s"


@pytest.mark.parametrize(
    ("task", "messages"),
    [
        ("embed", ["serves embeddings by POST /v1/embeddings, and no completions"]),
        ("rerank", ["serves rankings by POST /v1/rerank, and no completions"]),
        ("generate", []),
    ],
)
def test_a_plan_names_the_answer_of_a_pooling_model(task: str, messages: list[str]) -> None:
    """By a repository's name nobody sees it, and a chat would be answered 404."""
    plan = planned("1xH100", {"model": "8b"})
    (instance,) = plan["plan"]["instances"]
    check = {"instances": [{**instance, "task": task}], "fetch": [], "disks": [HERE]}
    lines = screen_plan.plan_text("gpu-1", plan, check, {"8b": "no"}, system="", link_mbit_s=1000.0)
    assert [" ".join(line.split()) for line in lines if line.split()[:1] == ["serves"]] == messages


@pytest.mark.parametrize("changed", [True, False])
def test_unlisted_instances_are_shown_at_the_end(changed: bool) -> None:
    lines = screen_plan.ending([], "gpu-1", {"unlisted": ["8b"]}, False, changed=changed)
    assert lines[1:] == ["gpu-1: 8b is no longer listed and stays: -e vllm_remove_unlisted=true removes it."]


def test_a_run_with_nothing_to_do_prints_one_line() -> None:
    instances = planned("1xH100", {"model": "8b"})["plan"]["instances"]
    assert screen_plan.ending(instances, "gpu-1", {}, False, changed=False) == [
        "gpu-1: nothing to do, 8b answers at http://127.0.0.1:8000/v1"
    ]


def test_a_branch_is_shown_with_the_commit_that_was_read() -> None:
    plan = planned("1xH100", {"model": "8b"})
    read = {**plan["plan"]["instances"][0], "branch": "main", "revision": "0e9e39f2" + "0" * 32}
    check = {"fetch": [], "disks": [HERE], "instances": [read]}
    text = screen_plan.plan_text("gpu-1", plan, check, {"8b": "no"}, system="", link_mbit_s=1000.0)
    assert "  8b: meta-llama/Llama-3.1-8B-Instruct at 0e9e39f2 (main), BF16" in text


@pytest.mark.parametrize(
    ("task", "route", "lines"),
    [
        ("embed", "/v1/embeddings", 2),
        ("rerank", "/v1/rerank", 1),
        ("classify", "/classify", 1),
        ("pooling", "/pooling", 1),
    ],
)
def test_the_card_shows_a_pooling_model_in_use(task: str, route: str, lines: int) -> None:
    shown = screen_plan.card([{"name": "p", "host": "127.0.0.1", "port": 8000, "task": task}], "one", {}, False)
    tries = shown[shown.index("") + 1 :]
    assert len(tries) == lines
    assert f"curl -s http://127.0.0.1:8000{route} " in tries[0]
    assert not any("chat" in line for line in tries)
    assert lines == 1 or "embeddings.create(model='p', input=" in tries[1]


def test_a_headless_part_of_an_engine_answers_nothing() -> None:
    head, part = (
        planned("8xH100", {"model": "405b", "group": {**NODES, "rank": rank}})["plan"]["instances"][0]
        for rank in range(2)
    )
    endpoints = [{"name": "405b", "seconds": {"load": 900.0}}]
    lines = screen_plan.ending([part], "gpu-2", {"endpoints": endpoints}, False, changed=True)
    assert lines[0] == "gpu-2: it runs"
    assert any("none on this node, gpu-1 answers" in line for line in lines)
    assert not [line for line in lines if "curl" in line or "openai" in line]
    assert screen_plan.ending([part], "gpu-2", {}, False, changed=False) == [
        "gpu-2: nothing to do, 405b runs with gpu-1"
    ]
    assert "  curl" in "\n".join(screen_plan.ending([part, head], "gpu-1", {}, False, changed=True))


def test_an_engine_over_nodes_that_have_no_names_yet() -> None:
    (instance,) = planned("8xH100", {"model": "405b", "nodes_per_engine": 2})["plan"]["instances"]
    assert screen_plan.nodes(instance)[0] == ("nodes", "node 1 with the API, node 2 without; not named here")
    (small,) = planned("1xH100", {"model": "tiny", "nodes_per_engine": 2})["plan"]["instances"]
    assert screen_plan.layout(small) == "TP 1 x PP 2 over 2 nodes, on the CPU of each"
