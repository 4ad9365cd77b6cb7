# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Models x hosts as a table and as data, from the node's GPUs or with no node at all."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..module_utils.instance.serving import NodeServing, serving_from
from ..module_utils.node.schema import SCHEMA
from ..module_utils.programs.gpu import NodeGpus, node_gpus_from
from ..plugin_utils import hub_models
from ..plugin_utils.planner import exact, options as planner_options
from ..plugin_utils.planner.catalog import Catalog
from ..plugin_utils.planner.host import UNIT, given_gpus, read_host, with_driver
from ..plugin_utils.planner.matrix import catalogue_hosts, matrix, matrix_models, together
from ..plugin_utils.refusal import Refusal
from ..plugin_utils.screen import exact as screen_exact, matrix as screen_matrix, text as screen_text

OPTIONS = {
    "models": {"type": "list", "elements": "raw", "default": ["all"]},
    "together": {"type": "bool", "default": False},
    "gpus": {"type": "raw"},
    "link_mbit_s": {"type": "float", "default": 1000.0},
    "exact": {"type": "bool", "default": False},
    **planner_options.argument_spec(),
    **hub_models.OPTIONS,
    "fail_on_findings": {"type": "bool", "default": True},
}


class ActionModule(ActionBase):  # type: ignore[misc]
    """serving_matrix"""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """One row for each model on each host."""
        super().run(tmp, task_vars)
        _result, options = self.validate_argument_spec(argument_spec=OPTIONS)
        try:
            if options["from_variables"]:
                options |= planner_options.of_variables(self._task.args, task_vars or {}, self._templar.template)
            if options["link_mbit_s"] <= 0:
                raise ValueError("link_mbit_s must be above 0.")
            catalog = hub_models.known(options)
            options["models"] = matrix_models(options["models"], catalog)
            asks = hub_models.question(options["models"], options, catalog)
            answer = self._ask(asks, task_vars or {}) if asks or not options["gpus"] else {}
            places = _places(options["gpus"], answer, catalog, task_vars or {})
            catalog = hub_models.with_answers(options, answer["models"], catalog) if asks else catalog
            result = (_side_by_side if options["together"] else _one_by_one)(options, places, catalog)
            if options["exact"]:
                engines = exact.planned(options, places, catalog)
                self._compare(result, engines, options, answer.get("models") or {}, task_vars or {})
        except ValueError as error:
            if options["fail_on_findings"]:
                raise Refusal(str(error)) from None
            findings = str(error).splitlines()
            result = {"rows": [], "sums": [], "notes": [], "text": screen_text.numbered(findings), "findings": findings}
        return {"changed": False, "schema": SCHEMA, "findings": [], **result}

    def _compare(
        self,
        result: dict[str, Any],
        engines: list[exact.Planned],
        options: dict[str, Any],
        described: dict[str, Any],
        task_vars: dict[str, Any],
    ) -> None:
        """Add the engine's own figures to the rows and the text."""
        unread = exact.references(engines, described)
        if unread:
            asks = {**hub_models.access(options), "models": unread}
            described = {**described, **self._ask(asks, task_vars)["models"]}

        def ask(units: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return list(self._call(exact.MODULE, {"units": units}, task_vars)["figures"])

        compared = exact.compare(engines, described, ask)
        by_row = {(one.planned.instance.name, one.planned.host): one.as_dict() for one in compared}
        for row in result["rows"]:
            row["exact"] = by_row.get((row["model"], row["host"]))
        result["text"] = [*result["text"], *screen_exact.lines(compared)]

    def _ask(self, asks: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Ask the node for its GPUs and for models that the catalogue does not have."""
        return self._call(hub_models.MODULE if asks else "gpunode.llm.gpu_info", asks, task_vars)

    def _call(self, module: str, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        # A copy, since Ansible adds to what it is given.
        answer: dict[str, Any] = self._execute_module(module_name=module, module_args=dict(args), task_vars=task_vars)
        if answer.get("failed"):
            name = module.rpartition(".")[2]
            raise AnsibleActionFail(f"{name} failed on the node: {answer.get('msg')}", result=answer)
        return answer


def _places(gpus: Any, answer: dict[str, Any], catalog: Catalog, task_vars: dict[str, Any]) -> list[exact.Place]:
    """The hosts of the catalogue, hosts by description, or the node itself."""
    if not gpus:
        return [(_host(task_vars), with_driver(node_gpus_from(answer), catalog), serving_from(answer))]
    described = catalogue_hosts(catalog) if gpus == "all" else gpus.split("/") if isinstance(gpus, str) else [gpus]
    given = [(item, _some(item, catalog)) for item in described]
    return [
        (item if isinstance(item, str) else read_host(node, catalog).title, node, NodeServing()) for item, node in given
    ]


def _host(task_vars: dict[str, Any] | None) -> str:
    return str((task_vars or {}).get("inventory_hostname", "node"))


def _some(described: Any, catalog: Catalog) -> NodeGpus:
    """A described host, which must have a GPU."""
    node = given_gpus(described, catalog)
    if not node.gpus:
        raise ValueError(f"gpus: {described!r} names no GPU; write 8xH100, or 2xH100/4xL40S for two hosts.")
    return node


def _one_by_one(options: dict[str, Any], places: list[exact.Place], catalog: Catalog) -> dict[str, Any]:
    # What this collection serves there now would be replaced, so it does not count as in use.
    hosts = [
        (label, read_host(node, catalog, lambda owner: owner.startswith(UNIT))) for label, node, _serving in places
    ]
    link = options["link_mbit_s"]
    rows, findings = matrix(options, hosts, catalog, link)
    if findings:
        raise ValueError("\n".join(findings))
    notes = [note for _label, host in hosts for note in (*host.blocked, *host.warnings)]
    text = screen_matrix.alone(rows, notes, link)
    return {"rows": [row.as_dict() for row in rows], "sums": [], "notes": notes, "text": text}


def _side_by_side(options: dict[str, Any], places: list[exact.Place], catalog: Catalog) -> dict[str, Any]:
    link = options["link_mbit_s"]
    hosts = [together(options, label, node, serving, catalog, link) for label, node, serving in places]
    text = [line for host in hosts for line in ("", *screen_matrix.packed(host, link))][1:]
    return {
        "rows": [row.as_dict() for host in hosts for row in host.rows],
        "sums": [host.as_dict() for host in hosts],
        "notes": [note for host in hosts for note in host.notes],
        "text": text,
    }
