# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Long work in short calls: the module looks for some seconds and returns, its action plugin shows and calls again.

The contract of such a module:

- it returns ``done=false`` with ``progress`` (one line for people) while there is more to wait for, ``done=true`` with
  its result at the end, and fails as any module does;
- it takes an option ``resume`` (a dict), which is whatever its last call returned as ``resume``: what it must remember;
- in check mode it answers in one call.

Short calls keep the connection alive, let ``ctrl-c`` through, and a connection that breaks costs one call and not the
work, which goes on in its own unit on the node (see ``module_utils/units/job.py``).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from .refusal import refused

#: How long a node may take to be reachable again before a second attempt: a sshd that restarts, a network that flaps.
RECONNECT_S = 10
#: How long a line stands before one that says the same with other numbers: doubled with each, up to a limit. Seconds.
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
) -> Result:
    """Call until it is done. ``call`` takes what the call before it returned as ``resume``."""
    resume: Any = None
    lines = Lines(show, clock)
    changed = lost = False
    while True:
        try:
            result = call(resume)
        except AnsibleConnectionFailure as failure:
            if lost:
                raise
            lost = True
            show(f"connection lost, trying once more in {RECONNECT_S} s: {failure}")
            sleep(RECONNECT_S)
            reconnect()
            continue
        lost = False
        changed = changed or bool(result.get("changed"))
        if _is_final(result):
            break
        resume = result.get("resume")
        lines.take(result.get("progress") or "")
    result.pop("resume", None)
    return {**result, "changed": changed}


class Lines:
    """Shows what says something new at once, and other numbers ever more rarely: an hour is some thirty lines."""

    def __init__(self, show: Callable[[str], None], clock: Callable[[], float]) -> None:
        self.show, self.clock = show, clock
        self.words, self.line, self.until, self.stands = "", "", 0.0, STANDS_S

    def take(self, line: str) -> None:
        """One line of progress, which may be the same as the last."""
        words, now = re.sub(r"\d[\d.]*", "#", line.partition(";")[0]), self.clock()
        if not line or line == self.line or (words == self.words and now < self.until):
            return
        self.stands = min(self.stands * 2, STANDS_MOST_S) if words == self.words else STANDS_S
        self.words, self.line, self.until = words, line, now + self.stands
        self.show(line)


def _is_final(result: Result) -> bool:
    """Anything but a clear "not yet" ends the loop: a module that died without an answer is not called for ever."""
    return bool(result.get("failed") or result.get("skipped") or result.get("unreachable")) or (
        result.get("done", True) is not False
    )


class WatchingAction(ActionBase):  # type: ignore[misc]
    """Calls the task's module until it is done."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> Result:
        super().run(tmp, task_vars)
        host = (task_vars or {}).get("inventory_hostname", "node")
        began = time.monotonic()
        result = watch(
            lambda resume: self._call(resume, task_vars),
            lambda line: self._show(host, line),
            reconnect=self._connection.reset,
        )
        # What is done has told its failure in words; what broke off has not, and Ansible says all that it knows of it.
        if result.get("failed") and "done" in result:
            raise refused(result)
        return {**result, "seconds": round(time.monotonic() - began, 1)}

    def _call(self, resume: Any, task_vars: dict[str, Any] | None) -> Result:
        args = dict(self._task.args)
        if resume is not None:
            args["resume"] = resume
        # The module's full name, whichever name the task has for it.
        name = self._task.resolved_action
        result: Result = self._execute_module(module_name=name, module_args=args, task_vars=task_vars)
        return result

    def _show(self, host: str, line: str) -> None:
        if not self._task.no_log:
            Display().display(f"  {host}: {line}")
