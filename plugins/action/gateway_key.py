# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make, list and revoke keys in a file on the controller. A new key is shown on the screen and nowhere else."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ..module_utils.node import files as node_files
from ..plugin_utils.gateway import key_file, keys
from ..plugin_utils.refusal import Refusal

LIMITS = {name: dict(option) for name, option in keys.FIELDS.items() if name not in ("key", "sha256")}
OPTIONS = {
    "file": {"type": "path", "required": True},
    "make": {"type": "str"},
    "revoke": {"type": "str"},
    "limits": {"type": "dict", "options": LIMITS, "default": {}},
}


class ActionModule(ActionBase):  # type: ignore[misc]
    """gateway_key"""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Change the file as it is asked for, then show what it holds."""
        super().run(tmp, task_vars)
        _result, options = self.validate_argument_spec(argument_spec=OPTIONS, mutually_exclusive=[("make", "revoke")])
        try:
            return self.change(Path(options["file"]), options)
        except ValueError as error:
            raise Refusal(str(error)) from None

    def change(self, path: Path, options: dict[str, Any]) -> dict[str, Any]:
        before = key_file.read(node_files.text_of(str(path)), str(path))
        after, key = dict(before), ""
        if options["make"]:
            limits = {name: value for name, value in options["limits"].items() if value is not None}
            after, key = key_file.made(before, options["make"], limits)
        if options["revoke"]:
            after = key_file.revoked(before, options["revoke"])
        if after != before and not self._task.check_mode:
            node_files.write_atomically(str(path), key_file.text_of(after), mode=0o600)
        today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
        self.show(key_file.rows(after, today))
        if after != before:
            self.show(
                [f"Run site.yml with -e @{path.name} to put it in force: the gateway reloads, and no request ends."]
            )
        if key and not self._task.check_mode:
            # Not in Ansible's log, and not in the result.
            self.show(
                [f"The key of {options['make']}, which is shown now and never again:", "", f"  {key}"], secret=True
            )
        return {"changed": after != before, "clients": sorted(map(str, after))}

    @staticmethod
    def show(lines: list[str], secret: bool = False) -> None:
        Display().display("\n".join(["", *lines]), screen_only=secret)
