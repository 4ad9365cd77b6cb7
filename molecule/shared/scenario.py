# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of all scenarios share: plays run as a user runs them, the lab's nodes, and its hub's faults."""

from __future__ import annotations

import json
import os
import re
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
LAB = CHECKOUT / "tests" / "lab" / "lab"


@dataclass(frozen=True)
class Play:
    """How a run of ansible-playbook ended."""

    status: int
    text: str

    @property
    def changed(self) -> int:
        """The recap's own count, of the last host where there are several."""
        return int(re.findall(r"changed=(\d+)", self.text)[-1])


def nodes() -> list[str]:
    """The scenario's nodes."""
    return os.environ["GPUNODE_LAB_NODES"].replace(",", " ").split()


def environment() -> dict[str, str]:
    """What ansible needs to find the collection in the checkout and the scenario's nodes in the inventory."""
    return {**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg")}


def command(playbook: str, *args: str) -> list[str]:
    """The command line of a play against the scenario's nodes; a relative playbook is one of the checkout's."""
    return ["ansible-playbook", "-i", "inventories/lab", playbook, *args]


def run_play(playbook: str, *args: str) -> Play:
    """Run a playbook to its end."""
    done = subprocess.run(
        command(playbook, *args), cwd=CHECKOUT, env=environment(), capture_output=True, text=True, check=False
    )
    return Play(done.returncode, done.stdout + done.stderr)


@pytest.fixture(scope="session")
def play() -> Callable[..., Play]:
    """Run site.yml against the scenario's nodes, with further arguments."""
    return lambda *args: run_play("site.yml", *args)


@pytest.fixture
def board() -> Iterator[Callable[[str], None]]:
    """Put other GPUs into the first node; one H100, as the scenario began, comes back after the test."""

    def fit(name: str) -> None:
        subprocess.run([LAB, "fit", nodes()[0], name], check=True, capture_output=True)

    yield fit
    fit("h100x1")


class Hub:
    """The lab's hub from the outside: its counters, and what goes wrong in it. See tests/lab/hub/server.py."""

    def __init__(self) -> None:
        form = '{{(index .NetworkSettings.Networks "gpunode-lab-net").IPAddress}}'
        told = subprocess.run(
            ["docker", "inspect", "-f", form, "gpunode-lab-hub"], check=True, capture_output=True, text=True
        )
        self.url = f"http://{told.stdout.strip()}"

    def ask(self, path: str, method: str = "GET", body: Any = None) -> Any:
        """Ask below /_lab/ and return what JSON it answers."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}/_lab/{path}", data=data, method=method, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read().decode()
        return json.loads(text) if text.strip() else None

    def counters(self) -> dict[str, Any]:
        """Bytes and requests, in all and per file, since the last reset."""
        return self.ask("counters")

    def faults(self, *faults: dict[str, Any]) -> None:
        """Put faults in force."""
        self.ask("faults", "POST", list(faults))

    def reset(self) -> None:
        """Counters to nothing, faults gone."""
        self.ask("reset", "POST")


@pytest.fixture
def hub() -> Iterator[Hub]:
    """The lab's hub, with no faults and empty counters before and after the test."""
    lab = Hub()
    lab.reset()
    yield lab
    lab.reset()
