# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write down each task and whether it changed the node; kill the play, and all that it started, before one of them."""

from __future__ import annotations

import json
import os
import signal

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
    name: killed
    type: aggregate
    short_description: kill a play before its Nth task
    description: KILL_BEFORE says before which, counted from 1; KILL_TASKS names the file that the tasks go to.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "killed"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._before = int(os.environ.get("KILL_BEFORE") or 0)
        self._number = 0

    def _tell(self, **what: object) -> None:
        with open(os.environ["KILL_TASKS"], "a", encoding="utf-8") as file:
            file.write(json.dumps({"number": self._number, **what}) + "\n")

    def v2_playbook_on_task_start(self, task, is_conditional):
        self._number += 1
        self._tell(name=task.get_name())
        if self._number == self._before:
            os.killpg(0, signal.SIGKILL)

    def v2_playbook_on_handler_task_start(self, task):
        self.v2_playbook_on_task_start(task, False)

    def v2_runner_on_ok(self, result):
        if result.is_changed():
            self._tell(changed=True)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self._tell(changed=True)
