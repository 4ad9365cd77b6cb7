# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Renders on the controller, writes on the node: one round trip for any number of files."""

from __future__ import annotations

import os
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

from ..plugin_utils import file_plan


class ActionModule(ActionBase):
    """rendered_files"""

    MODULE = "gpunode.llm.rendered_files"

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        self._task_vars = task_vars or {}
        return self._call(self._rendered(dict(self._task.args)), self._task_vars)

    def _call(self, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(module_name=self.MODULE, module_args=args, task_vars=task_vars)
        return result

    def _rendered(self, args: dict[str, Any]) -> dict[str, Any]:
        """The module's arguments, with rendered texts instead of templates."""
        items = args.pop("each", None) or []
        item_var = args.pop("item_var", None) or "item"
        files = [self._plain(file) for file in args.get("files") or []]
        try:
            args["files"], args["secrets"] = file_plan.rendered(files, items, item_var, self._text)
        except ValueError as error:
            raise AnsibleActionFail(f"rendered_files: {error}") from error
        return args

    @staticmethod
    def _plain(file: dict[str, Any]) -> dict[str, Any]:
        """The entry with real booleans: values from -e arrive as text."""
        missing = [key for key in ("src", "dest") if not file.get(key)]
        if missing:
            raise AnsibleActionFail(f"rendered_files: a file lacks {' and '.join(missing)}")
        flags = {key: boolean(file[key]) for key in ("secret", "template", "present") if key in file}
        return {**file, **flags}

    def _text(self, src: str, template: bool, extra: Any) -> str:
        path = self._find_needle("templates" if template else "files", src)
        text = self._loader.get_text_file_contents(path)
        if not template:
            return str(text)
        # As in ansible.builtin.template, files of the same folder can be included.
        searchpath = [*self._task_vars.get("ansible_search_path", []), os.path.dirname(path)]
        templar = self._templar.copy_with_new_env(
            searchpath=[os.path.join(folder, sub) for folder in searchpath for sub in ("templates", "")],
            available_variables={**self._task_vars, **extra},
        )
        overrides = {"trim_blocks": True, "lstrip_blocks": True}
        rendered = templar.template(trust_as_template(text), escape_backslashes=False, overrides=overrides)
        # Jinja drops the last line break, but a file must end with one.
        return "" if rendered is None else str(rendered).rstrip("\n") + "\n"
