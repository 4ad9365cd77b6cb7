# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide on the controller what a tune tries, try it on the node, and make a preset of the winner."""

from __future__ import annotations

from typing import Any

from ..plugin_utils.actions import WatchingAction
from ..plugin_utils.benchmark import axes, profiles
from ..plugin_utils.planner.catalog_files import load_catalog
from ..plugin_utils.refusal import Refusal
from .benchmark import OWN as OF_BENCHMARK

#: Options of this plugin that the module on the node does not take.
OWN: dict[str, Any] = {
    **OF_BENCHMARK,
    "instance": {"type": "dict"},
    "gpus": {"type": "list", "elements": "dict", "default": []},
    "try_axes": {"type": "list", "elements": "str", "default": []},
    "try_values": {"type": "dict", "default": {}},
    "power_limits_w": {"type": "list", "elements": "int", "default": []},
    "consent": {"type": "bool", "default": False},
}


class ActionModule(WatchingAction):
    """tune"""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        args = dict(self._task.args)
        own = {key: args.pop(key) for key in OWN if key in args}
        spec = {**OWN, **{key: {"type": "raw"} for key in args}}
        _result, options = self.validate_argument_spec(argument_spec=spec)
        catalog = load_catalog()
        if own:
            args.update(self._decided(options, catalog))
        self._task.args = {**args, "collection": profiles.release()}
        result = super().run(tmp, task_vars)
        tune = result.get("tune") or {}
        result["preset"] = axes.preset(tune, options["instance"], catalog) if tune and options["instance"] else {}
        return result

    @staticmethod
    def _decided(options: dict[str, Any], catalog: Any) -> dict[str, Any]:
        """The run and the axes. Raises Refusal if a setting is not valid, or in place of what serves without consent."""
        instance, trial = options["instance"], options["trial"]
        if trial["in_place_of"] and not options["consent"]:
            raise Refusal(
                f"There is no free GPU or memory beside {instance['name']}, so a tune takes its place: clients get no answer from"
                f" it for about {options.get('budget_minutes') or 60} minutes. Agree to that with -e tune_in_place=true."
                " Nothing was changed."
            )
        own = [gpu for gpu in options["gpus"] if gpu["index"] in (instance.get("gpu_indices") or [])]
        wanted = {
            "axes": options["try_axes"],
            "values": options["try_values"],
            "power_limits_w": options["power_limits_w"],
        }
        try:
            (run,) = profiles.runs(options["profiles"][:1], options)
            tried = axes.axes(instance, own, axes.flags(instance["image"], catalog), wanted)
        except ValueError as error:
            raise Refusal(f"{error} Nothing was changed.") from None
        if options.get("objective") == "goodput" and not run["goals"]:
            raise Refusal(
                'The objective goodput needs goals, such as -e \'{"benchmark_goals": {"ttft_ms": 500, "itl_ms": 50}}\'.'
                " Nothing was changed."
            )
        if not tried:
            raise Refusal(f"There is nothing to try for {instance['name']} with these tune_axes. Nothing was changed.")
        # A candidate is measured for a single user and at the headline.
        return {"runs": [{**run, "concurrency": sorted({1, run["headline"]})}], "axes": tried}
