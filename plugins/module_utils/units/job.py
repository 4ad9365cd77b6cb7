# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Long work as a transient systemd unit: it outlives the connection, the play and the controller.

A module starts the job, or attaches to the one that runs, looks for a few seconds and returns; the next call looks
again. Nothing here knows of Ansible: the runner, the clock and the sleep are passed in.

The unit is kept after its end (RemainAfterExit, and no --collect), since a unit that systemd has collected no longer
tells how it ended. Whoever reads the outcome calls ``forget``. An outcome that nobody read is not mistaken for that of
a new job: a job is known by its unit's invocation id, and ``start_or_attach`` clears what an earlier run left behind.

The command line of a unit is world-readable and lands in the journal, so a secret goes into ``environment_file``.
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

#: What systemd allows in a unit's name, less the escape character.
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9:_.-]+")
_PROPERTIES = ("LoadState", "ActiveState", "SubState", "Result", "ExecMainStatus", "InvocationID", "ControlGroup")


class JobError(Exception):
    """systemd would not start the job; the message says why."""


@dataclass(frozen=True)
class JobSpec:
    """What to run. ``name`` is the unit's name without ``.service``; see ``unit_name``.

    ``paths``: what it reads and writes. Where one lies on a mount of its own, that is mounted first, or the job is not
    started: it would fill the disk beneath.
    """

    name: str
    argv: Sequence[str]
    description: str
    environment_file: str | None = None
    properties: Mapping[str, str] = field(default_factory=dict)
    paths: Sequence[str] = ()


@dataclass(frozen=True)
class JobState:
    """``state`` is one of absent, running, succeeded, failed. ``invocation`` tells this run of the job from others."""

    state: str
    invocation: str = ""
    exit_status: int | None = None
    result: str = ""
    control_group: str = ""

    @property
    def ended(self) -> bool:
        return self.state in ("succeeded", "failed")


def unit_name(prefix: str, subject: str) -> str:
    """A unit's name that can be read and that stays the same for the same subject.

    >>> unit_name("gpunode-pull", "vllm/vllm-openai:v0.33.0")
    'gpunode-pull-vllm-vllm-openai:v0.33.0'
    """
    return f"{prefix}-{_NOT_IN_A_NAME.sub('-', subject).strip('-')}"[:200]


def parse_state(shown: str) -> JobState:
    """What systemd said of a job's unit."""
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
    # Loaded but inactive: stopped by somebody, or collected between two looks.
    return "absent"


def look(run: Runner, name: str) -> JobState:
    """How the job is now."""
    rc, out, err = run(commands.show(_PROPERTIES, f"{name}.service"))
    if rc != 0:
        raise JobError(f"systemctl show {name}.service failed: {(err or out).strip()}")
    return parse_state(out)


def start_or_attach(run: Runner, spec: JobSpec) -> JobState:
    """Attach to the job if it runs, whoever started it; else clear what is left of an earlier one and start it."""
    now = look(run, spec.name)
    if now.state == "running":
        return now
    if now.state != "absent":
        forget(run, spec.name)
    rc, out, err = run(start_command(spec))
    if rc != 0:
        attached = look(run, spec.name)
        if attached.state == "running":  # somebody else was quicker
            return attached
        raise JobError(f"{spec.description}: systemd would not start {spec.name}.service: {(err or out).strip()}")
    return look(run, spec.name)


def write_code(folder: str, modules: Sequence[ModuleType]) -> None:
    """Copy what a job is made of, under the names that it is imported by: ``PYTHONPATH`` is the folder."""
    for module in modules:
        path = os.path.join(folder, *module.__name__.split(".")) + ".py"
        node_files.write_atomically(path, inspect.getsource(module))


def start_command(spec: JobSpec) -> list[str]:
    """The ``systemd-run`` command line for a job."""
    # Type=exec: systemd-run itself fails when the program is not there, instead of a job that ended at once.
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
    """Those of the paths that say where they are: the others are addresses, or none at all."""
    return [path for path in paths if path and path.startswith("/")]


def _quoted(path: str) -> str:
    """One word of a list, as systemd reads it."""
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"' if re.search(r"[\s\"'\\]", path) else path


def wait(
    run: Runner,
    name: str,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> JobState:
    """Look until the job has ended or the seconds are over."""
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
    """The last lines that the job wrote, oldest first; progress bars that rewrite their line count as lines.

    ``manager``: those of systemd about this run of it as well, such as a time-out.
    """
    run(["journalctl", "--sync"])  # what the program wrote just before its end may still be on its way
    which = [f"_SYSTEMD_INVOCATION_ID={invocation}"] if invocation else ["--unit", f"{name}.service"]
    if invocation and manager:
        which += ["+", f"INVOCATION_ID={invocation}"]
    rc, out, _err = run(["journalctl", "--no-pager", "--quiet", "--all", "--output=cat", f"--lines={lines}", *which])
    if rc != 0:
        return []
    return [line for line in (part.strip() for part in re.split(r"[\r\n]+", out)) if line][-lines:]


def forget(run: Runner, name: str) -> None:
    """Remove an ended job, or end a running one with all its processes, and remove it."""
    run(["systemctl", "stop", f"{name}.service"])
    run(["systemctl", "reset-failed", f"{name}.service"])


def forget_ended(run: Runner, name: str) -> None:
    """Remove what is left of a job that has ended; leave one that runs."""
    if look(run, name).ended:
        forget(run, name)
