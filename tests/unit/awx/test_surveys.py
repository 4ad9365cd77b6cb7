# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What AWX asks is what the catalogue, the planner and the playbooks take."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[3]
# Where each survey's answers are taken.
PLAYBOOKS = {"plan": "plan.yml", "serve": "tasks/decide.yml", "teardown": "teardown.yml"}


def test_the_surveys_are_in_step() -> None:
    spec = importlib.util.spec_from_file_location("make_surveys", CHECKOUT / "awx" / "make_surveys.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert made.SURVEYS.read_text(encoding="utf-8") == made.page(), "run make surveys"


@pytest.mark.parametrize("name", PLAYBOOKS)
def test_a_playbook_knows_what_is_asked(name: str) -> None:
    surveys = yaml.safe_load((CHECKOUT / "awx" / "surveys.yml").read_text(encoding="utf-8"))["awx_surveys"]
    playbook = (CHECKOUT / "playbooks" / PLAYBOOKS[name]).read_text(encoding="utf-8")
    for question in surveys[name]["spec"]:
        uses = re.findall(rf"\b{question['variable']} \| default\(.*?\)", playbook)
        assert uses, question["variable"]
        # AWX may send an optional question that nobody answered as an empty text.
        assert question["required"] or all(", true)" in use for use in uses), uses
