# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several modules in one round trip: what is sent, what comes back, and an action that sends it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible_collections.gpunode.llm.plugins.plugin_utils import _together
from ansible_collections.gpunode.llm.plugins.plugin_utils._together import Call, TogetherAction

SAYS = b"print('{\"said\": %d}')"
DIES = b"import sys; print('{\"failed\": true}'); sys.exit(3)"


def ran(text: bytes) -> dict[str, Any]:
    """What a connection returns for a program on the standard input of Python."""
    done = subprocess.run([sys.executable], input=text, capture_output=True, check=False)
    return {"rc": done.returncode, "stdout": done.stdout.decode(), "stderr": done.stderr.decode()}


@pytest.mark.parametrize("in_order", [True, False])
def test_each_gets_its_own_answer(in_order: bool) -> None:
    texts = [SAYS % 1, "import sys; sys.stderr.write('é'); print('é')".encode(), SAYS % 3]
    told = _together.answers(ran(_together.program(texts, in_order)), 3)
    assert [one["stdout"] for one in told if one] == ['{"said": 1}\n', "é\n", '{"said": 3}\n']
    assert [one["stderr"] for one in told if one] == ["", "é", ""]


@pytest.mark.parametrize(("in_order", "statuses"), [(True, [0, 3, None]), (False, [0, 3, 0])])
def test_work_ends_with_the_first_that_fails_and_questions_do_not(in_order: bool, statuses: list[int | None]) -> None:
    told = _together.answers(ran(_together.program([SAYS % 1, DIES, SAYS % 3], in_order)), 3)
    assert [one and one["rc"] for one in told] == statuses


def test_what_a_login_prints_is_no_answer() -> None:
    whole = ran(_together.program([SAYS % 1], False))
    told = _together.answers({**whole, "stdout": f"Welcome\n{whole['stdout']}"}, 1)
    assert told[0]
    assert told[0]["stdout"] == '{"said": 1}\n'


def test_where_nothing_ran_the_first_tells() -> None:
    whole = {"rc": 127, "stdout": "", "stderr": "python3: not found"}
    assert _together.answers(whole, 2) == [whole, None]


class Node(TogetherAction):
    """An action over a connection that counts, with modules that are built as text: the module's name."""

    _supports_check_mode = True

    def __init__(self, pipelining: bool) -> None:
        super().__init__(*(MagicMock() for _part in range(6)))
        self.pipelining, self.trips = pipelining, 0

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        raise NotImplementedError

    def _low_level_execute_command(self, cmd: str, sudoable: bool = True, in_data: Any = None, **_other: Any) -> Any:
        self.trips += 1
        return ran(in_data if self.pipelining else cmd.encode())

    def _execute_module(self, module_name: str, module_args: dict[str, Any], task_vars: Any) -> dict[str, Any]:
        said = (
            self._low_level_execute_command("python", in_data=module_name)
            if self.pipelining
            else self._low_level_execute_command(module_name)
        )
        return {"said": said["stdout"].strip(), **({"failed": True} if said["rc"] else {})}


@pytest.mark.parametrize(("pipelining", "trips"), [(True, 1), (False, 2)])
def test_one_round_trip_where_modules_are_sent_through_the_connection(pipelining: bool, trips: int) -> None:
    node = Node(pipelining)
    calls = [Call((SAYS % number).decode(), {}) for number in (1, 2)]
    assert node._together(calls, {}) == [{"said": '{"said": 1}'}, {"said": '{"said": 2}'}]
    assert node.trips == trips


@pytest.mark.parametrize("pipelining", [True, False])
def test_what_comes_after_a_failure_is_not_begun(pipelining: bool) -> None:
    calls = [Call(DIES.decode(), {}), Call((SAYS % 2).decode(), {})]
    first, second = Node(pipelining)._together(calls, {}, in_order=True)
    assert first == {"said": '{"failed": true}', "failed": True}
    assert second is None
