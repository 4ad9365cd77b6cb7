# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several modules in one round trip.

A round trip to a node costs more than what most modules do there. Modules are built here as ever; what would have been
sent to the node for each is held back, goes there in one piece, and each is given its own answer to read. Where nothing
can be held back (no pipelining: a module is a file on the node then) each runs by itself, with the same answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.common.text.converters import to_bytes
from ansible.plugins.action import ActionBase

Result = dict[str, Any]
Execute = Callable[..., Result]

#: Before the answers, since whatever a login shell prints comes first.
MARK = "GPUNODE-ANSWERS "

#: Runs on the node, under the interpreter that the modules have. Side by side, since questions wait for nothing of each
#: other; in order, work ends with the first that fails.
PROGRAM = """
import json, subprocess, sys
def run(text):
    ran = subprocess.run([sys.executable], input=text, capture_output=True)
    return ran.returncode, ran.stdout.decode("utf-8", "replace"), ran.stderr.decode("utf-8", "replace")
answers = []
if IN_ORDER:
    for text in TEXTS:
        answers.append(run(text))
        if answers[-1][0] != 0:
            break
else:
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(len(TEXTS)) as pool:
        answers = list(pool.map(run, TEXTS))
print("\\n" + MARK + json.dumps(answers))
"""


@dataclass(frozen=True)
class Call:
    """A module to run."""

    module: str
    args: Mapping[str, Any]


def program(texts: Sequence[bytes], in_order: bool) -> bytes:
    """What goes to the node for all of them."""
    return f"MARK, IN_ORDER, TEXTS = {MARK!r}, {in_order!r}, {list(texts)!r}\n{PROGRAM}".encode()


def answers(whole: Mapping[str, Any], count: int) -> list[Result | None]:
    """The answer of each, as the connection would have given it; None for what was not begun.

    Where the whole died without answers, that is the answer of the first.
    """
    for line in reversed(str(whole.get("stdout", "")).splitlines()):
        if line.startswith(MARK):
            told = [_as_ran(*one) for one in json.loads(line[len(MARK) :])]
            return told + [None] * (count - len(told))
    return [dict(whole)] + [None] * (count - 1)


def _as_ran(status: int, out: str, err: str) -> Result:
    return {
        "rc": status,
        "stdout": out,
        "stdout_lines": out.splitlines(),
        "stderr": err,
        "stderr_lines": err.splitlines(),
    }


class TogetherAction(ActionBase):  # type: ignore[misc]
    """Base of the action plugins that run several modules in one round trip."""

    _low_level_execute_command: Execute

    def _together(
        self, calls: Sequence[Call], task_vars: dict[str, Any] | None, in_order: bool = False
    ) -> list[Result | None]:
        """The result of each; None for what was not begun, since what comes before it failed."""
        held: list[tuple[str, bytes]] = []
        run = self._low_level_execute_command

        def hold(cmd: str, sudoable: bool = True, in_data: Any = None, **others: Any) -> Result:
            if in_data is None:
                return dict(run(cmd, sudoable=sudoable, in_data=in_data, **others))
            held.append((cmd, to_bytes(in_data)))
            return _as_ran(0, "{}", "")

        first = self._each(calls, hold, task_vars)
        if not held:
            return first
        commands = {cmd for cmd, _text in held}
        if len(held) != len(calls) or len(commands) != 1:
            raise AssertionError("modules of one task are sent to the node in one way")
        whole = run(commands.pop(), in_data=program([text for _cmd, text in held], in_order))
        told = answers(whole, len(calls))
        begun = [call for call, answer in zip(calls, told) if answer is not None]
        waiting = iter([answer for answer in told if answer is not None])
        results = self._each(begun, lambda *_a, **_k: next(waiting), task_vars)
        return results + [None] * (len(calls) - len(results))

    def _each(self, calls: Sequence[Call], execute: Execute, task_vars: dict[str, Any] | None) -> list[Result | None]:
        """The module of each call, with ``execute`` in the place of the connection. Ends with the first that fails."""
        results: list[Result | None] = []
        own = self._low_level_execute_command
        self._low_level_execute_command = execute
        try:
            for call in calls:
                result = self._execute_module(module_name=call.module, module_args=dict(call.args), task_vars=task_vars)
                results.append(result)
                if result.get("failed"):
                    break
        finally:
            self._low_level_execute_command = own
        return results + [None] * (len(calls) - len(results))
