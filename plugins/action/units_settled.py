# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Renders the files of units as rendered_files does; the node only compares them.

The node is not called if its first result already includes the comparison.
"""

from __future__ import annotations

from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean

from ..plugin_utils.node import questions
from . import rendered_files


class ActionModule(rendered_files.ActionModule):
    """units_settled"""

    MODULE = "gpunode.llm.units_settled"

    def _call(self, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        unchanged = boolean(args.pop("unchanged", False))
        return {**questions.ask(self, self.MODULE, args, task_vars, unchanged), "unchanged": unchanged}

    def _rendered(self, args: dict[str, Any]) -> dict[str, Any]:
        return super()._rendered(spread(args))


def spread(args: dict[str, Any]) -> dict[str, Any]:
    """The arguments with ``services`` expanded, so that Ansible templates the services once and not five times."""
    services = args.pop("services", None) or []
    if services:
        args["each"] = services
        args["files"] = [*args["files"], *(file for service in services for file in service["to_write"])]
        args["units"] = [unit for service in services for unit in (*service["peers"], service["runs"])]
        args["endpoints"] = [service["endpoint"] for service in services]
        gone = [unit for service in services for unit in (service["second"], *service["unpeered"])]
        args["absent"] = [path for unit in gone for path in unit["files"]]
    return args
