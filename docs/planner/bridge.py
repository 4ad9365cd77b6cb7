# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner's answer to one question of the page, as JSON: what docs/planner/planner.mjs calls in the browser."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from ansible_collections.gpunode.llm.plugins.module_utils.node.words import size
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner import presets
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog import Catalog
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog_files import load_catalog
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.host import Host, given_gpus, read_host
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.matrix import matrix
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.memory import Footprint
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.messages import Advice
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.placement import pack
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.plan import Plan, make_plan
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.request import HostRequest, read_request
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.spread import Candidate, options, too_old
from ansible_collections.gpunode.llm.plugins.plugin_utils.screen import matrix as screen_matrix, plan as screen_plan

#: What a pasted config.json is called if its user gives no name.
UNNAMED = "my-org/my-model"
#: The options of the page that are variables of the collection, without the prefix `vllm_`.
OPTIONS = ("objective", "max_model_len", "nodes_per_engine", "weights_bytes", "kv_bytes_per_token")
LINK_MBIT_S = 1000

Question = Mapping[str, Any]
Answer = dict[str, Any]


def answer(text: str) -> str:
    """The plan, or why there is none. ``text``: `model` or `config`, `gpus`, and some of OPTIONS, all as text."""
    question = json.loads(text)
    try:
        found = _answer(question)
    except ValueError as error:
        found = {"findings": str(error).splitlines()}
    return json.dumps({"findings": [], "rejected": [], "gpus": [], **found})


def _answer(question: Question) -> Answer:
    name = question.get("model") or question.get("name") or UNNAMED
    catalog = load_catalog({} if question.get("model") else {name: _entry(name, question)})
    node = given_gpus(question["gpus"], catalog)
    wanted = {"models": [name], **{key: question[key] for key in OPTIONS if question.get(key)}}
    request = read_request(wanted, catalog)
    outcome, host = make_plan(request, node, catalog), read_host(node, catalog)
    # What is refused here, site.yml refuses as well.
    commands = _commands(name, question)[: 2 if outcome.plan else 1]
    common = {"commands": commands, "findings": list(outcome.findings)}
    if not request.instances:
        return common
    common |= {"text": _printed(wanted, question["gpus"], host, catalog)}
    if outcome.plan is None:
        return {**common, **_refused(request, host, catalog)}
    return {**common, **_planned(outcome.plan, request, host, catalog)}


def _entry(name: str, question: Question) -> Answer:
    """An entry of the catalogue for a config.json that was pasted."""
    entry = {"repo_id": name, "in_matrix": False, "config": _pasted("config.json", question.get("config"))}
    if question.get("quantization"):
        entry["hf_quant_config"] = _pasted("hf_quant_config.json", question["quantization"])
    return entry


def _pasted(what: str, text: Any) -> Any:
    try:
        found = json.loads(text or "")
    except ValueError as error:
        raise ValueError(f"{what} is not JSON: {error}.") from None
    if not isinstance(found, dict) or not found:
        raise ValueError(f"{what} must be an object with fields, such as {{…}}.")
    return found


def _commands(name: str, question: Question) -> list[str]:
    """What to type: to see the same plan, and to serve it."""
    given = {f"vllm_{key}": str(question[key]) for key in OPTIONS if question.get(key)}
    given = {key: value for key, value in given.items() if (key, value) != ("vllm_objective", "throughput")}
    extra = [f"-e {shlex.quote(f'{key}={value}')}" for key, value in {"model": name, **given}.items()]
    return [
        " ".join(["ansible-playbook gpunode.llm.plan -e", shlex.quote(f"gpus={question['gpus']}"), *extra]),
        " ".join(["ansible-playbook -i hosts.yml gpunode.llm.site -e @vars.yml", *extra]),
    ]


def _printed(wanted: Mapping[str, Any], label: str, host: Host, catalog: Catalog) -> str:
    """What the playbook `plan` prints for this question."""
    rows, _findings = matrix(wanted, [(label, host)], catalog, LINK_MBIT_S)
    notes = [*host.blocked, *host.warnings]
    return "\n".join(screen_matrix.alone(rows, notes, LINK_MBIT_S)) if rows else ""


def _refused(request: HostRequest, host: Host, catalog: Catalog) -> Answer:
    """Every layout with its reason, and the memory of the one that comes nearest."""
    (instance,) = request.instances
    advice = Advice(request.engine, catalog)
    for group in host.groups:
        candidate = advice.candidate(instance, group)
        if not too_old(candidate):
            ways = options(candidate, len(group.indices))
            rejected = [{"choice": way.choice, "reason": way.reason} for way in ways.rejected]
            if ways.nearest is None:
                return {"rejected": rejected}
            fit, spread = ways.nearest
            return {"rejected": rejected, "gpus": [_memory("", fit, candidate)], "nearest": str(spread)}
    return {}


def _planned(plan: Plan, request: HostRequest, host: Host, catalog: Catalog) -> Answer:
    """The plan in words, and the memory of each GPU."""
    (instance,) = plan.as_dict()["instances"]
    packing = pack(request.instances, host.groups, request.engine, catalog.policy)
    ((placement,), _notes) = presets.take(packing.placements, Advice(request.engine, catalog))
    used = [(index, placement.choice.fit) for index in placement.indices]
    idle = [(index, None) for index in placement.candidate.group.indices if index not in placement.indices]
    return {
        "plan": {
            "model": f"{instance['repo_id']}, {instance['precision']}",
            "layout": screen_plan.layout(instance),
            "context": screen_plan.context(instance),
            "weights": f"{size(instance['weights_bytes'])} to download",
            "image": instance["image"],
        },
        "instance": {key: instance[key] for key in _FIGURES},
        "config": instance["config"],
        "warnings": list(plan.warnings),
        "rejected": [dict(way) for way in plan.rejected],
        "gpus": [_memory(str(index), fit, placement.candidate) for index, fit in sorted(used + idle)],
    }


_FIGURES = (
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
    "max_model_len",
    "kv_cache_tokens",
    "weights_bytes",
    "weights_gib_per_gpu",
)


def _memory(index: str, fit: Footprint | None, candidate: Candidate) -> Answer:
    """The memory of one GPU in GiB; of one that nothing uses only its size. A shortfall has no KV cache."""
    sizes = {"index": index, "total": candidate.group.total_gib, "usable": candidate.usable_gib}
    if fit is None:
        return {**sizes, "weights": 0, "overhead": 0, "kv": 0}
    return {**sizes, "weights": fit.weights_gib, "overhead": fit.overhead_gib, "kv": max(fit.kv_gib, 0)}
