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
LOOK_ONLY = {"awx", "logs", "plan", "status"}
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
#: Conditions under which a play changes nothing, or locks a little later.
WITHOUT = {
    "verify": "huggingface_verify_mend | default(false) | gpunode.llm.typed('huggingface_verify_mend')",
    "site": "__bundle | length > 0",
}


def tasks(name: str) -> Iterator[dict[str, Any]]:
    """What it does on the node, in order; what only speaks is left out."""
    for play in yaml.safe_load((PLAYBOOKS / f"{name}.yml").read_text(encoding="utf-8")):
        for task in play["tasks"]:
            yield from (inner for inner in opened(task) if not WORDS & set(inner) and not has_no_task(inner))


def opened(task: dict[str, Any]) -> list[dict[str, Any]]:
    """The tasks of the bundle, under the condition under which they are included; any other task as it is."""
    if task.get("ansible.builtin.include_tasks") != "tasks/bundle.yml":
        return [task]
    page = yaml.safe_load((PLAYBOOKS / "tasks/bundle.yml").read_text(encoding="utf-8"))
    return [{**inner, "when": task["when"]} for inner in page]


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
    first, *others = tasks(name)
    if "gpunode.llm.node_lock" in first:
        assert first["gpunode.llm.node_lock"] == {"timeout_s": TIMEOUT}
        assert first.get("when") == WITHOUT.get(name)
        # Without a bundle, site.yml skips what is before its decision as well.
        first = next((task for task in others if task.get("when") != first.get("when")), {})
        if name != "site":
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
