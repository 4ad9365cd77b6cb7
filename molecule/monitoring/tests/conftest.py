# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two nodes and Prometheus of the first: the tests go in their order, from what is quiet to what is broken."""

from __future__ import annotations

import json
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from clients import Front, resolved
from scenario import Play, docker, nodes, on_node, run_play

HERE = Path(__file__).parents[1]
# Makes the collection importable from a checkout as it is: the tests ask what the table says.
runpy.run_path(str(HERE.parents[1] / "tests" / "unit" / "conftest.py"))
INVENTORY = HERE / "inventory"
SETTINGS = yaml.safe_load((INVENTORY / "group_vars" / "all.yml").read_text())
ENGINE_KEY, (KEY,) = SETTINGS["vllm_api_keys"][0], SETTINGS["gateway_keys"].values()
HOST, SECOND = FLEET = tuple(nodes())
RULES, TARGETS = "/etc/gpunode/monitoring/rules.yml", "/etc/gpunode/monitoring/targets"


def play(name: str, *args: str, **settings: Any) -> Play:
    """Run a playbook with the fleet's inventory, and settings on top."""
    return run_play(name, "-i", str(INVENTORY), *(["-e", json.dumps(settings)] if settings else []), *args)


def prometheus(path: str, **given: str) -> Any:
    """What Prometheus answers below /api/v1/."""
    words = " ".join(f"--data-urlencode {shlex.quote(f'{name}={value}')}" for name, value in given.items())
    said = json.loads(on_node(f"curl -sG {words} http://127.0.0.1:9090/api/v1/{path}", node=HOST))
    assert said["status"] == "success", said
    return said["data"]


def asked(expr: str) -> list[dict[str, Any]]:
    """The samples of an expression now."""
    result: list[dict[str, Any]] = prometheus("query", query=expr)["result"]
    return result


def told() -> dict[str, dict[str, str]]:
    """The alerts that the webhook has, by their names."""
    lines = on_node("cat /run/alerts", check=False, node=HOST).splitlines()
    return {alert["alertname"]: alert for alert in map(json.loads, lines)}


def begin(name: str, *args: str, node: str = HOST) -> None:
    """Run one of the scenario's programs on a node in the background."""
    program = (HERE / f"{name}.py").read_text()
    on_node(f"cat >/run/{name}.py <<'END'\n{program}\nEND", node=node)
    words = shlex.join(["systemd-run", "--quiet", "--collect", f"--unit={name}", "python3", f"/run/{name}.py", *args])
    on_node(words, node=node)


def note(text: str) -> None:
    """The case's figure, in the run's output."""
    print(f"\n    {text}", flush=True)


@pytest.fixture(scope="session", autouse=True)
def webhook() -> Iterator[None]:
    begin("webhook")
    yield
    on_node("systemctl stop webhook burden", check=False, node=HOST)


@pytest.fixture(scope="session")
def front() -> Iterator[Front]:
    form = '{{(index .NetworkSettings.Networks "gpunode-lab-net").IPAddress}}'
    where = docker("inspect", "-f", form, f"gpunode-lab-node-{HOST}")
    certificate = on_node("cat /etc/gpunode/gateway/certificate.pem", node=HOST)
    with resolved(SETTINGS["gateway_names"][0], where):
        yield Front(SETTINGS["gateway_names"][0], SETTINGS["gateway_port"], where, certificate, HOST)
