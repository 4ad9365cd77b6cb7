# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a benchmark measures and keeps, through both of its ways, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import CLIENT, ENGINE_KEY, GATEWAY_KEY, KEPT, SMALL, Controller, command_lines, load
from scenario import CHECKOUT, Play, hunt, nodes, on_node, wait_until

FIGURES = ("ttft_ms", "tpot_ms", "itl_ms", "e2e_ms")
PERCENTILES = {"mean", "p1", "p5", "p10", "p25", "p50", "p75", "p90", "p95", "p99", "max"}


@dataclass(frozen=True)
class Measured:
    """A benchmark that ended: its play, its record on this machine, and what it left where."""

    play: Play
    path: Path
    command_lines: list[str]
    new_places: set[str]

    @property
    def record(self) -> dict[str, Any]:
        return json.loads(self.path.read_text())


def measured(controller: Controller, key: str, **more: Any) -> Measured:
    files, places, lines = controller.files(), set(hunt(key)), []
    with command_lines(lines):
        play = controller.benchmark(**more)
    assert play.status == 0, play.text[-3000:]
    return Measured(play, controller.new(files), lines, set(hunt(key)) - places)


@pytest.fixture(scope="module")
def direct(controller: Controller) -> Measured:
    return measured(controller, ENGINE_KEY, benchmark_repeats=3, benchmark_goals={"ttft_ms": 60000, "itl_ms": 60000})


@pytest.fixture(scope="module")
def through_front(controller: Controller) -> Measured:
    return measured(controller, GATEWAY_KEY, benchmark_front=True, benchmark_concurrency=[4])


def test_the_record_is_on_both_machines_and_beside_it_a_report(direct: Measured) -> None:
    assert direct.record == load(direct.path.name)
    page = direct.path.with_suffix(".html").read_text()
    assert direct.record["id"] in page
    assert "data:image/png" in page or "<svg" in page
    assert f"Report: {direct.path.with_suffix('.html')}" in direct.play.words


def test_the_record_says_where_and_of_what_it_is(direct: Measured) -> None:
    record = direct.record
    engine, node, model = record["engine"], record["node"], record["model"]
    digests = on_node(f"docker image inspect -f '{{{{json .RepoDigests}}}} {{{{.Id}}}}' {engine['image']}")
    assert engine["image_digest"].startswith("sha256:")
    assert engine["image_digest"] in digests
    assert engine["version"].startswith("0.32.0")
    assert engine["options"]["model"] == "gpunode/tiny-llama"
    assert (node["name"], node["kernel"]) == (nodes()[0], on_node("uname -r"))
    assert node["cpu"] in on_node("cat /proc/cpuinfo")
    assert node["cpus"] == int(on_node("nproc"))
    # What has no GPU has no driver, and no figure of one.
    assert (node["gpus"], node["driver"], record["points"][0]["power_w"]) == ([], "", None)
    assert model["revision"] in on_node("ls /var/lib/huggingface/hub/models--gpunode--tiny-llama/snapshots")
    assert record["collection"] == yaml.safe_load((CHECKOUT / "galaxy.yml").read_text())["version"]
    assert record["profile"]["output_tokens"] == SMALL["output_tokens"]
    assert record["through"] == "loopback"


def test_every_point_has_its_figures(direct: Measured) -> None:
    points = direct.record["points"]
    assert [(point["concurrency"], point["repeat"]) for point in points] == [
        (at, n) for at in (1, 16) for n in (1, 2, 3)
    ]
    assert len({point["seed"] for point in points}) == 6
    for point in points:
        assert (point["completed"], point["failed"]) == (point["requests"], 0)
        assert point["output_tokens"] == 32 * point["requests"]
        for figure in FIGURES:
            assert set(point[figure]) == PERCENTILES
        assert 0 < point["ttft_ms"]["p50"] <= point["ttft_ms"]["p99"] <= point["e2e_ms"]["max"]
        # Two CPUs for all: the client was never the limit.
        assert 0 < point["client_cpu_share"] < 1
        assert point["goodput_requests_per_s"] == pytest.approx(point["requests_per_s"])


@pytest.mark.parametrize(("way", "key"), [("direct", ENGINE_KEY), ("through_front", GATEWAY_KEY)])
def test_the_key_is_nowhere(way: str, key: str, request: pytest.FixtureRequest, controller: Controller) -> None:
    found: Measured = request.getfixturevalue(way)
    assert [line for line in found.command_lines if CLIENT in line], "nothing was seen of the client"
    assert [line for line in found.command_lines if key in line] == []
    assert found.new_places == set()
    assert key not in found.play.text
    assert [path.name for path in controller.files() if key.encode() in path.read_bytes()] == []


def test_the_gateway_is_measured_where_it_is_asked(through_front: Measured) -> None:
    record = through_front.record
    assert record["through"] == "front"
    (point,) = record["points"]
    assert (point["completed"], point["failed"], point["concurrency"]) == (8, 0, 4)
    # And what warms up.
    assert (
        int(on_node("journalctl --no-pager -o cat -t gateway | grep -c 'ada POST /tiny/v1/completions 200'")) >= 8 + 4
    )


def test_nothing_of_a_benchmark_runs_on(direct: Measured, through_front: Measured) -> None:
    assert on_node("docker ps -a --format '{{.Names}}'") == "vllm-tiny"
    assert on_node("systemctl list-units --all --plain --no-legend 'gpunode-benchmark*'") == ""
    assert on_node("ls /run/gpunode", check=False).count("benchmark") == 0


def test_the_same_engine_is_as_fast_as_before(direct: Measured, controller: Controller) -> None:
    result = controller.benchmark(
        benchmark_repeats=3, benchmark_compare=str(direct.path), benchmark_fail_if_slower=True
    )
    assert result.status == 0, result.text[-3000:]
    assert "the same" in result.words


def running() -> bool:
    """Whether the engine has one request."""
    return on_node("curl -s http://127.0.0.1:8000/metrics | grep '^vllm:num_requests_running'").endswith(" 1.0")


@contextmanager
def client() -> Iterator[None]:
    """One that asks without end, each time for several seconds."""
    body = json.dumps({"model": "tiny", "prompt": "Hello", "max_tokens": 1900, "ignore_eos": True})
    ask = "curl -s -o /dev/null http://127.0.0.1:8000/v1/completions -H 'Content-Type: application/json' -d @/run/body"
    script = f'while :; do {ask} -H "Authorization: Bearer $VLLM_API_KEY"; done'
    on_node(f"cat >/run/body <<'END'\n{body}\nEND\ncat >/run/load.sh <<'END'\n{script}\nEND")
    on_node("systemd-run --quiet --collect --unit=load --property=EnvironmentFile=/etc/vllm/tiny.env sh /run/load.sh")
    try:
        wait_until(running)
        yield
    finally:
        on_node("systemctl stop load")


@contextmanager
def held() -> Iterator[None]:
    """The engine stands still with the request that it has: that leaves the CPUs to the play."""
    on_node("pkill -STOP -f 'VLLM::[E]ngine'")
    try:
        assert running()
        yield
    finally:
        on_node("pkill -CONT -f 'VLLM::[E]ngine'")


def test_an_engine_with_clients_is_left_alone(controller: Controller) -> None:
    kept = on_node(f"ls {KEPT}").split()
    with client():
        with held():
            refused = controller.benchmark(benchmark_concurrency=[4])
        assert on_node(f"ls {KEPT}").split() == kept
        files = controller.files()
        agreed = controller.benchmark(benchmark_concurrency=[4], benchmark_busy=True)
    assert refused.status != 0
    assert "vllm-tiny has 1 requests of its clients" in refused.words
    assert "benchmark_busy=true" in refused.words
    assert agreed.status == 0, agreed.text[-3000:]
    (point,) = load(controller.new(files).name)["points"]
    assert point["completed"] == 8


def test_own_requests_are_measured(controller: Controller, tmp_path: Path) -> None:
    mine = tmp_path / "mine.jsonl"
    rows = [{"prompt": "The GPU " * number, "output_tokens": 10 * number} for number in (1, 2, 3)]
    mine.write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = controller.files()
    result = controller.benchmark(benchmark_profiles=[], benchmark_requests=str(mine), benchmark_concurrency=[3])
    assert result.status == 0, result.text[-3000:]
    record = json.loads(controller.new(files).read_text())
    (point,) = record["points"]
    assert record["profile"]["name"] == "own"
    assert point["completed"] == point["requests"] > 0
    # Some of each length.
    assert 10 * point["requests"] < point["output_tokens"] < 30 * point["requests"]
    assert point["input_tokens"] > 0


def test_what_cannot_be_measured_is_refused_in_a_sentence(controller: Controller, tmp_path: Path) -> None:
    mine, kept = tmp_path / "mine.jsonl", on_node(f"ls {KEPT}")
    mine.write_text('{"prompt": "The GPU", "output_tokens": 3}\n{"prompt": "no length"}\n')
    malformed = controller.benchmark(benchmark_requests=str(mine))
    long = controller.benchmark(benchmark_extra_profiles={"small": {**SMALL, "prompt_tokens": 3000}})
    for result, words in ((malformed, "Line 2 is not a request such as"), (long, "3,032 tokens")):
        assert result.status != 0
        assert words in result.words
        assert "Traceback" not in result.text
    assert "the context that is served has 2,048" in long.words
    assert on_node(f"ls {KEPT}") == kept
