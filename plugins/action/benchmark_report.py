# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep records of benchmarks and tunes on the controller, with a report, and compare with an earlier record."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ..module_utils.node import files
from ..plugin_utils.benchmark import kept
from ..plugin_utils.refusal import Refusal

OPTIONS = {
    "records": {"type": "list", "elements": "raw", "default": []},
    "dir": {"type": "path", "required": True},
    "compare": {"type": "path", "default": ""},
    "fail_if_slower": {"type": "bool", "default": False},
    "check_only": {"type": "bool", "default": False},
    "profiles": {"type": "list", "elements": "str", "default": []},
}


class ActionModule(ActionBase):  # type: ignore[misc]
    """benchmark_report"""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Write the records before anything else: what was measured is kept even where it cannot be compared."""
        super().run(tmp, task_vars)
        _result, options = self.validate_argument_spec(argument_spec=OPTIONS)
        folder = options["dir"]
        try:
            earlier = kept.earlier(options["compare"], options["profiles"])
            if options["check_only"]:
                kept.check_folder(folder)
                return {"changed": False, "files": [], "comparison": {}, "text": kept.hints()}
            contents = kept.contents(options["records"])
            paths = self._written(folder, kept.record_files(options["records"]))
            made = kept.made(contents, earlier)
            paths += self._written(folder, made.files)
        except ValueError as error:
            raise Refusal(str(error)) from error
        except OSError as error:
            raise Refusal(f"{error.filename or folder} cannot be written: {error.strerror or error}.") from error
        result = {"changed": bool(paths), "files": paths, "comparison": made.comparison, "text": made.text(folder)}
        problem = made.problem or (made.slower if options["fail_if_slower"] else "")
        if problem:
            # Ansible prints what a failure returns as YAML: the figures are shown in words instead.
            self._show(made.text(folder))
            raise Refusal(problem, result={key: result[key] for key in ("changed", "files")})
        return result

    def _written(self, folder: str, contents: Mapping[str, bytes]) -> list[str]:
        """Write files that others may read, and return their paths. In check mode, write none."""
        paths = [os.path.join(folder, name) for name in contents]
        if not self._task.check_mode:
            for path, data in zip(paths, contents.values()):
                files.write_atomically(path, data)
                os.chmod(path, 0o644)
        return paths

    def _show(self, lines: Sequence[str]) -> None:
        if not self._task.no_log:
            Display().display("\n".join(["", *lines]))
