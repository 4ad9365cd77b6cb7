# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show the plan of a node before anything changes, from earlier results, without a call to the node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.utils.display import Display

from ..module_utils.instance.serving import short_digest
from ..plugin_utils import file_plan
from ..plugin_utils.screen import plan as screen_plan
from . import rendered_files

OPTIONS = {
    "plan": {"type": "dict", "required": True},
    "check": {"type": "dict", "required": True},
    "instances": {"type": "list", "elements": "dict", "required": True},
    "services": {"type": "list", "elements": "dict", "default": []},
    "settled": {"type": "bool", "default": False},
    "item_var": {"type": "str", "default": "item"},
    "system": {"type": "str", "default": ""},
    "link_mbit_s": {"type": "float"},
}


class ActionModule(rendered_files.ActionModule):
    """plan_shown"""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Show the plan. Whether an engine restarts follows from the files that it would be started from."""
        self._task_vars = task_vars or {}
        _result, options = self.validate_argument_spec(argument_spec=OPTIONS)
        engines = {engine["name"]: engine for engine in options["plan"].get("engines") or []}
        restarts = {
            service["name"]: screen_plan.restart(
                self._digests(service, options["item_var"]), engines.get(service["name"])
            )
            for service in options["services"]
        }
        if options["settled"]:
            restarts = {instance["name"]: "no" for instance in options["instances"]}
        text = screen_plan.plan_text(
            str(self._task_vars.get("inventory_hostname", "node")),
            options["plan"],
            {**options["check"], "instances": options["instances"]},
            restarts,
            system=options["system"],
            link_mbit_s=options["link_mbit_s"],
        )
        Display().display("\n".join(["", *text]))
        return {"changed": False, "restarts": restarts}

    def _digests(self, service: Mapping[str, Any], item_var: str) -> dict[str, str]:
        """The digests of the files that an engine would be started from."""
        own = [self._plain(file) for file in service["to_write"] if file["dest"] in service["starts_from"]]
        entries, secrets = file_plan.rendered(own, [service], item_var, self._text)
        return {
            entry["dest"]: short_digest((secrets.get(entry["dest"]) or entry.get("content") or "").encode())
            for entry in entries
        }
