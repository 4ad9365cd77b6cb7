# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What it gains that the weights come while Docker and the engine's image do: the first converge of a fresh node, as
site.yml is and with its early start of the weights taken out, so that the same steps follow one another.

The hub and the registry each send at a given rate, as sites do that limit a client. The model is the tiny one with
ballast beside it, so that its weights take as long as the image. It measures and prints; it asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import yaml
from measured import CHECKOUT, LAB, link, play, repository

NODE = "bench-overlap"
REPO = "bench/tiny-with-ballast"


def first_converge(playbook: str, variables: str, rate: float) -> float:
    """Seconds from a fresh node to the model's answer, over links of a rate in MB/s."""
    subprocess.run([LAB, "remove", NODE], check=True)
    subprocess.run([LAB, "node", NODE], check=True)
    with link("hub", NODE, rate), link("registry", NODE, rate):
        wall, tasks = play(NODE, playbook, "-e", variables)
    print(f"{Path(playbook).name}: {wall:.0f} s")
    for name, seconds, _ran in sorted(tasks, key=lambda task: -task[1])[:5]:
        print(f"  {seconds:7.1f} s  {name}", flush=True)
    return wall


def series() -> str:
    """site.yml's play without the task that begins with the weights."""
    plays = yaml.safe_load((CHECKOUT / "playbooks" / "site.yml").read_text())
    tasks = plays[0]["tasks"]
    kept = [task for task in tasks if task["name"] != "Start to download the weights"]
    assert len(kept) == len(tasks) - 1, "site.yml no longer names the task that begins with the weights"
    return yaml.safe_dump([{**plays[0], "tasks": kept}, *plays[1:]], sort_keys=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=4, help="each link in MB/s")
    parser.add_argument("--mib", type=int, default=960, help="the ballast; the engine's image is some 960 MiB")
    args = parser.parse_args()
    subprocess.run([LAB, "up"], check=True)
    entry = yaml.safe_load((CHECKOUT / "catalog" / "models.yml").read_text())["models"]["tiny"]
    variables = json.dumps({"model": "ballast", "vllm_extra_models": {"ballast": {**entry, "repo_id": REPO}}})
    try:
        with (
            repository(REPO, 4, args.mib // 4, base="gpunode/tiny-llama"),
            tempfile.NamedTemporaryFile("w", prefix="series-", suffix=".yml", dir=CHECKOUT / "playbooks") as apart,
        ):
            apart.write(series())
            apart.flush()
            overlapped = first_converge("site.yml", variables, args.rate)
            one_by_one = first_converge(apart.name, variables, args.rate)
        print(f"overlapped {overlapped:.0f} s, in series {one_by_one:.0f} s: {overlapped / one_by_one:.2f}")
    finally:
        subprocess.run([LAB, "remove", NODE], check=True)


if __name__ == "__main__":
    main()
