# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check a plan on the node, unless the node's first result includes that."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ..plugin_utils.node import questions

#: The module's options that the option `hub` combines, and the values that count as absent.
HUB = ("ca_path", "client", "endpoint", "home", "source", "token_path", "update")
EMPTY = (None, "", {})


class ActionModule(ActionBase):
    """preflight_check"""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        args = dict(self._task.args)
        hub = {
            name: value for name, value in (args.pop("hub", None) or {}).items() if name in HUB and value not in EMPTY
        }
        return questions.ask(self, "gpunode.llm.preflight_check", {**hub, **args}, task_vars or {})
