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
    "profiles": {"type": "list", "elements": "str", "default": []},
    "extra_profiles": {"type": "dict", "default": {}},
    "concurrency": {"type": "list", "elements": "raw", "default": []},
    "repeats": {"type": "int", "default": 1},
    "clients": {"type": "int", "default": 0},
    "goals": {"type": "dict", "default": {}},
    "requests": {"type": "str", "default": ""},
    "models": {"type": "list", "elements": "raw", "default": []},
    "extra_models": {"type": "dict", "default": {}},
}


class ActionModule(WatchingAction):
    """benchmark"""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        args = dict(self._task.args)
        own = {key: args.pop(key) for key in OWN if key in args}
        spec = {**OWN, **{key: {"type": "raw"} for key in args}}
        _result, options = self.validate_argument_spec(argument_spec=spec)
        if own or not args.get("runs"):
            try:
                args["runs"] = profiles.runs(options["profiles"], options)
            except ValueError as error:
                raise Refusal(f"{error} Nothing was measured.") from None
        wanted = planner_listed.listed(options["models"], options["extra_models"])
        if wanted is not None and args["name"] not in wanted:
            return {"changed": False, "skipped": True, "skip_reason": "It is not among the models.", "records": []}
        self._task.args = {**args, "collection": profiles.release()}
        return super().run(tmp, task_vars)
