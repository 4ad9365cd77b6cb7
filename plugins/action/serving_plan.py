# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the node once, for its GPUs and for facts; decide on the controller, where the catalogue lies."""

from __future__ import annotations

from typing import Any

from ..module_utils.instance.serving import NodeServing, serving_from
from ..module_utils.programs.gpu import NodeGpus, node_gpus_from
from ..plugin_utils import asked
from ..plugin_utils.one_play import LockingAction
from ..plugin_utils.planner import options as planner_options
from ..plugin_utils.planner.catalog_files import load_catalog
from ..plugin_utils.planner.host import given_gpus
from ..plugin_utils.planner.listed import unlisted
from ..plugin_utils.planner.plan import Outcome, make_plan
from ..plugin_utils.planner.request import read_request
from ..plugin_utils.refusal import Refusal

OPTIONS = {
    "model": {"type": "str"},
    "models": {"type": "list", "elements": "raw", "default": []},
    "gpus": {"type": "raw"},
    **planner_options.argument_spec(),
    "fail_on_findings": {"type": "bool", "default": True},
    "gather_facts": {"type": "bool", "default": False},
    "lock_timeout_s": {"type": "float"},
}


class ActionModule(LockingAction):
    """serving_plan"""

    _requires_connection = False  # with `gpus` given, no node is needed at all
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Plan; with findings, fail in one message that holds all of them."""
        super().run(tmp, task_vars)
        _result, options = self.validate_argument_spec(argument_spec=OPTIONS)
        gpus, wants_facts = options["gpus"], options["gather_facts"]
        answer = self._ask(task_vars or {}, options["lock_timeout_s"]) if self._must_ask(options) else {}
        try:
            if options["from_variables"]:
                options |= planner_options.of_variables(self._task.args, task_vars or {}, self._templar.template)
            catalog = load_catalog(options["extra_models"], options["extra_gpus"], options["extra_engines"])
            node = given_gpus(gpus, catalog) if gpus else node_gpus_from(answer)
            serving = serving_from(answer)
            outcome = make_plan(read_request(options, catalog), node, catalog, serving)
        except ValueError as error:
            node, serving, outcome = NodeGpus("unknown"), NodeServing(), Outcome(None, (str(error),))
        if outcome.findings and options["fail_on_findings"]:
            raise Refusal(_one_message(outcome.findings), result={"findings": list(outcome.findings)})
        plan = outcome.plan.as_dict() if outcome.plan else None
        facts = {"ansible_facts": answer["system"]} if wants_facts else {}
        names = [instance.name for instance in outcome.plan.instances] if outcome.plan else []
        result = {"plan": plan, "findings": list(outcome.findings), "gpus": node.as_dict()["gpus"]}
        result["unlisted"] = unlisted([engine.name for engine in serving.engines], names) if plan else []
        result["engines"] = answer.get("engines") or []
        return {"changed": False, **result, **facts}

    @staticmethod
    def _must_ask(options: dict[str, Any]) -> bool:
        return bool(options["gather_facts"] or not options["gpus"] or options["lock_timeout_s"] is not None)

    def _ask(self, task_vars: dict[str, Any], lock_timeout_s: float | None) -> dict[str, Any]:
        """What the node says of its GPUs and its system; where a time-out is given, once the node is this play's."""
        if lock_timeout_s is None:
            return self._answer("gpunode.llm.gpu_info", {}, task_vars)
        nonce = asked.nonce()
        answer = self._locked("gpunode.llm.node_info", task_vars, lock_timeout_s, nonce=nonce)
        asked.bring(str(task_vars.get("inventory_hostname", "node")), answer.get("answers") or {}, nonce)
        return answer


def _one_message(findings: tuple[str, ...]) -> str:
    if len(findings) == 1:
        return findings[0]
    return "\n".join([f"{len(findings)} problems with this plan:", *(f"- {finding}" for finding in findings)])
