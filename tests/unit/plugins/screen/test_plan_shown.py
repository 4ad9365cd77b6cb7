# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""plan_shown in the role's own task, as ansible-playbook shows it: with the role's templates, and no node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[4]
CHECK = {
    "fetch": [{"kind": "weights", "bytes": 16_060_000_000}],
    "disks": [{"paths": ["/var/lib/huggingface"], "free": 900_000_000_000, "bytes": 16_060_000_000}],
}
NAMES = ["/etc/vllm/8b.yaml", "/etc/vllm/8b.env", "/etc/systemd/system/vllm-8b.service"]


def shown(tmp_path: Path, engines: list[dict[str, Any]], *args: str) -> str:
    answer = {
        "vllm_plan": "{{ made | combine({'engines': engines}) }}",
        "vllm_check": CHECK,
        "vllm_link_mbit_s": 1000,
        "vllm_instances": "{{ made.plan.instances }}",
    }
    tasks = [
        {"name": "Plan", "gpunode.llm.serving_plan": {"model": "8b", "gpus": "1xH100"}, "register": "made"},
        {
            "name": "Show",
            "ansible.builtin.import_role": {
                "name": "gpunode.llm.vllm",
                "tasks_from": "show_plan",
                "rolespec_validate": False,
            },
            "vars": answer,
        },
    ]
    facts = {"ansible_facts": {"systemd": {"version": 252}, "distribution": "Debian", "distribution_version": "12"}}
    page = tmp_path / "play.yml"
    play = {"hosts": "localhost", "gather_facts": False, "vars": {"engines": engines, **facts}, "tasks": tasks}
    page.write_text(json.dumps([play]))
    env = {**os.environ, "ANSIBLE_LOCAL_TEMP": str(tmp_path), "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg")}
    line = [sys.executable, "-m", "ansible.cli.playbook", str(page), *args]
    done = subprocess.run(line, cwd=CHECKOUT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("args", [(), ("--check",)])
def test_the_plan_is_shown_without_quotes(tmp_path: Path, args: tuple[str, ...]) -> None:
    lines = shown(tmp_path, [], *args).splitlines()
    at = lines.index("localhost: 1x NVIDIA H100 80GB HBM3, Debian 12")
    assert lines[at + 2] == "  8b: meta-llama/Llama-3.1-8B-Instruct, BF16"
    assert "    layout   TP 1 x PP 1 x 1 replica on GPU 0" in lines
    assert "    restart  no, this is its first start" in lines
    assert "  download  weights 16.1 GB: about 2 min 8 s at 1 Gbit/s" in lines


def test_an_engine_that_was_started_from_other_files_restarts(tmp_path: Path) -> None:
    engine = {"name": "8b", "started_from": dict.fromkeys(NAMES, "00000000")}
    lines = shown(tmp_path, [engine]).splitlines()
    assert "    restart  yes, its configuration, its environment and its unit change" in lines
