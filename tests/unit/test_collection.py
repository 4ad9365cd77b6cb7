# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for the collection as a whole: the action group is complete, and each list of options is the same list."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.gpunode.llm.plugins.action.serving_matrix import OPTIONS as MATRIX_OPTIONS
from ansible_collections.gpunode.llm.plugins.action.serving_plan import OPTIONS
from ansible_collections.gpunode.llm.plugins.doc_fragments import planning
from ansible_collections.gpunode.llm.plugins.modules import serving_matrix, serving_plan
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog_files import load_catalog
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.request import PLANNING, READERS

CHECKOUT = Path(__file__).resolve().parents[2]
#: These decide on the controller; what they ask of a node they ask through gpu_info.
ON_THE_CONTROLLER = {"plan_shown", "refuse", "serving_matrix", "serving_plan", "settings_check", "show"}
#: What the module takes beside the options of an engine, and what stands for one instance alone.
OF_THE_TASK = {"model", "models", "gpus", "fail_on_findings", "gather_facts", "lock_timeout_s"}
OF_ONE_INSTANCE = {"name", "model", "served_model_name", "gpu_indices"}


def read(path: str) -> Any:
    return yaml.safe_load((CHECKOUT / path).read_text(encoding="utf-8"))


def test_the_action_group_holds_every_module_that_works_on_a_node() -> None:
    group = read("meta/runtime.yml")["action_groups"]["node"]
    modules = {path.stem for path in (CHECKOUT / "plugins" / "modules").glob("[a-z]*.py")}
    assert modules > ON_THE_CONTROLLER
    assert group == sorted(modules - ON_THE_CONTROLLER)


def test_every_option_of_the_plan_reaches_the_planner() -> None:
    """Each list of them is the same list: one that is left out of one is lost without a word."""
    options = set(OPTIONS) - OF_THE_TASK
    shared = set(yaml.safe_load(planning.ModuleDocFragment.DOCUMENTATION)["options"])
    assert shared == set(PLANNING)
    assert set(yaml.safe_load(serving_plan.DOCUMENTATION)["options"]) | shared == set(OPTIONS)
    assert set(yaml.safe_load(serving_matrix.DOCUMENTATION)["options"]) | shared == set(MATRIX_OPTIONS)
    assert set(READERS) - OF_ONE_INSTANCE <= options
    spec = read("roles/preflight/meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert set(spec["preflight_options"]["options"]) == options
    (task,) = read("roles/preflight/tasks/plan.yml")
    assert set(task["gpunode.llm.serving_plan"]) == set(OPTIONS)
    given = {
        key: re.findall(r"__preflight_options\.(\w+)", str(value))
        for key, value in task["gpunode.llm.serving_plan"].items()
    }
    assert {key: names for key, names in given.items() if names} == {key: [key] for key in options}


def test_every_option_of_the_plan_has_a_variable() -> None:
    handed = [task.get("vars", {}) for task in read("playbooks/tasks/decide.yml")]
    (options,) = (given["preflight_options"] for given in handed if "preflight_options" in given)
    assert set(options) == set(OPTIONS) - OF_THE_TASK
    del options["api_key_set"]
    for key, value in options.items():
        # Without default(), which would take a template of an unknown name for a setting that is not set.
        assert value == f"{{{{ vllm_{key} }}}}"
        assert f"vllm_{key}" in read("roles/vllm/defaults/main.yml")


def test_what_site_takes_plan_takes() -> None:
    """A GPU that vllm_extra_gpus describes was unknown to plan.yml."""
    settings, task = read("playbooks/tasks/fit.yml")
    assert settings["ansible.builtin.import_role"]["tasks_from"] == "settings"
    given = task["gpunode.llm.serving_matrix"]
    assert set(given) == set(MATRIX_OPTIONS)
    for key in set(PLANNING) - {"api_key_set"}:
        assert f"vllm_{key} | gpunode.llm.typed('vllm_{key}')" in given[key], key
    assert "__vllm_api_keys" in given["api_key_set"]


def test_an_image_takes_the_same_room_in_a_plan_and_in_preflight() -> None:
    assert load_catalog().policy.image_disk_bytes == read("roles/preflight/defaults/main.yml")["preflight_image_bytes"]
