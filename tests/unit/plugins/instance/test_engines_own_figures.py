# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image's vLLM says of a configuration before a service is stopped for it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.modules import vllm_config_check
from ansible_collections.gpunode.llm.plugins.plugin_utils.service import service
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.planning import one

GIB = 1 << 30
UNIT = {
    "name": "vllm-8b.service",
    "image": "vllm/vllm-openai:v0.33.0",
    "config": "/etc/vllm/8b.yaml",
    "files": ["/etc/vllm/8b.yaml"],
    "weights": "/srv/hf/hub",
    "weights_target": "/root/.cache/huggingface/hub",
    "gpus": ["GPU-1"],
    "cpu": False,
    "planned": {"weights_gib_per_gpu": 15.0, "kv_cache_gib_per_gpu": 10.0},
}


class Failed(Exception):
    """What fail_json does."""

    def __init__(self, msg: str, **more: Any) -> None:
        super().__init__(msg)
        self.result = more


class Module:
    """A node whose units run, and whose docker answers so."""

    params = {"docker": "/usr/bin/docker", "timeout_s": 300, "changed_files": ["/etc/vllm/8b.yaml"]}

    def __init__(self, rc: int = 0, out: str = "", err: str = "") -> None:
        self.answer, self.commands, self.warned = (rc, out, err), [], ""

    def run_command(self, argv: list[str]) -> tuple[int, str, str]:
        self.commands.append(argv)
        return self.answer if "run" in argv else (0, "", "")

    def fail_json(self, msg: str, **more: Any) -> None:
        raise Failed(msg, **more)

    def warn(self, msg: str) -> None:
        self.warned = msg


def engine(weights_gib: float, request_gib: float | None, longest: int = 131072) -> str:
    request = None if request_gib is None else int(request_gib * GIB)
    figures = {"weights_bytes": int(weights_gib * GIB), "request_bytes": request, "max_model_len": longest}
    return f"a line of the engine\n{json.dumps(figures)}\n"


def refusal(out: str, **unit: Any) -> str:
    with pytest.raises(Failed) as failed:
        vllm_config_check.check(Module(0, out), [{**UNIT, **unit}])
    return str(failed.value)


def test_a_plan_that_the_engine_refutes_stops_nothing() -> None:
    assert refusal(engine(16.5, 9.0)) == (
        "vllm/vllm-openai:v0.33.0 counts 16.50 GiB of weights and 9.00 GiB of KV cache for one request of 131072"
        " tokens, the plan has 25.00 GiB for both on each GPU, so vllm-8b.service was not stopped: set a lower"
        " vllm_max_model_len, or correct the model's figures (vllm_weights_bytes, vllm_kv_bytes_per_token) if you gave"
        " them."
    )


def test_weights_alone_may_refute_it() -> None:
    assert "counts 26.00 GiB of weights and 0.00 GiB" in refusal(engine(26, None))


def test_on_the_cpu_the_cache_has_its_own_memory() -> None:
    planned = {"weights_gib_per_gpu": 15.0, "kv_cache_gib_per_gpu": 4.0}
    assert "the plan has 4.00 GiB for the KV cache" in refusal(engine(10, 4.5), cpu=True, planned=planned)


@pytest.mark.parametrize(
    "out", [engine(15.1, 9.9), engine(14, None), json.dumps({"cannot": "no such model"}), "no JSON", ""]
)
def test_what_is_not_refuted_goes_on(out: str) -> None:
    (figures,) = vllm_config_check.check(Module(0, out), [UNIT])
    assert figures["name"] == "vllm-8b.service"
    assert "cannot" in figures or figures["weights_bytes"]


def test_figures_of_a_cpu_refute_no_plan_for_gpus() -> None:
    answer = json.dumps({**json.loads(engine(500, 500).splitlines()[-1]), "device": "cpu"})
    assert vllm_config_check.check(Module(0, answer), [UNIT])


def test_a_plan_of_an_earlier_release_is_compared_with_nothing() -> None:
    assert vllm_config_check.check(Module(0, engine(500, 500)), [{**UNIT, "planned": {}}])


def test_a_configuration_that_the_parser_refuses_stops_nothing() -> None:
    with pytest.raises(Failed) as failed:
        vllm_config_check.check(Module(2, "", "usage: all options\nvllm: error: no such option\n"), [UNIT])
    assert str(failed.value) == (
        "vllm/vllm-openai:v0.33.0 does not take /etc/vllm/8b.yaml, so vllm-8b.service was not stopped: correct"
        " vllm_extra_args, or set an image that takes them (vllm_image, vllm_engine): vllm: error: no such option"
    )


@pytest.mark.parametrize("answer", [(2, "", "vllm: error: no such option"), (0, engine(500, 500), "")])
def test_a_refusal_names_the_unit_that_goes_on(answer: tuple[int, str, str]) -> None:
    with pytest.raises(Failed) as failed:
        vllm_config_check.check(Module(*answer), [UNIT])
    assert failed.value.result["refused"] == "vllm-8b.service"


def test_an_image_that_cannot_be_asked_is_a_warning() -> None:
    module = Module(125, "", "docker: no such image")
    assert vllm_config_check.check(module, [UNIT]) == []
    assert "could not be asked about /etc/vllm/8b.yaml: docker: no such image" in module.warned


def test_only_units_that_run_and_start_from_what_changed() -> None:
    assert vllm_config_check.concerned(Module(), UNIT)
    assert not vllm_config_check.concerned(Module(), {**UNIT, "files": ["/etc/vllm/other.yaml"]})


@pytest.mark.parametrize("options", [{"model": "8b"}, {"model": "tiny"}])
def test_the_plans_room_is_handed_to_the_check_of_the_config(options: dict[str, Any]) -> None:
    planned = one("1xH100", **options)
    unit = service({**vars(planned), "gpu_uuids": []}, {})["parsed"]
    assert unit["planned"]["weights_gib_per_gpu"] == planned.weights_gib_per_gpu
    assert unit["planned"]["kv_cache_gib_per_gpu"] == planned.kv_cache_gib_per_gpu > 0
    assert (unit["cpu"], bool(unit["gpus"])) == (planned.device == "cpu", planned.device != "cpu")


def test_an_engine_with_a_draft_beside_its_folder_is_asked_with_both() -> None:
    planned = {**vars(one("1xH100", model="8b")), "gpu_uuids": [], "folder": "/srv/mine"}
    draft = {"repo_id": "org/draft", "revision": "main"}
    unit = service({**planned, "draft": draft}, {})["parsed"]
    assert (unit["cached"], unit["cached_target"]) == ("/var/lib/huggingface/hub", "/root/.cache/huggingface/hub")
    assert service(planned, {})["parsed"]["cached"] == ""
