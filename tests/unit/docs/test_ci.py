# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What CI, pre-commit and the devcontainer call is there: make targets and nothing of their own."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[3]
TARGETS = set(re.findall(r"^([a-z-]+):.*##", (CHECKOUT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def steps() -> list[str]:
    """Every command of a workflow, once for each target of its matrix."""
    found = []
    for page in sorted((CHECKOUT / ".github" / "workflows").glob("*.yml")):
        for job in yaml.safe_load(page.read_text(encoding="utf-8"))["jobs"].values():
            targets = job.get("strategy", {}).get("matrix", {}).get("target", [""])
            commands = [step["run"] for step in job["steps"] if "run" in step]
            filled = [c.replace("${{ matrix.target }}", t) for c, t in itertools.product(commands, targets)]
            found += [re.sub(r"\$\{\{.*?\}\}", "x", command) for command in filled]
    hooks = yaml.safe_load((CHECKOUT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    container = json.loads((CHECKOUT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    return [*found, *(hook["entry"] for hook in hooks), container["postCreateCommand"]]


@pytest.mark.parametrize("command", sorted(set(steps())))
def test_a_step_is_a_target_or_a_tool_of_the_venv(command: str) -> None:
    program, *words = command.split()
    if program == "make":
        assert {word for word in words if "=" not in word} <= TARGETS
    else:
        assert program.startswith(".venv/bin/")
