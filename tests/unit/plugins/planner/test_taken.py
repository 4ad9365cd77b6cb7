# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two organisations may call their repositories alike: the second does not silently take the first one's place."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.action import serving_plan
from ansible_collections.gpunode.llm.plugins.module_utils.instance.serving import NodeServing, Serving
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog_files import load_catalog
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.named import entries
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.planning import CATALOG, CONFIGS, outcome
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.test_named_models import hub_answer
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.test_plan_by_name import action, called, node

MINE, THEIRS = "Acme/Mine-8B", "Other/mine-8b"


def findings(model: Any, serves: str, name: str = "mine-8b", extra: Any = None, **options: Any) -> tuple[str, ...]:
    """What stands against serving a model on a node with an instance of this name."""
    named = {
        THEIRS: hub_answer(repo_id=THEIRS),
        "/srv/b/mine-8b": {**hub_answer(), "folder": "/srv/b/mine-8b"},
        **(extra or {}),
    }
    catalog = load_catalog(entries(named, CATALOG))
    serving = NodeServing((Serving(name, 8000, 8000, (), serves),))
    return outcome("1xH100", catalog, serving, models=[model], **options).findings


def test_the_second_of_a_name_is_refused() -> None:
    (finding,) = findings(THEIRS, MINE)
    assert finding == (
        "mine-8b serves Acme/Mine-8B on this node, and Other/mine-8b would take its place: write models: [{model:"
        " Other/mine-8b, name: NAME}] with another name to serve both, or with mine-8b to replace it."
    )


def test_a_folder_of_the_same_name_is_refused_as_well() -> None:
    assert (
        "mine-8b serves /srv/a/mine-8b on this node, and /srv/b/mine-8b would"
        in findings("/srv/b/mine-8b", "/srv/a/mine-8b")[0]
    )


def test_a_repository_that_is_called_as_a_model_of_the_catalogue_is_refused() -> None:
    theirs = {"Other/Qwen3-8B": hub_answer(repo_id="Other/Qwen3-8B", config=CONFIGS["qwen3-8b"])}
    assert (
        "qwen3-8b serves Qwen/Qwen3-8B on this node"
        in findings("Other/Qwen3-8B", "Qwen/Qwen3-8B", "qwen3-8b", theirs)[0]
    )


@pytest.mark.parametrize("name", ["mine-8b", "Mine-8B", "other"])
def test_who_names_it_means_it(name: str) -> None:
    assert findings({"model": THEIRS, "name": name}, MINE) == ()


@pytest.mark.parametrize(
    ("serves", "options"),
    [
        (THEIRS, {}),
        ("other/Mine-8b", {}),  # the hub tells no capitals from small letters
        ("", {}),  # a record of a release that did not say
        (MINE, {"remove_unlisted": True}),
    ],
)
def test_the_same_and_what_goes_by_itself_are_not(serves: str, options: dict[str, Any]) -> None:
    assert findings(THEIRS, serves, **options) == ()


def test_two_in_one_play_are_told_once() -> None:
    catalog = load_catalog(entries({MINE: hub_answer(repo_id=MINE), THEIRS: hub_answer(repo_id=THEIRS)}, CATALOG))
    serving = NodeServing((Serving("mine-8b", 8000, 8000, (), MINE),))
    (finding,) = outcome("2xH100", catalog, serving, models=[MINE, THEIRS]).findings
    assert finding == "Two instances are named 'mine-8b': give one of them a `name` of its own."


def test_another_instance_is_in_nobodys_way() -> None:
    assert findings(THEIRS, MINE, name="mine") == ()


@pytest.mark.parametrize(
    ("repo_id", "serves"),
    [("mirror/8b", "meta-llama/Llama-3.1-8B-Instruct"), ("meta-llama/Llama-3.1-8B-Instruct", "mirror/8b")],
)
def test_a_key_of_the_catalogue_follows_its_entry(repo_id: str, serves: str) -> None:
    catalog = load_catalog({"8b": {"repo_id": repo_id}})
    serving = NodeServing((Serving("8b", 8000, 8000, (), serves),))
    assert outcome("1xH100", catalog, serving, model="8b").findings == ()


def test_smaller_weights_of_the_same_model_are_the_same() -> None:
    ours = "meta-llama/Llama-3.1-8B-Instruct@v2"
    named = {ours: hub_answer(repo_id=ours.partition("@")[0], branch="v2")}
    name, smaller = "llama-3.1-8b-instruct", CATALOG.models["8b-fp8"].repo_id
    assert findings(ours, smaller, name, named, weights="smaller") == ()
    assert len(findings(ours, smaller, name, named)) == 1


def test_it_is_known_from_the_call_that_is_made_anyway() -> None:
    answer = {**node(**{THEIRS: hub_answer(repo_id=THEIRS)}), "engines": [Serving("mine-8b", model=MINE).as_dict()]}
    made = action(serving_plan.ActionModule, answer, model=THEIRS, fail_on_findings=False)
    assert "mine-8b serves Acme/Mine-8B on this node" in made.run(task_vars={})["findings"][0]
    assert called(made)[0] == "model_info"
