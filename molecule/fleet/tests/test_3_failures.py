# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What dies while clients have some twenty streams at any time takes those with it that were on it, and comes back."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

import pytest
from clients import Front, Load, steady_load
from conftest import KEY, SECOND, THIRD, engine_url, note, ready, slow, started, workers
from scenario import docker, on_node, wait_until

pytestmark = pytest.mark.usefixtures("slow_engines")
#: Every process of an engine: the server that answers, and what computes.
ENGINE = "'V[L]LM::|[v]llm serve'"


class Death:
    """A node's engine dies under load, is seen to be out, and comes back."""

    def __init__(self, node: str, load: Load) -> None:
        self.node, self.load, self.url = node, load, engine_url(node)
        now = time.monotonic()
        wait_until(lambda: load.after(now, self.url) != [], 60)

    def by(self, kill: Callable[[], object]) -> None:
        self.moment = time.monotonic()
        kill()
        # A command on a busy machine takes a while: what began meanwhile may have been on the engine.
        self.dead = time.monotonic()
        wait_until(lambda: workers().get(self.url) != "ready", 60)
        self.out = time.monotonic()

    def and_back(self) -> None:
        wait_until(lambda: ready(self.node), 400)
        self.back = time.monotonic()
        wait_until(lambda: self.load.after(self.back, self.url) != [], 60)

    def judge(self) -> None:
        """Nothing failed but what was on it, and nothing began there while it was out."""
        out, back = self.out - self.moment, self.back - self.moment
        note(f"out after {out:.1f} s, back after {back:.0f} s; {self.load.figures()}")
        elsewhere = [stream for stream in self.load.failed if stream.engine != self.url]
        assert elsewhere == []
        assert [stream for stream in self.load.failed if stream.began > self.out] == []
        assert len(self.load.failed) < self.load.lines


def test_an_engine_that_is_killed(front: Front) -> None:
    run = started(SECOND)
    with steady_load(front, KEY) as load:
        death = Death(SECOND, load)
        death.by(lambda: on_node("docker kill --signal=KILL vllm-tiny", node=SECOND))
        death.and_back()
    death.judge()
    # What had not begun to answer was asked of another one.
    assert [stream for stream in load.failed if stream.began > death.dead] == []
    assert started(SECOND) != run


def test_an_engine_that_hangs(front: Front) -> None:
    """All its processes stand still, and its port takes connections; its watchdog ends it."""
    run = started(SECOND)
    with steady_load(front, KEY) as load:
        death = Death(SECOND, load)
        death.by(lambda: on_node(f"systemctl stop slow; pkill -STOP -f {ENGINE}", node=SECOND))
        death.and_back()
    death.judge()
    assert started(SECOND) != run
    slow(SECOND)


def cut_the_power(node: str) -> None:
    """Nobody is told: the cable first, or the kernel that goes on here would close its connections."""
    box = f"gpunode-lab-node-{node}"
    within = ["nsenter", "-t", docker("inspect", "-f", "{{.State.Pid}}", box), "-n"]
    subprocess.run([*within, "ip", "link", "set", "eth0", "down"], check=True)
    # Docker gives up its wait for the end of so many processes, and they end all the same.
    subprocess.run(["docker", "kill", box], check=False, capture_output=True)


def test_a_node_without_power(front: Front) -> None:
    with steady_load(front, KEY) as load:
        death = Death(THIRD, load)
        death.by(lambda: cut_the_power(THIRD))
        docker("wait", f"gpunode-lab-node-{THIRD}")
        # Streams that were on it have an end before it is back.
        wait_until(lambda: len(load.failed) > 0, 120)
        docker("start", f"gpunode-lab-node-{THIRD}")
        death.and_back()
    death.judge()
    wait_until(lambda: ready(THIRD, 8001), 300)
    slow(THIRD)
