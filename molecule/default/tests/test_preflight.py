# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the play would do, or why it will not, on other boards: nothing on the node changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from scenario import run_play, warnings

# These models are neither on the lab's hub nor would they fit its disk; the port is the tiny model's.
ELSEWHERE = ("-e", "vllm_port=9000", "-e", '{"preflight_skip": ["hub", "disk"]}', "--check", "--diff")


def test_the_facts_are_those_of_setup() -> None:
    result = run_play("molecule/shared/facts.yml")
    assert result.status == 0, result.text[-3000:]


def test_the_plays_warned_of_nothing() -> None:
    """The check, the converge and the idempotence run, as this scenario's log has them."""
    log = Path(os.environ["ANSIBLE_LOG_PATH"]).read_text(encoding="utf-8")
    assert "PLAY [Serve a model on every node]" in log
    assert warnings(log) == []


def test_405b_takes_all_eight(play, board) -> None:
    board("h100x8")
    result = play("-e", "model=405b-fp8", *ELSEWHERE)
    assert result.status == 0, result.text[-3000:]
    assert "+tensor-parallel-size: 8" in result.words
    for number in range(1, 9):
        assert f"nvidia.com/gpu=GPU-0000000{number}-0000-0000-0000-00000000000{number}" in result.text


def test_8b_takes_one_gpu_per_engine(play, board) -> None:
    board("h100x8")
    result = play("-e", "model=8b", *ELSEWHERE)
    assert result.status == 0, result.text[-3000:]
    assert "+tensor-parallel-size: 1" in result.words
    assert "+data-parallel-size: 8" in result.words


def test_70b_is_accepted(play, board) -> None:
    board("h100x8")
    result = play("-e", "model=70b", *ELSEWHERE)
    assert result.status == 0, result.text[-3000:]
    assert "+tensor-parallel-size: " in result.words


# What is needed, and what would fit this node instead.
TOO_FEW = {
    "405b-fp8": ("381.9 GiB", "8x NVIDIA H100 80GB HBM3", "70b-fp8"),
    "70b": ("131.4 GiB", "2x NVIDIA H100", "70b-fp8"),
}


@pytest.mark.parametrize("model", TOO_FEW)
def test_one_gpu_is_too_few(play, board, model: str) -> None:
    board("h100x1")
    result = play("-e", f"model={model}", *ELSEWHERE)
    assert result.status != 0
    assert result.changed == 0
    for text in ("1x NVIDIA H100 80GB HBM3", *TOO_FEW[model]):
        assert text in result.words


SENTENCES = {
    "no nvidia-smi": ("rm /usr/bin/nvidia-smi", ("-e", "model=8b"), "nvidia-smi"),
    "a dead driver": ("rm /etc/gpunode-lab/nvidia-smi.xml", ("-e", "model=8b"), "driver"),
    "an unknown model": ("true", ("-e", "model=8bb"), "8bb"),
    "a misspelt variable": ("true", ("-e", "vllm_max_modellen=100"), "did you mean vllm_max_model_len?"),
    "a variable of plan": ("true", ("-e", "gpus=8xH100"), "gpus is a variable of gpunode.llm.plan"),
    "a wrong type": ("true", ("-e", "gateway_port=abc"), "gateway_port must be a whole number such as 443, not 'abc'."),
    "waves of words": ("true", ("-e", "nodes_at_a_time=two"), "nodes_at_a_time must be numbers of nodes"),
    "an unknown name": ("true", ("-e", "vllm_host={{ my_hst }}"), "vllm_host is a template of my_hst"),
}


@pytest.mark.parametrize("case", SENTENCES)
def test_each_trouble_has_its_sentence(host, play, board, case: str) -> None:
    break_it, args, sentence = SENTENCES[case]
    board("h100x1")
    assert host.run(break_it).rc == 0
    result = play(*args, *ELSEWHERE)
    assert result.status != 0
    assert result.changed == 0
    assert sentence in result.words


def test_a_bad_token_has_its_sentence(play) -> None:
    result = play("-e", "model=tiny", "-e", "huggingface_token=hf_lab_stranger")
    assert result.status != 0
    assert result.changed == 0
    assert "token" in result.text
    assert "hf_lab_stranger" not in result.text


def test_a_docker_that_is_elsewhere_has_its_sentence(host, play) -> None:
    """A unit would not be sent there."""
    docker = "HOME=/root docker context"
    elsewhere = "--docker host=tcp://build.gpunode.test:2375"
    assert host.run(f"{docker} create build {elsewhere} && {docker} use build").rc == 0
    result = play("-e", "model=tiny")
    host.run(f"{docker} use default && {docker} rm build")
    assert result.status != 0
    assert result.changed == 0
    assert "somewhere else for root's docker command (tcp://build.gpunode.test:2375)" in result.words


def test_too_little_disk_has_its_sentence(play, board) -> None:
    board("h100x8")
    result = play("-e", "model=405b-fp8", "-e", "vllm_port=9000", "-e", '{"preflight_skip": ["hub"]}')
    assert result.status != 0
    assert result.changed == 0
    assert "free" in result.text
    assert "GB" in result.text
