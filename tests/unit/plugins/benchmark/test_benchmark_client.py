# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client: how many processes measure, when a sweep ends, when a point is measured again, and what of a failure."""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.benchmark import client, load
from ansible_collections.gpunode.llm.plugins.module_utils.benchmark.client import Client
from ansible_collections.gpunode.llm.plugins.module_utils.benchmark.figures import Part
from ansible_collections.gpunode.llm.plugins.module_utils.benchmark.load import Request
from ansible_collections.gpunode.llm.tests.unit.plugins.benchmark.bench import Engine, at_once, bench, over_http
from hypothesis import given, settings, strategies as st

SPEC: dict[str, Any] = {
    **{"name": "chat", "run": 0, "base_url": "http://127.0.0.1:1", "metrics_url": "http://127.0.0.1:1/metrics"},
    **{"model": "8b", "vocabulary": 1000, "profile": {"prompt_tokens": 6, "output_tokens": 3}, "goals": {}},
    **{"concurrency": [4], "headline": 4, "repeats": 1, "per_client": 2, "least": 4, "clients": 0, "seed": 7},
}
QUIET = {"finished": 0.0}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for counters that nobody has."""
    monkeypatch.setattr(client.time, "sleep", lambda _seconds: None)


def made(tmp_path: Path, module: Any = None, **spec: Any) -> tuple[Client, list[str]]:
    said: list[str] = []
    return Client(module or bench(), {**SPEC, **spec}, str(tmp_path), said.append), said


@settings(deadline=None)
@given(st.integers(1, 10_000), st.integers(1, 256), st.integers(0, 64), st.integers(0, 64))
def test_never_more_processes_than_requests_at_once(concurrency: int, cpus: int, wanted: int, least: int) -> None:
    count = client.processes(concurrency, cpus, wanted, least)
    assert 1 <= count <= concurrency
    assert count == min(wanted, concurrency) or not wanted
    # Half of the CPUs are the engine's, unless it showed that more are needed.
    assert wanted or count <= max(1, cpus // 2, least)
    assert sum(client.shares(concurrency, count)) == concurrency
    assert min(client.shares(concurrency, count)) >= 1


@pytest.mark.parametrize(
    ("concurrency", "cpus", "count"), [(1, 64, 1), (64, 64, 1), (65, 64, 2), (1000, 64, 16), (1000, 8, 4), (9, 1, 1)]
)
def test_processes_that_measure(concurrency: int, cpus: int, count: int) -> None:
    assert client.processes(concurrency, cpus) == count


class Sweep(Client):
    """Measures nothing: says what each point comes to, and keeps what was asked of it."""

    def __init__(
        self, tmp_path: Path, rates: Callable[[int], float], share: Callable[[int], float], **spec: Any
    ) -> None:
        super().__init__(None, {**SPEC, **spec}, str(tmp_path), lambda _line: None)
        self.rates, self.share, self.cpus = rates, share, spec.get("cpus", 16)
        self.points: list[tuple[int, int, int]] = []

    def measure(self, concurrency: int, repeat: int) -> dict[str, Any]:
        count = client.processes(concurrency, self.cpus, self.spec["clients"], self.least)
        self.points.append((concurrency, repeat, count))
        rate = self.rates(concurrency)
        return {
            **{"concurrency": concurrency, "client_processes": count, "client_cpu_share": self.share(count)},
            "output_tokens_per_s": rate,
        }


def idle(_count: int) -> float:
    return 0.1


def swept(tmp_path: Path, rates: dict[int, float], **spec: Any) -> list[int]:
    sweep = Sweep(tmp_path, rates.__getitem__, idle, concurrency=list(rates), **spec)
    sweep.sweep()
    assert sweep.points[0] == (min(max(rates), 64), 0, 1)
    return [concurrency for concurrency, _repeat, _count in sweep.points[1:]]


def test_sweep_ends_where_more_at_once_gains_nothing(tmp_path: Path) -> None:
    rates = {1: 100.0, 4: 380.0, 16: 1000.0, 64: 1049.0, 256: 9000.0}
    assert swept(tmp_path, rates, headline=4) == [1, 4, 16, 64]
    assert swept(tmp_path, {**rates, 64: 1051.0}, headline=4) == [1, 4, 16, 64, 256]


def test_sweep_goes_to_its_headline_in_any_case_and_takes_the_least_first(tmp_path: Path) -> None:
    rates = {64: 300.0, 4: 100.0, 16: 100.0, 1: 100.0, 256: 9000.0}
    assert swept(tmp_path, rates, headline=64) == [1, 4, 16, 64, 256]
    assert swept(tmp_path, {**rates, 64: 100.0}, headline=64) == [1, 4, 16, 64]


def test_sweep_of_one_point_and_of_points_that_all_fail(tmp_path: Path) -> None:
    assert swept(tmp_path, {4: 0.0}, headline=4) == [4]
    assert swept(tmp_path, {4: 0.0, 8: 0.0}, headline=4) == [4, 8]


def test_each_point_is_repeated_and_kept_in_order(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, float, idle, concurrency=[1, 4], repeats=2, run=3)
    sweep.sweep()
    kept = sorted(tmp_path.iterdir())
    assert [path.name for path in kept] == [f"3-{number:03d}.json" for number in range(4)]
    assert [json.loads(path.read_text(encoding="utf-8"))["concurrency"] for path in kept] == [1, 1, 4, 4]


def test_point_whose_client_was_busy_is_measured_again_with_more_processes(tmp_path: Path) -> None:
    """Two are too few, and four too; with eight it has time to spare, and so many are taken from there on."""
    sweep = Sweep(tmp_path, float, lambda count: 3.0 / count, concurrency=[128, 256], repeats=2, headline=256)
    sweep.sweep()
    assert sweep.points[1:] == [(128, 1, 2), (128, 1, 4), (128, 1, 8), (128, 2, 8), (256, 1, 8), (256, 2, 8)]
    # What was measured too slowly is not kept.
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize(
    ("spec", "counts"),
    [
        # One request at once is one process, and all CPUs are the most that there is.
        ({"concurrency": [1]}, [1]),
        ({"concurrency": [3]}, [1, 2, 3]),
        ({"concurrency": [4000], "cpus": 6}, [3, 6]),
        # The user's own number is not changed.
        ({"concurrency": [4000], "clients": 2}, [2]),
    ],
)
def test_busy_client_has_no_more_processes_than_are_of_use(tmp_path: Path, spec: Any, counts: list[int]) -> None:
    sweep = Sweep(tmp_path, float, lambda _count: 1.0, **{**spec, "headline": 1})
    sweep.sweep()
    assert [count for _concurrency, _repeat, count in sweep.points[1:]] == counts


def test_no_request_is_asked_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by a repeat, nor by a point that is measured again: the prefix cache would answer it."""
    asked: list[list[int]] = []

    def parts(_self: Client, drawn: Any, _limits: Any) -> list[Part]:
        asked.extend(one.prompt for mine in drawn for one in mine)
        return [Part(0.0, 1.0, 0.9, [0.0], [1], [1], [0.1], [[]], [""]) for _mine in drawn]

    monkeypatch.setattr(Client, "_parts", parts)
    measured, _said = made(tmp_path, concurrency=[1, 4], repeats=2)
    measured.cpus = 4
    measured.sweep()
    assert len(asked) == 4 + 2 * 4 + 2 * 8 + 8 + 8
    assert len({tuple(prompt) for prompt in asked}) == len(asked)
    seeds = [json.loads(path.read_text(encoding="utf-8"))["seed"] for path in sorted(tmp_path.iterdir())]
    assert len(set(seeds)) == len(seeds)


def test_point_says_what_was_measured_and_when(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = iter([{"finished": 10.0}, {"finished": 12.0}, {"finished": 19.0}])
    monkeypatch.setattr(Client, "counters", lambda _self: next(counted))
    before = time.perf_counter()
    measured, said = made(tmp_path, clients=2)
    point = measured.measure(4, 1)
    assert (point["concurrency"], point["repeat"], point["client_processes"]) == (4, 1, 2)
    assert (point["requests"], point["completed"], point["output_tokens"]) == (8, 8, 24)
    assert 0 < point["client_cpu_share"] < 1.5
    # The engine counts the last ones after their answers.
    assert point["others"] == 1
    assert before < point["started"] < point["ended"] < time.perf_counter()
    assert said == ["chat: measuring 4 at once, 8 requests"]


def test_counters_are_waited_for_and_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    monkeypatch.setattr(Client, "counters", lambda _self: counted.append(1) or QUIET)
    assert made(tmp_path)[0].settled(QUIET, 5) == QUIET
    assert len(counted) == 21


@pytest.mark.parametrize("trouble", [ConnectionRefusedError(), http.client.IncompleteRead(b"")])
def test_engine_that_does_not_count_is_measured_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    def refuse(*_args: Any, **_options: Any) -> Any:
        raise trouble

    monkeypatch.setattr(client, "opened", refuse)
    assert made(tmp_path)[0].counters() == {}


def test_processes_share_the_requests_and_each_has_its_own_limit(tmp_path: Path) -> None:
    async def ask(args: Any, sample: Any) -> Any:
        start, *rest = await at_once(args, sample)
        return (start, args.max_concurrency * 1000 + args.num_prompts, *rest[1:])

    parts = made(tmp_path, bench(ask))[0]._parts([[Request([1, 2], 3)] * 5, [Request([1], 3)] * 4], [3, 2])
    seen = [part.input_lens for part in parts]
    assert sorted(seen) == [[2004] * 4, [3005] * 5]
    assert all(0 < part.started <= min(part.start_times) <= part.ended for part in parts)
    assert all(part.cpu_s >= 0 for part in parts)


def failing(trouble: Callable[[], Any]) -> Any:
    """The process with one request fails before it measures; the others wait for it."""
    module = bench()
    whole = module.main

    def main(args: Any) -> Any:
        if args.num_prompts == 1:
            trouble()
        return whole(args)

    module.main = main
    return module


def no_memory() -> None:
    raise MemoryError("no room for prompts")


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        (no_memory, "MemoryError: no room for prompts"),
        (lambda: sys.exit("it gave up"), "SystemExit: it gave up"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "A process of the client was killed"),
    ],
)
@pytest.mark.parametrize("sizes", [(1, 2, 2), (2, 2, 1)])
def test_process_that_fails_is_told_with_its_own_cause(
    tmp_path: Path, trouble: Any, told: str, sizes: tuple[int, ...]
) -> None:
    with pytest.raises(RuntimeError, match=told) as failed:
        made(tmp_path, failing(trouble))[0]._parts([[Request([1], 3)] * size for size in sizes], [1, 1, 1])
    assert str(failed.value).count("Traceback") <= 1
    assert multiprocessing.active_children() == []


def test_process_that_is_killed_while_it_waits_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kernel does for want of memory: the others are ready, and none of them is waited for."""
    heard, turns = client._heard, []

    def kill_one(pipes: Any) -> Any:
        said = heard(pipes)
        if not turns:
            child = max(multiprocessing.active_children(), key=lambda one: one.pid)
            child.kill()
            child.join()
        turns.append(len(said))
        return said

    monkeypatch.setattr(client, "_heard", kill_one)
    with pytest.raises(RuntimeError, match="A process of the client was killed"):
        made(tmp_path)[0]._parts([[Request([1], 3)]] * 3, [1, 1, 1])
    assert turns == [3]
    assert multiprocessing.active_children() == []


def test_option_that_the_release_does_not_have_is_told_by_its_parser(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the parent, whose words are read: those of its processes are not."""
    module = bench()
    module.add_cli_args = lambda parser: parser.add_argument("--backend")
    with pytest.raises(SystemExit):
        made(tmp_path, module)[0].measure(1, 1)
    assert "unrecognized arguments: --base-url" in capsys.readouterr().err


class Pipe:
    """The child's end: keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, value: Any) -> None:
        self.sent.append(value)

    def recv(self) -> str:
        return "go"


def test_child_sends_what_it_saw_or_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client.os, "dup2", lambda *_numbers: None)
    pipe = Pipe()
    measured, _said = made(tmp_path, failing(no_memory))
    measured._child([Request([1], 3)] * 2, measured.options(2, 1), pipe)
    measured._child([Request([1], 3)], measured.options(1, 1), pipe)
    ready, seen, failed = pipe.sent
    assert ready == {}
    assert seen["output_lens"] == [3, 3]
    assert "MemoryError: no room for prompts" in failed


def test_bench_is_as_it_was_after_a_part(tmp_path: Path) -> None:
    module = bench()
    before = vars(module).copy()
    measured, _said = made(tmp_path, module)
    part = measured.part([Request([5, 6], 3)], measured.options(1, 1), lambda: None)
    assert vars(module) == before
    assert (part.input_lens, part.output_lens, part.errors) == ([2], [3], [""])
    assert part.ended > part.started > 0


@pytest.mark.parametrize(
    ("ttft", "tokens", "error", "told"),
    [
        (0.1, 3, "", ""),
        (0.0, 0, "", "no token came"),
        # Cut off after its first token: without its end nobody knows how many there were.
        (0.1, 0, "", "no token came"),
        (0.1, 2, "OSError: reset", "OSError: reset"),
    ],
)
def test_request_without_an_error_and_without_tokens_has_failed(
    tmp_path: Path, ttft: float, tokens: int, error: str, told: str
) -> None:
    async def ask(_args: Any, _sample: Any) -> Any:
        return 1.0, 5, tokens, ttft, [], error

    measured, _said = made(tmp_path, bench(ask))
    assert measured.part([Request([1], 3)], measured.options(1, 1), lambda: None).errors == [told]


def test_time_of_the_cpu_is_that_of_the_benchmark_alone() -> None:
    """Not that of what comes before it, nor while it waits for the other processes."""

    def burn(seconds: float) -> None:
        until = time.process_time() + seconds
        while time.process_time() < until:
            pass

    async def benchmark() -> str:
        burn(0.05)
        return "done"

    module = SimpleNamespace(get_samples=None, get_tokenizer=None, benchmark=benchmark)
    with client.timed(module, ["sample"], lambda: burn(0.3)) as part:
        burn(0.3)
        assert module.get_samples("any", tokenizer=None) == ["sample"]
        assert client.asyncio.run(module.benchmark()) == "done"
    assert 0.05 <= part.cpu_s < 0.3
    assert part.ended - part.started >= part.cpu_s - 0.01


def test_requests_have_names_that_no_other_process_gives(tmp_path: Path) -> None:
    names = [made(tmp_path)[0]._sample(number, Request("Hello", 3)) for number in (0, 1)]
    assert [one.request_id for one in names] == [f"benchmark-{os.getpid()}-{number}" for number in (0, 1)]
    assert (names[0].prompt, names[0].prompt_len, names[0].expected_output_len) == ("Hello", 0, 3)


@pytest.mark.parametrize(
    ("spec", "ignore_eos", "insecure"),
    [({}, True, False), ({"ignore_eos": False, "insecure": True}, False, True)],
)
def test_options_of_vllm_bench_serve(tmp_path: Path, spec: Any, ignore_eos: bool, insecure: bool) -> None:
    options = made(tmp_path, **spec)[0].options(30, 4)
    assert (options.num_prompts, options.max_concurrency, options.request_rate) == (30, 4, "inf")
    assert (options.base_url, options.endpoint) == ("http://127.0.0.1:1", "/v1/completions")
    assert options.model == options.served_model_name == "8b"
    # With its random ones vLLM cuts texts to the length that it was told, which is 0 of the user's own.
    assert options.dataset_name == "custom"
    assert (options.ignore_eos, options.insecure, options.temperature) == (ignore_eos, insecure, "0")


def test_own_requests_are_read_by_the_engines_tokenizer() -> None:
    """bench serve cuts texts off whose length it does not know, and that of the user's own nobody knows before."""
    rows = [json.dumps({"prompt": "how are you", "output_tokens": 2}), json.dumps({"prompt": "hi", "output_tokens": 3})]
    with Engine() as engine:
        assert client.own_requests(rows, "8b", engine.url) == [Request([3, 3, 3], 2), Request([2], 3)]


def test_own_requests_are_sent_as_they_are(tmp_path: Path) -> None:
    own = [Request([number, 7], 2) for number in range(3)]
    with Engine() as engine:
        measured, _said = made(
            tmp_path, bench(over_http), base_url=engine.url, metrics_url=f"{engine.url}/metrics", own=own
        )
        point = measured.measure(2, 1)
    assert {tuple(prompt) for prompt in engine.prompts} == {(0, 7), (1, 7), (2, 7)}
    assert (point["completed"], point["output_tokens"], point["failed"]) == (4, 8, 0)


def test_file_is_whole_or_not_there(tmp_path: Path) -> None:
    client.write(str(tmp_path / "point.json"), {"a": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["point.json"]


@pytest.mark.parametrize(
    ("models", "context"),
    [
        ([{"id": "70b", "max_model_len": 9}, {"id": "8b", "max_model_len": 8192}], 8192),
        ([{"id": "8b", "max_model_len": None}], 0),
        ([{"id": "70b", "max_model_len": 9}], 0),
        ([], 0),
    ],
)
def test_context_is_that_of_the_model_that_is_measured(models: list[dict[str, Any]], context: int) -> None:
    with Engine(models) as engine:
        assert client.served(engine.url, "8b", "") == context
        assert client.served(engine.url, "8b", "secret", insecure=True) == context
    assert [headers.get("Authorization") for headers in engine.headers] == [None, "Bearer secret"]


RUNS = [
    {"name": "own", "own": [Request([1, 2], 3), Request([1] * 3000, 96)], "profile": {}},
    {"name": "guide", "profile": {"prompt_tokens": {"most": 1024}, "output_tokens": 1024}},
    {"name": "long", "rows": [], "profile": {"prompt_tokens": 8192, "output_tokens": 1024}},
]


@pytest.mark.parametrize(
    ("context", "told"),
    [
        (0, ""),
        (9216, ""),
        (9215, "The longest request of the profile long has 9,216 tokens, and the context that is served has 9,215"),
        (3095, "of the profile own has 3,096 tokens"),
        (3096, "of the profile long has 9,216 tokens"),
    ],
)
def test_run_that_does_not_fit_the_context_is_told(context: int, told: str) -> None:
    assert told in client.check(RUNS, context)
    assert bool(client.check(RUNS, context)) is bool(told)


def test_connections_are_as_many_as_the_container_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[Any] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda which, pair: limits.append((which, pair)))
    client.open_files()
    assert limits == [(resource.RLIMIT_NOFILE, (4096, 4096))]


@pytest.fixture
def image(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the engine's image has: vLLM, and transformers, which read the model's config.json, which is returned."""
    config: dict[str, Any] = {"vocab_size": 5000}

    def get_config_dict(model: str, revision: str | None = None) -> Any:
        if model != "org/model":
            raise OSError(f"there is no {model}")
        return config, {}

    modules = {name: ModuleType(name) for name in ("vllm", "vllm.benchmarks", "transformers")}
    modules["vllm"].__version__ = "0.33.0"  # type: ignore[attr-defined]
    modules["vllm.benchmarks"].serve = bench(over_http)  # type: ignore[attr-defined]
    modules["transformers"].PretrainedConfig = SimpleNamespace(  # type: ignore[attr-defined]
        get_config_dict=get_config_dict
    )
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(client, "open_files", lambda: None)
    return config


@pytest.mark.parametrize(
    ("config", "options", "size"),
    [
        ({"vocab_size": 5000}, {"model": "org/model"}, 5000),
        ({"vocab_size": None, "text_config": {"vocab_size": 7000}}, {"model": "org/model", "revision": "main"}, 7000),
        ({"vocab_size": None}, {"model": "org/model"}, load.SMALL),
        ({"vocab_size": 5000}, {"model": "org/other"}, load.SMALL),
        ({"vocab_size": 5000}, {}, load.SMALL),
    ],
)
def test_vocabulary_is_that_of_the_model(
    image: dict[str, Any], config: dict[str, Any], options: dict[str, str], size: int
) -> None:
    image.clear()
    image.update(config)
    assert client.vocabulary(options) == size


def test_engine_options_are_without_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("model: org/model\napi-key: [secret]\nmax-num-seqs: 256\n", encoding="utf-8")
    assert client.engine_options(str(path)) == {"model": "org/model", "max-num-seqs": 256}
    path.write_text("# nothing\n", encoding="utf-8")
    assert client.engine_options(str(path)) == {}


def test_whole_client_against_an_engine(
    tmp_path: Path, image: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two runs over HTTP by processes of their own: every answer is counted once, and nothing is asked twice."""
    monkeypatch.setattr(client, "engine_options", lambda: {"model": "org/model"})
    run = {key: SPEC[key] for key in ("profile", "goals", "headline", "repeats", "per_client", "least", "seed")}
    runs = [
        {**run, "name": "chat", "concurrency": [1, 6], "clients": 2, "goals": {"ttft_ms": 10_000.0}},
        {**run, "name": "again", "concurrency": [2], "clients": 1, "seed": 8},
    ]
    with Engine([{"id": "8b", "max_model_len": 9}]) as engine:
        spec = {"base_url": engine.url, "metrics_url": f"{engine.url}/metrics", "model": "8b", "runs": runs}
        spec["engine_url"] = engine.url
        client.write(str(tmp_path / "spec.json"), spec)
        assert client.main(str(tmp_path)) == 0
    points = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in tmp_path.glob("[01]-*.json")}
    assert {name: (one["concurrency"], one["completed"], one["others"]) for name, one in points.items()} == {
        **{"0-000.json": (1, 4, 0), "0-001.json": (6, 12, 0), "1-000.json": (2, 4, 0)},
    }
    assert [points[name]["client_processes"] for name in sorted(points)] == [1, 2, 1]
    assert points["0-001.json"]["goodput_requests_per_s"] == points["0-001.json"]["requests_per_s"] > 0
    assert all(one["input_tokens"] == 6 * one["completed"] for one in points.values())
    # The warm-ups too: 6 and 2.
    assert engine.finished == len({tuple(prompt) for prompt in engine.prompts}) == 6 + 4 + 12 + 2 + 4
    assert max(token for prompt in engine.prompts for token in prompt) > load.SMALL
    engine_file = json.loads((tmp_path / "engine.json").read_text(encoding="utf-8"))
    assert engine_file == {"version": "0.33.0", "options": {"model": "org/model"}}
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["starting the client", "chat: warming up with 6 at once, 6 requests", *lines[2:3]]
    assert "again: measuring 2 at once, 4 requests" in lines


def test_whole_client_with_the_users_own_requests(
    tmp_path: Path, image: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "engine_options", lambda: {"model": "org/model"})
    run = {**SPEC, "name": "own", "concurrency": [2], "rows": ['{"prompt": "a bb ccc", "output_tokens": 2}']}
    with Engine([{"id": "8b", "max_model_len": 5}]) as engine:
        urls = {"base_url": engine.url, "engine_url": engine.url, "metrics_url": f"{engine.url}/metrics"}
        client.write(str(tmp_path / "spec.json"), {"model": "8b", "runs": [{**run, **urls}], **urls})
        assert client.main(str(tmp_path)) == 0
    assert engine.prompts == [[1, 2, 3]] * 6


def test_client_refuses_what_does_not_fit(
    tmp_path: Path, image: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "engine_options", lambda: {"model": "org/model"})
    with Engine([{"id": "8b", "max_model_len": 8}]) as engine:
        client.write(
            str(tmp_path / "spec.json"),
            {"base_url": engine.url, "model": "8b", "runs": [{"name": "chat", "profile": SPEC["profile"]}]},
        )
        assert client.main(str(tmp_path)) == 1
    refused = json.loads((tmp_path / "refused.json").read_text(encoding="utf-8"))
    assert refused.startswith("The longest request of the profile chat has 9 tokens")
    assert engine.finished == 0
