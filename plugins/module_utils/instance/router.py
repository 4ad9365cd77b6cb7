# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The router's workers: which node has which, what smg reads of them, and what smg says of them."""

from __future__ import annotations

import http.client
import json
import os
from dataclasses import asdict, dataclass
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from ..node import files as node_files
from . import names

SCHEMA = 1
ABOUT = "The router's workers by node. Written by Ansible (gpunode.llm.router)."
#: What smg calls a worker that gets requests.
READY = "ready"


@dataclass(frozen=True)
class Worker:
    """One engine. Its ``id`` stays the same for as long as the engine has its name."""

    id: str
    url: str
    model: str
    aliases: Tuple[str, ...] = ()


Nodes = Mapping[str, Sequence[Worker]]


def workers(rows: Iterable[Mapping[str, Any]]) -> Tuple[Worker, ...]:
    """The workers of a node from what an action gives."""
    return tuple(
        Worker(str(row["id"]), str(row["url"]), str(row["model"]), tuple(map(str, row.get("aliases") or ())))
        for row in rows
    )


def rows(found: Iterable[Worker]) -> List[Dict[str, Any]]:
    return [{**asdict(worker), "aliases": list(worker.aliases)} for worker in found]


def read(path: str) -> Dict[str, Tuple[Worker, ...]]:
    """The nodes of the record; none without a record.

    Raises:
        ValueError: the record cannot be read.
    """
    text = node_files.text_of(path)
    if not text:
        return {}
    try:
        value = json.loads(text)
        if value["schema"] != SCHEMA:
            raise ValueError(f"its schema is {value['schema']}")
        return {str(node): workers(listed) for node, listed in value["nodes"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error!r}. Remove it, and run site.yml over the fleet") from None


def record_text(nodes: Nodes) -> str:
    value = {"about": ABOUT, "schema": SCHEMA, "nodes": {node: rows(nodes[node]) for node in sorted(nodes)}}
    return json.dumps(value, indent=2) + "\n"


def manifest_text(nodes: Nodes) -> str:
    """What smg reads. It refuses a file with any key that it does not know."""
    listed = [{"id": worker.id, "url": worker.url} for node in sorted(nodes) for worker in nodes[node]]
    return json.dumps({"version": 1, "workers": listed}, indent=2) + "\n"


def aliases(nodes: Nodes) -> Dict[str, str]:
    """Other names of models. A name that a model has itself, or that two models would have, is none."""
    every = [worker for listed in nodes.values() for worker in listed]
    models = {worker.model for worker in every}
    meant: Dict[str, set[str]] = {}
    for worker in every:
        for name in worker.aliases:
            meant.setdefault(name, set()).add(worker.model)
    return {name: min(of) for name, of in sorted(meant.items()) if len(of) == 1 and name not in models}


def addresses(nodes: Nodes) -> Dict[str, List[str]]:
    """Host and port of each engine by the instance's name, which a worker's ID has after that of its node."""
    found: Dict[str, List[str]] = {}
    for node in sorted(nodes):
        for worker in nodes[node]:
            found.setdefault(worker.id[len(node) + 1 :], []).append(worker.url.partition("://")[2])
    return found


def aliases_text(nodes: Nodes) -> str:
    return json.dumps(aliases(nodes), indent=2) + "\n"


@dataclass(frozen=True)
class Process:
    """One process of the router, and what it says of its workers."""

    unit: str
    port: int

    def states(self, timeout: float = 5.0) -> Optional[Dict[str, str]]:
        """The state of each worker by its ID; None where the process does not answer."""
        key = node_files.text_of(names.router_control_key(self.unit)).strip()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("GET", "/workers", headers={"Authorization": f"Bearer {key}"})
            answer = connection.getresponse()
            return states(answer.read().decode("utf-8", "replace")) if answer.status == 200 else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()


def states(text: str) -> Dict[str, str]:
    """The state of each worker by its ID in the file, from smg's answer."""
    try:
        listed = json.loads(text)["workers"]
        return {str(one["labels"]["smg.ai/discovery-id"]): str(one.get("status", "")) for one in listed}
    except (KeyError, TypeError, ValueError):
        return {}


def processes(settings_path: str) -> List[Process]:
    """The router's processes by its settings; none where there is no router yet."""
    try:
        ports = json.loads(node_files.text_of(settings_path))["ports"]
    except (KeyError, TypeError, ValueError):
        return []
    return [Process(unit, int(port)) for unit, port in zip(names.ROUTER_UNITS, ports)]


def write(nodes: Nodes, folder: str, before: Mapping[str, str]) -> None:
    """Write what differs; smg's file last, since smg reads it at once."""
    for path, text in texts(nodes, folder).items():
        if before.get(path) != text:
            node_files.write_atomically(path, text)


def texts(nodes: Nodes, folder: str = names.ROUTER_DIR) -> Dict[str, str]:
    """Each file with its text."""
    named = {
        names.ROUTER_NODES: record_text(nodes),
        names.ROUTER_ALIASES: aliases_text(nodes),
        names.ROUTER_WORKERS: manifest_text(nodes),
    }
    return {os.path.join(folder, os.path.basename(path)): text for path, text in named.items()}


def status(
    active: Mapping[str, str], settings: str = names.ROUTER_SETTINGS, record: str = names.ROUTER_NODES
) -> Dict[str, Any]:
    """The router of a node: its units, and the workers that get no requests. Empty without a router.

    Args:
        active: the state of each of its units that systemd knows.
    """
    if not active:
        return {}
    said = {process.unit: process.states() for process in processes(settings)}
    try:
        listed = [worker for found in read(record).values() for worker in found]
    except ValueError:  # the module that changes it reports the error
        listed = []
    answers = [states for states in said.values() if states is not None]
    lost = [one for one in listed if not all(states.get(one.id) == READY for states in answers)]
    return {
        "processes": [
            {"unit": unit, "state": state, "answers": said.get(unit) is not None} for unit, state in active.items()
        ],
        "workers": len(listed),
        "workers_ready": len(listed) - len(lost) if answers else 0,
        "not_ready": [f"{one.id} at {one.url}" for one in lost],
    }
