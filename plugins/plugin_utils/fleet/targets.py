# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Prometheus reads, of which node, and where: the targets of a fleet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...module_utils.instance import names
from ...module_utils.node import network
from ..planner.request import LOOPBACK
from ..values import typed
from .monitoring import Settings, is_public, public, read, server_ports
from .router import EVERYWHERE, HOST, node_address

#: The group of the inventory whose hosts have the server.
GROUP = "monitoring"
#: Where the gateway says that it is well.
HEALTH = "/health"
Row = Mapping[str, Any]
Group = dict[str, Any]


def hosts(
    given: Any, groups: Mapping[str, Sequence[str]], routers: Sequence[str] = (), with_gateway: Sequence[str] = ()
) -> list[str]:
    """The hosts with the server: those named, else of the group, else the first with the router, a gateway, or none."""
    named = list(typed("monitoring_hosts", given))
    return named or list(groups.get(GROUP) or ()) or list((*routers, *with_gateway, *groups["all"])[:1])


def address(given: Any, node: str, servers: Sequence[str], ansible_host: Any = "", default_route: Any = "") -> str:
    """Where the exporters of a node listen, and Prometheus reaches them; empty if that is not known."""
    if not given and list(servers) == [node]:
        return HOST
    try:
        return node_address(given, ansible_host, default_route)
    except ValueError as error:
        raise ValueError(str(error).replace("router_node_address", "monitoring_address")) from None


def row(node: str, where: str, servers: Sequence[str], facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a server has to know of a node; ``findings`` holds what stands against it.

    Args:
        node: its name.
        where: its address.
        servers: the hosts with the server.
        facts: the role's C(exporter_port); the C(instances) of the plan; the settings of its C(gateway), if it has one:
            C(host), C(port), C(metrics_host) and C(metrics_port); and C(router_ports), those of the router's metrics.
    """
    gateway = {name: typed(f"gateway_{name}", value) for name, value in (facts.get("gateway") or {}).items()}
    own = {
        "node": node,
        "address": where,
        "exporter_port": int(facts["exporter_port"]),
        "engines": [
            {
                "name": str(one["name"]),
                "host": str(one.get("host") or HOST),
                "port": int(one["port"]),
                "model": str(one["served_model_name"]),
            }
            for one in facts.get("instances") or ()
        ],
        "gateway": gateway,
        "router_ports": [int(port) for port in facts.get("router_ports") or ()],
    }
    return {**own, "findings": findings(own, servers)}


def findings(own: Row, servers: Sequence[str]) -> list[str]:
    """What stands against a node's figures being read by the servers, before anything changes."""
    node, where = own["node"], own["address"]
    if not where:
        return [f"Which address of {node} Prometheus reaches is not known: set monitoring_address."]
    found = []
    if is_public(where):
        found.append(public("monitoring_address", where, "the exporter has no password"))
    elsewhere = [server for server in servers if server != node]
    if elsewhere and where in LOOPBACK:
        found.append(f"Prometheus on {elsewhere[0]} does not reach {where}: set monitoring_address of {node}.")
    for engine in own["engines"] if elsewhere else ():
        if engine["host"] in LOOPBACK and not _metrics_address(own):
            found.append(
                f"{engine['name']} listens on {engine['host']}:{engine['port']}, where Prometheus on {elsewhere[0]}"
                f" does not reach it: set vllm_host to {where}, or open the gateway's metrics with"
                " gateway_metrics_port, gateway_metrics_host and gateway_metrics_allow."
            )
    return found


def _metrics_address(own: Row) -> str:
    """Where the gateway of the node shows the engines' metrics to others; empty if it does not."""
    host, port = (own["gateway"].get(f"metrics_{name}") for name in ("host", "port"))
    if not port or host in LOOPBACK:
        return ""
    return f"{network.bracketed(own['address'] if host in EVERYWHERE else host)}:{port}"


def targets(rows: Sequence[Row], server: str, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a server scrapes, by node: the C(name) of each, its C(groups), and the file that they are written to."""
    own_settings, _findings = read(settings)
    return [
        {
            "name": own["node"],
            "groups": _groups(own, own["node"] == server, own_settings),
            "to_write": [
                {"src": "targets.json.j2", "dest": f"{names.PROMETHEUS_TARGETS}/{own['node']}.json", "of": own["node"]}
            ],
        }
        for own in rows
    ]


def _groups(own: Row, here: bool, settings: Settings) -> list[Group]:
    node, where = own["node"], network.bracketed(own["address"])
    groups = [_group(f"{where}:{own['exporter_port']}", "node", node, node)]
    groups += [_engine(own, engine, here) for engine in own["engines"]]
    if here:
        groups += [
            _group(f"{HOST}:{port}", "router", node, f"{node}/router-{number}")
            for number, port in enumerate(own["router_ports"], 1)
        ]
        groups += [
            _group(f"{network.bracketed(settings.host)}:{port}", job, node, f"{node}/{job}")
            for job, port in server_ports(settings).items()
            if job != "blackbox"
        ]
    if own["gateway"]:
        groups.append(_probe(own, settings))
    return groups


def _group(target: str, job: str, node: str, instance: str, **labels: str) -> Group:
    return {"targets": [target], "labels": {"job": job, "node": node, "instance": instance, **labels}}


def _engine(own: Row, engine: Mapping[str, Any], here: bool) -> Group:
    """An engine itself, or what the gateway of its node shows of it."""
    host = own["address"] if engine["host"] in EVERYWHERE else engine["host"]
    target, path = f"{network.bracketed(host)}:{engine['port']}", "/metrics"
    labels = {"name": names.unit_of(engine["name"]), "model": engine["model"], "worker": f"http://{target}"}
    if host in LOOPBACK and not here:
        target, path = _metrics_address(own), f"/{engine['name']}/metrics"
    instance = f"{own['node']}/{engine['name']}"
    return _group(target, "vllm", own["node"], instance, **labels, __metrics_path__=path)


def _probe(own: Row, settings: Settings) -> Group:
    """The gateway, as a client sees it, through the blackbox exporter of the server."""
    host = own["address"] if own["gateway"]["host"] in EVERYWHERE else own["gateway"]["host"]
    url = f"https://{network.bracketed(host)}:{own['gateway']['port']}{HEALTH}"
    asked = f"{network.bracketed(settings.host)}:{settings.blackbox_port}"
    probe = {"__metrics_path__": "/probe", "__param_module": "gateway", "__param_target": url}
    return _group(asked, "gateway", own["node"], f"{own['node']}/gateway", **probe)
