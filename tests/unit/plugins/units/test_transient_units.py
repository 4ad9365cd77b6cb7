# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Transient units: what is run, and how what systemd says is understood."""

from __future__ import annotations

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.units import job as units_job

ABSENT = "LoadState=not-found\nActiveState=inactive\nSubState=dead\nResult=success\nExecMainStatus=0\nInvocationID=\n"
RUNNING = "LoadState=loaded\nActiveState=active\nSubState=running\nResult=success\nExecMainStatus=0\nInvocationID=aa\n"
STARTING = RUNNING.replace("=active", "=activating").replace("=running", "=start")
SUCCEEDED = RUNNING.replace("SubState=running", "SubState=exited")
FAILED = "LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=exit-code\nExecMainStatus=3\nInvocationID=bb\n"
SPEC = units_job.JobSpec("gpunode-x", ["/bin/x", "a b"], "Fetch x", "/etc/x.env", {"Nice": "5", "CPUWeight": "20"})


class Node:
    """A node whose ``systemctl show`` answers are given, and that records what else was run."""

    def __init__(self, *shown, start_rc=0):
        self.shown = list(shown)
        self.start_rc = start_rc
        self.ran = []

    def __call__(self, argv):
        if argv[:2] == ["systemctl", "show"]:
            return 0, self.shown.pop(0) if len(self.shown) > 1 else self.shown[0], ""
        self.ran.append(list(argv))
        if argv[0] == "systemd-run" and self.start_rc:
            return self.start_rc, "", "Failed to start transient service unit: Unit already exists"
        return 0, "", ""


@pytest.mark.parametrize(
    ("shown", "state", "status"),
    [
        (ABSENT, "absent", None),
        (RUNNING, "running", None),
        (STARTING, "running", None),
        (SUCCEEDED, "succeeded", 0),
        (FAILED, "failed", 3),
        ("LoadState=loaded\nActiveState=inactive\nSubState=dead\n", "absent", None),
        ("", "absent", None),
    ],
)
def test_state(shown, state, status):
    assert (units_job.parse_state(shown).state, units_job.parse_state(shown).exit_status) == (state, status)


def test_a_running_job_is_attached_to_and_not_started_again():
    node = Node(RUNNING)
    assert units_job.start_or_attach(node, SPEC).invocation == "aa"
    assert node.ran == []


@pytest.mark.parametrize("left", [SUCCEEDED, FAILED])
def test_files_of_an_earlier_job_are_removed_before_a_new_one(left):
    node = Node(left, RUNNING)
    assert units_job.start_or_attach(node, SPEC).state == "running"
    assert [argv[:2] for argv in node.ran[:2]] == [["systemctl", "stop"], ["systemctl", "reset-failed"]]
    assert node.ran[2][0] == "systemd-run"


def test_somebody_else_was_quicker():
    assert units_job.start_or_attach(Node(ABSENT, RUNNING, start_rc=1), SPEC).state == "running"


def test_a_refused_start_is_reported():
    with pytest.raises(units_job.JobError, match=r"Fetch x: .*already exists"):
        units_job.start_or_attach(Node(ABSENT, start_rc=1), SPEC)


def test_command_keeps_arguments_whole_and_the_environment_out_of_it():
    command = units_job.start_command(SPEC)
    assert command[command.index("--") + 1 :] == ["/bin/x", "a b"]
    assert "--property=EnvironmentFile=/etc/x.env" in command
    assert not [word for word in command if word.startswith("--setenv")]


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ("vllm/vllm-openai:v0.33.0", "p-vllm-vllm-openai:v0.33.0"),
        ("a b;$(c)%n", "p-a-b-c-n"),
        ("x" * 300, "p-" + "x" * 198),
    ],
)
def test_unit_name(subject, name):
    assert units_job.unit_name("p", subject) == name


def test_wait_is_bounded():
    now = [0.0]
    state = units_job.wait(Node(RUNNING), "x", 5, clock=lambda: now[0], sleep=lambda s: now.__setitem__(0, now[0] + s))
    assert state.state == "running"
    assert 5 <= now[0] < 5.1


def test_wait_ends_with_the_job():
    assert units_job.wait(Node(RUNNING, SUCCEEDED), "x", 5, sleep=lambda s: None).ended


def test_log_tail_splits_progress_bars():
    def run(argv):
        return (0, "one\r 10%\r 20%\ntwo\n", "") if "--lines=2" in argv else (0, "", "")

    assert units_job.log_tail(run, "x", "aa", lines=2) == ["20%", "two"]


def test_a_job_waits_for_the_mounts_of_what_it_uses() -> None:
    paths = units_job.absolute("/srv/hub", None, "", "https://hub.example", '/mnt/my "disk"')
    command = units_job.start_command(units_job.JobSpec("n", ["true"], "d", paths=paths))
    assert r'--property=RequiresMountsFor=/srv/hub "/mnt/my \"disk\""' in command
    assert not [word for word in units_job.start_command(units_job.JobSpec("n", ["true"], "d")) if "Mounts" in word]
