# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The address as a client uses it, and where it is."""

from __future__ import annotations

import functools
import json
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from scenario import Play, nodes, on_node, run_play, wait_until

INVENTORY = Path(__file__).parents[1] / "inventory"
SETTINGS = yaml.safe_load((INVENTORY / "group_vars" / "all.yml").read_text())
(KEY,) = SETTINGS["gateway_keys"].values()
PASSWORD = SETTINGS["gateway_shared_password"]
BOTH = tuple(nodes())
UNIT = "gpunode-gateway-address"
#: What an answer may take, and how soon the next one is asked for.
PATIENCE_S, PAUSE_S = 2.0, 0.1


def play(name: str, *args: str, **settings: Any) -> Play:
    return run_play(name, "-i", str(INVENTORY), *(["-e", json.dumps(settings)] if settings else []), *args)


@functools.cache
def shared_address() -> str:
    """As a node was told; the same while that has no power."""
    return on_node("grep -A1 virtual_ipaddress /etc/gpunode/gateway/keepalived.conf | tail -1")


def holders() -> list[str]:
    """The nodes that have the address."""
    shared = shared_address()
    return [node for node in BOTH if f" {shared}/" in on_node("ip -br address", check=False, node=node)]


def moved(*before: str) -> bool:
    """Whether another one alone has it."""
    now = holders()
    return len(now) == 1 and now != list(before)


def note(text: str) -> None:
    """The case's figure, in the run's output."""
    print(f"\n    {text}", flush=True)


class Client:
    """Asks the one address all the time, with a connection for each request, and knows both certificates."""

    def __init__(self) -> None:
        self.shared = shared_address()
        each = [on_node("cat /etc/gpunode/gateway/certificate.pem", node=node) for node in BOTH]
        self.tls = ssl.create_default_context(cadata="\n".join(each))
        #: When each answer came, by the clock that does not jump.
        self.answers: list[float] = []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def answered(self) -> bool:
        body = {"model": "tiny", "prompt": "The GPU", "max_tokens": 1}
        request = urllib.request.Request(
            f"https://{self.shared}:{SETTINGS['gateway_port']}/v1/completions",
            data=json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
        )
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=self.tls))
        try:
            with opener.open(request, timeout=PATIENCE_S) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def run(self) -> None:
        while not self.ended.wait(PAUSE_S):
            if self.answered():
                self.answers.append(time.monotonic())

    def longest_gap(self) -> float:
        """Seconds without an answer."""
        return max(after - before for before, after in zip(self.answers, self.answers[1:], strict=False))


@pytest.fixture
def client() -> Iterator[Client]:
    """Answered before, during, after; the test itself fails where it is not answered in the end."""
    client = Client()
    wait_until(client.answered, 60)
    client.thread.start()
    yield client
    now = time.monotonic()
    wait_until(lambda: bool(client.answers) and client.answers[-1] > now, 60)
    client.ended.set()
    client.thread.join()
    note(f"{len(client.answers)} answers, the longest time without one {client.longest_gap():.1f} s")
