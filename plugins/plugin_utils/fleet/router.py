# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The router of a fleet: which hosts have it, which engines are behind it, and how its two processes are started."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ...module_utils import paths
from ...module_utils.instance import names
from ...module_utils.node import network
from ..planner.request import LOOPBACK, whole_number
from ..values import typed

#: The group of the inventory whose hosts are routers.
GROUP = "routers"
#: The tasks whose requests smg passes on by the model's name.
ROUTED_TASKS = ("generate", "embed")
#: Every address of a node.
EVERYWHERE = ("0.0.0.0", "::")
HOST = "127.0.0.1"

#: A name that the router's host resolves.
_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
DNS_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\Z")
#: A collector of traces, as smg takes it.
OTLP = re.compile(r"[A-Za-z0-9.-]+:[0-9]{1,5}\Z")

Instance = Mapping[str, Any]


@dataclass(frozen=True)
class Settings:
    """The router's settings, with the defaults of the role."""

    check_failures: int = 2
    check_interval_s: int = 2
    drain_timeout_s: int = 300
    engine: str = "auto"
    log_level: str = "warn"
    max_body_mib: int = 512
    metrics_port: int = 29000
    #: Why smg cannot be had on the node, as router_info says; empty if it can, or if nobody has asked yet.
    obstacle: str = ""
    otlp_endpoint: str = ""
    policy: str = "cache_aware"
    port: int = 30000
    program: str = "/usr/local/lib/gpunode/router.py"
    request_timeout_s: int = 86400
    second_metrics_port: int = 29001
    second_port: int = 30001
    venv: str = "/opt/gpunode-router"

    @property
    def chosen(self) -> str:
        """What spreads the requests: the gateway itself where smg cannot be had."""
        if self.engine != "auto":
            return self.engine
        return "nginx" if self.obstacle else "smg"

    @property
    def ports(self) -> tuple[int, int, int, int]:
        return self.port, self.second_port, self.metrics_port, self.second_metrics_port


#: Of the settings, what the node says.
FACTS = ("obstacle",)
#: The range of each number.
RANGES = {
    "check_failures": (1, 100),
    "check_interval_s": (1, 3600),
    "drain_timeout_s": (1, 86_400),
    "max_body_mib": (1, 4096),
    "request_timeout_s": (1, 2_592_000),
    **dict.fromkeys(("port", "second_port", "metrics_port", "second_metrics_port"), (1, 65535)),
}


def read(options: Mapping[str, Any]) -> tuple[Settings, list[str]]:
    """The settings, and a sentence for each that cannot be read and has its default instead."""
    findings: list[str] = []
    values: dict[str, Any] = {}
    for field in fields(Settings):
        name, value = f"router_{field.name}", options.get(field.name, field.default)
        try:
            value = value if field.name in FACTS else typed(name, value)
            values[field.name] = whole_number(name, value, *RANGES[field.name]) if field.name in RANGES else value
        except ValueError as error:
            findings.append(str(error))
    return Settings(**values), findings


def _process(settings: Settings, number: int) -> dict[str, Any]:
    """One of the two processes: its unit, its files and its ports."""
    unit = names.ROUTER_UNITS[number]
    path = f"{names.UNIT_DIR}/{unit}"
    files = [path, names.ROUTER_SETTINGS, names.ROUTER_KEY, settings.program, f"{settings.venv}/requirements.txt"]
    return {
        "number": number,
        "name": unit.removesuffix(".service"),
        "unit": unit,
        "unit_path": path,
        "port": settings.ports[number],
        "run_dir": names.run_dir(unit),
        "control_key": names.router_control_key(unit),
        "started_from": names.started_from(unit),
        "files": files,
        "runs": {"name": unit, "files": files, "started_from": names.started_from(unit)},
    }


def plan(options: Mapping[str, Any]) -> dict[str, Any]:
    """The plan of the router on one host; ``findings`` holds every problem."""
    settings, findings = read(options)
    if settings.otlp_endpoint and not OTLP.match(settings.otlp_endpoint):
        findings.append(f"router_otlp_endpoint must be HOST:PORT of a collector, not {settings.otlp_endpoint!r}.")
    if len(set(settings.ports)) < len(settings.ports):
        findings.append(f"The router's four ports must differ, and are {', '.join(map(str, settings.ports))}.")
    if settings.engine == "smg" and settings.obstacle:
        findings.append(f"router_engine is smg, but {settings.obstacle}. Leave it at auto, or set nginx.")
    return {
        "findings": findings,
        "folder": names.ROUTER_DIR,
        "settings_path": names.ROUTER_SETTINGS,
        "key": names.ROUTER_KEY,
        "processes": [_process(settings, number) for number in (0, 1)],
        "engine": settings.chosen,
        "listens": [{"host": HOST, "port": port} for port in settings.ports] if settings.chosen == "smg" else [],
        "upstream": {"first": f"{HOST}:{settings.port}", "second": f"{HOST}:{settings.second_port}"},
        "launch": {
            "host": HOST,
            "ports": settings.ports[:2],
            "metrics_ports": settings.ports[2:],
            "policy": settings.policy,
            "workers": names.ROUTER_WORKERS,
            "aliases": names.ROUTER_ALIASES,
            "check_interval_s": settings.check_interval_s,
            "check_timeout_s": settings.check_interval_s,
            "check_failures": settings.check_failures,
            "request_timeout_s": settings.request_timeout_s,
            "drain_timeout_s": settings.drain_timeout_s,
            "max_body_mib": settings.max_body_mib,
            "log_level": settings.log_level,
            **({"otlp_endpoint": settings.otlp_endpoint} if settings.otlp_endpoint else {}),
        },
    }


def hosts(given: Any, groups: Mapping[str, Sequence[str]], with_gateway: Sequence[str]) -> list[str]:
    """The hosts with a router: those that are named, else those of the group, else the first one with a gateway."""
    named = list(typed("router_hosts", given))
    return named or list(groups.get(GROUP) or ()) or list(with_gateway[:1])


def routed(instances: Sequence[Instance]) -> list[Instance]:
    """The engines that the router can have behind it: one API for each, and a task whose requests name the model."""
    return [one for one in instances if one.get("task", "generate") in ROUTED_TASKS and not _rank(one)]


def _rank(instance: Instance) -> int:
    """Its number among the nodes of a model that spans several. Only the first of them answers requests."""
    return int((instance.get("group") or {}).get("rank") or 0)


def rows(instances: Sequence[Instance], node: str, address: str) -> list[dict[str, Any]]:
    """The workers of a node, in the form of the module router_workers."""
    return [
        {
            "id": f"{node}-{one['name']}",
            "url": f"http://{network.bracketed(_host(one, address))}:{int(one['port'])}",
            "model": str(one["served_model_name"]),
            "aliases": [name for name in _short_names(one) if name != one["served_model_name"]],
        }
        for one in routed(instances)
    ]


def _short_names(instance: Instance) -> list[str]:
    """What clients may also call the model: its key in the catalogue, and the instance's name."""
    return list(dict.fromkeys((str(instance["name"]), str(instance.get("model") or instance["name"]))))


def _host(instance: Instance, address: str) -> str:
    """Where the router reaches the engine."""
    host = str(instance.get("host") or HOST)
    return address if host in EVERYWHERE else host


def node_address(given: Any, ansible_host: Any, default_route: Any) -> str:
    """A node's address as the router reaches it; empty if none is known.

    Raises:
        ValueError: what is given is neither an address nor a name.
    """
    if given and not _is_address(given) and not DNS_NAME.match(str(given)):
        raise ValueError(f"router_node_address must be an address or a name such as 10.0.0.11, not {given!r}.")
    return str(given or next(filter(_is_from_afar, (ansible_host, default_route)), ""))


def _is_from_afar(text: Any) -> bool:
    """ansible_host may be a forwarded port of this machine."""
    return _is_address(text) and str(text) not in LOOPBACK


def _is_address(text: Any) -> bool:
    try:
        return bool(paths.address(text))
    except ValueError:
        return False


def findings(
    instances: Sequence[Instance],
    node: str,
    address: str,
    routers: Sequence[str],
    keys: Sequence[Sequence[str]] = (),
) -> list[str]:
    """What stands against a node's engines being behind the routers, before anything changes.

    Args:
        keys: the engines' keys of this node and of each host with a router. No message contains one.
    """
    behind = routed(instances)
    if not routers:
        return [
            "router_enabled is true, and no host has the router: put a host into the group routers, name it in"
            " router_hosts, or set gateway_enabled for one."
        ]
    found = []
    elsewhere = [router for router in routers if router != node]
    for one in behind if elsewhere else ():
        host = str(one.get("host") or HOST)
        if host in LOOPBACK:
            found.append(
                f"{one['name']} listens on {host}:{one['port']}, where the router on {elsewhere[0]} does not reach it:"
                f" set vllm_host to {address or 'an address of this node'}, and vllm_api_keys."
            )
        elif host in EVERYWHERE and not address:
            found.append("Which address of this node the router reaches is not known: set router_node_address.")
    if behind and len({tuple(listed[:1]) for listed in keys}) > 1:
        found.append(
            f"The first of vllm_api_keys differs from that on {routers[0]}. The router has one key for all engines:"
            " give the whole fleet the same vllm_api_keys."
        )
    return list(dict.fromkeys(found))
