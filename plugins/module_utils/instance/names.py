# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of units, folders and files that two sides share: a role and a module, or an engine and the gateway.

Each name is defined only here. Templates get it as a value. This file imports nothing, so both the controller and the
node can use it.
"""

from __future__ import annotations

#: Where units are, and where units are that a reboot removes.
UNIT_DIR, SECOND_UNIT_DIR = "/etc/systemd/system", "/run/systemd/system"
#: The files of an instance, its compile cache, and its last good set. The role vllm can move all three.
CONFIG_DIR, CACHE_DIR, KEPT_DIR = "/etc/vllm", "/var/cache/vllm", "/var/lib/gpunode/vllm"
#: The files of a second instance, which runs for a while next to the first one.
SECOND_DIR = "/run/gpunode/beside"
#: Where records are looked up. No setting moves them: a reader has no settings.
RECORD_DIRS = (CONFIG_DIR, SECOND_DIR)
#: The gateway's unit and record.
GATEWAY_UNIT, GATEWAY_RECORD = "gpunode-gateway.service", "/etc/gpunode/gateway.json"
#: The unit that takes and gives up the address that gateways share.
GATEWAY_ADDRESS_UNIT = "gpunode-gateway-address.service"
#: The router's two processes. Requests go to the first one, and to the second one while that restarts.
ROUTER_UNIT, ROUTER_SECOND_UNIT = "gpunode-router.service", "gpunode-router-second.service"
ROUTER_UNITS = (ROUTER_UNIT, ROUTER_SECOND_UNIT)
#: What the router reads: its settings, the engines' key, its workers, and other names of their models.
ROUTER_DIR = "/etc/gpunode/router"
ROUTER_SETTINGS, ROUTER_KEY = f"{ROUTER_DIR}/settings.json", f"{ROUTER_DIR}/key"
ROUTER_WORKERS, ROUTER_ALIASES = f"{ROUTER_DIR}/workers.json", f"{ROUTER_DIR}/aliases.json"
#: Which node has which workers: from this the last two are made.
ROUTER_NODES = f"{ROUTER_DIR}/nodes.json"
#: What keeps usage on the gateway's host: its unit, its settings, and a file for each day.
USAGE_UNIT, USAGE_SETTINGS, USAGE_STATE = "gpunode-usage.service", "/etc/gpunode/usage.json", "/var/lib/gpunode-usage"
#: The folder in which gpunode-usage has a file for each client that has used its tokens of the day.
USAGE_OVER = "/run/gpunode-usage/over"
#: What gpunode-usage shows to Prometheus.
USAGE_METRICS = "/run/gpunode-usage/metrics.prom"
#: What counts within an engine: the folder in its container, the program there, and the file in its cache.
USAGE_FOLDER, USAGE_MIDDLEWARE, USAGE_FILE = "/opt/gpunode", "gpunode_usage.ByClient", "usage.log"
#: What shows figures of a node to Prometheus; what writes them, and the folder for all such files.
EXPORTER_UNIT = "gpunode-node-exporter.service"
NODE_METRICS_UNITS = ("gpunode-node-metrics.service", "gpunode-node-metrics.timer")
NODE_METRICS_SERVICE, NODE_METRICS_TIMER = (f"{UNIT_DIR}/{unit}" for unit in NODE_METRICS_UNITS)
METRICS_DIR = "/var/lib/gpunode/metrics"
#: The server: what it runs, and from which files.
PROMETHEUS_UNIT, ALERTMANAGER_UNIT = "gpunode-prometheus.service", "gpunode-alertmanager.service"
BLACKBOX_UNIT = "gpunode-blackbox.service"
MONITORING_DIR = "/etc/gpunode/monitoring"
PROMETHEUS_CONFIG, PROMETHEUS_RULES = f"{MONITORING_DIR}/prometheus.yml", f"{MONITORING_DIR}/rules.yml"
PROMETHEUS_TARGETS, PROMETHEUS_PAGES = f"{MONITORING_DIR}/targets", f"{MONITORING_DIR}/consoles"
ALERTMANAGER_CONFIG, BLACKBOX_CONFIG = f"{MONITORING_DIR}/alertmanager.yml", f"{MONITORING_DIR}/blackbox.yml"
#: How far the port on which the ranks of a group tell each other how they are is from vLLM's own for the group.
PEER_PORTS = 1000
#: Where an engine's container has a model from a folder of the node.
MODEL_TARGET = "/model"
#: The hub's cache in a container, below the home of its user.
HUB_TARGET = ".cache/huggingface/hub"
#: A pattern for the units of all instances.
UNITS = "vllm-*.service"
_SECOND, _TRIAL = "-beside", "-tune-trial"
_ENGINE, _SERVICE = "vllm-", ".service"


def container_of(name: str) -> str:
    """The container of an instance: its unit without the suffix."""
    return f"{_ENGINE}{name}"


def unit_of(name: str) -> str:
    """The unit of an instance."""
    return f"{container_of(name)}{_SERVICE}"


def name_of(unit: str) -> str:
    """The instance of a unit."""
    return unit[len(_ENGINE) : -len(_SERVICE)]


def second_of(name: str) -> str:
    """The name of the second instance, which runs next to the first one for a while."""
    return f"{name}{_SECOND}"


def trial_of(name: str) -> str:
    """The name of the instance that runs the candidates of a tune."""
    return f"{name}{_TRIAL}"


def is_second(name: str) -> bool:
    """Whether an instance is a second one or a trial. The planner rejects such a name for any other instance."""
    return name.endswith((_SECOND, _TRIAL))


def run_dir(unit: str) -> str:
    """The folder of a running unit: its RuntimeDirectory."""
    return f"/run/{unit[: -len(_SERVICE)]}"


def started_from(unit: str) -> str:
    """The folder into which a unit copies, at its start, the files it starts from. Each keeps its whole path."""
    return _started_from(run_dir(unit))


def _started_from(folder: str) -> str:
    return f"{folder}/started-from"


def peer_unit(name: str) -> str:
    """The unit that keeps an instance together with its other ranks, if its engine runs over several nodes."""
    return f"gpunode-peer@{name}{_SERVICE}"


def peer_folder(name: str) -> str:
    """The folder of that unit below /run: its RuntimeDirectory."""
    return f"gpunode-peer-{name}"


def peer_started_from(name: str) -> str:
    """The folder of copies of that unit."""
    return _started_from(f"/run/{peer_folder(name)}")


def group_state(unit: str) -> str:
    """The file in which a rank of a group writes how far its run is."""
    return f"{run_dir(unit)}/group.json"


def router_control_key(unit: str) -> str:
    """The file of the key for a router process' control surface, which the process makes anew at each start."""
    return f"{run_dir(unit)}/control-key"


def standby_file(name: str) -> str:
    """The file through which nginx uses the second instance. It exists while the second instance answers."""
    return f"{run_dir(unit_of(second_of(name)))}/front.conf"


def record_path(name: str) -> str:
    """The record of an instance."""
    return f"{SECOND_DIR if is_second(name) else CONFIG_DIR}/{name}.json"
