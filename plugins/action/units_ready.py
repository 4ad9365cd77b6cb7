# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs units and waits for what they serve. Where nothing is due and all of them answer, that is one round trip."""

from __future__ import annotations

from typing import Any

from ansible_collections.gpunode.llm.plugins.plugin_utils._together import Call, TogetherAction
from ansible_collections.gpunode.llm.plugins.plugin_utils._watch import WatchingAction

RUN = "gpunode.llm.units_current"
SHOWN = ("units", "diff")


class ActionModule(WatchingAction, TogetherAction):
    """units_ready"""

    MODULE = "gpunode.llm.endpoint_ready"

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Whatever ends the wait, what was done to the units is told with it."""
        self._done: dict[str, Any] = {}
        return {**super().run(tmp, task_vars), **self._done}

    def _call(self, resume: Any, task_vars: dict[str, Any] | None) -> dict[str, Any]:
        args = dict(self._task.args)
        endpoints = {"endpoints": args.pop("endpoints", [])}
        if resume is not None:
            again = {**endpoints, "resume": resume}
            return dict(self._execute_module(module_name=self.MODULE, module_args=again, task_vars=task_vars))
        ran, answered = self._together([Call(RUN, args), Call(self.MODULE, endpoints)], task_vars, in_order=True)
        if ran is None or answered is None:
            return ran or {"failed": True, "msg": "the node gave no answer"}
        self._done = {key: ran[key] for key in SHOWN if key in ran}
        return {**answered, "changed": bool(ran.get("changed"))}
