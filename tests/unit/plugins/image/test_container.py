# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container in which an image's vLLM is asked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.image import container, engine_figures

UNIT = {"image": "vllm/vllm-openai:v0.33.0", "config": "/etc/vllm/8b.yaml"}
WEIGHTS = {"weights": "/srv/hf/hub", "weights_target": "/root/.cache/huggingface/hub", "gpus": ["GPU-1", "GPU-2"]}


def test_it_has_the_weights_the_gpus_and_nothing_that_it_could_reach() -> None:
    argv = container.command("/usr/bin/docker", 300, {**UNIT, **WEIGHTS})
    assert argv[:6] == ["timeout", "300", "/usr/bin/docker", "run", "--rm", "--init"]
    options, (image, *words) = argv[5 : argv.index(UNIT["image"])], argv[argv.index(UNIT["image"]) :]
    assert {"--network=none", "--cap-drop=ALL", "--pull=never", "--security-opt=no-new-privileges"} <= set(options)
    assert [one for one in options if one.startswith("--device")] == [
        "--device=nvidia.com/gpu=GPU-1",
        "--device=nvidia.com/gpu=GPU-2",
    ]
    assert [one for one in options if one.startswith("--volume")] == [
        "--volume=/etc/vllm/8b.yaml:/etc/vllm/config.yaml:ro",
        "--volume=/srv/hf/hub:/root/.cache/huggingface/hub:ro",
    ]
    assert {"--env=HF_HUB_CACHE=/root/.cache/huggingface/hub", "--env=HF_HUB_OFFLINE=1"} <= set(options)
    program = Path(engine_figures.__file__).read_text(encoding="utf-8")
    assert (image, words) == (UNIT["image"], ["-c", container.PYTHON, "sh", "-c", program, "/etc/vllm/config.yaml"])


def test_a_draft_is_found_beside_a_model_that_lies_in_a_folder() -> None:
    folder = {"weights": "/srv/mine", "weights_target": "/model", "cached": "/srv/hf/hub", "cached_target": "/hub"}
    argv = container.command("docker", 60, {**UNIT, **folder})
    assert {"--volume=/srv/mine:/model:ro", "--volume=/srv/hf/hub:/hub:ro", "--env=HF_HUB_CACHE=/hub"} <= set(argv)


def test_without_weights_and_gpus_it_has_the_configuration_alone() -> None:
    argv = container.command("docker", 60, UNIT)
    assert [one for one in argv if one.startswith(("--volume", "--device"))] == [
        "--volume=/etc/vllm/8b.yaml:/etc/vllm/config.yaml:ro"
    ]


def test_the_program_runs_with_the_python_of_the_images_vllm(tmp_path: Path) -> None:
    vllm = tmp_path / "vllm"
    vllm.write_text(f"#!{sys.executable}\n", encoding="utf-8")
    vllm.chmod(0o755)
    program = "import sys; print(sys.executable, sys.argv[1:])"
    argv = ["/bin/sh", "-c", container.PYTHON, "sh", "-c", program, "a b"]
    done = subprocess.run(argv, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=True)
    assert done.stdout == f"{sys.executable} ['a b']\n"


@pytest.mark.parametrize(
    ("out", "answer"),
    [
        ('a line of the engine\n{"weights_bytes": 1}\n', {"weights_bytes": 1}),
        ("no JSON\n", {"cannot": "no JSON"}),
        ("\n", {"cannot": "it said nothing"}),
    ],
)
def test_the_answer_is_the_last_line(out: str, answer: dict) -> None:
    assert container.answer_of(out) == answer


def test_a_complaint_is_the_parsers_sentence_or_the_last_line() -> None:
    assert container.complaint("usage: all\nvllm: error: no such option\n\nmore\n") == "vllm: error: no such option"
    assert container.complaint("first\n last \n") == "last"
    assert container.complaint("") == "it said nothing"
