# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast weights arrive: the role, plain `hf download`, and curl as the limit, from one hub over one shaped link.

Then the role and `hf download` again while the link breaks once: when the given share of all bytes has passed, every
connection is reset and new ones are refused for some seconds. `hf download` is started again until it succeeds, as a
patient user would. The role's figure is its whole task (questions to the hub, the unit's start, hashing); the other two
run on the node itself.
It measures and prints; it asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from measured import LAB, Hub, link, outage, play, repository

NODE = "bench-weights"
REPO = "bench/shards"
HUB = "http://hub.gpunode.test"


def on_node(script: str) -> float:
    """Seconds that a root shell script takes on the node."""
    began = time.monotonic()
    done = subprocess.run(
        [LAB, "ssh", NODE, f"sudo sh -euc '{script}'"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"`{script}` ended with {done.returncode}: {done.stderr[-2000:]}")
    return time.monotonic() - began


def total() -> int:
    return args().shards * args().mib * (1 << 20)


def break_link(passed: int) -> None:
    """Wait until the hub has sent so many bytes, and cut it off for a while."""
    while Hub().counters()["total_bytes"] < passed:
        time.sleep(0.2)
    with outage("hub", NODE):
        time.sleep(args().outage)


def curl() -> float:
    names = " ".join(f"-O {HUB}/{REPO}/resolve/main/model-{n:05}.safetensors" for n in range(args().shards))
    return on_node(f"mkdir -p /var/tmp/curl; cd /var/tmp/curl; curl -fsS {names}")


def hf_download() -> float:
    """Until it succeeds: a user whose download failed starts it again."""
    environment = f"HF_ENDPOINT={HUB} HF_HOME=/var/tmp/hf HF_HUB_DISABLE_TELEMETRY=1 HF_HUB_DISABLE_UPDATE_CHECK=1"
    once = f"env {environment} /opt/huggingface-hub/bin/hf download {REPO} --quiet"
    return on_node(f"for try in $(seq 100); do {once} && exit 0; sleep 1; done; exit 1")


def role() -> float:
    variables = json.dumps({"huggingface_home": "/var/tmp/role", "huggingface_instances": [{"repo_id": REPO}]})
    _wall, tasks = play(NODE, "molecule/shared/weights.yml", "-e", variables)
    return sum(seconds for name, seconds, ran in tasks if ran and name.endswith(": Download the weights"))


def measure(title: str, run: Callable[[], float], cut: bool = False) -> float:
    on_node("rm -rf /var/tmp/curl /var/tmp/hf /var/tmp/role; sync")
    Hub().reset()
    breaker = threading.Thread(target=break_link, args=(int(args().cut * total()),))
    if cut:
        breaker.start()
    seconds = run()
    if cut:
        breaker.join()
    twice = 100 * (Hub().counters()["total_bytes"] - total()) / total()
    print(f"{title:34}{seconds:8.1f} s{total() / seconds / 1e6:9.1f} MB/s{twice:8.1f} % sent twice", flush=True)
    return seconds


def args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=6)
    parser.add_argument("--mib", type=int, default=256, help="the size of a shard")
    parser.add_argument("--rate", type=float, default=40, help="the link in MB/s")
    parser.add_argument("--cut", type=float, default=0.6, help="when the link breaks, as a share of all bytes")
    parser.add_argument("--outage", type=float, default=15, help="for how many seconds")
    return parser.parse_args()


def main() -> None:
    subprocess.run([LAB, "up"], check=True)
    subprocess.run([LAB, "remove", NODE], check=True)
    subprocess.run([LAB, "node", NODE], check=True)
    try:
        play(NODE, "molecule/shared/weights.yml", "-e", '{"huggingface_instances": []}')  # the client, and no weights
        with repository(REPO, args().shards, args().mib), link("hub", NODE, args().rate):
            limit = measure("curl", curl)
            plain = measure("hf download", hf_download)
            ours = measure("the role", role)
            plain_cut = measure("hf download, the link broken once", hf_download, cut=True)
            ours_cut = measure("the role, the link broken once", role, cut=True)
        print(f"of curl's rate: hf download {limit / plain:.3f}, the role {limit / ours:.3f}")
        print(f"the role against hf download: {plain / ours:.2f}x, with the cut {plain_cut / ours_cut:.2f}x")
    finally:
        subprocess.run([LAB, "remove", NODE], check=True)


if __name__ == "__main__":
    main()
