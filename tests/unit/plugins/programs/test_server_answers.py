# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a server answers: every way in which it may not."""

from __future__ import annotations

import errno
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.programs import vllm_wait

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
    ("kind", "ready", "refused", "message"),
    [
        ({}, True, False, "answers a completion"),
        ({"health": ConnectionRefusedError()}, False, False, "no answer yet"),
        ({"health": TimeoutError()}, False, False, "no answer yet"),
        ({"health": http.client.RemoteDisconnected()}, False, False, "no answer yet"),
        ({"health": (503, "")}, False, False, "/health answers 503"),
        ({"health": (404, "<html><h1>Not Found</h1></html>")}, False, True, "/health answers 404: Not Found"),
        ({"health": (403, "")}, False, True, "/health answers 403; it runs with another API key"),
        ({"health": (301, "")}, False, True, "/health answers 301"),
        ({"models": (401, "")}, False, True, "another API key"),
        ({"models": (401, '{"error": "Unauthorized"}')}, False, True, "/v1/models answers 401: Unauthorized; it runs"),
        ({"models": (503, "busy")}, False, False, "/v1/models answers 503: busy"),
        ({"models": (429, "")}, False, False, "/v1/models answers 429"),
        ({"models": (200, '{"data": [{"id": "other"}]}')}, False, True, "another server"),
        (
            {"models": (200, '{"data": [{"id": "a"}, {"id": "b"}]}')},
            False,
            True,
            "it serves a, b, not m: its served-model",
        ),
        ({"models": (200, '{"data": []}')}, False, True, "it serves nothing, not m"),
        ({"models": (200, "<html>")}, False, True, "not vLLM"),
        ({"models": (200, "[]")}, False, True, "not vLLM"),
        ({"completion": (500, "boom")}, False, False, "500: boom"),
        ({"completion": (429, "later")}, False, False, "429: later"),
        ({"completion": (503, "later")}, False, False, "503: later"),
        ({"completion": (404, "no")}, False, True, "404"),
        (
            {"completion": (400, '{"error": {"message": "The model does not support Completions API", "code": 400}}')},
            False,
            True,
            "/v1/completions answers 400: The model does not support Completions API",
        ),
        ({"completion": (404, '{"detail": "Not Found"}')}, False, True, "answers 404: Not Found"),
        ({"completion": (422, '{"detail": [{"loc": ["body"]}]}')}, False, True, "answers 422: [{'loc': ['body']}]"),
        ({"completion": (200, '{"choices": []}')}, False, True, "not vLLM"),
        ({"completion": TimeoutError()}, False, False, "no answer yet"),
    ],
)
def test_probe(kind, ready, refused, message):
    answer = vllm_wait.probe(server(**kind), "m")
    assert (answer.ready, answer.refused) == (ready, refused)
    assert message in answer.detail


def test_key_is_sent_and_in_no_answer():
    ask = server(models=(401, "denied"))
    answer = vllm_wait.probe(ask, "m", "sk-secret")
    assert ask.headers["Authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in answer.detail


def test_what_is_answered_is_shortened_and_without_the_key():
    ask = server(completion=(400, json.dumps({"error": {"message": "sk-secret is " + "no " * 500}})))
    detail = vllm_wait.probe(ask, "m", "sk-secret").detail
    assert "sk-secret" not in detail
    assert len(detail) < 250
    assert detail.endswith(" …")


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
    assert vllm_wait.key_in(text) == key


@pytest.mark.parametrize(
    ("host", "reached"),
    [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("[::1]", "::1"), ("10.0.0.1", "10.0.0.1"), ("", "127.0.0.1")],
)
def test_reachable_host(host, reached):
    assert vllm_wait.reachable_host(host) == reached


def test_the_wait_ends_with_the_engine():
    alive = iter([True, True, False])
    looks = []
    answer = vllm_wait.wait_until_ready(
        lambda: looks.append(1) or vllm_wait.Answer(False, ""), lambda: next(alive), lambda _s: None
    )
    assert not answer.ready
    assert len(looks) == 2


@pytest.mark.parametrize(
    ("answers", "looks", "ready"),
    [
        (["refused", "refused"], 2, False),
        (["later", "refused", "later", "refused", "refused"], 5, False),
        (["refused", "ready"], 2, True),
        (["later", "later", "ready"], 3, True),
    ],
)
def test_the_wait_ends_with_a_refusal_and_goes_on_without_one(answers, looks, ready):
    named = {
        "refused": vllm_wait.Answer(False, "/v1/models answers 401", refused=True),
        "later": vllm_wait.Answer(False, "/v1/models answers 503"),
        "ready": vllm_wait.Answer(True, "it answers a completion"),
    }
    slept = []
    left = iter(answers)
    answer = vllm_wait.wait_until_ready(lambda: named[next(left)], lambda: len(slept) < 10, slept.append)
    assert (answer.ready, len(slept)) == (ready, looks - 1)
    assert answer == named[answers[-1]]


def test_an_ended_engine_is_reported_though_another_server_answers():
    alive = iter([True, False])
    refusal = vllm_wait.Answer(False, "/health answers 404", refused=True)
    answer = vllm_wait.wait_until_ready(lambda: refusal, lambda: next(alive), lambda _s: None)
    assert "the engine ended before it answered" in answer.detail


def metrics(**engines):
    """What /metrics says of engines: name=(running, waiting, prompt tokens, generated tokens)."""
    names = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:prompt_tokens_total")
    names += ("vllm:generation_tokens_total", "vllm:iteration_tokens_total_count", "vllm:kv_cache_usage_perc")
    lines = ["# HELP vllm:num_requests_running Number of requests.", 'vllm:other{engine="0"} 5']
    for engine, values in engines.items():
        lines += [f'{name}{{engine="{engine[1:]}",model_name="m"}} {value}' for name, value in zip(names, values)]
    return "\n".join(lines) + "\n"


def test_work_of_every_engine():
    found = vllm_wait.work_in(metrics(e0=(3, 2, 1e3, 5), e1=(0, 0, 0, 0)))
    assert found == {"0": vllm_wait.Work(5, 1005), "1": vllm_wait.Work(0, 0)}


@pytest.mark.parametrize("text", ["", "<html>", "# HELP vllm:x\n", 'process_open_fds 3\nvllm:x{engine="0"} 1'])
def test_no_work_where_the_statistics_are_off(text):
    assert vllm_wait.work_in(text) == {}


REFUSED = ConnectionRefusedError()
BUSY, IDLE = (1, 0, 10, 10), (0, 0, 10, 10)


def silence(looks, pause_s=60):
    """How long it has been silent after looks, each (what /metrics answers, what a completion answers)."""
    now = [1000.0]
    requests = []
    current = []

    def ask(_method, path, _body, _headers, _timeout):
        requests.append(path)
        answer = current[0] if path == "/metrics" else current[1]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, tuple) else (200, answer)

    signs = vllm_wait.LifeSigns(ask, "m", "", lambda: now[0])
    silent = 0.0
    for look in looks:
        current[:] = look
        now[0] += pause_s
        silent = signs.silent_s()
    return silent, requests


@pytest.mark.parametrize(
    ("looks", "silent"),
    [
        # Works: its tokens move, or it answers when it has nothing to do.
        ([(metrics(e0=(1, 0, 10, n)), REFUSED) for n in range(5)], 0),
        ([(metrics(e0=IDLE), DONE)] * 5, 0),
        # Hangs: with requests, without, or with a server that does not answer at all.
        ([(metrics(e0=BUSY), DONE)] * 5, 240),
        ([(metrics(e0=IDLE), TimeoutError())] * 5, 300),
        ([(metrics(e0=IDLE), (500, "dead"))] * 5, 300),
        ([(REFUSED, REFUSED)] * 5, 300),
        ([(http.client.RemoteDisconnected(), DONE)] * 5, 300),
        ([((500, ""), (500, "dead"))] * 5, 300),
        # What is late may be busy: it is no sign of death, and none of having nothing to do.
        ([(TimeoutError(), DONE)] * 5, 0),
        ([(socket.timeout(), DONE)] * 5, 0),
        ([(http.client.IncompleteRead(b""), DONE)] * 5, 0),
        # At full load a node may have no port left to ask from.
        ([(OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address"), DONE)] * 5, 0),
        ([(metrics(e0=BUSY), DONE)] + [(TimeoutError(), DONE)] * 5, 0),
        # Nor does it hide a hang: what was seen before and after counts, and what lies between does not.
        ([(metrics(e0=BUSY), DONE)] * 3 + [(TimeoutError(), DONE)] * 5 + [(metrics(e0=BUSY), DONE)], 180),
        ([(metrics(e0=BUSY), DONE), (TimeoutError(), DONE)] * 3, 120),
        # Statistics that are broken tell nothing; an engine that gives a token lives.
        ([((500, ""), DONE)] * 5, 0),
        ([((500, ""), TimeoutError())] * 5, 0),
        # A server that refuses the question of the watchdog answers.
        ([(metrics(e0=IDLE), (429, ""))] * 5, 0),
        # A long prompt moves no token while it is read, and fills the KV cache.
        ([(metrics(e0=(1, 0, 10, 10, 7, n / 100)), DONE) for n in range(5)], 0),
        ([(metrics(e0=(1, 0, 10, 10, 7, 0.5)), DONE)] * 5, 240),
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


@pytest.mark.parametrize(
    ("before", "after", "works"),
    [
        (metrics(e0=(1, 0, 5, 5)), metrics(e0=(1, 0, 5, 6)), True),
        # A long prompt is read.
        (metrics(e0=(1, 0, 5, 5, 1, 0.1)), metrics(e0=(1, 0, 5, 5, 1, 0.2)), True),
        (metrics(e0=BUSY, e1=(1, 0, 5, 5)), metrics(e0=BUSY, e1=(1, 0, 5, 6)), True),
        (metrics(e0=BUSY), metrics(e0=BUSY), False),
        (metrics(e0=BUSY), "", False),
        ("", metrics(e0=BUSY), False),
    ],
)
def test_what_moved_between_two_looks(before, after, works):
    assert vllm_wait.moved(before, after) is works


class Server:
    """A server in simulated time: a look may take long, time out, be refused, and tell what it is told to."""

    def __init__(self, answers, cpu=lambda now: None):
        self.now, self.answers, self.cpu, self.requests = 0.0, answers, cpu, 0

    def ask(self, _method, path, _body, _headers, timeout):
        self.requests += 1
        takes, answer = self.answers(self.now, path)
        self.now += min(takes, timeout)
        if takes >= timeout:
            raise socket.timeout
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, tuple) else (200, answer)

    def sleep(self, seconds):
        self.now += seconds
        if self.now > self.until:
            raise StopIteration

    def killed_after(self, hang_s=300, until=3600):
        """When the watchdog gives it up, in seconds; None where it does not."""
        self.until = until
        signs = vllm_wait.LifeSigns(
            self.ask,
            "m",
            "",
            lambda: self.now,
            min(vllm_wait.COMPLETION_S, hang_s),
            lambda: self.cpu(self.now),
            vllm_wait.PATIENT_TIMES * hang_s,
        )
        try:
            vllm_wait.watch(signs, hang_s, self.sleep)
        except StopIteration:
            return None
        return self.now


def full(now, path):
    """At its limit of requests, with many more waiting, and making tokens."""
    return metrics(e0=(256, 4000, now, now, now, 0.99)) if path == "/metrics" else DONE


def reading(now, _path):
    """640,000 tokens are read, ten minutes for a prompt: a part of the KV cache every 40 s and no token meanwhile."""
    prompt, part = divmod(now, 600)
    return metrics(e0=(1, 0, prompt * 640000, prompt, prompt, (1 + part // 40) / 16))


LOADS = {
    "slow": lambda now, path: (4 + now % 50, full(now, path)),
    "times out but for a moment": lambda now, path: (2 if now % 1000 < 60 else 999, full(now, path)),
    "times out": lambda _now, _path: (999, ""),
    "times out and is slow in turn": lambda now, path: (30 if now % 240 < 120 else 999, full(now, path)),
    "reads long prompts": lambda now, path: (1, reading(now, path)),
    "reads long prompts and is slow": lambda now, path: (45, reading(now, path)),
    # The requests wait in the server, which has not given them to the engine yet.
    "takes requests in": lambda _now, path: (20, metrics(e0=IDLE)) if path == "/metrics" else (999, ""),
    "refuses more": lambda _now, path: (1, (503, "")) if path == "/metrics" else (999, ""),
    "restarts its listener": lambda now, path: (0, REFUSED if now % 600 < 120 else full(now, path)),
}


@pytest.mark.parametrize("cpu", ["busy", "unknown"])
@pytest.mark.parametrize("load", LOADS)
def test_an_hour_at_full_load_has_no_kill(load, cpu):
    server = Server(LOADS[load], lambda now: now * 8 if cpu == "busy" else None)
    assert server.killed_after(until=3600) is None
    assert server.requests > 20


HANGS = {
    # With requests, whose number may well change: clients come and give up.
    "works off none": (lambda now, _path: (1, metrics(e0=(5, now // 60, 10, 10, 10, 0.5))), None, 500),
    "slow": (lambda _now, _path: (40, metrics(e0=(5, 9, 10, 10, 10, 0.5))), None, 700),
    "answers now and then": (
        lambda now, _path: (1 if now % 360 < 180 else 999, metrics(e0=(5, 9, 10, 10, 10, 0.5))),
        None,
        1200,
    ),
    # Its processes spin, as those of a collective operation that never ends do.
    "spins": (lambda _now, _path: (1, metrics(e0=(5, 9, 10, 10, 10, 0.5))), 8, 500),
    "idle": (lambda _now, path: (1, metrics(e0=IDLE)) if path == "/metrics" else (999, ""), None, 500),
    "stopped": (lambda _now, _path: (999, ""), 0, 500),
    "dead": (lambda _now, _path: (0, REFUSED), None, 400),
    "one of two": (lambda now, _path: (1, metrics(e0=(1, 0, now, now), e1=BUSY)), None, 500),
    # Without evidence, for very long: 24 times 300 s.
    "answers nothing": (lambda _now, _path: (999, ""), None, 7500),
    "answers nothing and spins": (lambda _now, _path: (999, ""), 8, 7500),
    "slow and without a token": (
        lambda _now, path: (20, metrics(e0=IDLE)) if path == "/metrics" else (999, ""),
        8,
        7500,
    ),
}


@pytest.mark.parametrize("hang", HANGS)
def test_a_hang_is_ended(hang):
    answers, cores, latest = HANGS[hang]
    server = Server(answers, lambda now: None if cores is None else now * cores)
    killed = server.killed_after(until=2 * latest)
    assert killed is not None
    assert 300 <= killed <= latest


def test_without_a_probe_an_idle_engine_is_not_judged():
    no_port = OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
    assert Server(lambda _now, _path: (0, no_port), lambda _now: 5.0).killed_after(until=3600) is None


def test_a_busy_engine_is_not_asked_for_a_token():
    assert silence([(metrics(e0=BUSY), DONE)] * 3)[1] == ["/metrics"] * 3


def test_watch_ends_with_the_silence_that_is_too_long():
    class Signs:
        silences = iter([0, 0, 40, 0, 299, 301])

        def silent_s(self):
            return next(self.silences)

    slept = []
    assert vllm_wait.watch(Signs(), 300, slept.append) == 301
    assert slept == [60] * 6
    Signs.silences = iter([10])
    assert vllm_wait.watch(Signs(), 10, slept.append) == 10
    assert slept[-1] == 2


@pytest.fixture
def installed(tmp_path):
    """The program as the role lays it out on a node, with a journalctl that tells how an engine ended."""
    source = Path(vllm_wait.__file__).parent
    shutil.copy(source / "vllm_wait.py", tmp_path / "vllm-wait.py")
    shutil.copy(source / "diagnosis.py", tmp_path / "vllm_diagnosis.py")
    journalctl = tmp_path / "journalctl"
    message = "(Worker pid=38) ERROR 11-26 00:47:07 [x.py:9] ValueError: Load format `gguf` is not supported"
    journalctl.write_text(f"#!/bin/sh\n[ \"$1\" = --sync ] || echo '{message}'\n")
    journalctl.chmod(0o755)

    def run(**environment):
        line = [sys.executable, tmp_path / "vllm-wait.py", "--port=1", "--model=m", "--pid=999999999"]
        env = {"PATH": f"{tmp_path}:/usr/bin:/bin", **environment}
        done = subprocess.run(line, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 1, done.stderr
        return done.stdout

    return run


def test_the_unit_logs_why_the_engine_ended(installed, tmp_path):
    unit = installed(INVOCATION_ID="abc")
    assert unit.startswith(
        "vllm-wait: m on port 1: the engine ended before it answered. This release of vLLM cannot load weights in the "
        "format gguf. Remove load-format"
    )
    assert not (tmp_path / "__pycache__").exists()
    assert installed() == "vllm-wait: m on port 1: the engine ended before it answered\n"
    (tmp_path / "vllm_diagnosis.py").unlink()
    assert installed(INVOCATION_ID="abc") == "vllm-wait: m on port 1: the engine ended before it answered\n"


def test_the_time_that_a_container_has_used(tmp_path):
    cgroup = "12:cpuset:/x\n0::/system.slice/docker-ab.scope\n"
    files = vllm_wait.cpu_files(cgroup, [str(tmp_path / "none"), str(tmp_path)])
    assert files[1] == f"{tmp_path}/system.slice/docker-ab.scope/cpu.stat"
    assert vllm_wait.cpu_seconds(files) is None
    (tmp_path / "system.slice" / "docker-ab.scope").mkdir(parents=True)
    (tmp_path / "system.slice" / "docker-ab.scope" / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
    assert vllm_wait.cpu_seconds(files) == 2.5
    assert vllm_wait.cpu_files("4:cpu:/docker/ab\n") == []


@pytest.mark.parametrize("message", ["", "sleep: not found"])
def test_a_container_that_docker_does_not_know_has_no_time(message, monkeypatch):
    monkeypatch.setattr(vllm_wait, "output_of", lambda *_command: message)
    assert vllm_wait.container_cpu("docker", "vllm-8b")() is None


@pytest.mark.parametrize(("state", "message"), [("active", ["WATCHDOG"]), ("deactivating", [])])
def test_a_stopping_engine_is_not_killed(state, message, monkeypatch):
    """Its port is closed by then, which looks as if nobody were there."""

    class End(Exception):
        pass

    def end(*_code):
        raise End

    messages = []
    monkeypatch.setattr(vllm_wait, "output_of", lambda *_command: f"ActiveState={state}")
    monkeypatch.setattr(vllm_wait, "notify", messages.append)
    monkeypatch.setattr(vllm_wait, "watch", lambda *_how: 301)
    monkeypatch.setattr(vllm_wait.os, "fork", lambda: 0)
    monkeypatch.setattr(vllm_wait.os, "_exit", end)
    monkeypatch.setattr(vllm_wait.time, "sleep", lambda _s: None)
    signs = vllm_wait.LifeSigns(None, "m", "", lambda: 0)
    with pytest.raises(End):
        vllm_wait.stay_as_watchdog(lambda: signs, 300, "vllm-m.service")
    assert [line for line in ["WATCHDOG"] if any(line in words for words in messages)] == message


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_notified(tmp_path, abstract, monkeypatch):
    address = f"@gpunode-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + address[1:] if abstract else address)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        vllm_wait.notify("WATCHDOG=trigger")
        assert systemd.recv(100) == b"WATCHDOG=trigger"


def test_without_a_socket_nothing_is_notified(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    vllm_wait.notify("STATUS=x")


@pytest.mark.parametrize(
    ("task", "path", "answer", "message"),
    [
        ("embed", "/v1/embeddings", {"data": [{"embedding": [0.1, 0.2]}]}, "it answers an embedding"),
        ("rerank", "/v1/rerank", {"results": [{"index": 0, "relevance_score": 0.9}]}, "it answers a reranking"),
        ("classify", "/classify", {"data": [{"label": "a", "probs": [1.0]}]}, "it answers a classification"),
        ("pooling", "/pooling", {"data": [{"data": [[0.1]]}]}, "it answers a pooling"),
    ],
)
def test_a_pooling_model_is_asked_by_its_own_route(task, path, answer, message):
    answers = {"/health": (200, ""), "/v1/models": MODELS, path: (200, json.dumps(answer))}
    requests = []

    def ask(method, where, body, _headers, _timeout):
        requests.append((method, where, json.loads(body or "{}")))
        return answers.get(where, (404, '{"detail": "Not Found"}'))

    takes = {"query": "Hello", "documents": ["Hello"]} if task == "rerank" else {"input": "Hello"}
    assert vllm_wait.probe(ask, "m", "", task) == vllm_wait.Answer(True, message)
    assert requests[-1] == ("POST", path, {"model": "m", **takes})
    # As a model that generates it never answers, and says so.
    assert vllm_wait.probe(ask, "m").refused
    answers[path] = (200, json.dumps({"data": [], "results": []}))
    assert vllm_wait.probe(ask, "m", "", task).detail == "what answers on this port is not vLLM"


def test_the_watchdog_asks_a_pooling_model_by_its_own_route():
    now, requests = [1000.0], []

    def ask(_method, path, _body, _headers, _timeout):
        requests.append(path)
        return (200, metrics(e0=IDLE)) if path == "/metrics" else (500, "dead")

    signs = vllm_wait.LifeSigns(ask, "m", "", lambda: now[0], task="embed")
    now[0] += 300
    assert (signs.silent_s(), requests) == (300, ["/metrics", "/v1/embeddings"])
    assert signs.why == "it has nothing to do and gives no answer"
