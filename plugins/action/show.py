# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show a text unquoted, through Ansible's own display, so that every callback and AWX records it."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display


class ActionModule(ActionBase):  # type: ignore[misc]
    """show"""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Show all lines in one call, so that the lines of two nodes do not mix."""
        super().run(tmp, task_vars)
        _result, options = self.validate_argument_spec(argument_spec={"text": {"type": "raw", "required": True}})
        text = options["text"]
        lines = text.rstrip("\n").split("\n") if isinstance(text, str) else text
        if not isinstance(lines, list):
            raise AnsibleActionFail(f"show: text must be a text or a list of lines, not {type(text).__name__}.")
        if any(lines) and not self._task.no_log:
            Display().display("\n".join(["", *map(str, lines)]))
        return {"changed": False}
