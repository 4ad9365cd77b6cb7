# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lock a node for one play; the controller waits for the lock and renews it."""

from __future__ import annotations

from typing import Any

from ..plugin_utils.node.one_play import LockingAction


class ActionModule(LockingAction):
    """node_lock"""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _result, options = self.validate_argument_spec(argument_spec={"timeout_s": {"type": "float", "default": 0.0}})
        return self._locked("gpunode.llm.node_lock", task_vars or {}, options["timeout_s"])
