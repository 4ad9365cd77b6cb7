# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One play at a time on a node: the controller's side of ``module_utils/node/lock.py``.

A play is many short sessions, so no process on the node lives as long as the play. On the controller, one process per
node renews the lease over the play's own connection, and removes it when ansible-playbook ends for whatever reason. If
the controller itself is lost, nobody renews the lease, and it expires.
"""

from __future__ import annotations

import getpass
import os
import select
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible import context
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ...module_utils.node.lock import BEAT_S, FOLDER, RELEASE, RENEW, UPTIME
from ..refusal import Refusal

#: Seconds between two attempts of a play that waits for a node.
LOOK_S = 2

Lease = dict[str, Any]


class HeldError(ValueError):
    """Another play holds the lock; the message says which one, since when, and what to do."""


class LockingAction(ActionBase):  # type: ignore[misc]
    """Base of action plugins whose module locks the node; its option and its result are both named ``lock``."""

    def _locked(self, module: str, task_vars: dict[str, Any], timeout_s: float, **args: Any) -> dict[str, Any]:
        """Call the module until it has the lock, then keep the lock. With --check, take no lock."""
        if self._task.check_mode:
            return self._answer(module, args, task_vars)
        me = identity(os.getppid(), task_vars)
        host = task_vars.get("inventory_hostname", "node")
        try:
            result = wait(
                lambda: self._answer(module, {**args, "lock": me}, task_vars),
                timeout_s,
                lambda line: Display().display(f"  {host}: {line}"),
            )
        except HeldError as error:
            raise Refusal(str(error)) from None
        if result["lock"]["new"]:
            start_keeper(os.getppid(), self._command(RENEW, me), self._command(RELEASE, me), self._lock_files())
        return result

    def _answer(self, module: str, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(module_name=module, module_args=dict(args), task_vars=task_vars)
        if result.get("failed"):
            name = module.rpartition(".")[2]
            raise AnsibleActionFail(f"{name} failed on the node: {result.get('msg')}", result=result)
        return result

    def _command(self, text: str, me: Lease) -> Callable[[], None]:
        """A function that runs this command on the node, as the task's user."""
        line = text.format(folder=shlex.quote(str(FOLDER)), uptime=UPTIME, id=me["id"])
        return lambda: self._low_level_execute_command(line)

    def _lock_files(self) -> set[int]:
        """The lock file that Ansible's connections share when they ask about a host key."""
        number = getattr(self._play_context, "connection_lockfd", None)
        return set() if number is None else {number}


def identity(main: int, task_vars: dict[str, Any]) -> Lease:
    """The owner of the lock: the same for all plays of the ansible-playbook process ``main``."""
    machine = socket.gethostname()
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        user = str(os.getuid())
    books = " ".join(os.path.basename(book) for book in context.CLIARGS.get("args") or ())
    job = f"AWX job {task_vars['awx_job_id']}" if task_vars.get("awx_job_id") else ""
    name = f"{machine}-{main}-{_born(main)}"
    number = "".join(letter if letter.isalnum() or letter == "-" else "-" for letter in name)
    return {"id": number, "who": f"{user}@{machine}", "play": books or "a play", "job": job}


def _born(pid: int) -> str:
    """When a process started, in any format: it tells two processes with the same PID apart."""
    try:
        # Field 2, the name, is in brackets and may contain blanks.
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except OSError:
        command = ["ps", "-o", "lstart=", "-p", str(pid)]
        return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()


def wait(
    call: Callable[[], dict[str, Any]],
    timeout_s: float,
    show: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Call until the node is locked; return the last result.

    Only a play that was seen alive counts: the lease of a play whose controller is gone expires during the wait.

    Raises:
        HeldError: another play still renewed its lease after ``timeout_s`` seconds.
    """
    start, last_beat = clock(), None
    while not (result := call())["lock"]["mine"]:
        lease = result["lock"]
        waited = clock() - start
        if last_beat is None:
            show(f"{_holder(lease)}; {'waiting for it' if timeout_s else 'checking whether it still runs'}")
            last_beat = lease["beat"]
        elif lease["beat"] != last_beat and waited >= timeout_s:
            raise HeldError(_refusal(lease, timeout_s))
        sleep(LOOK_S)
    return result


def _holder(lease: Lease) -> str:
    job = f", {lease['job']}" if lease.get("job") else ""
    return f"another play has this node: {lease.get('play')} of {lease.get('who')}{job}, since {lease.get('since')}"


def _refusal(lease: Lease, timeout_s: float) -> str:
    waited = f" This play waited {timeout_s:g} s for it." if timeout_s else ""
    holder = _holder(lease)
    return (
        f"{holder[0].upper()}{holder[1:]}. Nothing was changed.{waited} Run again when it has ended, or wait "
        f"{'longer' if waited else 'for it'} with -e node_lock_timeout_s={max(600, round(timeout_s * 2))}."
    )


def keep(ended: Callable[[float], bool], renew: Callable[[], None], release: Callable[[], None]) -> None:
    """Renew the lease until the play has ended, then release it. ``ended`` waits at most so many seconds."""
    while not ended(BEAT_S):
        with suppress(Exception):  # a broken connection: the next renewal still comes before the lease expires
            renew()
    release()


def start_keeper(main: int, renew: Callable[[], None], release: Callable[[], None], files: set[int]) -> None:
    """Fork a process that keeps the lease until the process ``main`` ends. It has no terminal and prints nothing."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    # This is a copy of Ansible's process: never return into Ansible's code.
    try:
        os.setsid()
        if not os.fork():
            _detach(files)
            keep(_ending(main), renew, release)
    finally:
        os._exit(0)


def _detach(files: set[int]) -> None:
    """Release the play's files: a reader of its output waits until every process that has it open is gone."""
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDWR)
    for number in {int(name) for name in os.listdir("/dev/fd")} - files - {null}:
        # Not closed: a later write to this number must not reach another file.
        with suppress(OSError):
            os.fstat(number)
            os.dup2(null, number, inheritable=number < 3)
    display = Display()
    display._final_q = None
    display.verbosity = 0


def _ending(main: int) -> Callable[[float], bool]:
    """A function that waits at most the given number of seconds for a process to end, and returns whether it has."""
    try:
        handle = os.pidfd_open(main)
    except ProcessLookupError:
        return lambda _seconds: True
    except (AttributeError, OSError):  # not Linux, or a kernel without pidfd
        return lambda seconds: _ends_within(main, seconds)
    return lambda seconds: bool(select.select([handle], [], [], seconds)[0])


def _ends_within(main: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(main, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.5)
    return False
