# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine's own figures beside the plan's: who is asked about what, and what stands below the plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.gpunode.llm.plugins.action import serving_matrix
from ansible_collections.gpunode.llm.tests.unit import as_ansible
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.planning import CONFIGS, board
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.test_named_models import LLAMA, NAME, hub_answer

PLAY = Path(__file__).parents[4] / "playbooks" / "plan.yml"
GIB = 1 << 30
HUB = {"endpoint": "https://hub.example", "home": "/h"}
#: What the plan says of 8b on one H100, and a request of its context.
WEIGHTS, REQUEST = int(14.96 * GIB), 16 * GIB
TOLD = {"weights_bytes": WEIGHTS, "request_bytes": REQUEST, "max_model_len": 131072, "device": "cuda"}
CONFIG = {"models": {"8b": {"config": {**CONFIGS["8b"], "model_type": "llama"}}}}


def node(**models: Any) -> dict[str, Any]:
    return {**board("h100x1").as_dict(), "models": models}


def asked(*answers: Any, **options: Any) -> tuple[list[tuple[str, dict[str, Any]]], dict[str, Any]]:
    """The calls on the node, and the result."""
    options = {"exact": "true", "hub": HUB, **options}
    made = as_ansible.action(serving_matrix.ActionModule, options, *answers)
    return made._execute_module.calls, made.run(task_vars={"inventory_hostname": "one"})


def below(result: dict[str, Any]) -> str:
    """The text from the engine's figures on."""
    text = "\n".join(result["text"])
    return text[text.index("What the engine") if "What the engine" in text else text.index("- The engine") :]


def test_an_engine_of_the_catalogue_is_asked_about_on_its_node() -> None:
    calls, result = asked(node(), CONFIG, {"figures": [TOLD]}, models=["8b"])
    assert [name for name, _args in calls] == ["gpu_info", "model_info", "vllm_figures_info"]
    (model,) = calls[1][1]["models"]
    assert (model["name"], model["repo_id"]) == ("8b", "meta-llama/Llama-3.1-8B-Instruct")
    assert (len(model["revision"]), calls[1][1]["endpoint"]) == (40, HUB["endpoint"])
    (unit,) = calls[2][1]["units"]
    assert unit["image"] == "vllm/vllm-openai:v0.33.0"
    assert unit["config"]["model_type"] == "llama"
    assert len(unit["gpus"]) == 1
    assert (unit["options"]["max-model-len"], unit["options"]["skip-tokenizer-init"]) == (131072, True)
    assert unit["options"]["model"].startswith("/")
    assert not {"revision", "speculative-config"} & unit["options"].keys()
    assert result["rows"][0]["exact"] == {
        "image": "vllm/vllm-openai:v0.33.0",
        "weights_gib": 14.96,
        "planned_weights_gib": 14.96,
        "request_bytes": REQUEST,
        "planned_request_bytes": REQUEST,
    }
    assert result["text"][-3:] == [
        "model  host  weights  planned   apart  a request  planned   apart",
        "8b     one     14.96    14.96  +0.0 %     16.000   16.000  +0.0 %",
        "",
    ]


def test_differences_are_shown_in_percent_of_the_engines_figure() -> None:
    other = {**TOLD, "weights_bytes": int(15.5 * GIB), "request_bytes": 8 * GIB}
    _calls, result = asked(node(), CONFIG, {"figures": [other]}, models=["8b"])
    assert "8b     one     15.50    14.96  -3.5 %      8.000   16.000  +100.0 %" in below(result)


def test_a_context_that_the_engine_chooses_has_no_request() -> None:
    _calls, result = asked(node(), CONFIG, {"figures": [{**TOLD, "request_bytes": None}]}, models=["8b"])
    assert "14.96    14.96  +0.0 %\n" in below(result)
    assert result["rows"][0]["exact"]["request_bytes"] is None


def test_a_model_by_its_name_was_read_already() -> None:
    calls, _result = asked(node(**{NAME: hub_answer()}), {"figures": [TOLD]}, models=[NAME])
    assert [name for name, _args in calls] == ["model_info", "vllm_figures_info"]
    assert calls[1][1]["units"][0]["config"] == LLAMA


def test_only_who_wants_it_waits_for_it() -> None:
    calls, result = asked(node(), models=["8b"], exact="false")
    assert [name for name, _args in calls] == ["gpu_info"]
    assert "exact" not in result["rows"][0]


def test_equal_engines_are_asked_about_once() -> None:
    calls, _result = asked(
        {"models": {"tiny": {"config": CONFIGS["tiny"]}}},
        {"figures": [{**TOLD, "device": "cpu"}]},
        models=["tiny"],
        gpus="1xH100/1xA10G",
    )
    assert len(calls[-1][1]["units"]) == 1


def test_side_by_side_each_has_its_own_gpus() -> None:
    two = {**board("h200x2").as_dict(), "models": {}}
    answers = {"models": {key: {"config": CONFIGS[key]} for key in ("8b", "8b-fp8")}}
    calls, result = asked(two, answers, {"figures": [TOLD, TOLD]}, models=["8b", "8b-fp8"], together=True)
    first, second = (unit["gpus"] for unit in calls[-1][1]["units"])
    assert len({*first, *second}) == 2
    assert [row["exact"]["weights_gib"] for row in result["rows"]] == [14.96, 14.96]


@pytest.mark.parametrize(
    ("answers", "options", "why"),
    [
        (
            [],
            {"gpus": "4xH100"},
            "4xH100 is only described, and an engine counts for the GPUs that it sees: plan on such a node.",
        ),
        (
            [node(), {"models": {"8b": {"refused": "It is gated: accept its licence."}}}],
            {},
            "its config.json was not read: It is gated: accept its licence.",
        ),
        ([node(), CONFIG, {"figures": [{"cannot": "there is no Docker"}]}], {}, "there is no Docker."),
        (
            [node(), CONFIG, {"figures": [{**TOLD, "device": "cpu"}]}],
            {},
            "vllm/vllm-openai:v0.33.0 counts for a CPU there, and the plan is for GPUs.",
        ),
    ],
)
def test_an_engine_that_could_not_be_asked_has_a_message(answers: list[Any], options: dict[str, Any], why: str) -> None:
    calls, result = asked(*(answers or [{}]), models=["8b"], **options)
    assert " ".join(below(result).split()) == f"- The engine has no figures for 8b: {why}"
    assert result["rows"][0]["exact"]["cannot"] == why.removesuffix(".")
    assert len(calls) == len(answers)


def test_a_draft_is_not_built() -> None:
    draft = {"model": NAME, "method": "draft_model", "tokens": 3}
    _calls, result = asked(node(**{NAME: hub_answer()}), models=[{"model": "8b", "speculative": draft}])
    assert "its draft is a second model" in " ".join(below(result).split())


@pytest.mark.parametrize(("given", "wanted"), [({}, False), ({"exact": ""}, False), ({"exact": "true"}, True)])
def test_the_playbook_takes_it_as_text(given: dict[str, str], wanted: bool) -> None:
    (play,) = yaml.safe_load(PLAY.read_text(encoding="utf-8"))
    (task,) = [task for task in play["tasks"] if "__fit_exact" in task.get("vars", {})]
    text = trust_as_template(task["vars"]["__fit_exact"])
    assert Templar(loader=DataLoader(), variables=given).template(text) is wanted
