# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two engines that answer, from nothing that lies where the defaults say."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest
from scenario import warnings, wrong_answers

ENGINES = {"first": 9001, "second": 9002}
KEYS = ["sk-first$1%n", "sk-second"]


def ask(host, port: int, key: str) -> str:
    """The status of an answer below /v1."""
    header = shlex.quote(f"Authorization: Bearer {key}")
    return host.run(
        f"curl -sS -o /dev/null -w '%{{http_code}}' -H {header} http://127.0.0.1:{port}/v1/models"
    ).stdout.strip()


@pytest.mark.parametrize("name", ENGINES)
def test_both_serve(host, name: str) -> None:
    port = ENGINES[name]
    unit = host.service(f"vllm-{name}")
    assert unit.is_running
    assert unit.is_enabled
    assert host.socket(f"tcp://0.0.0.0:{port}").is_listening


@pytest.mark.parametrize("name", ENGINES)
def test_only_with_a_key(host, name: str) -> None:
    port = ENGINES[name]
    assert [ask(host, port, key) for key in [*KEYS, "sk-third"]] == ["200", "200", "401"]


@pytest.mark.parametrize("name", ENGINES)
def test_it_gives_the_trained_answer(name: str) -> None:
    assert wrong_answers(ENGINES[name], key=KEYS[0], model=name) == {}


@pytest.mark.parametrize(
    "path",
    [
        "/etc/huggingface",
        "/var/cache/vllm",
        "/var/lib/huggingface",
        "/var/lib/gpunode/vllm",
        "/opt/huggingface-hub",
        "/usr/local/lib/gpunode/vllm-wait.py",
    ],
)
def test_nothing_is_written_to_the_default_places(host, path: str) -> None:
    assert not host.file(path).exists


def test_records_are_in_one_folder_and_name_the_other_files(host) -> None:
    assert sorted(host.file("/etc/vllm").listdir()) == sorted(f"{name}.json" for name in ENGINES)
    record = json.loads(host.file("/etc/vllm/first.json").content_string)
    assert record["files"]["config"] == "/srv/vllm/etc/first.yaml"
    assert [path for path in record["files"].values() if not host.file(path).exists] == []


def test_secrets_lie_in_files_of_roots_alone(host) -> None:
    assert host.file("/srv/secrets/hf").mode == 0o600
    assert host.file("/srv/vllm/etc/first.env").mode == 0o600
    shown = host.run(
        "systemctl cat 'vllm-*'; ps axww; docker inspect $(docker ps -q) --format '{{.Args}} {{.Path}}'"
    ).stdout
    assert "sk-second" not in shown
    assert "hush" not in shown
    assert "hf_lab_good" not in shown


def test_the_container_gets_the_environment_as_it_was_given(host) -> None:
    box = host.run("docker ps -q -f name=first").stdout.split()[0]
    inside = host.run(f"docker exec {box} env").stdout.splitlines()
    assert "LAB_SECRET=hush % $HOME" in inside
    assert "VLLM_NO_USAGE_STATS=1" in inside
    assert host.run(f"docker inspect {box} --format '{{{{.Config.Labels.lab}}}}'").stdout.strip() == "alternative"


def test_text_became_numbers_and_truth(host) -> None:
    """vars/all.yml holds nothing but text."""
    config = host.file("/srv/vllm/etc/first.yaml").content_string
    assert "\nmax-num-seqs: 7\n" in config
    assert "\nmax-num-batched-tokens: 1024\n" in config
    assert host.run("systemctl show -P TimeoutStopUSec vllm-first").stdout.strip() == "48s"


def test_docker_is_as_it_was_asked_for(host) -> None:
    info = json.loads(host.run("docker info --format '{{json .}}'").stdout)
    assert info["DockerRootDir"] == "/var/lib/docker/elsewhere"
    assert info["LoggingDriver"] == "local"
    assert info["NoProxy"] == ".gpunode.test"
    assert host.run("sudo -u ada docker version").rc == 0
    held = set(host.run("apt-mark showhold").stdout.split())
    assert {"docker-ce", "nvidia-container-toolkit"} <= held
    assert host.package("nvidia-container-toolkit").version == "1.19.1-1"


def test_the_plays_warned_of_nothing() -> None:
    """The check, the converge and the idempotence run, as this scenario's log has them."""
    log = Path(os.environ["ANSIBLE_LOG_PATH"]).read_text(encoding="utf-8")
    assert "PLAY [Serve a model on every node]" in log
    assert warnings(log) == []
