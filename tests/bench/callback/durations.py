# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write one JSON line per task: its name, its seconds, and whether it ran at all on some host."""

from __future__ import annotations

import json
import os
import time

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
    name: durations
    type: aggregate
    short_description: one JSON line per task, for the benches
    description: Writes to the file that DURATIONS_FILE names.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "durations"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._name, self._began, self._ran = "", 0.0, False

    def _end(self) -> None:
        if self._name:
            with open(os.environ["DURATIONS_FILE"], "a", encoding="utf-8") as file:
                file.write(
                    json.dumps({"name": self._name, "seconds": time.monotonic() - self._began, "ran": self._ran}) + "\n"
                )

    def v2_playbook_on_task_start(self, task, is_conditional):
        self._end()
        self._name, self._began, self._ran = task.get_name(), time.monotonic(), False

    def v2_playbook_on_handler_task_start(self, task):
        self.v2_playbook_on_task_start(task, False)

    def v2_runner_on_ok(self, result):
        self._ran = True

    def v2_playbook_on_stats(self, stats):
        self._end()
