# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide on the controller what a tune tries, try it on the node, and make a preset of the winner."""

from __future__ import annotations

from typing import Any

from ..plugin_utils.actions import WatchingAction
from ..plugin_utils.benchmark import axes, profiles, winners
from ..plugin_utils.planner.catalog import Catalog
from ..plugin_utils.planner.catalog_files import load_catalog
from ..plugin_utils.refusal import Refusal

#: Options of this plugin that the module on the node does not take.
OWN: dict[str, Any] = {
    **profiles.OPTIONS,
    "extra_gpus": {"type": "dict", "default": {}},
    "extra_engines": {"type": "dict", "default": {}},
    "instance": {"type": "dict", "required": True},
    "gpus": {"type": "list", "elements": "dict", "default": []},
    "try_axes": {"type": "list", "elements": "str", "default": []},
    "try_values": {"type": "dict", "default": {}},
    "power_limits_w": {"type": "list", "elements": "int", "default": []},
    "consent": {"type": "bool", "default": False},
}
#: Those that it reads and the module takes as well.
READ: dict[str, Any] = {
    "objective": {"type": "str", "choices": list(winners.OBJECTIVES), "default": "throughput"},
    "budget_minutes": {"type": "float", "default": 60},
    "quality": {"type": "dict", "default": {}},
}


class ActionModule(WatchingAction):
    """tune"""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        args = dict(self._task.args)
        spec = {**{key: {"type": "raw"} for key in args}, **OWN, **READ}
        _result, options = self.validate_argument_spec(argument_spec=spec)
        given = {key: value for key, value in args.items() if key not in OWN}
        try:
            catalog = load_catalog(None, options["extra_gpus"], options["extra_engines"])
            decided = {key: args.get(key) for key in ("axes", "runs")}
            decided = decided if all(decided.values()) else _decided(options, catalog)
            text = axes.lines(decided["axes"])
            if not options.get("trial") and not options.get("attach"):
                return {"changed": False, "text": text, **decided}
            if options.get("trial"):
                _refuse_in_place(options)
        except ValueError as error:
            raise Refusal(f"{error} Nothing was changed.") from None
        self._task.args = {**given, **decided, "collection": profiles.release()}
        result = super().run(tmp, task_vars)
        tune = result.get("tune") or {}
        preset, advice = winners.preset(tune, options["instance"], catalog) if tune else ({}, "")
        return {**result, **decided, "text": text, "preset": preset, "advice": advice}


def _refuse_in_place(options: dict[str, Any]) -> None:
    """Raise ValueError where a tune would take the place of what serves without consent."""
    if options["trial"]["in_place_of"] and not options["consent"]:
        raise ValueError(
            f"There is no free GPU or memory beside {options['instance']['name']}, so a tune takes its place: clients"
            f" get no answer from it for about {options['budget_minutes']:g} minutes. Agree to that with"
            " -e tune_in_place=true."
        )


def _decided(options: dict[str, Any], catalog: Catalog) -> dict[str, Any]:
    """The run and the axes. Raises ValueError if a setting is not valid; the sentence is for the user."""
    instance = options["instance"]
    if options["budget_minutes"] <= 0:
        raise ValueError(f"tune_minutes must be above 0, not {options['budget_minutes']:g}.")
    names = [] if options["requests"] else options["profiles"]
    if len(names) > 1:
        raise ValueError(f"A tune is for one load, and tune_profile has {', '.join(names)}: name one of them.")
    (run,) = profiles.runs(names, options)
    if options["objective"] == "goodput" and not run["goals"]:
        raise ValueError(
            'The objective goodput needs goals, such as -e \'{"benchmark_goals": {"ttft_ms": 500, "itl_ms": 50}}\'.'
        )
    own = axes.own_gpus(instance, options["gpus"], catalog)
    wanted = {
        **{"axes": options["try_axes"], "values": options["try_values"], "quality": bool(options["quality"])},
        "power_limits_w": options["power_limits_w"],
    }
    tried = axes.axes(instance, own, axes.flags(instance["image"], catalog), wanted)
    if not tried:
        raise ValueError(f"There is nothing to try for {instance['name']} with these tune_axes and tune_values.")
    # A candidate is measured for a single user and at the headline.
    return {"runs": [{**run, "concurrency": sorted({1, run["headline"]})}], "axes": tried}
