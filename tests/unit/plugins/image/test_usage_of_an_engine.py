# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What counts tokens by client within vLLM, here in a stand-in; molecule/clients has the real one."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import types
from types import SimpleNamespace

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.image import usage

ADA, GRACE = ("gpunode-ada-" + "0" * 32, "gpunode-grace.b-" + "f" * 32)


class Counter:
    """One of prometheus_client's."""

    made: dict[str, Counter] = {}

    def __init__(self, name, _text, labels):
        self.name, self.labelled, self.values = name, labels, {}
        Counter.made[name] = self

    def labels(self, *values):
        assert len(values) == len(self.labelled)
        return SimpleNamespace(inc=lambda count: self.values.update({values: self.values.get(values, 0) + count}))


class Processor:
    """What vLLM has of an output processor, as far as it is used."""

    def __init__(self):
        self.request_states = {}


def state(prompt=10, generated=5, prefilling=False, lora=None):
    return SimpleNamespace(
        prompt_len=prompt,
        is_prefilling=prefilling,
        lora_name=lora,
        stats=SimpleNamespace(num_generation_tokens=generated),
    )


@pytest.fixture
def engine(monkeypatch, tmp_path):
    """Start an engine whose requests are counted, again and again."""
    Counter.made = {}
    monkeypatch.setitem(sys.modules, "prometheus_client", types.SimpleNamespace(Counter=Counter))
    monkeypatch.setenv(usage.FILE, str(tmp_path / "usage.log"))
    monkeypatch.setenv(usage.MODEL, "8b")
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)

    def start():
        Counter.made = {}
        processor = Processor()
        app = SimpleNamespace(state=SimpleNamespace(engine_client=SimpleNamespace(output_processor=processor)))

        async def serve(scope, _receive, _send):
            if scope["type"] == "http":
                scope["work"]()

        middleware = usage.ByClient(serve)

        def ask(request_id, work, kind="http"):
            headers = [(b"host", b"x"), (b"x-request-id", request_id.encode())]
            asyncio.run(middleware({"type": kind, "app": app, "headers": headers, "work": work}, None, None))

        ask("", None, "lifespan")
        return SimpleNamespace(ask=ask, states=processor.request_states, processor=processor)

    return start


def counted(name="generation_tokens"):
    return {labels[:2]: value for labels, value in Counter.made[f"gpunode_{name}"].values.items()}


def put(engine, request_id, internal, **more):
    engine.ask(request_id, lambda: engine.processor.request_states.__setitem__(internal, state(**more)))


def test_each_request_counts_for_its_client_when_it_ends(engine):
    one = engine()
    put(one, ADA, "a1")
    put(one, GRACE, "g1", prompt=3, generated=7)
    put(one, ADA, "a2", generated=2, lora="adapter")
    put(one, "mine", "n1")
    assert counted() == {}
    for request_id in ("a1", "g1", "a2", "n1"):
        one.processor.request_states.pop(request_id)
    assert counted() == {("ada", "8b"): 5, ("grace.b", "8b"): 7, ("ada", "adapter"): 2, ("-", "8b"): 5}
    assert counted("prompt_tokens")["grace.b", "8b"] == 3
    assert counted("requests")["ada", "8b"] == 1


def test_a_prompt_counts_once_it_is_computed(engine):
    one = engine()
    put(one, ADA, "a1", prefilling=True, generated=0)
    one.processor.request_states.pop("a1")
    assert counted("prompt_tokens") == {("ada", "8b"): 0}
    assert counted("requests") == {("ada", "8b"): 1}


def test_what_is_not_there_and_what_has_no_figures_count_nothing(engine):
    one = engine()
    assert one.processor.request_states.pop("unknown", None) is None
    one.ask(ADA, lambda: one.processor.request_states.__setitem__("a", SimpleNamespace(stats=None)))
    one.processor.request_states.pop("a")
    assert counted() == {}


def test_a_start_goes_on_where_the_last_one_was(engine, tmp_path):
    for _start in range(3):
        one = engine()
        put(one, ADA, "a1")
        one.processor.request_states.pop("a1")
        put(one, ADA, "in flight")
    assert counted() == {("ada", "8b"): 15}
    # It was cut off by a loss of power, and has lines that nobody wrote.
    with (tmp_path / "usage.log").open("a") as stream:
        stream.write('\n["ada", "8b", 1]\nnull\n["ada"]\n["ada", "8b", 1, 10')
    (since,) = {labels[2] for labels in Counter.made["gpunode_requests"].values}
    one = engine()
    assert counted() == {("ada", "8b"): 15}
    assert {labels[2] for labels in Counter.made["gpunode_requests"].values} == {since}
    assert len((tmp_path / "usage.log").read_text().splitlines()) == 2


def test_the_file_stays_short(tmp_path):
    journal = usage.Journal(str(tmp_path / "usage.log"), 200)
    for _each in range(50):
        journal.add(("ada", "8b"), [1, 2, 3])
    assert (tmp_path / "usage.log").stat().st_size < 250
    assert journal.read()[1] == {("ada", "8b"): [50, 100, 150]}


def test_of_several_processes_one_has_the_sums_so_far(engine, monkeypatch, tmp_path):
    one = engine()
    put(one, ADA, "a1")
    one.processor.request_states.pop("a1")
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    engine()
    assert counted() == {("ada", "8b"): 5}
    engine()
    assert counted() == {}


def test_a_full_disk_stops_no_request_and_is_told_once(engine, monkeypatch, caplog):
    one = engine()

    def full(*_args):
        raise OSError("No space left on device")

    monkeypatch.setattr(usage.Journal, "add", full)
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            put(one, ADA, f"a{number}")
            one.processor.request_states.pop(f"a{number}")
    assert counted() == {("ada", "8b"): 15}
    assert [record.message for record in caplog.records] == [
        "Usage is kept until the next start only: No space left on device"
    ]
    monkeypatch.setattr(usage.Journal, "begin", full)
    with caplog.at_level(logging.WARNING):
        engine()
    assert len(caplog.records) == 2


def test_a_vllm_that_is_another_serves_without_being_counted(engine, monkeypatch, caplog):
    monkeypatch.setattr(Processor, "__init__", lambda self: None)

    async def answer(_scope, _receive, _send):
        return None

    app = SimpleNamespace(state=SimpleNamespace(engine_client=SimpleNamespace(output_processor=Processor())))
    scope = {"type": "http", "app": app, "headers": []}
    asyncio.run(usage.ByClient(answer)(scope, None, None))
    assert usage.NOT_COUNTED in caplog.text


def test_figures_that_are_others_break_no_request(engine, caplog):
    one = engine()
    for number in range(3):
        put(one, ADA, f"a{number}")
        del one.processor.request_states[f"a{number}"].prompt_len
        del one.processor.request_states[f"a{number}"]
    assert one.processor.request_states == {}
    assert caplog.text.count(usage.NOT_COUNTED) == 1
    assert counted() == {}


def test_requests_that_are_there_already_are_taken_over(engine):
    processor = Processor()
    processor.request_states["early"] = state()
    counters = [Counter(name, "", usage.LABELS) for name in ("a", "b", "c")]
    journal = SimpleNamespace(begin=lambda: ("s", {}), add=lambda *_args: None)
    usage.watch(processor, usage.Usage(journal, "8b", lambda: counters))
    processor.request_states.pop("early")
    assert counters[2].values == {("-", "8b", "s"): 5}


@pytest.mark.parametrize(
    "text", ["", "gpunode-ada", ADA[:-1], f"{ADA}0", ADA.upper(), f"x{ADA}", "gpunode-a b-" + "0" * 32]
)
def test_another_name_of_a_request_is_nobody_s(text):
    assert usage.client_of([(b"x-request-id", text.encode())]) == "-"


def test_a_line_is_json(tmp_path):
    journal = usage.Journal(str(tmp_path / "usage.log"))
    journal.add(("ada", 'org/"odd"'), [1, 2, 3])
    assert json.loads((tmp_path / "usage.log").read_text()) == ["ada", 'org/"odd"', 1, 2, 3]
