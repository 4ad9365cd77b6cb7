# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read every variable of the collection that the play knows, on the controller, before anything changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.gpunode.llm.plugins.plugin_utils import _values
from ansible_collections.gpunode.llm.plugins.plugin_utils._refusal import refusal, to_mend


class ActionModule(ActionBase):  # type: ignore[misc]
    """settings_check"""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fail with a sentence for every variable that cannot be read."""
        super().run(tmp, task_vars)
        self.validate_argument_spec(argument_spec={})
        findings = list(self._findings(task_vars or {}))
        if findings:
            host = str((task_vars or {}).get("inventory_hostname", "node"))
            raise refusal(to_mend(len(findings)), findings, host)
        return {"changed": False, "findings": []}

    def _findings(self, known: Mapping[str, Any]) -> list[str]:
        findings = []
        for name, option in _values.options().items():
            if name in known and not _is_any_text(known[name], option):
                try:
                    _values.typed(name, self._value(known[name]))
                except ValueError as error:
                    findings.append(str(error))
                except AnsibleError:
                    # It follows from what is known only later, such as a fact; whoever uses it reads it then.
                    continue
        return findings

    def _value(self, raw: Any) -> Any:
        """Most are plain values, and working each of them out would take longer than all the rest."""
        plain = raw is None or isinstance(raw, (bool, int, float)) or (isinstance(raw, str) and "{" not in raw)
        return raw if plain or not raw else self._templar.template(raw)


def _is_any_text(raw: Any, option: _values.Option) -> bool:
    """Whether any text is a value of it, and it is a text."""
    return isinstance(raw, str) and option["type"] in ("str", "path") and "choices" not in option
