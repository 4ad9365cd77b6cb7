# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the node once for its GPUs and facts; plan on the controller, which has the catalogue."""

from __future__ import annotations

from typing import Any

from ..module_utils.instance.serving import NodeServing, serving_from
from ..module_utils.programs.gpu import NodeGpus, node_gpus_from
from ..plugin_utils import hub_models
from ..plugin_utils.node import questions
from ..plugin_utils.node.one_play import LockingAction
from ..plugin_utils.planner import options as planner_options
from ..plugin_utils.planner.catalog import Catalog
from ..plugin_utils.planner.group import nameless
from ..plugin_utils.planner.host import given_gpus, with_driver
from ..plugin_utils.planner.listed import unlisted
from ..plugin_utils.planner.plan import Outcome, make_plan
from ..plugin_utils.planner.request import read_request
from ..plugin_utils.refusal import Refusal

OPTIONS = {
    "model": {"type": "str"},
    "models": {"type": "list", "elements": "raw", "default": []},
    "gpus": {"type": "raw"},
    **planner_options.argument_spec(),
    **hub_models.OPTIONS,
    "fail_on_findings": {"type": "bool", "default": True},
    "driver_comes": {"type": "bool", "default": False},
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
        refused, catalog, asks = self._read(options, task_vars or {})
        answer = self._ask(task_vars or {}, options["lock_timeout_s"], asks) if self._must_ask(options) else {}
        # What else such a call tells is of a machine that is not planned for.
        described = self._answer(hub_models.MODULE, asks, task_vars or {}) if asks and not answer else answer
        try:
            if catalog is None:
                raise refused or ValueError
            if asks:
                catalog = hub_models.with_answers(options, hub_models.shared(described["models"]), catalog)
            node = given_gpus(options["gpus"], catalog) if options["gpus"] else node_gpus_from(answer)
            node = with_driver(node, catalog) if options["driver_comes"] else node
            serving = serving_from(answer)
            outcome = make_plan(read_request(options, catalog), node, catalog, serving)
            # The playbook adds the addresses of nodes that it names, once it knows that an engine runs over several.
            asked_for = options["gpus"] or options["group"]
            if outcome.plan and not asked_for and (unnamed := nameless(outcome.plan.instances)):
                outcome = Outcome(None, tuple(unnamed))
        except ValueError as error:
            node, serving, outcome = NodeGpus("unknown"), NodeServing(), Outcome(None, tuple(str(error).splitlines()))
        if outcome.findings and options["fail_on_findings"]:
            raise Refusal(_one_message(outcome.findings), result={"findings": list(outcome.findings)})
        plan = outcome.plan.as_dict() if outcome.plan else None
        facts = {"ansible_facts": answer["system"]} if options["gather_facts"] else {}
        names = [instance.name for instance in outcome.plan.instances] if outcome.plan else []
        result = {"plan": plan, "findings": list(outcome.findings), "gpus": node.as_dict()["gpus"]}
        result["unlisted"] = unlisted([engine.name for engine in serving.engines], names) if plan else []
        result["engines"] = answer.get("engines") or []
        return {"changed": False, **result, **facts}

    def _read(
        self, options: dict[str, Any], task_vars: dict[str, Any]
    ) -> tuple[ValueError | None, Catalog | None, dict[str, Any]]:
        """Why there can be no plan, or the catalogue and what model_info is asked of models by their names.

        The node is asked in either case: what its roles want to know of it does not depend on the plan.
        """
        try:
            if options["from_variables"]:
                options |= planner_options.of_variables(self._task.args, task_vars, self._templar.template)
            catalog = hub_models.known(options)
            models = options["models"] or [options["model"]]
            return None, catalog, hub_models.question(models, options, catalog)
        except ValueError as error:
            return error, None, {}

    @staticmethod
    def _must_ask(options: dict[str, Any]) -> bool:
        return bool(options["gather_facts"] or not options["gpus"] or options["lock_timeout_s"] is not None)

    def _ask(self, task_vars: dict[str, Any], lock_timeout_s: float | None, asks: dict[str, Any]) -> dict[str, Any]:
        """What the node says of itself, and of models that are asked for; with a time-out, once it is this play's."""
        if lock_timeout_s is None:
            return self._answer(hub_models.MODULE if asks else "gpunode.llm.gpu_info", asks, task_vars)
        nonce, module = questions.nonce(), hub_models.MODULE if asks else "gpunode.llm.node_info"
        answer = self._locked(module, task_vars, lock_timeout_s, nonce=nonce, **asks)
        questions.bring(str(task_vars.get("inventory_hostname", "node")), answer.get("answers") or {}, nonce)
        return answer


def _one_message(findings: tuple[str, ...]) -> str:
    if len(findings) == 1:
        return findings[0]
    return "\n".join([f"{len(findings)} problems with this plan:", *(f"- {finding}" for finding in findings)])
