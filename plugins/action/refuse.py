# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fail with a message for people, like ansible.builtin.fail, but once and without the play's source lines."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ..plugin_utils.refusal import Refusal, problems_found, refusal

OPTIONS = {"msg": {"type": "str"}, "findings": {"type": "list", "elements": "str"}}


class ActionModule(ActionBase):  # type: ignore[misc]
    """refuse"""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fail with the message, or with all findings if there are any."""
        super().run(tmp, task_vars)
        _result, options = self.validate_argument_spec(
            argument_spec=OPTIONS, mutually_exclusive=[("msg", "findings")], required_one_of=[("msg", "findings")]
        )
        if options["msg"] is not None:
            raise Refusal(options["msg"])
        if options["findings"]:
            host = str((task_vars or {}).get("inventory_hostname", "node"))
            raise refusal(problems_found(len(options["findings"])), options["findings"], host)
        return {"changed": False}
