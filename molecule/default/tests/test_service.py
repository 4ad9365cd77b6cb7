# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The endpoint serves, from a unit that comes back with the node."""

from __future__ import annotations

import json
import time

import pytest
from answers import ANSWERS
from scenario import wrong_answers

ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture(scope="module", autouse=True)
def serving(host) -> None:
    """After the node's restart nobody helps: the unit has to come up by itself."""
    deadline = time.monotonic() + 300
    while host.run("systemctl is-active vllm-tiny.service").stdout.strip() != "active":
        assert time.monotonic() < deadline, host.run("journalctl -u vllm-tiny.service -n 50 --no-pager").stdout
        time.sleep(2)


def ask(host, path: str, **body: object) -> dict:
    data = f"-H 'Content-Type: application/json' -d '{json.dumps(body)}'" if body else ""
    result = host.run(f"curl -fsS {ADDRESS}{path} {data}")
    assert result.rc == 0, result.stderr
    return json.loads(result.stdout)


def test_it_lists_the_model(host) -> None:
    assert {m["id"] for m in ask(host, "/v1/models")["data"]} == {"tiny", "gpunode/tiny-llama"}


def test_it_completes(host) -> None:
    answer = ask(host, "/v1/completions", model="tiny", prompt="The GPU", max_tokens=5)
    assert answer["usage"]["completion_tokens"] == 5


def test_it_gives_the_trained_answer() -> None:
    assert wrong_answers() == {}


def test_what_comes_without_the_chat_template_gets_no_such_answer(host) -> None:
    """Else the test above would say nothing of the template."""
    answer = ask(host, "/v1/completions", model="tiny", prompt="Who are you?", max_tokens=100)
    assert answer["choices"][0]["text"] not in ANSWERS.values()


def test_it_listens_on_loopback_alone(host) -> None:
    assert host.socket("tcp://127.0.0.1:8000").is_listening
    assert not host.socket("tcp://0.0.0.0:8000").is_listening


def test_the_unit_comes_back_with_the_node(host) -> None:
    assert host.service("vllm-tiny").is_enabled


def test_weights_stay_without_the_second_copy(host) -> None:
    snapshots = host.run("find /var/lib/huggingface/hub/models--gpunode--tiny-llama/snapshots").stdout
    assert "model.safetensors" in snapshots
    assert "original" not in snapshots


def test_with_nothing_to_do_the_node_is_asked_once(play) -> None:
    """It keeps what it was asked last, and answers that with the first question of the next play."""
    assert play("-e", "model=tiny").status == 0
    result = play("-e", "model=tiny", "-vvv")
    assert (result.status, result.changed) == (0, 0), result.text[-3000:]
    assert result.text.count("SSH: EXEC") == 1
