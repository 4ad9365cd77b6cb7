# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the project's checks one after the other, each in view, all of them even where one fails.

``run.py`` runs what ``make test`` promises, ``--all`` adds what takes longer, ``--only GROUP`` runs one group.
The last line counts: ``12 passed, 0 failed``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
LAB = CHECKOUT / "tests" / "lab" / "lab"


@dataclass(frozen=True)
class Check:
    """One command that must end with 0."""

    group: str
    name: str
    command: tuple[str, ...]
    long: bool = False
    needs_lab: bool = False


# What a check ends with that this machine lacks something for.
SKIPPED = 77


def scenario(name: str) -> Check:
    """A scenario of Molecule's that takes longer."""
    return Check(f"molecule-{name}", f"Molecule: {name}", ("molecule", "test", "-s", name), long=True, needs_lab=True)


UNIT_TESTS = ("pytest", "-n", "auto", "tests/unit")

CHECKS = (
    Check("lint", "yamllint", ("yamllint", "--strict", ".")),
    Check("lint", "ansible-lint", ("ansible-lint", "--offline")),
    Check("lint", "ruff", ("ruff", "check", ".")),
    Check("lint", "mypy --strict on the core", ("mypy",)),
    Check("unit", "unit tests", (*UNIT_TESTS, "--cov", "--cov-report=term")),
    Check("docs", "every command of the README and the guides", ("pytest", "tests/docs")),
    Check("docs", "the documentation's site, and its planner in a browser", ("tests/site/run.sh",), long=True),
    Check("docs", "the Grafana dashboard, made again", ("docs/dashboard.sh", "--check"), long=True),
    Check("sanity", "ansible-test sanity", ("tests/sanity/run.sh", "sanity"), long=True),
    Check("sanity", "ansible-test units", ("tests/sanity/run.sh", "units"), long=True),
    Check("newer", "unit tests on the newest ansible-core", ("tests/newer.sh", *UNIT_TESTS), long=True),
    Check("newer", "sanity of the newest ansible-core", ("tests/newer.sh", "tests/sanity/run.sh", "sanity"), long=True),
    Check("newer", "used from the newest ansible-core", ("tests/newer.sh", "tests/artefact.sh"), long=True),
    Check("artefact", "built, installed and used elsewhere", ("tests/artefact.sh",)),
    Check("awx", "what AWX is given, and its jobs", ("tests/awx/run.sh",), long=True, needs_lab=True),
    Check("engine", "every rendered configuration in vLLM's own parser", ("pytest", "tests/engine"), long=True),
    Check("molecule", "Molecule: default", ("molecule", "test", "-s", "default"), needs_lab=True),
    Check(
        "molecule-debian13",
        "Molecule: default on Debian 13",
        ("env", "MOLECULE_PLATFORM=debian13", "MOLECULE_NODE=molecule-debian13", "molecule", "test", "-s", "default"),
        long=True,
        needs_lab=True,
    ),
    Check(
        "molecule-newer",
        "Molecule: default with the newest ansible-core",
        ("env", "MOLECULE_NODE=molecule-newer", "tests/newer.sh", "molecule", "test", "-s", "default"),
        long=True,
        needs_lab=True,
    ),
    *(scenario(name) for name in ("huggingface", "seed", "bundle")),
    *(scenario(name) for name in ("docker", "nvidia_container_toolkit", "redhat", "lambda", "alternative")),
    *(
        scenario(name)
        for name in ("vllm", "models", "nodes", "returns", "gateway", "operations", "upgrade", "benchmark")
    ),
    *(scenario(name) for name in ("address", "fleet", "driver", "monitoring")),
    Check(
        "kill-anywhere",
        "killed before a task and run again: the same node (KILL_POINTS=all for every death)",
        ("python", "tests/kill_anywhere/kill_anywhere.py"),
        long=True,
        needs_lab=True,
    ),
)


def run(check: Check) -> str:
    """Run one check with its output in view; say how it ended and how long it took."""
    print(f"\n=== {check.group}: {check.name}", flush=True)
    began = time.monotonic()
    status = subprocess.run(check.command, cwd=CHECKOUT, check=False).returncode
    ended = {0: "passed", SKIPPED: "skipped"}.get(status, "FAILED")
    print(f"=== {check.name}: {ended} in {time.monotonic() - began:.0f} s", flush=True)
    return ended


def lab_is_up() -> bool:
    command = ["docker", "ps", "-q", "-f", "label=gpunode-lab"]
    containers = subprocess.run(command, capture_output=True, text=True, check=False)
    return bool(containers.stdout.strip())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="what takes longer, too")
    parser.add_argument("--only", choices=sorted({c.group for c in CHECKS}), help="one group")
    args = parser.parse_args()
    os.environ["ANSIBLE_CONFIG"] = str(CHECKOUT / "ansible.cfg")
    chosen = [c for c in CHECKS if args.only == c.group or (not args.only and (args.all or not c.long))]
    needed = any(c.needs_lab for c in chosen)
    ours = needed and not lab_is_up()
    results: dict[Check, str] = {}
    try:
        # Before the first of them: a machine with no Docker running has no node to destroy, list or create either.
        if needed:
            subprocess.run([LAB, "up"], check=True)
        for check in chosen:
            results[check] = run(check)
    finally:
        if ours:  # what was up before stays up
            subprocess.run([LAB, "down"], check=False)
    failed, skipped = ([c.name for c in chosen if results.get(c, "FAILED") == how] for how in ("FAILED", "skipped"))
    print(f"\n{'failed: ' + ', '.join(failed) if failed else 'all is well'}")
    passed = f"{len(chosen) - len(failed) - len(skipped)} passed, {len(failed)} failed"
    print(passed + (f", {len(skipped)} skipped" if skipped else ""))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
