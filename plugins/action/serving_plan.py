# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the node once, for its GPUs and for facts; decide on the controller, where the catalogue lies."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible_collections.gpunode.llm.plugins.module_utils._gpu import NodeGpus, node_gpus_from
from ansible_collections.gpunode.llm.plugins.plugin_utils._boards import given_gpus
from ansible_collections.gpunode.llm.plugins.plugin_utils._plan import Outcome, make_plan
from ansible_collections.gpunode.llm.plugins.plugin_utils._reading import load_catalog
from ansible_collections.gpunode.llm.plugins.plugin_utils._request import read_request
from ansible_collections.gpunode.llm.plugins.plugin_utils._together import Call, TogetherAction

OPTIONS = {
    "model": {"type": "str"},
    "models": {"type": "list", "elements": "raw", "default": []},
    "gpus": {"type": "raw"},
    "device": {"type": "str"},
    "objective": {"type": "str"},
    "engine": {"type": "str"},
    "image": {"type": "str"},
    "host": {"type": "str"},
    "port": {"type": "str"},
    "max_model_len": {"type": "str"},
    "gpu_memory_utilization": {"type": "str"},
    "kv_cache_dtype": {"type": "str"},
    "tensor_parallel_size": {"type": "str"},
    "pipeline_parallel_size": {"type": "str"},
    "data_parallel_size": {"type": "str"},
    "weights": {"type": "str"},
    "extra_args": {"type": "dict", "default": {}},
    "env": {"type": "dict", "default": {}},
    "extra_models": {"type": "dict", "default": {}},
    "extra_gpus": {"type": "dict", "default": {}},
    "extra_engines": {"type": "dict", "default": {}},
    "api_key_set": {"type": "bool", "default": False},
    "remove_unlisted": {"type": "bool", "default": False},
    "fail_on_findings": {"type": "bool", "default": True},
    "gather_subset": {"type": "list", "elements": "str", "default": []},
}


class ActionModule(TogetherAction):
    """serving_plan"""

    _requires_connection = False  # with `gpus` given, no node is needed at all
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Plan; with findings, fail in one message that holds all of them."""
        super().run(tmp, task_vars)
        _result, options = self.validate_argument_spec(argument_spec=OPTIONS)
        said = self._ask(_questions(options), task_vars or {})
        try:
            catalog = load_catalog(options["extra_models"], options["extra_gpus"], options["extra_engines"])
            gpus = options["gpus"]
            node = given_gpus(gpus, catalog) if gpus else node_gpus_from(said["gpu_info"])
            outcome = make_plan(read_request(options, catalog), node, catalog)
        except ValueError as error:
            node, outcome = NodeGpus("unknown"), Outcome(None, (str(error),))
        if outcome.findings and options["fail_on_findings"]:
            raise AnsibleActionFail(_one_message(outcome.findings), result={"findings": list(outcome.findings)})
        plan = outcome.plan.as_dict() if outcome.plan else None
        facts = {"ansible_facts": said["facts"]["ansible_facts"]} if "facts" in said else {}
        found = {"plan": plan, "findings": list(outcome.findings), "gpus": node.as_dict()["gpus"]}
        return {"changed": False, **found, **facts}

    def _ask(self, questions: dict[str, Call], task_vars: dict[str, Any]) -> dict[str, Any]:
        """What the node says to each question, by one round trip; none where there is no question."""
        answers = self._together(list(questions.values()), task_vars) if questions else []
        for call, said in zip(questions.values(), answers):
            if said and said.get("failed"):
                name = call.module.rpartition(".")[2]
                raise AnsibleActionFail(f"{name} failed on the node: {said.get('msg')}", result=said)
        return dict(zip(questions, answers))


def _questions(options: dict[str, Any]) -> dict[str, Call]:
    """The GPUs, unless they were described, and the facts that are wanted."""
    questions = {} if options["gpus"] else {"gpu_info": Call("gpunode.llm.gpu_info", {})}
    if options["gather_subset"]:
        questions["facts"] = Call("ansible.builtin.setup", {"gather_subset": options["gather_subset"]})
    return questions


def _one_message(findings: tuple[str, ...]) -> str:
    if len(findings) == 1:
        return findings[0]
    return "\n".join([f"{len(findings)} things stand against this plan:", *(f"- {finding}" for finding in findings)])
