# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Long work as a transient systemd unit, which does not depend on the connection, the play or the controller.

A module starts the job or attaches to a running one, watches it for a few seconds and returns; the next call watches
again. Nothing here imports Ansible: the runner, the clock and the sleep are passed in.

The unit stays after its end (RemainAfterExit, and no --collect), since a collected unit no longer has a result. The
reader of the result calls ``forget``. An old result is never taken for that of a new job: a job is identified by its
unit's invocation ID, and ``start_or_attach`` removes what an earlier run left.

A unit's command line is world-readable and appears in the journal, so secrets belong in ``environment_file``.
"""

from __future__ import annotations

import inspect
import os
import re
import time
from dataclasses import dataclass, field
from types import ModuleType
from typing import Callable, List, Mapping, Optional, Sequence

from ..node import commands, files as node_files
from ..node.commands import Runner

#: The characters that systemd allows in a unit's name, without the escape character.
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9:_.-]+")
_PROPERTIES = ("LoadState", "ActiveState", "SubState", "Result", "ExecMainStatus", "InvocationID", "ControlGroup")


class JobError(Exception):
    """systemd did not start the job; the message has the reason."""


@dataclass(frozen=True)
class JobSpec:
    """What to run. ``name``: the unit's name without ``.service``; see ``unit_name``.

    ``paths``: what it reads and writes. If one is on a mount, systemd mounts it first or does not start the job, which
    would otherwise fill the disk below the mount point.
    """

    name: str
    argv: Sequence[str]
    description: str
    environment_file: str | None = None
    properties: Mapping[str, str] = field(default_factory=dict)
    paths: Sequence[str] = ()


@dataclass(frozen=True)
class JobState:
    """``state``: absent, running, succeeded or failed. ``invocation`` identifies this run of the job."""

    state: str
    invocation: str = ""
    exit_status: int | None = None
    result: str = ""
    control_group: str = ""

    @property
    def ended(self) -> bool:
        return self.state in ("succeeded", "failed")


def unit_name(prefix: str, subject: str) -> str:
    """A readable name for a unit, always the same for the same subject.

    >>> unit_name("gpunode-pull", "vllm/vllm-openai:v0.33.0")
    'gpunode-pull-vllm-vllm-openai:v0.33.0'
    """
    return f"{prefix}-{_NOT_IN_A_NAME.sub('-', subject).strip('-')}"[:200]


def parse_state(shown: str) -> JobState:
    """The state of a job from the output of systemctl show."""
    (value,) = commands.shown(shown) or [{}]
    state = _state_of(value)
    status = value.get("ExecMainStatus", "")
    return JobState(
        state=state,
        invocation=value.get("InvocationID", ""),
        exit_status=int(status) if status.isdigit() and state in ("succeeded", "failed") else None,
        result=value.get("Result", ""),
        control_group=value.get("ControlGroup", ""),
    )


def _state_of(value: Mapping[str, str]) -> str:
    if value.get("LoadState") == "not-found":
        return "absent"
    active = value.get("ActiveState", "inactive")
    if active == "failed":
        return "failed"
    if active == "active" and value.get("SubState") == "exited":
        return "succeeded"
    if active in ("active", "activating", "deactivating", "reloading"):
        return "running"
    # Loaded but inactive: a user stopped it, or systemd collected it between two checks.
    return "absent"


def look(run: Runner, name: str) -> JobState:
    """The job's current state."""
    rc, out, err = run(commands.show(_PROPERTIES, f"{name}.service"))
    if rc != 0:
        raise JobError(f"systemctl show {name}.service failed: {(err or out).strip()}")
    return parse_state(out)


def start_or_attach(run: Runner, spec: JobSpec) -> JobState:
    """Attach to a running job, whoever started it; else remove what an earlier run left, and start it."""
    now = look(run, spec.name)
    if now.state == "running":
        return now
    if now.state != "absent":
        forget(run, spec.name)
    rc, out, err = run(start_command(spec))
    if rc != 0:
        attached = look(run, spec.name)
        if attached.state == "running":  # another play was faster
            return attached
        raise JobError(f"{spec.description}: systemd did not start {spec.name}.service: {(err or out).strip()}")
    return look(run, spec.name)


def write_code(folder: str, modules: Sequence[ModuleType]) -> None:
    """Copy the files of a job, with the paths of their imports: ``PYTHONPATH`` is the folder."""
    for module in modules:
        path = os.path.join(folder, *module.__name__.split(".")) + ".py"
        node_files.write_atomically(path, inspect.getsource(module))


def start_command(spec: JobSpec) -> list[str]:
    """The ``systemd-run`` command line for a job."""
    # Type=exec: systemd-run itself fails if the program does not exist; else the job would just end at once.
    command = [
        "systemd-run",
        f"--unit={spec.name}",
        f"--description={spec.description}",
        "--service-type=exec",
        "--remain-after-exit",
        "--quiet",
    ]
    properties = dict(spec.properties)
    if spec.environment_file:
        properties["EnvironmentFile"] = spec.environment_file
    if spec.paths:
        properties["RequiresMountsFor"] = " ".join(_quoted(path) for path in spec.paths)
    command += [f"--property={key}={properties[key]}" for key in sorted(properties)]
    return [*command, "--", *spec.argv]


def absolute(*paths: Optional[str]) -> List[str]:
    """The absolute paths among these: others are addresses, or None."""
    return [path for path in paths if path and path.startswith("/")]


def _quoted(path: str) -> str:
    """One word of a list in systemd's syntax."""
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"' if re.search(r"[\s\"'\\]", path) else path


def wait(
    run: Runner,
    name: str,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> JobState:
    """Watch the job until it has ended or the seconds are over."""
    deadline = clock() + seconds
    pause = 0.2
    while True:
        now = look(run, name)
        left = deadline - clock()
        if now.state != "running" or left <= 0:
            return now
        sleep(min(pause, left))
        pause = min(pause * 1.5, 2.0)


def log_tail(run: Runner, name: str, invocation: str = "", lines: int = 50, manager: bool = False) -> list[str]:
    """The last lines of the job's log, oldest first. Progress bars that rewrite their line count as lines.

    ``manager``: include systemd's lines on this run, such as a time-out.
    """
    run(["journalctl", "--sync"])  # the last lines may not be in the journal yet
    which = [f"_SYSTEMD_INVOCATION_ID={invocation}"] if invocation else ["--unit", f"{name}.service"]
    if invocation and manager:
        which += ["+", f"INVOCATION_ID={invocation}"]
    rc, out, _err = run(["journalctl", "--no-pager", "--quiet", "--all", "--output=cat", f"--lines={lines}", *which])
    if rc != 0:
        return []
    return [line for line in (part.strip() for part in re.split(r"[\r\n]+", out)) if line][-lines:]


def forget(run: Runner, name: str) -> None:
    """Remove an ended job; end a running one with all its processes, then remove it."""
    run(["systemctl", "stop", f"{name}.service"])
    run(["systemctl", "reset-failed", f"{name}.service"])


def forget_ended(run: Runner, name: str) -> None:
    """Remove what an ended job left; leave a running one."""
    if look(run, name).ended:
        forget(run, name)
