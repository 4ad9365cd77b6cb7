# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A failure is printed once, in words, and without the lines of the play: as ansible-playbook itself prints it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[4]
SENTENCES = [
    'Too little disk: 30.0 GB are needed, and "/var" has 2.1 GB free. Make room.',
    "Port 8000 of 127.0.0.1 is in use by something else.",
]
FOUND = {
    "preflight_findings": SENTENCES[:1],
    "preflight_check": {"findings": SENTENCES[1:]},
}


def output_of(tmp_path: Path, task: dict[str, Any], form: str = "yaml", **variables: Any) -> str:
    """What a play of one task says."""
    page = tmp_path / "play.yml"
    name = {"name": "Do it", **task}
    page.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "vars": variables, "tasks": [name]}]))
    env = {
        **os.environ,
        "ANSIBLE_LOCAL_TEMP": str(tmp_path),
        "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
        "ANSIBLE_CALLBACK_RESULT_FORMAT": form,
    }
    line = [sys.executable, "-m", "ansible.cli.playbook", str(page)]
    done = subprocess.run(line, cwd=CHECKOUT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Origin:" not in done.stdout + done.stderr
    assert "[ERROR]" not in done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_preflights_findings_are_printed_once_and_numbered(tmp_path: Path, form: str) -> None:
    role = {"name": "gpunode.llm.preflight", "tasks_from": "verdict", "rolespec_validate": False}
    text = output_of(tmp_path, {"ansible.builtin.import_role": role}, form, **FOUND)
    assert [text.count(sentence) for sentence in SENTENCES] == [1, 1]
    head = "2 problems found; nothing was changed."
    assert f"\nlocalhost: {head}\n1. {SENTENCES[0]}\n2. {SENTENCES[1]}\n" in text
    assert re.search(rf"FAILED! =>.*{head}", text, re.DOTALL)


def test_a_message_is_printed_once(tmp_path: Path) -> None:
    assert output_of(tmp_path, {"gpunode.llm.refuse": {"msg": SENTENCES[1]}}).count(SENTENCES[1]) == 1


def test_settings_that_cannot_be_read_are_printed_once(tmp_path: Path) -> None:
    text = output_of(tmp_path, {"gpunode.llm.settings_check": {}}, vllm_restart_limit="four", gateway_enabled="maybe")
    assert text.count("vllm_restart_limit must be") == 1
    assert text.count("gateway_enabled must be") == 1


def test_a_plan_that_cannot_be_is_printed_once(tmp_path: Path) -> None:
    text = output_of(tmp_path, {"gpunode.llm.serving_plan": {"model": "8x", "gpus": "1xH100"}})
    # Once as the message, once as the element of `findings` that a play may read.
    assert text.count("is not in the catalogue") == 2


def test_nothing_found_is_no_failure(tmp_path: Path) -> None:
    task = {"gpunode.llm.refuse": {"findings": []}}
    with pytest.raises(AssertionError, match="ok=1"):
        output_of(tmp_path, task)
