# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the node for its GPUs once, decide on the controller, where the catalogue lies."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.gpunode.llm.plugins.module_utils._gpu import NodeGpus, node_gpus_from
from ansible_collections.gpunode.llm.plugins.plugin_utils._boards import given_gpus
from ansible_collections.gpunode.llm.plugins.plugin_utils._catalog import Catalog
from ansible_collections.gpunode.llm.plugins.plugin_utils._plan import Outcome, make_plan
from ansible_collections.gpunode.llm.plugins.plugin_utils._reading import load_catalog
from ansible_collections.gpunode.llm.plugins.plugin_utils._request import read_request

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
}


class ActionModule(ActionBase):  # type: ignore[misc]
    """serving_plan"""

    _requires_connection = False  # with `gpus` given, no node is needed at all
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Plan; with findings, fail in one message that holds all of them."""
        super().run(tmp, task_vars)
        _result, options = self.validate_argument_spec(argument_spec=OPTIONS)
        try:
            catalog = load_catalog(options["extra_models"], options["extra_gpus"], options["extra_engines"])
            node = self._node(options["gpus"], catalog, task_vars or {})
            outcome = make_plan(read_request(options, catalog), node, catalog)
        except ValueError as error:
            node, outcome = NodeGpus("unknown"), Outcome(None, (str(error),))
        if outcome.findings and options["fail_on_findings"]:
            raise AnsibleActionFail(_one_message(outcome.findings), result={"findings": list(outcome.findings)})
        plan = outcome.plan.as_dict() if outcome.plan else None
        return {"changed": False, "plan": plan, "findings": list(outcome.findings), "gpus": node.as_dict()["gpus"]}

    def _node(self, gpus: Any, catalog: Catalog, task_vars: dict[str, Any]) -> NodeGpus:
        """The GPUs that were described, or the node's own, by one round trip."""
        if gpus:
            return given_gpus(gpus, catalog)
        said = self._execute_module(module_name="gpunode.llm.gpu_info", module_args={}, task_vars=task_vars)
        if said.get("failed"):
            raise AnsibleActionFail(f"gpu_info failed on the node: {said.get('msg')}", result=said)
        return node_gpus_from(said)


def _one_message(findings: tuple[str, ...]) -> str:
    if len(findings) == 1:
        return findings[0]
    return "\n".join([f"{len(findings)} things stand against this plan:", *(f"- {finding}" for finding in findings)])
