# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""confirm=true: a yes goes on, anything else ends before anything changes, and without a terminal nobody is asked."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[3]
ASK = CHECKOUT / "playbooks/tasks/confirm.yml"


def line(tmp_path: Path) -> list[str]:
    tasks = [{"ansible.builtin.include_tasks": str(ASK)}, {"gpunode.llm.show": {"text": "it went on"}}]
    page = tmp_path / "play.yml"
    page.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
    return [sys.executable, "-m", "ansible.cli.playbook", str(page)]


def answered(tmp_path: Path, answer: str) -> tuple[int, str]:
    """The exit status and what a terminal shows, whose user types this when asked."""
    command = line(tmp_path)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(CHECKOUT)
        os.execv(command[0], command)
    output = b""
    with suppress(OSError):  # Linux ends a terminal that nobody holds any more with an error
        while True:
            if select.select([terminal], [], [], 1)[0]:
                if not (more := os.read(terminal, 4096)):
                    break
                output += more
            elif output.rstrip().endswith(b"yes or no:"):
                # Once all is quiet: what was typed before the question is thrown away.
                os.write(terminal, f"{answer}\r".encode())
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output.decode()


@pytest.mark.parametrize("answer", ["yes", "Y"])
def test_a_yes_goes_on(tmp_path: Path, answer: str) -> None:
    status, output = answered(tmp_path, answer)
    assert status == 0, output
    assert "it went on" in output


@pytest.mark.parametrize(
    ("answer", "why"), [("no", "The answer was 'no', not yes."), ("", "needs a yes on a terminal")]
)
def test_anything_else_ends_it(tmp_path: Path, answer: str, why: str) -> None:
    status, output = answered(tmp_path, answer)
    assert status == 2, output
    assert "it went on" not in output
    assert why in " ".join(output.split())


def test_without_a_terminal_the_play_ends_with_one_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        line(tmp_path), cwd=CHECKOUT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert (
        " ".join(done.stdout.split()).count(
            "got none. Leave confirm out where there is no terminal. Nothing was changed."
        )
        == 1
    )
    assert "it went on" not in done.stdout


def test_site_asks_after_the_plan_and_before_the_first_role_that_changes() -> None:
    tasks = yaml.safe_load((CHECKOUT / "playbooks/site.yml").read_text())[0]["tasks"]
    names = [task["name"] for task in tasks]
    (at,) = [n for n, task in enumerate(tasks) if task.get("ansible.builtin.include_tasks") == "tasks/confirm.yml"]
    assert names[at - 1] == "Show the plan"
    # What ends the play where nothing is to be done changes nothing either.
    assert names[at + 1 : at + 4] == [
        "Show that nothing is to be done",
        "End the play for this node, where nothing is to be done",
        "Install the driver, where it is asked for",
    ]
    assert "not ansible_check_mode" in tasks[at]["when"]
