# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Models x hosts as a table and as data, from the node's GPUs or with no node at all."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.gpunode.llm.plugins.module_utils._gpu import node_gpus_from
from ansible_collections.gpunode.llm.plugins.plugin_utils._boards import UNIT, Host, given_gpus, read_host
from ansible_collections.gpunode.llm.plugins.plugin_utils._catalog import Catalog
from ansible_collections.gpunode.llm.plugins.plugin_utils._matrix import catalogue_hosts, matrix, matrix_models, table
from ansible_collections.gpunode.llm.plugins.plugin_utils._reading import load_catalog

OPTIONS = {
    "models": {"type": "list", "elements": "raw", "default": ["all"]},
    "gpus": {"type": "raw"},
    "link_mbit_s": {"type": "float", "default": 1000.0},
    "objective": {"type": "str"},
    "engine": {"type": "str"},
    "max_model_len": {"type": "str"},
    "gpu_memory_utilization": {"type": "str"},
    "kv_cache_dtype": {"type": "str"},
    "extra_models": {"type": "dict", "default": {}},
    "extra_gpus": {"type": "dict", "default": {}},
    "extra_engines": {"type": "dict", "default": {}},
}


class ActionModule(ActionBase):  # type: ignore[misc]
    """serving_matrix"""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """One row for each model on each host."""
        super().run(tmp, task_vars)
        _result, options = self.validate_argument_spec(argument_spec=OPTIONS)
        if options["link_mbit_s"] <= 0:
            raise AnsibleActionFail("link_mbit_s must be above 0.")
        try:
            catalog = load_catalog(options["extra_models"], options["extra_gpus"], options["extra_engines"])
            hosts = self._hosts(options["gpus"], catalog, task_vars or {})
            wanted = {**options, "models": matrix_models(options["models"], catalog)}
            rows, findings = matrix(wanted, hosts, catalog, options["link_mbit_s"])
        except ValueError as error:
            raise AnsibleActionFail(str(error)) from error
        if findings:
            raise AnsibleActionFail("\n".join(findings))
        notes = [note for _label, host in hosts for note in (*host.blocked, *host.warnings)]
        return {"changed": False, "rows": [row.as_dict() for row in rows], "table": table(rows), "notes": notes}

    def _hosts(self, gpus: Any, catalog: Catalog, task_vars: dict[str, Any]) -> list[tuple[str, Host]]:
        """The hosts of the catalogue, hosts by description, or the node itself."""
        if gpus:
            described = (
                catalogue_hosts(catalog) if gpus == "all" else gpus.split("/") if isinstance(gpus, str) else [gpus]
            )
            found = [(item, read_host(given_gpus(item, catalog), catalog)) for item in described]
            return [(item if isinstance(item, str) else host.title, host) for item, host in found]
        said = self._execute_module(module_name="gpunode.llm.gpu_info", module_args={}, task_vars=task_vars)
        if said.get("failed"):
            raise AnsibleActionFail(f"gpu_info failed on the node: {said.get('msg')}", result=said)
        # What this collection serves there now would be replaced, so it does not count as in use.
        host = read_host(node_gpus_from(said), catalog, lambda owner: owner.startswith(UNIT))
        return [(str(task_vars.get("inventory_hostname", "node")), host)]
