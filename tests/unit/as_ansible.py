# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make an action plugin as Ansible does, for a node whose answers a test prepares."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

#: Some of what ActionBase._execute_module adds to the options that it is handed.
ADDED = {"_ansible_check_mode": True, "_ansible_module_name": "a name", "_ansible_version": "2.19.0"}


class Node:
    """Stands for ActionBase._execute_module.

    Args:
        answers: one for each call, or a single one for all. An exception is raised.
    """

    def __init__(self, *answers: Any) -> None:
        self.answers = answers
        #: The module of each call, without the collection's name, and the options that the plugin handed over.
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, *, module_name: str, module_args: dict[str, Any], task_vars: Any) -> dict[str, Any]:
        again = ADDED.keys() & module_args.keys()
        assert not again, f"these options were handed over before, and Ansible has added {sorted(again)} to them"
        self.calls.append((module_name.rpartition(".")[2], dict(module_args)))
        module_args.update(ADDED)
        answer = self.answers[0 if len(self.answers) == 1 else len(self.calls) - 1]
        if isinstance(answer, BaseException):
            raise answer
        return dict(answer)

    @property
    def call(self) -> tuple[str, dict[str, Any]]:
        """The one call; there is exactly one."""
        (call,) = self.calls
        return call


def action(kind: Any, options: dict[str, Any], *answers: Any, templar: Any = None, **task: Any) -> Any:
    """The action plugin ``kind`` of a task with these options; ``made._execute_module`` is the Node.

    Args:
        task: attributes of the task beside those that every task has here.
    """
    name = kind.__module__.rpartition(".")[2]
    attributes = {"async_val": 0, "check_mode": True, "diff": False, "environment": [], "action": name, "no_log": False}
    task_of = SimpleNamespace(**{**attributes, "args": options, **task})
    made = kind(task_of, MagicMock(), MagicMock(), MagicMock(), templar or MagicMock(), MagicMock())
    made._execute_module = Node(*answers)
    return made
