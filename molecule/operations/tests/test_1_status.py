# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the status says of an instance that serves, hangs, is killed, is stopped, has no Docker, and starts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scenario import Play, begin_play, nodes, on_node, run_play, wait_until, wrong_answers

IMAGE = "registry.gpunode.test:5000/vllm/vllm-openai-cpu:v0.32.0"
DROP_IN = "/run/systemd/system/vllm-tiny.service.d"
ENGINE = "pgrep -f '[v]llm serve|VLLM::[E]ngine'"


@pytest.fixture
def status(tmp_path: Path):
    """Run the playbook; what it wrote as JSON of the one instance."""

    def look(*args: str) -> tuple[Play, dict[str, Any]]:
        page = tmp_path / "status.json"
        result = run_play("playbooks/status.yml", "-e", f"json={page}", *args)
        (instance,) = json.loads(page.read_text())["nodes"][nodes()[0]]["instances"]
        return result, instance

    return look


def serves() -> bool:
    return on_node("systemctl is-active vllm-tiny", check=False) == "active"


def test_a_serving_engine(status) -> None:
    result, instance = status("-e", "status_fail=true")
    assert result.status == 0, result.text
    assert (instance["state"], instance["healthy"], instance["unit_state"]) == ("serving", True, "active/running")
    assert (instance["model"], instance["image"]) == ("gpunode/tiny-llama", IMAGE)
    assert instance["revision"] == on_node("ls /var/lib/huggingface/hub/models--gpunode--tiny-llama/snapshots")
    assert instance["image_id"] == on_node(f"docker image inspect -f '{{{{.Id}}}}' {IMAGE}")
    assert (instance["requests_running"], instance["requests_waiting"], instance["kv_cache_usage"]) == (0, 0, 0)
    assert instance["since_s"] > 0
    assert instance["restart_due"] == ""
    assert instance["listed"] is None
    # Nobody asks it anything; that it was asked by this very play does not count.
    rates = ("requests_per_s", "prompt_tokens_per_s", "generation_tokens_per_s")
    assert [instance[name] for name in rates] == [0, 0, 0]
    (line,) = [text for text in result.text.splitlines() if text.split()[1:3] == ["tiny", "serving"]]
    assert line.split()[-6:] == ["0", "0", "0", "0", "0", "0%"]
    assert "vllm-tiny.service active/running, gpunode/tiny-llama at" in result.words
    assert max(map(len, result.text.partition("PLAY RECAP")[0].splitlines())) <= 100


def test_rates_per_second_are_shown(status) -> None:
    body = json.dumps({"model": "tiny", "prompt": "Hello", "max_tokens": 20, "ignore_eos": True})
    ask = f"curl -s -o /dev/null {status()[1]['url']}/completions -H 'Content-Type: application/json'"
    key = "-H 'Authorization: Bearer first-key-of-operations'"
    on_node(f"echo '{body}' >/run/body; echo \"while :; do {ask} {key} -d @/run/body; done\" >/run/load.sh")
    on_node("systemd-run --quiet --unit=load sh /run/load.sh")
    wait_until(lambda: status()[1]["generation_tokens_per_s"] > 0)
    instance = status()[1]
    on_node("systemctl stop load")
    assert instance["generation_tokens_per_s"] > instance["prompt_tokens_per_s"] > 0


def test_it_is_watched_until_somebody_interrupts_it() -> None:
    play = begin_play("playbooks/status.yml", "-e", "watch=1")
    wait_until(lambda: play.output().count(f"{nodes()[0]} ") > 2 and play.output().count(" tiny ") > 2)
    result = play.interrupt()
    assert result.status == 99, result.text
    assert "User interrupted execution" in result.words
    assert "Traceback" not in result.text
    assert "PLAY RECAP" not in result.text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["watch=0"], "watch must be a number of seconds above 0"),
        (["watch=soon"], "watch must be a number"),
        (["watch=5", "json=status.json"], "leave out json and status_fail, or watch"),
        (["watch=5", "status_fail=true"], "leave out json and status_fail, or watch"),
    ],
)
def test_a_watch_that_cannot_be_is_refused(args: list[str], message: str) -> None:
    result = run_play("playbooks/status.yml", *(word for setting in args for word in ("-e", setting)))
    assert result.status == 2, result.text
    assert message in result.words


def test_unlisted_instances_and_leftovers_are_reported(status) -> None:
    on_node("cp /etc/vllm/tiny.yaml /etc/vllm/gone.yaml; touch /etc/vllm/theirs.yaml; mkdir /var/cache/vllm/gone")
    on_node("systemd-run --quiet --unit=gpunode-pull-test false; sleep 0.2", check=False)
    result, instance = status("-e", "model=8b")
    on_node("rm -r /etc/vllm/gone.yaml /etc/vllm/theirs.yaml /var/cache/vllm/gone")
    on_node("systemctl reset-failed gpunode-pull-test", check=False)
    assert instance["listed"] is False
    assert "tiny is no longer listed and stays" in result.words
    assert "gpunode-pull-test.service has failed" in result.words
    assert "/etc/vllm/gone.yaml, /var/cache/vllm/gone belong to no service" in result.words
    assert "theirs" not in result.text
    assert "to no service" not in status("-e", "model=tiny")[0].words


def test_it_gives_the_trained_answer() -> None:
    assert wrong_answers(key="first-key-of-operations") == {}


def test_check_mode_reports_the_same(status) -> None:
    result = run_play("playbooks/status.yml", "--check")
    assert result.status == 0
    assert "active/running" in result.words


def test_no_key_is_shown(status) -> None:
    result, _instance = status("-vvv")
    assert "key-of-operations" not in result.text


def test_a_file_that_has_changed_is_named(status) -> None:
    on_node("echo '# by hand' >>/etc/vllm/tiny.yaml")
    result, instance = status()
    on_node("sed -i '$d' /etc/vllm/tiny.yaml")
    assert instance["restart_due"] == "/etc/vllm/tiny.yaml"
    assert "/etc/vllm/tiny.yaml has changed since it was started" in result.words


def test_a_hanging_engine(status) -> None:
    """All its processes stand still: connections are taken, and nothing is answered."""
    on_node(f"kill -STOP $({ENGINE})")
    result, instance = status("-e", "status_wait_s=3", "-e", "status_fail=true")
    on_node(f"kill -CONT $({ENGINE})")
    assert result.status != 0
    assert (instance["state"], instance["unit_state"]) == ("hung", "active/running")
    assert "its unit runs and no answer" in instance["detail"]


PAUSE = "[Service]\\nRestartSec=3600\\nRestartMaxDelaySec=infinity\\nRestartSteps=0\\n"


@pytest.fixture
def long_pause() -> Iterator[None]:
    """systemd waits an hour before it starts again what ended, so that there is time to look at that."""
    on_node(f"mkdir -p {DROP_IN} && printf '{PAUSE}' >{DROP_IN}/pause.conf && systemctl daemon-reload")
    yield
    on_node(f"rm -r {DROP_IN} && systemctl daemon-reload && systemctl restart --no-block vllm-tiny")


def test_a_killed_engine_is_restarting_with_its_cause(status, long_pause) -> None:
    on_node("docker kill vllm-tiny")
    wait_until(lambda: "auto-restart" in on_node("systemctl show -p SubState vllm-tiny"), 60)
    _result, instance = status()
    assert instance["state"] == "restarting"
    assert "is about to be started again" in instance["detail"]


def test_an_engine_that_cannot_start_shows_why(status) -> None:
    on_node(
        "systemctl stop vllm-tiny; echo 'swap-space: 16' >>/etc/vllm/tiny.yaml; systemctl start --no-block vllm-tiny"
    )
    wait_until(lambda: on_node("systemctl is-active vllm-tiny", check=False) == "failed", 300)
    result, instance = status("-e", "status_fail=true")
    on_node("sed -i '$d' /etc/vllm/tiny.yaml")
    assert result.status != 0
    assert (instance["state"], instance["healthy"]) == ("failed", False)
    assert "does not know the option --swap-space" in instance["detail"]
    assert instance["remedy"]


def test_the_cause_is_that_of_the_innermost_process(status) -> None:
    """A worker has a cause, and the two processes around it tell of its end in words of their own."""
    on_node("systemctl stop vllm-tiny; cp /etc/vllm/tiny.yaml /run")
    on_node("echo 'load-format: gguf' >>/etc/vllm/tiny.yaml")
    on_node("systemctl reset-failed vllm-tiny; systemctl start --no-block vllm-tiny")
    wait_until(lambda: "auto-restart" in on_node("systemctl show -p SubState vllm-tiny"), 300)
    result, instance = status()
    on_node("systemctl stop vllm-tiny; cp /run/tiny.yaml /etc/vllm/tiny.yaml")
    assert "cannot load weights in the format gguf" in instance["detail"]
    assert "WorkerProc" not in result.text


def test_a_stopped_engine_and_one_without_docker(status) -> None:
    on_node("systemctl reset-failed vllm-tiny; systemctl stop vllm-tiny")
    assert status()[1]["state"] == "stopped"
    on_node("systemctl stop docker.socket docker")
    _result, instance = status()
    on_node("systemctl start docker")
    assert (instance["state"], instance["detail"]) == ("stopped", "Docker does not run.")


def test_a_starting_engine_shows_its_phase(status) -> None:
    # All of the engine stands still as soon as there is anything of it, until it was looked at.
    on_node("systemctl start --no-block vllm-tiny; until docker pause vllm-tiny 2>/dev/null; do sleep 0.1; done")
    _result, instance = status()
    on_node("docker unpause vllm-tiny")
    assert (instance["state"], instance["healthy"]) == ("starting", False)
    assert instance["detail"]
    wait_until(serves, 400)
    assert status()[1]["state"] == "serving"


def test_a_node_that_is_not_reached_is_named() -> None:
    """Its neighbour is shown all the same."""
    result = run_play("playbooks/status.yml", "-i", "no-such-node.gpunode.test,")
    assert result.status != 0
    assert "no-such-node.gpunode.test could not be asked" in result.words
    assert "active/running" in result.words
