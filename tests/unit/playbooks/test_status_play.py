# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What status.yml refuses before it asks a node; and a watch that somebody interrupts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[3]
LOCAL = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable}


def begin(folder: Path, *args: str) -> subprocess.Popen[str]:
    env = {**os.environ, "ANSIBLE_LOCAL_TEMP": str(folder), "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg")}
    play = [sys.executable, "-m", "ansible.cli.playbook", str(CHECKOUT / "playbooks/status.yml")]
    line = [*play, "-e", json.dumps(LOCAL), *args]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(line, cwd=folder, env=env, start_new_session=True, **streams)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-e", "watch=0"], "watch must be a number of seconds above 0, such as 5, not 0."),
        (["-e", '{"watch": 0}'], "watch must be a number of seconds above 0, such as 5, not 0."),
        (["-e", "watch=-5"], "watch must be a number of seconds above 0, such as 5, not -5."),
        (["-e", "watch=5", "-e", "json=a.json"], "so leave out json and status_fail, or watch."),
        (["-e", "watch=5", "-e", "status_fail=yes"], "so leave out json and status_fail, or watch."),
        (
            ["-e", "watch=5", "--forks", "1"],
            "watch looks at all 2 nodes at once, and Ansible works on 1 of them together",
        ),
    ],
)
def test_a_watch_that_cannot_be_is_refused(args: list[str], message: str, tmp_path: Path) -> None:
    play = begin(tmp_path, "-i", "a,b,", *args)
    text = " ".join(play.communicate()[0].split())
    assert play.returncode == 2, text
    assert message in text
    assert "Traceback" not in text
    assert "serves nothing" not in text


def test_a_watch_looks_until_it_is_interrupted(tmp_path: Path) -> None:
    """This machine serves nothing, and says so again and again."""
    play = begin(tmp_path, "-i", "here,", "-e", "watch=0.1")
    assert play.stdout
    lines: list[str] = []
    while sum("here serves nothing." in line for line in lines) < 3:
        line = play.stdout.readline()
        assert line, lines
        lines.append(line)
    os.killpg(play.pid, signal.SIGINT)
    text = "".join([*lines, play.communicate(timeout=120)[0]])
    assert play.returncode == 99, text
    assert "User interrupted execution" in text
    assert "Traceback" not in text


def test_one_look_ends_by_itself(tmp_path: Path) -> None:
    play = begin(tmp_path, "-i", "here,", "-e", "json=a.json", "-e", '{"watch": null}')
    text = play.communicate(timeout=120)[0]
    assert play.returncode == 0, text
    assert f"As JSON: {tmp_path}/a.json" in text
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["nodes"]["here"]["instances"] == []
