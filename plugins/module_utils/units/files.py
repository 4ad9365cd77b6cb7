# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rendered files from an action plugin, compared with those on the node. Used by rendered_files, and by units_settled,
which only compares."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import stat
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ..node import files as node_files

OPTIONS: Dict[str, Any] = {
    "files": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "src": {"type": "path", "required": True},
            "dest": {"type": "path", "required": True},
            "mode": {"type": "str"},
            "validate": {"type": "str"},
            "secret": {"type": "bool", "default": False, "no_log": False},
            "template": {"type": "bool", "default": True},
            "present": {"type": "bool", "default": True},
            "of": {"type": "str"},
            "content": {"type": "str"},
        },
    },
    # Not an option of each file: Ansible logs a nested no_log option to the node's journal, with line breaks escaped,
    # where its own search for the value does not find it.
    "secrets": {"type": "dict", "default": {}, "no_log": True},
    "each": {"type": "list", "elements": "dict", "default": []},
    "item_var": {"type": "str", "default": "item"},
}


def summary(text: str, what: str) -> str:
    """A text for a diff in one line: that it is new, changed or removed is enough for a program."""
    if not text:
        return ""
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]
    return f"({what} of {len(text.splitlines())} lines, sha256 {digest}…: they are not shown)\n"


def here(path: str) -> Tuple[Optional[str], Optional[int]]:
    """A file's text and its mode; both None if there is no file."""
    try:
        return node_files.read_text(path, "replace"), stat.S_IMODE(os.stat(path).st_mode)
    except FileNotFoundError:
        return None, None


class File:
    def __init__(self, module: Any, entry: Mapping[str, Any]) -> None:
        self.module = module
        self.path: str = entry["dest"]
        self.mode = int(entry["mode"] or "0644", 8)
        self.validate = entry["validate"]
        self.present = entry["present"]
        self.secret = entry["secret"]
        self.program = not entry["template"]
        content = module.params["secrets"].get(self.path) if self.secret else entry["content"]
        self.text: str = content or ""
        self.staged = ""
        self.before, self.mode_before = here(self.path)

    @property
    def folder(self) -> str:
        return os.path.dirname(self.path)

    @property
    def changed(self) -> bool:
        return (self.before, self.mode_before) != ((self.text, self.mode) if self.present else (None, None))

    def diff(self) -> Dict[str, str]:
        hidden = "(a secret file: its lines are not shown)\n"
        before, after = (self.before or "", self.text if self.present else "")
        if self.secret:
            before, after = ("", hidden) if before != after else ("", "")
        elif self.program:
            before, after = summary(before, "a program"), summary(after, "a program")
        shown = {"before": before, "after": after, "before_header": self.path, "after_header": self.path}
        if self.before is not None and self.present and self.mode_before != self.mode:
            shown["before_header"] += f" (mode {self.mode_before:04o})"
            shown["after_header"] += f" (mode {self.mode:04o})"
        return shown

    def stage(self) -> None:
        """Write to a staging file with its final name."""
        if not self.present:
            return
        folder = os.path.join(self.module.tmpdir, f"files-{abs(hash(self.folder))}")
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self.staged = os.path.join(folder, os.path.basename(self.path))
        node_files.write(self.staged, self.text, self.mode)

    def check(self) -> None:
        """Validate the staged file with its own program."""
        if not (self.present and self.validate):
            return
        stands_for = {"%s": self.staged, "%d": os.path.dirname(self.staged)}
        words = [re.sub("%[sd]", lambda sign: stands_for[sign[0]], word) for word in shlex.split(self.validate)]
        rc, out, err = self.module.run_command(words)
        output = (err + out).strip()
        if rc != 0 or self.staged in output:
            output = output.replace(os.path.dirname(self.staged), self.folder)
            self.module.fail_json(
                msg=f"{self.path} would be invalid, so none of the files was written: {output or f'status {rc}'}",
                changed_files=[],
            )

    def land(self) -> None:
        if not self.present:
            os.unlink(self.path)
            return
        os.makedirs(os.path.dirname(self.path), mode=0o755, exist_ok=True)
        self.module.atomic_move(self.staged, self.path)
        # atomic_move keeps the mode of an existing file.
        os.chmod(self.path, self.mode)


def wanted(module: Any) -> List[File]:
    """The files in the module's parameters."""
    return [File(module, entry) for entry in module.params["files"]]
