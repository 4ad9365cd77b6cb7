# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the roles up to the weights cost with nothing to do, over 1, 8 and 24 nodes in one play.

The play is site.yml as it is, cut off before it serves. A light node is a node of the lab on which that play has run:
its systemd, ssh, packages, running Docker, toolkit and weights are real. One is converged, the others are copies of it.
Light is the image in each copy's Docker: it has the engine image's name and holds one small program, since 24 engines
would want 100 GB. All nodes and the controller share this machine's cores, so the figures say how the play's cost grows
with the number of nodes, and are an upper bound for nodes with cores of their own.

--router measures the whole of site.yml over a fleet: engines that answer as vLLM does without a model, the gateway and
the router on the first node. Its first run over the copies is no part of the figures.

It measures and prints; it asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import yaml
from measured import CHECKOUT, LAB, play
from scenario import docker

sys.path[:0] = [str(CHECKOUT / "tests" / "lab"), str(CHECKOUT / "tests" / "kill_anywhere")]
import nodes
from kill_anywhere import IMAGE, push_light_engine

COPY = "gpunode-lab/light-node:bench"
# How many of these one user may hold. Every systemd takes some, and 21 nodes use up the 128 of the kernel.
WATCHES = Path("/proc/sys/fs/inotify/max_user_instances")
ARGUMENTS = ("-e", "model=tiny", "-e", f"vllm_image={IMAGE}")
# What makes them a fleet. A gateway's own engine listens on loopback, and the others where the router reaches them.
FLEET = {
    "gateway_enabled": "{{ inventory_hostname == 'light-0' }}",
    "gateway_keys": {"bench": "sk-client-of-a-bench-0123456789"},
    "router_enabled": True,
    "router_hosts": ["light-0"],
    "vllm_api_keys": ["sk-engine-of-a-bench-0123456789"],
    "vllm_host": "{{ '127.0.0.1' if inventory_hostname == 'light-0' else '0.0.0.0' }}",
}
PING = "- hosts: all\n  gather_facts: false\n  tasks:\n    - name: Ping\n      ansible.builtin.ping:\n"
# A root file system of one program, under the name of the engine's image.
RUNNING = "until docker info >/dev/null 2>&1; do sleep 0.5; done; "
IMPORT = (
    f"{RUNNING} tar -P -ch /usr/bin/sleep $(ldd /usr/bin/sleep | grep -o '/[^ ]*') | docker import - {IMAGE} >/dev/null"
)


@contextmanager
def up_to_the_weights() -> Iterator[Path]:
    """site.yml without what serves, beside it, where the files that it includes are found."""
    site, _router = yaml.safe_load((CHECKOUT / "playbooks" / "site.yml").read_text())
    names = [task["name"] for task in site["tasks"]]
    site["tasks"] = site["tasks"][: names.index("Start the services")]
    with tempfile.NamedTemporaryFile("w", prefix=".bench-", suffix=".yml", dir=CHECKOUT / "playbooks") as page:
        yaml.safe_dump([site], page, sort_keys=False)
        page.flush()
        yield Path(page.name)


@contextmanager
def watches_for(count: int) -> Iterator[None]:
    """Room for the systemds of that many nodes, given back at the end."""
    before = WATCHES.read_text()
    WATCHES.write_text(str(max(int(before), 128 + 16 * count)))
    try:
        yield
    finally:
        WATCHES.write_text(before)


def first(name: str, playbook: Path) -> None:
    """Converge one node, and keep a copy of it."""
    nodes.create(name)
    play(name, str(playbook), *ARGUMENTS)
    subprocess.run([*nodes.ssh_command(name), "sudo systemctl stop docker docker.socket containerd; sync"], check=True)
    docker("commit", nodes.container(name), COPY)
    nodes.remove(name)


def copies(names: list[str], prepare: str) -> None:
    """The nodes of the bench, each with a Docker of its own that was prepared."""
    nodes.image = lambda _platform: COPY

    def make(name: str) -> None:
        nodes.create(name)
        nodes.within(name, prepare, "")

    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(make, names))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 8, 24])
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured; the median is shown")
    parser.add_argument("--forks", type=int, default=24, help="nodes that ansible works on at a time")
    parser.add_argument("--router", action="store_true", help="a fleet with a router, and all of site.yml")
    args = parser.parse_args()
    os.environ["ANSIBLE_FORKS"] = str(args.forks)
    names = [f"light-{number}" for number in range(max(args.sizes))]
    subprocess.run([LAB, "up"], check=True)
    push_light_engine()
    try:
        with (
            watches_for(len(names)),
            up_to_the_weights() as playbook,
            tempfile.NamedTemporaryFile("w", suffix=".yml") as ping,
        ):
            ping.write(PING)
            ping.flush()
            first("light-first", playbook)
            copies(names, RUNNING if args.router else IMPORT)
            measured = [str(playbook), *ARGUMENTS]
            if args.router:
                measured = ["site.yml", *ARGUMENTS, "-e", json.dumps(FLEET)]
            for size in args.sizes:
                report(size, " ".join(names[:size]), ping.name, measured, args.rounds)
    finally:
        subprocess.run([LAB, "remove", "light-first", *names], check=True)
        subprocess.run(["docker", "rmi", COPY], check=False, stdout=subprocess.DEVNULL)


def report(size: int, names: str, ping: str, measured: list[str], rounds: int) -> None:
    play(names, ping)  # the connections' first use is no part of it
    play(names, *measured)
    floor = statistics.median(play(names, ping)[0] for _round in range(rounds))
    wall = statistics.median(play(names, *measured)[0] for _round in range(rounds))
    print(f"{size:3} nodes  {wall:7.2f} s  {wall / size:6.2f} s a node    ping {floor:6.2f} s", flush=True)


if __name__ == "__main__":
    main()
