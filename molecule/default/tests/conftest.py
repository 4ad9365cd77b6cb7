# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests on a node share: its name, and plays run against it as a user runs them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[3]
NODE = os.environ.get("GPUNODE_LAB_NODES", "molecule-default")
LAB = CHECKOUT / "tests" / "lab" / "lab"


@dataclass(frozen=True)
class Play:
    """How a run of ansible-playbook ended."""

    status: int
    text: str

    @property
    def changed(self) -> int:
        """The recap's own count."""
        return int(re.findall(r"changed=(\d+)", self.text)[-1])


@pytest.fixture(scope="session")
def play() -> Callable[..., Play]:
    """Run site.yml against the node, with further arguments."""

    def run(*args: str) -> Play:
        command = ["ansible-playbook", "-i", "inventories/lab", "site.yml", *args]
        env = {**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "GPUNODE_LAB_NODES": NODE}
        done = subprocess.run(command, cwd=CHECKOUT, env=env, capture_output=True, text=True)
        return Play(done.returncode, done.stdout + done.stderr)

    return run


@pytest.fixture
def board() -> Callable[[str], None]:
    """Put other GPUs into the node; the scenario's own come back after the test."""

    def fit(name: str) -> None:
        subprocess.run([LAB, "fit", NODE, name], check=True, capture_output=True)

    yield fit
    fit("h100x1")
