# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""units_ready: which module the node is asked for, and what is told in the end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

from ansible_collections.gpunode.llm.plugins.action import units_ready

RAN = {"changed": True, "units": [{"name": "a.service", "action": "restart", "why": "a file"}], "diff": {"after": "x"}}
WAITS = {"changed": False, "done": False, "progress": "loading", "resume": {"started": 1}}
ANSWERS = {"changed": False, "done": True, "progress": "", "endpoints": [{"name": "a", "ready": True}]}


def run(*said: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]:
    """What the action returns where modules say so in turn, and which were called."""
    args = {"units": [{"name": "a.service"}], "would_change": [], "endpoints": [{"name": "a"}]}
    task = SimpleNamespace(args=args, async_val=0, check_mode=False, diff=True, environment=[], action="", no_log=True)
    action = units_ready.ActionModule(task, *(MagicMock() for _part in range(5)))
    action._execute_module = MagicMock(side_effect=said)
    result = action.run(task_vars={"inventory_hostname": "one"})
    return result, [(c.kwargs["module_name"], c.kwargs["module_args"]) for c in action._execute_module.call_args_list]


def test_what_was_done_to_the_units_is_told_after_a_wait() -> None:
    result, called = run(RAN, WAITS, ANSWERS)
    assert (result["changed"], result["units"], result["diff"]) == (True, RAN["units"], RAN["diff"])
    assert result["endpoints"] == ANSWERS["endpoints"]
    assert called == [
        ("gpunode.llm.units_current", {"units": [{"name": "a.service"}], "would_change": []}),
        ("gpunode.llm.endpoint_ready", {"endpoints": [{"name": "a"}]}),
        ("gpunode.llm.endpoint_ready", {"endpoints": [{"name": "a"}], "resume": {"started": 1}}),
    ]


def test_a_unit_that_cannot_be_started_is_not_waited_for() -> None:
    result, called = run({"failed": True, "msg": "systemctl restart a.service failed", "units": []})
    assert (result["failed"], result["msg"]) == (True, "systemctl restart a.service failed")
    assert [name for name, _args in called] == ["gpunode.llm.units_current"]


def test_an_engine_that_ends_is_told_with_what_was_done() -> None:
    result, _called = run(RAN, {"failed": True, "msg": "a.service ended", "done": True})
    assert (result["failed"], result["msg"], result["units"]) == (True, "a.service ended", RAN["units"])
