# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a client gets by a model's name, through TLS with its own key, and what nobody gets."""

from __future__ import annotations

import json
import math
import subprocess

import openai
import pytest
from answers import ANSWERS, ask, wrong
from clients import ID_HEADER, Front
from conftest import (
    EMBEDDING,
    ENGINE_KEY,
    FLEET,
    HOST,
    KEY,
    LLAMA,
    SECOND,
    SECOND_KEY,
    THIRD,
    UNITS,
    address,
    engine_url,
    play,
    workers,
)
from scenario import Hub, hunt, on_node, run_play, wait_until

QUESTION = "Say hello."
MESSAGES = [{"role": "user", "content": QUESTION}]
PORTS = (30000, 30001, 29000, 29001)
#: What the router has beside the paths that clients may use.
CLOSED = (
    "/workers",
    "/get_loads",
    "/flush_cache",
    "/metrics",
    "/readiness",
    "/liveness",
    "/v1/tokenizers",
    "/ha/status",
)
CLOSED += ("/v1/responses", "/v1/rerank", "/generate", "/parse/reasoning", "/wasm", "/v1/conversations")


def test_each_engine_is_behind_both_processes() -> None:
    every = {engine_url(node): "ready" for node in FLEET} | {engine_url(THIRD, 8001): "ready"}
    assert [workers(unit) for unit in UNITS] == [every, every]


def test_the_models_are_listed(client: openai.OpenAI) -> None:
    assert {LLAMA, EMBEDDING} <= {model.id for model in client.models.list()}


@pytest.mark.parametrize("name", [LLAMA, "tiny"])
def test_a_chat_by_the_model_s_name(front: Front, name: str) -> None:
    """By that of its repository and by the short one; each question is answered as the model learnt it."""
    client = front.client(KEY)

    def chat(body: str) -> str:
        return client.chat.completions.create(**json.loads(body)).model_dump_json()

    assert wrong(ask(chat, ANSWERS, name)) == {}


def test_a_stream_by_the_model_s_name(client: openai.OpenAI) -> None:
    pieces = list(client.chat.completions.create(model=LLAMA, messages=MESSAGES, max_tokens=100, stream=True))
    texts = [choice.delta.content or "" for piece in pieces for choice in piece.choices]
    assert "".join(texts) == ANSWERS[QUESTION]
    assert len([text for text in texts if text]) > 3


def test_the_journal_knows_the_engine_of_an_answer_and_the_client_does_not(client: openai.OpenAI) -> None:
    raw = client.embeddings.with_raw_response.create(model=EMBEDDING, input="x")
    assert engine_url(THIRD, 8001) not in str(raw.headers)
    line = f"journalctl -t gateway -o cat | grep -F {raw.headers[ID_HEADER]}"
    wait_until(lambda: on_node(line, check=False, node=HOST).endswith(f" {engine_url(THIRD, 8001)}"), 30)


def test_a_completion_by_the_model_s_name(client: openai.OpenAI) -> None:
    found = client.completions.create(model="tiny", prompt="The GPU", max_tokens=5)
    assert found.usage is not None
    assert found.usage.completion_tokens == 5


@pytest.mark.parametrize("name", [EMBEDDING, "tiny-embedding"])
def test_an_embedding_by_the_model_s_name(client: openai.OpenAI, name: str) -> None:
    """As transformers itself makes it of the same text."""
    right: dict[str, list[float]] = json.loads(Hub().read(EMBEDDING, "embeddings.json"))
    found = client.embeddings.create(model=name, input=list(right), encoding_format="float")
    for row, wanted in zip(found.data, right.values(), strict=True):
        length = math.hypot(*row.embedding) * math.hypot(*wanted)
        assert sum(a * b for a, b in zip(row.embedding, wanted, strict=True)) / length > 0.99


def test_a_path_for_each_instance_stays(front: Front) -> None:
    """Of the gateway's own host."""
    found = front.client(SECOND_KEY, "/tiny").chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=100)
    assert found.choices[0].message.content == ANSWERS[QUESTION]


@pytest.mark.parametrize("key", ["sk-nobody-ABCDEFGHIJKLMNOPQRSTUV", ENGINE_KEY, KEY[:-1]])
def test_a_wrong_key_gets_an_error(front: Front, key: str) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        front.client(key).chat.completions.create(model="tiny", messages=MESSAGES)
    assert caught.value.code == "invalid_api_key"


@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_model_gets_an_error(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="no-such-model", messages=MESSAGES, stream=stream)
    assert caught.value.code == "model_not_found"
    assert "no-such-model" in caught.value.message


@pytest.mark.parametrize("path", CLOSED)
def test_a_closed_path_gets_an_error(front: Front, path: str) -> None:
    client = front.client(KEY, timeout=30)
    url = f"https://{front.name}:{front.port}{path}"
    for ask_for in (client.get, client.post):
        with pytest.raises(openai.NotFoundError) as caught:
            ask_for(url, cast_to=object)
        assert caught.value.code == "not_found"


def test_the_control_surface_answers_nobody_but_its_host() -> None:
    """Neither this machine nor another node reaches a port of the router. There the engines' key opens nothing."""
    for port in PORTS:
        line = ["curl", "-s", "-m", "5", f"http://{address(HOST)}:{port}/workers"]
        assert subprocess.run(line, check=False).returncode == 7, port
        assert on_node(f"{' '.join(line)}; echo $?", node=SECOND) == "7", port
    for port in UNITS.values():
        for method in ("GET", "POST"):
            # The key from its file: what stands in a command of sudo's is in the journal.
            key = "printf 'Authorization: Bearer %s' \"$(cat /etc/gpunode/router/key)\""
            line = f"curl -s -o /dev/null -w '%{{http_code}}' -X {method} -H @- http://127.0.0.1:{port}/workers"
            said = on_node(f"{key} | {line}", node=HOST)
            assert said in ("401", "403"), (port, method)


def test_the_router_itself_wants_the_engines_key() -> None:
    body = json.dumps({"model": LLAMA, "messages": MESSAGES})
    line = f"curl -s -o /dev/null -w '%{{http_code}}' -d '{body}' http://127.0.0.1:30000/v1/chat/completions"
    assert on_node(f"{line} -H 'Content-Type: application/json'", node=HOST) == "401"


def test_the_keys_are_in_no_command_line_and_no_log() -> None:
    each = "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline; echo; done 2>/dev/null"
    of_router = "for p in $(pgrep -u gpunode-router); do tr '\\0' ' ' </proc/$p/environ; echo; done"
    seen = on_node(f"{each}; {of_router}", node=HOST)
    assert "smg" in seen
    for key in (ENGINE_KEY, KEY):
        assert key not in seen
    # Where engines, router and gateway have it, for root alone.
    own = ("/etc/vllm/", "/etc/gpunode/", "/var/lib/gpunode/vllm/", "/run/")
    assert [place for place in hunt(ENGINE_KEY, HOST) if not place.startswith(own)] == []
    assert on_node("find /etc/gpunode/router -name key -printf '%m %u'", node=HOST) == "600 root"


def test_the_status_shows_the_fleet() -> None:
    result = play("playbooks/status.yml")
    assert result.status == 0, result.text[-3000:]
    assert "4/4" in result.words or "4 of 4" in result.words, result.text[-3000:]


def test_all_weights_verify() -> None:
    result = run_play("playbooks/verify.yml")
    assert result.status == 0, result.text[-3000:]
