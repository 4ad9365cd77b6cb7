# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a server answers: every way in which it may not."""

from __future__ import annotations

import http.client
import json
import os
import socket

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils import _probe

MODELS = (200, json.dumps({"data": [{"id": "m"}, {"id": "alias"}]}))
DONE = (200, json.dumps({"choices": [{"text": "x"}]}))


def server(health=(200, ""), models=MODELS, completion=DONE):
    answers = {"/health": health, "/v1/models": models, "/v1/completions": completion}

    def ask(_method, path, _body, headers, _timeout):
        ask.headers = headers
        answer = answers[path]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return ask


@pytest.mark.parametrize(
    ("kind", "ready", "refused", "said"),
    [
        ({}, True, False, "answers a completion"),
        ({"health": ConnectionRefusedError()}, False, False, "no answer yet"),
        ({"health": TimeoutError()}, False, False, "no answer yet"),
        ({"health": http.client.RemoteDisconnected()}, False, False, "no answer yet"),
        ({"health": (503, "")}, False, False, "/health answers 503"),
        ({"models": (401, "")}, False, True, "another API key"),
        ({"models": (200, '{"data": [{"id": "other"}]}')}, False, True, "another server"),
        ({"models": (200, "<html>")}, False, True, "not vLLM"),
        ({"models": (200, "[]")}, False, True, "not vLLM"),
        ({"completion": (500, "boom")}, False, False, "500: boom"),
        ({"completion": (404, "no")}, False, True, "404"),
        ({"completion": (200, '{"choices": []}')}, False, True, "not vLLM"),
        ({"completion": TimeoutError()}, False, False, "no answer yet"),
    ],
)
def test_probe(kind, ready, refused, said):
    answer = _probe.probe(server(**kind), "m")
    assert (answer.ready, answer.refused) == (ready, refused)
    assert said in answer.detail


def test_key_is_sent_and_in_no_answer():
    ask = server(models=(401, "denied"))
    answer = _probe.probe(ask, "m", "sk-secret")
    assert ask.headers["Authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in answer.detail


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("A=1\nVLLM_API_KEY=a=b c\n", "a=b c"),
        ("# VLLM_API_KEY=no\n", ""),
        ("VLLM_API_KEY=a\nVLLM_API_KEY=b", "b"),
        ("VLLM_API_KEY", ""),
        ("", ""),
    ],
)
def test_key_in_env_file(text, key):
    assert _probe.key_in(text) == key


@pytest.mark.parametrize(
    ("host", "reached"),
    [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("[::1]", "::1"), ("10.0.0.1", "10.0.0.1"), ("", "127.0.0.1")],
)
def test_reachable_host(host, reached):
    assert _probe.reachable_host(host) == reached


def test_the_wait_ends_with_the_engine():
    alive = iter([True, True, False])
    looks = []
    answer = _probe.wait_until_ready(
        lambda: looks.append(1) or _probe.Answer(False, ""), lambda: next(alive), lambda _s: None
    )
    assert not answer.ready
    assert len(looks) == 2


def metrics(**engines):
    """What /metrics says of engines: name=(running, waiting, prompt tokens, generated tokens)."""
    names = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:prompt_tokens_total")
    names += ("vllm:generation_tokens_total",)
    lines = ["# HELP vllm:num_requests_running Number of requests.", 'vllm:other{engine="0"} 5']
    for engine, values in engines.items():
        lines += [f'{name}{{engine="{engine[1:]}",model_name="m"}} {value}' for name, value in zip(names, values)]
    return "\n".join(lines) + "\n"


def test_work_of_every_engine():
    found = _probe.work_in(metrics(e0=(3, 2, 1e3, 5), e1=(0, 0, 0, 0)))
    assert found == {"0": _probe.Work(5, 1005), "1": _probe.Work(0, 0)}


@pytest.mark.parametrize("text", ["", "<html>", "# HELP vllm:x\n", 'process_open_fds 3\nvllm:x{engine="0"} 1'])
def test_no_work_where_the_statistics_are_off(text):
    assert _probe.work_in(text) == {}


REFUSED = ConnectionRefusedError()
BUSY, IDLE = (1, 0, 10, 10), (0, 0, 10, 10)


def silence(looks, pause_s=60):
    """How long it has been silent after looks, each (what /metrics answers, what a completion answers)."""
    now = [1000.0]
    asked = []
    current = []

    def ask(_method, path, _body, _headers, _timeout):
        asked.append(path)
        answer = current[0] if path == "/metrics" else current[1]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, tuple) else (200, answer)

    signs = _probe.LifeSigns(ask, "m", "", lambda: now[0])
    silent = 0.0
    for look in looks:
        current[:] = look
        now[0] += pause_s
        silent = signs.silent_s()
    return silent, asked


@pytest.mark.parametrize(
    ("looks", "silent"),
    [
        # Works: its tokens move, or it answers when it has nothing to do.
        ([(metrics(e0=(1, 0, 10, n)), REFUSED) for n in range(5)], 0),
        ([(metrics(e0=IDLE), DONE)] * 5, 0),
        # Hangs: with requests, without, or with a server that does not answer at all.
        ([(metrics(e0=BUSY), DONE)] * 5, 240),
        ([(metrics(e0=IDLE), TimeoutError())] * 5, 300),
        ([(metrics(e0=IDLE), (500, "dead"))] * 5, 240),
        ([(TimeoutError(), DONE)] * 5, 300),
        ([((503, ""), DONE)] * 5, 300),
        # A pause ends with the next token.
        ([(metrics(e0=BUSY), DONE)] * 4 + [(metrics(e0=(1, 0, 10, 11)), DONE)], 0),
        # One engine of two: the one that has requests and works off none counts; one that has none waits for some.
        ([(metrics(e0=(1, 0, 10, n), e1=BUSY), DONE) for n in range(5)], 240),
        ([(metrics(e0=(1, 0, 10, n), e1=IDLE), DONE) for n in range(5)], 0),
        # A long queue alone is life as long as something is worked off.
        ([(metrics(e0=(256, 4000, n, 10)), REFUSED) for n in range(5)], 0),
        # Without statistics the answer itself is all that there is.
        ([("", REFUSED)] * 5, 0),
        ([("", REFUSED)] * 2 + [(REFUSED, REFUSED)] * 3, 180),
    ],
)
def test_silence(looks, silent):
    assert silence(looks)[0] == silent


def test_a_busy_engine_is_not_asked_for_a_token():
    assert silence([(metrics(e0=BUSY), DONE)] * 3)[1] == ["/metrics"] * 3


def test_watch_ends_with_the_silence_that_is_too_long():
    class Signs:
        told = iter([0, 0, 40, 0, 299, 301])

        def silent_s(self):
            return next(self.told)

    slept = []
    assert _probe.watch(Signs(), 300, slept.append) == 301
    assert slept == [60] * 6
    Signs.told = iter([10])
    assert _probe.watch(Signs(), 10, slept.append) == 10
    assert slept[-1] == 2


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(tmp_path, abstract, monkeypatch):
    address = f"@gpunode-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + address[1:] if abstract else address)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        _probe.notify("WATCHDOG=trigger")
        assert systemd.recv(100) == b"WATCHDOG=trigger"


def test_nobody_is_told_where_nobody_listens(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    _probe.notify("STATUS=x")
