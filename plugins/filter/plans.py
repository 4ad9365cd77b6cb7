# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that read plans and answers of nodes. NAME.yml in this folder documents filter NAME."""

from __future__ import annotations

from ..plugin_utils import service
from ..plugin_utils.fleet import monitoring, receivers, router, shared_address, targets, weights
from ..plugin_utils.gateway import keys as gateway_keys, plan as gateway_plans, usage as gateway_usage
from ..plugin_utils.node import driver as node_driver, group as node_group, health as node_health
from ..plugin_utils.planner import group
from ..plugin_utils.refusal import refusing
from ..plugin_utils.screen import plan as screen_plan, status as screen_status


def gateway_key_findings(keys, engine_key="", shared_password="", usage=True):
    return gateway_keys.findings(keys, engine_key, usage) + shared_address.password_findings(shared_password)


def gateway_plan(settings, instances, os_family="Debian", node="", default_interface=""):
    return gateway_plans.plan(settings, instances, os_family, node, default_interface)


def vllm_card(instances, host, parts=None, keyed=False, changed=True):
    return screen_plan.ending(instances, host, parts or {}, keyed, changed)


def vllm_service(instance, settings=None):
    return service.service(instance, settings or {})


def vllm_status_report(nodes):
    return screen_status.report(nodes)


def weights_seeders(plans, node):
    instances = {name: (plan.get("plan") or {}).get("instances", []) for name, plan in plans.items()}
    return weights.seeders(instances, node)


def weights_share(checks, node, update=False):
    instances, part = weights.share(checks, node, update)
    return {"instances": instances, "weights": dict(vars(part))}


def weights_failure(results):
    return weights.failure(list(results))


#: Each filter, and the message for input of another shape.
FILTERS = {
    "gateway_peers": (shared_address.from_inventory, "these are not hosts and their addresses"),
    "health_findings": (node_health.findings, "this is not what gpu_health_info returned"),
    "health_lines": (node_health.lines, "this is not what gpu_health_info returned"),
    "driver_choice": (node_driver.choice_of, "this is not what driver_info returned"),
    "driver_proof": (node_driver.proof_of, "this is not what driver_info returned"),
    "driver_plan": (node_driver.plan_of, "this is not what driver_info returned"),
    "gateway_plan": (gateway_plan, "these are not settings and instances"),
    "monitoring_address": (targets.address, "these are no address and no names of hosts"),
    "monitoring_hosts": (targets.hosts, "these are not names of hosts"),
    "monitoring_plan": (monitoring.plan, "these are not settings"),
    "monitoring_receivers": (receivers.receivers, "these are not settings"),
    "monitoring_row": (targets.row, "these are not a node and its facts"),
    "monitoring_targets": (targets.targets, "these are not rows of nodes"),
    "router_address": (router.node_address, "this is no address"),
    "router_hosts": (router.hosts, "these are not names of hosts"),
    "router_node_findings": (router.findings, "these are not instances of a plan"),
    "router_plan": (router.plan, "these are not settings"),
    "router_rows": (router.rows, "these are not instances of a plan"),
    "usage_report": (gateway_usage.report, "these are not what usage_info returned"),
    "usage_plan": (gateway_usage.plan, "these are not settings"),
    "vllm_card": (vllm_card, "these are not instances of a plan"),
    "vllm_group_findings": (group.differences, "these are not plans of nodes"),
    "vllm_group": (node_group.place, "these are not names of nodes"),
    "vllm_group_images": (node_group.other_images, "these are not instances and results of image_pull"),
    "vllm_group_joined": (node_group.joined, "these are not instances and what node_link_info returned"),
    "vllm_group_missing": (node_group.missing, "these are not instances and names of nodes"),
    "vllm_group_proofs": (node_group.proofs, "these are not instances and what node_link_info returned"),
    "vllm_second": (service.second_instances, "these are not instances and rooms"),
    "vllm_service": (vllm_service, "this is not an instance of a plan"),
    "vllm_trial": (service.trial_instances, "these are not instances and rooms"),
    "vllm_status_report": (vllm_status_report, "this is not what vllm_status returned"),
    "weights_failure": (weights_failure, "these are not results of tasks"),
    "weights_seeders": (weights_seeders, "these are not plans of nodes"),
    "weights_share": (weights_share, "these are not checks of nodes"),
}


class FilterModule:
    def filters(self):
        guarded = {name: refusing(name, function, what) for name, (function, what) in FILTERS.items()}
        # Not guarded: they report malformed keys themselves, and their sentences contain no key.
        return {"gateway_access": gateway_keys.access, "gateway_key_findings": gateway_key_findings, **guarded}
