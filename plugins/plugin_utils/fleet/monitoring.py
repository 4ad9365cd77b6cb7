# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Monitoring of a fleet: reads the settings of the role, and works out units, targets and configurations."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ...module_utils.instance import names
from ...module_utils.node import network
from ..planner.request import whole_number
from ..values import typed
from . import series
from .router import HOST

#: The check of a unit.
VERIFY = "systemd-analyze verify --man=no %s"
#: What is asked of a node's kernel and systemd. The others of node-exporter cost series, and some want more rights.
COLLECTORS = (
    *("cpu", "diskstats", "filesystem", "loadavg", "meminfo", "netdev", "pressure", "stat", "time", "uname", "vmstat"),
    *("systemd", "textfile"),
)
#: What one scrape may take, in seconds.
PATIENCE_S = 10


@dataclass(frozen=True)
class Settings:
    """The role's settings that are no secrets, with its defaults."""

    alertmanager_port: int = 9093
    blackbox_port: int = 9115
    exporter_port: int = 9100
    host: str = HOST
    port: int = 9090
    retention_days: int = 15
    retention_gib: int = 10
    scrape_interval_s: int = 15
    thresholds: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ports(self) -> tuple[int, int, int, int]:
        return self.port, self.alertmanager_port, self.blackbox_port, self.exporter_port


#: The range of each number.
RANGES = {
    "retention_days": (1, 3650),
    "retention_gib": (1, 100_000),
    "scrape_interval_s": (PATIENCE_S, 300),
    **dict.fromkeys(("alertmanager_port", "blackbox_port", "exporter_port", "port"), (1, 65535)),
}


def read(options: Mapping[str, Any]) -> tuple[Settings, list[str]]:
    """The settings, and a sentence for each that cannot be read and has its default instead."""
    findings: list[str] = []
    values: dict[str, Any] = {}
    for item in fields(Settings):
        name, value = f"monitoring_{item.name}", options[item.name]
        try:
            value = typed(name, value)
            values[item.name] = whole_number(name, value, *RANGES[item.name]) if item.name in RANGES else value
        except ValueError as error:
            findings.append(str(error))
    return Settings(**values), findings


def plan(options: Mapping[str, Any], where: str = HOST, os_family: str = "Debian") -> dict[str, Any]:
    """What the role puts on a node that has this address; ``findings`` holds every problem."""
    settings, findings = read(options)
    values, unknown = series.thresholds(settings.thresholds)
    findings += unknown
    if os_family != "Debian":
        findings.append("monitoring_enabled is for Debian and Ubuntu: this system has no packages of Prometheus.")
    if len(set(settings.ports)) < len(settings.ports):
        findings.append(f"The four ports of monitoring must differ, and are {', '.join(map(str, settings.ports))}.")
    if is_public(settings.host):
        findings.append(public("monitoring_host", settings.host, "Prometheus and Alertmanager have no password"))
    units = [exporter(settings, where or HOST), *server(settings)]
    return {
        "findings": findings,
        "exporter": units[0],
        "server": units[1:],
        "prometheus": prometheus(settings),
        "rules": series.rules(values),
        "charts": series.charts(),
        "removed": removed(units),
        "page": f"http://{network.bracketed(settings.host)}:{settings.port}/consoles/index.html",
    }


def server_ports(settings: Settings) -> dict[str, int]:
    """Of the server."""
    ports = (settings.port, settings.alertmanager_port, settings.blackbox_port)
    return dict(zip(("prometheus", "alertmanager", "blackbox"), ports))


def exporter(settings: Settings, where: str) -> dict[str, Any]:
    """node-exporter: our units, Docker, and what belongs to the driver; and all files of figures."""
    command = [
        "/usr/bin/prometheus-node-exporter",
        "--collector.disable-defaults",
        *(f"--collector.{collector}" for collector in COLLECTORS),
        f"--web.listen-address={network.bracketed(where)}:{settings.exporter_port}",
        f"--collector.textfile.directory={names.METRICS_DIR}",
        r"--collector.systemd.unit-include=(vllm-.+|gpunode-.+|docker|nginx|nvidia-.+)\.(service|timer)",
        "--collector.systemd.enable-restarts-metrics",
        "--collector.systemd.enable-start-time-metrics",
    ]
    files = [names.NODE_METRICS_SERVICE, names.NODE_METRICS_TIMER]
    url = f"http://{network.bracketed(where)}:{settings.exporter_port}/metrics"
    return _unit(
        names.EXPORTER_UNIT,
        "Figures of this node for Prometheus",
        command,
        files,
        url,
        wants=names.NODE_METRICS_UNITS[1],
    )


def server(settings: Settings) -> list[dict[str, Any]]:
    """Prometheus, Alertmanager, and the exporter that asks the gateway as a client does."""
    at = {name: f"{network.bracketed(settings.host)}:{port}" for name, port in server_ports(settings).items()}
    kinds = {
        "prometheus": ("Prometheus of this fleet", [names.PROMETHEUS_CONFIG, names.PROMETHEUS_RULES], "/-/ready"),
        "alertmanager": ("Alertmanager of this fleet", [names.ALERTMANAGER_CONFIG], "/-/ready"),
        "blackbox": ("What clients see of the gateways", [names.BLACKBOX_CONFIG], "/metrics"),
    }
    commands = _commands(settings, at)
    return [
        _unit(
            UNITS[name],
            what,
            commands[name],
            files,
            f"http://{at[name]}{ready}",
            secret=names.ALERTMANAGER_CONFIG if name == "alertmanager" else "",
        )
        for name, (what, files, ready) in kinds.items()
    ]


def _commands(settings: Settings, at: Mapping[str, str]) -> dict[str, list[str]]:
    """What the server's units run. Options that Debian 12, Debian 13 and Ubuntu 22.04 have."""
    return {
        "prometheus": [
            "/usr/bin/prometheus",
            f"--config.file={names.PROMETHEUS_CONFIG}",
            f"--web.listen-address={at['prometheus']}",
            f"--storage.tsdb.path={_state(UNITS['prometheus'])}",
            f"--storage.tsdb.retention.time={settings.retention_days}d",
            f"--storage.tsdb.retention.size={settings.retention_gib}GB",
            f"--web.console.templates={names.PROMETHEUS_PAGES}",
            f"--web.console.libraries={names.PROMETHEUS_PAGES}",
        ],
        "alertmanager": [
            "/usr/bin/prometheus-alertmanager",
            f"--config.file={names.run_dir(UNITS['alertmanager'])}/alertmanager.yml",
            f"--web.listen-address={at['alertmanager']}",
            f"--storage.path={_state(UNITS['alertmanager'])}",
            # It opens no port for others: each server tells of what it sees.
            "--cluster.listen-address=",
        ],
        "blackbox": [
            "/usr/bin/prometheus-blackbox-exporter",
            f"--config.file={names.BLACKBOX_CONFIG}",
            f"--web.listen-address={at['blackbox']}",
        ],
    }


def _state(unit: str) -> str:
    """Where a unit keeps what it has seen."""
    return f"/var/lib/{unit.removesuffix('.service')}"


#: The server's units.
UNITS = {
    "prometheus": names.PROMETHEUS_UNIT,
    "alertmanager": names.ALERTMANAGER_UNIT,
    "blackbox": names.BLACKBOX_UNIT,
}


def _unit(
    unit: str, what: str, command: Sequence[str], files: Sequence[str], url: str, wants: str = "", secret: str = ""
) -> dict[str, Any]:
    """One unit, as the template prints it, and as units_current takes it.

    Args:
        unit: its name.
        what: its description.
        command: what it runs.
        files: what it starts from, beside its own file.
        url: what answers when it is ready.
        wants: a unit that runs with it.
        secret: which of the files only root may read; the process gets a copy.
    """
    path, started_from = f"{names.UNIT_DIR}/{unit}", names.started_from(unit)
    # A change of the exporter's files is one of its timer.
    reloads = not wants
    return {
        "unit": unit,
        "name": unit.removesuffix(".service"),
        "path": path,
        "what": what,
        "command": list(command),
        "files": [path, *files],
        "started_from": started_from,
        "run_dir": names.run_dir(unit),
        "url": url,
        "wants": wants,
        "secret": secret,
        "reloads": reloads,
        "to_write": [{"src": "service.j2", "dest": path, "of": unit.removesuffix(".service"), "validate": VERIFY}],
        "runs": {"name": unit, "files": [path, *files], "started_from": started_from, "reloads": reloads},
    }


def removed(units: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The units with their files, as units_removed takes them. Who lists the files of the others is the last."""
    figures = [
        {"unit": unit, "files": [f"{names.UNIT_DIR}/{unit}"]} for unit in sorted(names.NODE_METRICS_UNITS, reverse=True)
    ]
    own = [{"unit": unit["unit"], "files": [_state(unit["unit"]), unit["path"]]} for unit in units]
    return [*figures, *own[:-1], {**own[-1], "files": [names.METRICS_DIR, names.MONITORING_DIR, *own[-1]["files"]]}]


def prometheus(settings: Settings) -> dict[str, Any]:
    """Prometheus' configuration. A target says of itself what it is, and so there is one list for all of them."""
    alertmanager = f"{network.bracketed(settings.host)}:{settings.alertmanager_port}"
    return {
        "global": {
            "scrape_interval": f"{settings.scrape_interval_s}s",
            "scrape_timeout": f"{PATIENCE_S}s",
            "evaluation_interval": f"{settings.scrape_interval_s}s",
        },
        "rule_files": [names.PROMETHEUS_RULES],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
        "scrape_configs": [
            {"job_name": "gpunode", "file_sd_configs": [{"files": [f"{names.PROMETHEUS_TARGETS}/*.json"]}]}
        ],
    }


def is_public(host: str) -> bool:
    """Whether anybody may reach it. A name is the operator's own choice."""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return False
    return found.is_unspecified or found.is_global


def public(setting: str, value: str, why: str) -> str:
    """The sentence about such an address."""
    return f"{setting} is {value}, where anybody may read it, and {why}: give it a private address of this node."
