# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What AWX asks is what the playbooks take."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpunode.llm.plugins.plugin_utils import values
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner import options as planner_options
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog_files import load_catalog

CHECKOUT = Path(__file__).resolve().parents[3]
# Where each survey's answers are taken.
PLAYBOOKS = {
    "plan": ("plan.yml", "tasks/fit.yml"),
    "serve": ("tasks/decide.yml", "../roles/vllm/tasks/plan.yml"),
    "status": ("status.yml",),
    "teardown": ("teardown.yml",),
}


def takes_nothing(name: str) -> bool:
    """Whether an empty text leaves a variable unset."""
    return name in values.options() and values.may_be_null(values.options()[name])


@pytest.mark.parametrize("name", PLAYBOOKS)
def test_a_playbook_knows_what_is_asked(name: str) -> None:
    surveys = yaml.safe_load((CHECKOUT / "awx" / "surveys.yml").read_text(encoding="utf-8"))["awx_surveys"]
    playbook = "".join((CHECKOUT / "playbooks" / page).read_text(encoding="utf-8") for page in PLAYBOOKS[name])
    planned = planner_options.definitions() if "from_variables: true" in playbook else {}
    for question in surveys[name]["spec"]:
        name = question["variable"]
        if name.removeprefix("vllm_") in planned:
            assert takes_nothing(name)
            continue
        uses = re.findall(rf"\b{name} (?:\| default\(.*?\)|\| gpunode|}}}})", playbook)
        assert uses, name
        # AWX may send an optional question that nobody answered as an empty text.
        assert question["required"] or takes_nothing(name) or all(", true)" in use for use in uses), uses


def surveyed(name: str, variable: str) -> dict[str, Any]:
    """The question of a survey about a variable."""
    surveys = yaml.safe_load((CHECKOUT / "awx" / "surveys.yml").read_text(encoding="utf-8"))["awx_surveys"]
    (found,) = (question for question in surveys[name]["spec"] if question["variable"] == variable)
    return dict(found)


def takes(question: dict[str, Any], answer: str) -> bool:
    """Whether AWX lets an answer pass (JobTemplate.survey_variable_validation)."""
    if question["type"] == "multiplechoice":
        return answer in question["choices"]
    return bool(question["type"] == "text" and question["min"] <= len(answer) <= question["max"])


@pytest.mark.parametrize("name", ["plan", "serve"])
@pytest.mark.parametrize(
    "model",
    [
        "Qwen/Qwen2.5-32B-Instruct",
        f"{'o' * 47}/{'n' * 48}@{'0' * 40}",
        f"/srv/models/{'m' * 200}",
        *load_catalog().models,
    ],
)
def test_any_model_can_be_named(name: str, model: str) -> None:
    assert takes(surveyed(name, "model"), model)


@pytest.mark.parametrize(("name", "default"), [("plan", "all"), ("serve", "8b")])
def test_the_names_of_the_catalogue_stand_beside_the_question(name: str, default: str) -> None:
    question = surveyed(name, "model")
    assert (question["required"], question["default"]) == (True, default)
    about = question["question_description"]
    assert set(load_catalog().models) <= set(re.findall(r"[\w.-]*\w", about))
    assert "ORG/NAME@REVISION" in about
    assert ("`all`" in about) == (name == "plan")
