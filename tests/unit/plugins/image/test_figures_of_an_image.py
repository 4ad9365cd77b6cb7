# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image is asked about a model by its config.json, and whatever hinders that is an answer, too."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.instance import names
from ansible_collections.gpunode.llm.plugins.modules import vllm_figures_info

IMAGE = "vllm/vllm-openai:v0.33.0"
UNIT = {"image": IMAGE, "options": {"model": "/m", "max-model-len": 4096}, "config": {"model_type": "llama"}}
TOLD = {"weights_bytes": 5, "request_bytes": 6, "max_model_len": 4096, "device": "cuda"}
ANSWER = (0, json.dumps(TOLD), "")


class Exit(Exception):
    """What exit_json does."""


class Module:
    """A machine with these answers of ``docker image inspect`` and ``docker run``; it looks at the mounts."""

    def __init__(self, root: Path, image: tuple[int, str, str], run: tuple[int, str, str], docker: str | None) -> None:
        self.params: dict[str, Any] = {"units": [UNIT], "timeout_s": 60}
        self.tmpdir, self.image, self.answer, self.docker = str(root), image, run, docker
        self.seen: dict[str, Any] = {}

    def get_bin_path(self, name: str) -> str | None:
        assert name == "docker"
        return self.docker

    def run_command(self, argv: list[str]) -> tuple[int, str, str]:
        if "inspect" in argv:
            assert argv[-1] == IMAGE
            return self.image
        mounts = [one.removeprefix("--volume=").split(":") for one in argv if one.startswith("--volume=")]
        for source, target, _ro in mounts:
            files = sorted(Path(source).iterdir()) if Path(source).is_dir() else [Path(source)]
            self.seen[target] = {file.name: json.loads(file.read_text(encoding="utf-8")) for file in files}
            assert Path(source).stat().st_mode & stat.S_IROTH
        return self.answer

    def exit_json(self, **result: Any) -> None:
        self.result = result
        raise Exit


@pytest.fixture
def figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def asked(run=ANSWER, image=(0, "sha256:1", ""), docker="/opt/bin/docker", **unit: Any) -> Any:
        module = Module(tmp_path, image, run, docker)
        module.params["units"] = [{**UNIT, **unit}]
        monkeypatch.setattr(vllm_figures_info, "AnsibleModule", lambda **_spec: module)
        with pytest.raises(Exit):
            vllm_figures_info.main()
        assert list(tmp_path.iterdir()) == []  # nothing stays
        assert module.result["changed"] is False
        (figures,) = module.result["figures"]
        return figures, module.seen

    return asked


def test_the_container_has_config_json_and_the_options(figures) -> None:
    result, seen = figures(hf_quant_config={"quantization": {}})
    assert result == TOLD
    assert seen == {
        "/etc/vllm/config.yaml": {"engine.yaml": UNIT["options"]},
        names.MODEL_TARGET: {"config.json": UNIT["config"], "hf_quant_config.json": {"quantization": {}}},
    }


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"docker": None}, "there is no Docker"),
        (
            {"image": (1, "", "Error response from daemon: No such image: vllm/vllm-openai:v0.33.0\n")},
            f"{IMAGE} is not there, and is not downloaded for this: docker pull {IMAGE}",
        ),
        (
            {"image": (1, "", "permission denied while trying to connect to the Docker daemon socket\n")},
            "Docker does not answer: permission denied while trying to connect to the Docker daemon socket",
        ),
        (
            {"run": (2, "", "usage: all options\nvllm: error: no such option\n")},
            f"{IMAGE} does not take what is planned: vllm: error: no such option",
        ),
        ({"run": (0, json.dumps({"cannot": "ValueError: stages"}), "")}, "ValueError: stages"),
    ],
)
def test_an_obstacle_is_an_answer(figures, how: dict[str, Any], why: str) -> None:
    assert figures(**how)[0] == {"cannot": why}


def test_an_engine_that_takes_too_long(figures) -> None:
    assert "within 60 s" in figures(run=(124, "", ""))[0]["cannot"]
