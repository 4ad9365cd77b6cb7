# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a server answers: every way in which it may not."""

from __future__ import annotations

import http.client
import json

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
