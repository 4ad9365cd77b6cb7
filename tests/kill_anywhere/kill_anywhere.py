# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill site.yml before a task, on a fresh node, run it again to its end, and compare the node with one that was never
interrupted.

A play that dies leaves what it had done to the node, and nothing else: so deaths between two changes of the node are
the same death, and one of each is tried. KILL_POINTS says how many of them (8, spread over the play), or `all`.

What makes it affordable: the engine is a server that answers as one does (tests/lab/images/light_engine.py), so that an
image takes seconds to pull and to start. Packages, signatures, Docker, registry, hub, weights, systemd, ssh are real.
"""

from __future__ import annotations

import difflib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
sys.path[:0] = [str(CHECKOUT / "molecule" / "shared"), str(CHECKOUT / "tests" / "lab")]
import engine
from scenario import LAB, docker

NODE = os.environ.get("KILL_NODE", "kill")
IMAGE = "registry.gpunode.test:5000/gpunode/light-engine:1"


def push_light_engine() -> None:
    """Have the registry hold it."""
    recipe = engine.LAB / "images" / "light.sh"
    source = engine.LAB / "images" / "light_engine.py"
    entry = ('ENTRYPOINT ["/usr/local/bin/vllm", "serve"]',)
    built = engine.bake("light", engine.base("bookworm"), recipe, source, changes=entry)
    port = docker("port", "gpunode-lab-registry", "5000/tcp").splitlines()[0].rpartition(":")[2]
    there = f"127.0.0.1:{port}/{IMAGE.partition('/')[2]}"
    docker("tag", built, there)
    docker("push", "-q", there)
    docker("rmi", there)


def fresh_node() -> None:
    for command in (("remove", NODE), ("node", NODE, "--board=h100x1")):
        subprocess.run([LAB, *command], check=True, stdout=sys.stderr)


def play(before: int = 0) -> tuple[int, list[dict[str, object]]]:
    """Run site.yml, to its death where one is asked for: its exit status, and the tasks with what they changed."""
    with tempfile.NamedTemporaryFile() as tasks, tempfile.TemporaryFile("w+") as output:
        env = {
            **os.environ,
            "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
            "GPUNODE_LAB_NODES": NODE,
            "ANSIBLE_CALLBACK_PLUGINS": str(HERE / "callback"),
            "ANSIBLE_CALLBACKS_ENABLED": "killed",
            "KILL_TASKS": tasks.name,
            "KILL_BEFORE": str(before),
        }
        line = [
            "ansible-playbook",
            "-i",
            "inventories/lab",
            "site.yml",
            "-e",
            "model=tiny",
            "-e",
            f"vllm_image={IMAGE}",
        ]
        # A session of its own: the kill reaches the play and what it started, and not this program.
        run = subprocess.run(
            line, cwd=CHECKOUT, env=env, start_new_session=True, check=False, stdout=output, stderr=subprocess.STDOUT
        )
        if run.returncode not in (0, -signal.SIGKILL):
            output.seek(0)
            sys.stderr.write(output.read()[-6000:])
        return run.returncode, [json.loads(text) for text in Path(tasks.name).read_text().splitlines()]


def digest() -> list[str]:
    """What the node has come to."""
    script = (HERE / "digest.sh").read_text()
    done = subprocess.run(
        [LAB, "ssh", NODE, "sudo sh -s"], input=script, capture_output=True, text=True, check=True, cwd=CHECKOUT
    )
    return done.stdout.splitlines()


def deaths(tasks: list[dict[str, object]]) -> list[int]:
    """One task to die before for each state that the node goes through: the first after every change."""
    changed = {int(str(task["number"])) for task in tasks if task.get("changed")}
    last = max(int(str(task["number"])) for task in tasks)
    return [1, *sorted(number + 1 for number in changed if number < last)]


def sample(points: list[int], wanted: str) -> list[int]:
    """As many as are wanted, spread evenly, the first and the last among them."""
    count = len(points) if wanted == "all" else min(int(wanted), len(points))
    if count < 2:
        return points[:count]
    return sorted({points[round(index * (len(points) - 1) / (count - 1))] for index in range(count)})


def differs(undisturbed: list[str], now: list[str]) -> list[str]:
    lines = difflib.unified_diff(undisturbed, now, "never interrupted", "killed and run again", lineterm="", n=0)
    return [line for line in lines if not line.startswith("@@")]


def die_and_go_on(before: int, undisturbed: list[str]) -> list[str]:
    """What is wrong with a node on which the play died once; nothing where all is well."""
    fresh_node()
    status, _tasks = play(before)
    if status != -signal.SIGKILL:
        return [f"the play was to die before task {before}, and ended with {status}"]
    status, _tasks = play()
    return differs(undisturbed, digest()) if status == 0 else [f"the second run ended with {status}"]


def main() -> int:
    subprocess.run([LAB, "up"], check=True)
    push_light_engine()
    bad = 0
    try:
        fresh_node()
        status, tasks = play()
        if status != 0:
            raise SystemExit("the play that is never interrupted failed")
        undisturbed = digest()
        names = {task["number"]: task["name"] for task in tasks if "name" in task}
        points = deaths(tasks)
        chosen = sample(points, os.environ.get("KILL_POINTS", "8"))
        print(
            f"{len(names)} tasks, {len(points)} states between them; {len(chosen)} deaths; {len(undisturbed)} facts",
            flush=True,
        )
        for before in chosen:
            began = time.monotonic()
            wrong = die_and_go_on(before, undisturbed)
            bad += bool(wrong)
            print(
                f"{'FAILED' if wrong else 'ok':7}{time.monotonic() - began:5.0f} s  before {before:3} {names[before]}"
            )
            print("".join(f"        {line}\n" for line in wrong[:40]), end="", flush=True)
    finally:
        subprocess.run([LAB, "remove", NODE], check=True)
    print(f"killed before {len(chosen)} tasks: {len(chosen) - bad} times the same node, {bad} times another")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
