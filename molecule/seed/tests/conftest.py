# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A hub of this scenario's own, a LAN that can be slow, and what crosses it."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from scenario import Hub, Play, Running, begin_play, docker, nodes, on_node, own_hub, repository

REPO = "weights/tiny"
SHARDS = ("ballast-00000.bin", "ballast-00001.bin")
SHARD_MIB = 64
ENDPOINT = "http://seed.gpunode.test"
HOME = "/var/lib/cases/seed"
FOLDER = f"{HOME}/hub/models--{REPO.replace('/', '--')}"
CONVERGE = "molecule/seed/converge.yml"
PORT = 8730
SECRETS = "/run/gpunode/seed/rsyncd.secrets"


@pytest.fixture(scope="session")
def server() -> Iterator[Hub]:
    with own_hub("seed") as hub, repository(REPO, len(SHARDS), SHARD_MIB, "gpunode/tiny-llama", hub):
        yield hub


@pytest.fixture
def hub(server: Hub) -> Iterator[Hub]:
    server.reset()
    yield server
    server.reset()


def options(**more: Any) -> list[str]:
    return ["-e", json.dumps({"huggingface_endpoint": ENDPOINT, "huggingface_home": HOME, **more})]


def begin(*args: str, **more: Any) -> Running:
    """Hand the weights out, in the background."""
    return begin_play(CONVERGE, *options(**{"case": {"repo_id": REPO}, **more}), *args)


def fetch(*args: str, **more: Any) -> Play:
    return begin(*args, **more).wait()


def size(hub: Hub) -> int:
    return sum(hub.sizes(REPO).values())


def address(node: str) -> str:
    """As the other nodes see it."""
    form = '{{(index .NetworkSettings.Networks "gpunode-lab-net").IPAddress}}'
    return docker("inspect", "-f", form, f"gpunode-lab-node-{node}")


def left(node: str) -> int:
    """The bytes that have left a node's interface since it began."""
    return int(on_node("cat /sys/class/net/eth0/statistics/tx_bytes", node=node))


def unit(node: str) -> str:
    """The unit of a node that fetches."""
    listed = "systemctl list-units --all --plain --no-legend 'gpunode-weights-*' | grep -v weights-seed | cut -d' ' -f1"
    return on_node(listed, node=node)


def here(node: str) -> int:
    """The bytes of the weights on a node, whole or not."""
    return int(on_node(f"cat {FOLDER}/blobs/* 2>/dev/null | wc -c", node=node))


def manifests(node: str) -> list[str]:
    return on_node(f"ls {FOLDER}/manifests/*.json", check=False, node=node).split()


ASK = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as line, line.makefile("rb") as answers:
        answers.readline()
        line.sendall(b"@RSYNCD: 31.0\\nweights\\n")
        print(answers.readline().decode())
except ConnectionRefusedError:
    print("refused")
"""


def ask(seeder: str, asker: str = "") -> str:
    """What the seeder's service says to one of the nodes, or to this machine, which is none of its followers."""
    words = ("python3", "-c", ASK, address(seeder), str(PORT))
    if asker:
        return on_node(shlex.join(words), node=asker)
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def slow(node: str, rate: str) -> Iterator[None]:
    """Hold back what a node sends, so that there is time to stop it in the middle."""
    within = ["nsenter", "-t", docker("inspect", "-f", "{{.State.Pid}}", f"gpunode-lab-node-{node}"), "-n"]
    shape = ["tbf", "rate", rate, "burst", "256kb", "latency", "50ms"]
    subprocess.run([*within, "tc", "qdisc", "add", "dev", "eth0", "root", *shape], check=True)
    try:
        yield
    finally:
        subprocess.run([*within, "tc", "qdisc", "del", "dev", "eth0", "root"], check=True)


# Stopped once it has so many bytes. Every 20 s it may take a breath: an end that says nothing for 60 s is given up.
HOLD = """
until [ "$(cat {folder}/blobs/* 2>/dev/null | wc -c)" -gt {amount} ]; do sleep 0.02; done
while :; do pkill -STOP -x rsync; sleep 20; pkill -CONT -x rsync; sleep 0.02; done
"""


@contextmanager
def held(takers: list[str], amount: float) -> Iterator[None]:
    """Stop what followers take once they have so many bytes, for as long as somebody looks."""
    script = HOLD.format(folder=FOLDER, amount=round(amount))
    for node in takers:
        on_node(f"systemd-run --quiet --collect --unit=hold sh -c {shlex.quote(script)}", node=node)
    try:
        yield
    finally:
        for node in takers:
            on_node("systemctl stop hold; pkill -CONT -x rsync || true", node=node)


@pytest.fixture(scope="session")
def seeder() -> str:
    return nodes()[0]


@pytest.fixture(scope="session")
def followers() -> list[str]:
    return nodes()[1:]


@pytest.fixture
def late(followers: list[str]) -> str:
    """A follower that has nothing yet, as one that was added later."""
    on_node(f"rm -rf {HOME}", node=followers[-1])
    return followers[-1]


def clear() -> None:
    """No node has anything."""
    for node in nodes():
        on_node(f"rm -rf {HOME}", node=node)


def note(text: str) -> None:
    """The case's figure, in the run's output."""
    print(f"\n    {text}", flush=True)
