# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What benchmarks share: plays with each task timed, links of a given rate, repositories of a given size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT / "molecule" / "shared"), str(CHECKOUT / "tests" / "lab")]
from scenario import LAB, Hub, docker, repository

__all__ = ["CHECKOUT", "LAB", "Hub", "link", "play", "repository"]


def play(node: str, playbook: str, *extra: str) -> tuple[float, list[tuple[str, float, bool]]]:
    """Run a playbook; return its wall seconds and, per task, its name, seconds, and whether it ran."""
    env = {
        **os.environ,
        "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
        "GPUNODE_LAB_NODES": node,
        "ANSIBLE_CALLBACK_PLUGINS": str(CHECKOUT / "tests" / "bench" / "callback"),
        "ANSIBLE_CALLBACKS_ENABLED": "durations",
    }
    with tempfile.NamedTemporaryFile() as records:
        env["DURATIONS_FILE"] = records.name
        began = time.monotonic()
        subprocess.run(
            ["ansible-playbook", "-i", "inventories/lab", playbook, *extra],
            cwd=CHECKOUT,
            env=env,
            check=True,
            stdout=sys.stderr,
        )
        wall = time.monotonic() - began
        tasks = [json.loads(line) for line in Path(records.name).read_text().splitlines()]
    return wall, [(t["name"], t["seconds"], t["ran"]) for t in tasks]


def far_end(server: str, node: str) -> tuple[str, str, list[str]]:
    """Of a node's link, at the server: the address, the interface, and what runs a command in the network there."""
    form = f'{{{{(index .NetworkSettings.Networks "{node}-{server}").IPAddress}}}}'
    address = docker("inspect", "-f", form, f"gpunode-lab-{server}")
    within = ["nsenter", "-t", docker("inspect", "-f", "{{.State.Pid}}", f"gpunode-lab-{server}"), "-n"]
    addresses = subprocess.run(
        [*within, "ip", "-o", "addr", "show", "to", address], check=True, capture_output=True, text=True
    )
    return address, addresses.stdout.split()[1], within


@contextmanager
def link(server: str, node: str, megabytes_per_s: float) -> Iterator[None]:
    """Lead a node to a server of the lab (hub, registry) over a link of a given rate that carries nothing else."""
    network, ends = f"{node}-{server}", (f"gpunode-lab-{server}", f"gpunode-lab-node-{node}")
    docker("network", "create", network)
    try:
        for end in ends:
            docker("network", "connect", network, end)
        address, device, within = far_end(server, node)
        shape = ["tbf", "rate", f"{megabytes_per_s * 8:.0f}mbit", "burst", "512kb", "latency", "100ms"]
        subprocess.run([*within, "tc", "qdisc", "add", "dev", device, "root", *shape], check=True)
        names = f"echo {address} {server}.gpunode.test | sudo tee -a /etc/hosts"
        subprocess.run([LAB, "ssh", node, names], check=True, stdout=subprocess.DEVNULL)
        yield
    finally:
        for end in ends:
            cut = ["docker", "network", "disconnect", "--force", network, end]
            subprocess.run(cut, stderr=subprocess.DEVNULL, check=False)
        docker("network", "rm", network)


@contextmanager
def outage(server: str, node: str) -> Iterator[None]:
    """A router's answer to what goes to a server over a node's link: connections break, new ones are refused."""
    _address, device, within = far_end(server, node)
    rule = ["INPUT", "-i", device, "-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset"]
    subprocess.run([*within, "iptables", "-I", *rule], check=True)
    try:
        yield
    finally:
        subprocess.run([*within, "iptables", "-D", *rule], check=True)
