# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the profiles on the controller, which has the catalogue and the user's own requests; measure on the node."""

from __future__ import annotations

from typing import Any

from ..plugin_utils.actions import WatchingAction
from ..plugin_utils.benchmark import profiles
from ..plugin_utils.planner import listed as planner_listed
from ..plugin_utils.refusal import Refusal

#: Options of this plugin that the module on the node does not take.
OWN: dict[str, Any] = {
    **profiles.OPTIONS,
    "models": {"type": "list", "elements": "raw", "default": []},
    "extra_models": {"type": "dict", "default": {}},
}


class ActionModule(WatchingAction):
    """benchmark"""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        args = dict(self._task.args)
        spec = {**{key: {"type": "raw"} for key in args}, **OWN}
        _result, options = self.validate_argument_spec(argument_spec=spec)
        given = {key: value for key, value in args.items() if key not in OWN}
        try:
            given["runs"] = args.get("runs") or profiles.runs(options["profiles"], options)
            wanted = planner_listed.listed(options["models"], options["extra_models"])
            if options["models"] and wanted is None:
                raise ValueError(f"There is no model such as {', '.join(map(str, options['models']))}.")
        except ValueError as error:
            raise Refusal(f"{error} Nothing was measured.") from None
        if wanted is not None and args["name"] not in wanted:
            return {"changed": False, "skipped": True, "skip_reason": "It is not among the models.", "records": []}
        self._task.args = {**given, "collection": profiles.release()}
        return super().run(tmp, task_vars)
