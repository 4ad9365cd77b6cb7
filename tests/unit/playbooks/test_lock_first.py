# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every playbook that changes a node has it for itself before its first task there."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

PLAYBOOKS = Path(__file__).resolve().parents[3] / "playbooks"
#: These change no node. Whoever adds a playbook says so here, or locks.
LOOK_ONLY = {"awx", "health", "key", "logs", "plan", "status", "usage"}
CHANGING = sorted({path.stem for path in PLAYBOOKS.glob("*.yml")} - LOOK_ONLY)
#: What needs no lock: it says or refuses something, on the controller.
WORDS = {
    "ansible.builtin.assert",
    "ansible.builtin.debug",
    "ansible.builtin.fail",
    "ansible.builtin.meta",
    "gpunode.llm.benchmark_report",
    "gpunode.llm.plan_shown",
    "gpunode.llm.refuse",
    "gpunode.llm.settings_check",
    "gpunode.llm.show",
}
#: What takes the node in the round trip that asks for its GPUs.
DECIDES = "tasks/decide.yml"
TIMEOUT = "{{ node_lock_timeout_s | default(0) | gpunode.llm.typed('node_lock_timeout_s') or 0 }}"
#: Conditions under which a play changes nothing.
WITHOUT = {"verify": "huggingface_verify_mend | default(false) | gpunode.llm.typed('huggingface_verify_mend')"}
#: What site.yml does only sometimes before it decides: the first task of each page locks the node.
SOMETIMES = ("tasks/bundle.yml", "tasks/router_alone.yml")


def tasks(name: str) -> Iterator[dict[str, Any]]:
    """What it does on the node, in order; what only speaks is left out."""
    for play in yaml.safe_load((PLAYBOOKS / f"{name}.yml").read_text(encoding="utf-8")):
        for task in play["tasks"]:
            yield from [] if WORDS & set(task) or has_no_task(task) else [task]


def page_of(task: dict[str, Any]) -> str:
    """The page that a task includes, where it does."""
    included = task.get("ansible.builtin.include_tasks", "")
    return str(included["file"] if isinstance(included, dict) else included)


def lock_of(task: dict[str, Any]) -> Any:
    """How a task locks the node; the first task of the page that it includes, where it does."""
    if page_of(task) in SOMETIMES:
        task = yaml.safe_load((PLAYBOOKS / page_of(task)).read_text(encoding="utf-8"))[0]
    return task.get("gpunode.llm.node_lock")


def has_no_task(task: dict[str, Any]) -> bool:
    """Whether it makes roles' settings known, and nothing more."""
    if "ansible.builtin.import_tasks" in task:
        page = PLAYBOOKS / "tasks" / Path(task["ansible.builtin.import_tasks"]).name
        return all(map(has_no_task, yaml.safe_load(page.read_text(encoding="utf-8"))))
    role = task.get("ansible.builtin.import_role", {})
    if role.get("tasks_from") != "settings":
        return False
    path = PLAYBOOKS.parent / "roles" / role["name"].rpartition(".")[2] / "tasks" / "settings.yml"
    return yaml.safe_load(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("name", CHANGING)
def test_the_node_is_taken_first(name: str) -> None:
    sometimes = list(itertools.takewhile(lambda task: page_of(task) in SOMETIMES, tasks(name)))
    assert [lock_of(task) for task in sometimes] == [{"timeout_s": TIMEOUT}] * len(sometimes)
    assert all(task["when"] for task in sometimes)
    first = list(tasks(name))[len(sometimes)]
    if lock := lock_of(first):
        assert lock == {"timeout_s": TIMEOUT}
        assert first.get("when") == WITHOUT.get(name)
        return
    assert first["ansible.builtin.import_tasks"] == DECIDES
    deciding = yaml.safe_load((PLAYBOOKS / DECIDES).read_text(encoding="utf-8"))
    (decide, *_others) = itertools.dropwhile(lambda task: has_no_task(task) or WORDS & set(task), deciding)
    assert decide["ansible.builtin.import_role"] == {
        "name": "gpunode.llm.vllm",
        "tasks_from": "plan",
        "rolespec_validate": False,
    }
    assert decide["vars"]["vllm_plan_lock_timeout_s"] == TIMEOUT
    (plan,) = yaml.safe_load((PLAYBOOKS.parent / "roles/vllm/tasks/plan.yml").read_text(encoding="utf-8"))
    assert "__vllm_plan_lock_timeout_s" in plan["gpunode.llm.serving_plan"]["lock_timeout_s"]
