# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Long work in short calls: a module waits some seconds and returns; its action shows progress and calls again.

The contract of such a module:

- it returns ``done=false`` with ``progress`` (one line for people) while the work goes on, ``done=true`` with its
  result at the end, and fails as any module does;
- it takes an option ``resume`` (a dict), which is the ``resume`` that its last call returned: its memory;
- in check mode it returns its result in one call.

Short calls keep the connection alive and let ``ctrl-c`` through. If the connection breaks, only that call is lost: the
work goes on in its own unit on the node (see ``module_utils/units/job.py``).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from .refusal import refused

#: Seconds before the second attempt after a lost connection: sshd may restart, or the network may flap.
RECONNECT_S = 10
#: Seconds before a line that differs only in its numbers is shown: doubled each time, up to a limit.
STANDS_S = 10
STANDS_MOST_S = 120

Result = dict[str, Any]
Call = Callable[[Any], Result]


def watch(
    call: Call,
    show: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
    reconnect: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
    parent: Callable[[], int] = os.getppid,
) -> Result:
    """Call until the work is done. ``call`` takes the ``resume`` of the previous result.

    A worker outlives an ansible-playbook that is killed, and would take a result that nobody sees: it ends here.
    """
    ours = parent()
    resume: Any = None
    lines = Lines(show, clock)
    changed = reconnecting = False
    while True:
        try:
            result = call(resume)
        except AnsibleConnectionFailure as failure:
            if reconnecting:
                raise
            reconnecting = True
            show(f"connection lost, trying once more in {RECONNECT_S} s: {failure}")
            sleep(RECONNECT_S)
            reconnect()
            continue
        reconnecting = False
        changed = changed or bool(result.get("changed"))
        if _is_final(result):
            break
        if parent() != ours:
            raise AnsibleActionFail("ansible-playbook was killed; the work goes on without it.")
        resume = result.get("resume")
        lines.take(result.get("progress") or "")
    result.pop("resume", None)
    return {**result, "changed": changed}


class Lines:
    """Shows a line with new words at once, and one with new numbers ever more rarely: about thirty lines an hour."""

    def __init__(self, show: Callable[[str], None], clock: Callable[[], float]) -> None:
        self.show, self.clock = show, clock
        self.words, self.line, self.until, self.stands = "", "", 0.0, STANDS_S

    def take(self, line: str) -> None:
        """Take one line of progress, which may equal the last one."""
        words, now = re.sub(r"\d[\d.]*", "#", line.partition(";")[0]), self.clock()
        if not line or line == self.line or (words == self.words and now < self.until):
            return
        self.stands = min(self.stands * 2, STANDS_MOST_S) if words == self.words else STANDS_S
        self.words, self.line, self.until = words, line, now + self.stands
        self.show(line)


def _is_final(result: Result) -> bool:
    """Anything but an explicit done=false ends the loop: a module that died is not called forever."""
    return bool(result.get("failed") or result.get("skipped") or result.get("unreachable")) or (
        result.get("done", True) is not False
    )


class WatchingAction(ActionBase):  # type: ignore[misc]
    """Calls the task's module until it is done."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> Result:
        super().run(tmp, task_vars)
        host = (task_vars or {}).get("inventory_hostname", "node")
        start = time.monotonic()
        result = watch(
            lambda resume: self._call(resume, task_vars),
            lambda line: self._show(host, line),
            reconnect=self._connection.reset,
        )
        # With "done", the module failed with a message for users. Without it, it crashed: Ansible shows everything.
        if result.get("failed") and "done" in result:
            raise refused(result)
        return {**result, "seconds": round(time.monotonic() - start, 1)}

    def _call(self, resume: Any, task_vars: dict[str, Any] | None) -> Result:
        args = dict(self._task.args)
        if resume is not None:
            args["resume"] = resume
        # The module's full name, even if the task uses a short or an old one.
        name = self._task.resolved_action
        result: Result = self._execute_module(module_name=name, module_args=args, task_vars=task_vars)
        return result

    def _show(self, host: str, line: str) -> None:
        if not self._task.no_log:
            Display().display(f"  {host}: {line}")
