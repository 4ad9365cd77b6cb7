# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet as a client sees it, as its router does, and its plays.

The tests share three nodes and go in their order: clients first, then what changes under load, then what dies, then
where the router sends what begins alike, and the end of it all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml
from clients import Front, resolved
from scenario import Play, docker, nodes, on_node, run_play

INVENTORY = Path(__file__).parents[1] / "inventory"
SETTINGS = yaml.safe_load((INVENTORY / "group_vars" / "all.yml").read_text())
ENGINE_KEY, KEY, SECOND_KEY = SETTINGS["vllm_api_keys"][0], *SETTINGS["gateway_keys"].values()
LLAMA, EMBEDDING = "gpunode/tiny-llama", "lab/tiny-embedding"
HOST, SECOND, THIRD = FLEET = tuple(nodes())
UNITS = {"gpunode-router": 30000, "gpunode-router-second": 30001}
#: What the rolling change brings; every play after it has it too.
CHANGE = {"vllm_extra_args": {"max-num-seqs": 48}}


def play(name: str, *args: str, **settings: Any) -> Play:
    """Run a playbook with the fleet's inventory, and settings on top."""
    return run_play(name, "-i", str(INVENTORY), *(["-e", json.dumps(settings)] if settings else []), *args)


def site(*args: str, **settings: Any) -> Play:
    return play("site.yml", *args, **settings)


@contextmanager
def inventory_of(*names: str) -> Iterator[None]:
    """An inventory of these nodes and no others."""
    before = os.environ["GPUNODE_LAB_NODES"]
    os.environ["GPUNODE_LAB_NODES"] = " ".join(names)
    try:
        yield
    finally:
        os.environ["GPUNODE_LAB_NODES"] = before


def address(node: str) -> str:
    form = '{{(index .NetworkSettings.Networks "gpunode-lab-net").IPAddress}}'
    return docker("inspect", "-f", form, f"gpunode-lab-node-{node}")


def engine_url(node: str, port: int = 8000) -> str:
    """An engine as the router names it: that of its own host is on loopback."""
    return f"http://{'127.0.0.1' if node == HOST else f'gpunode-lab-node-{node}'}:{port}"


def workers(unit: str = "gpunode-router") -> dict[str, str]:
    """The state of each worker of a process, by its URL, from the control surface, which opens to root's key alone."""
    key = f"printf 'Authorization: Bearer %s' \"$(cat /run/{unit}/control-key)\""
    text = on_node(f"{key} | curl -sf -m 10 -H @- http://127.0.0.1:{UNITS[unit]}/workers", check=False, node=HOST)
    return {worker["url"]: worker["status"] for worker in json.loads(text)["workers"]} if text else {}


def ready(node: str, port: int = 8000) -> bool:
    """Whether both processes pass requests to a node's engine."""
    return all(workers(unit).get(engine_url(node, port)) == "ready" for unit in UNITS)


def started(node: str, unit: str = "vllm-tiny") -> str:
    """Which run of a unit it is."""
    return on_node(f"systemctl show -P InvocationID {unit}", node=node)


def counter(node: str, name: str) -> float:
    """One of the counters of a node's first engine; 0 while it does not answer."""
    text = on_node(f"curl -s http://127.0.0.1:8000/metrics | grep '^vllm:{name}{{'", check=False, node=node)
    return sum(float(line.split()[-1]) for line in text.splitlines())


def slow(node: str) -> None:
    """Have a node's engine take its time, so that streams last and the CPUs are left to others."""
    program = (Path(__file__).parents[1] / "slow.py").read_text()
    on_node(f"cat >/run/slow.py <<'END'\n{program}\nEND", node=node)
    on_node("systemd-run --quiet --collect --unit=slow python3 /run/slow.py", node=node)


def note(text: str) -> None:
    """The case's figure, in the run's output."""
    print(f"\n    {text}", flush=True)


@pytest.fixture(scope="session")
def front() -> Iterator[Front]:
    name, where = SETTINGS["gateway_names"][0], address(HOST)
    certificate = on_node("cat /etc/gpunode/gateway/certificate.pem", node=HOST)
    with resolved(name, where):
        yield Front(name, SETTINGS["gateway_port"], where, certificate, HOST)


@pytest.fixture(scope="session")
def slow_engines() -> Iterator[None]:
    for node in FLEET:
        slow(node)
    yield
    for node in FLEET:
        on_node("systemctl stop slow", check=False, node=node)


@pytest.fixture(scope="session")
def client(front: Front) -> openai.OpenAI:
    return front.client(KEY)
