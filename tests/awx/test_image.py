# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The execution environment's definition is one that ansible-builder makes a context from, the whole of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml
from content import CHECKOUT

FOLDER = CHECKOUT / "execution-environment"


def test_a_context_is_made(tmp_path: Path) -> None:
    made = ["ansible-builder", "create", "--context", str(tmp_path), "--output-filename", "Containerfile"]
    done = subprocess.run(made, cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    definition = yaml.safe_load((FOLDER / "execution-environment.yml").read_text(encoding="utf-8"))
    containerfile = (tmp_path / "Containerfile").read_text(encoding="utf-8")
    wanted = definition["dependencies"]
    for text in (
        definition["images"]["base_image"]["name"],
        wanted["python_interpreter"]["package_system"],
        wanted["ansible_core"]["package_pip"],
        wanted["ansible_runner"]["package_pip"],
    ):
        assert text in containerfile
    assert (tmp_path / "_build" / "bindep.txt").read_text() == (FOLDER / "bindep.txt").read_text()
    assert (tmp_path / "_build" / "requirements.txt").read_text() == (CHECKOUT / "requirements-report.txt").read_text()
