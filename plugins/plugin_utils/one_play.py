# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One play at a time on a node: the controller's side of ``module_utils/node/lock.py``.

A play is many short sessions, so nothing on the node lives as long as it does. A process beside ansible-playbook, one
for each node, renews the lease over the play's own connection, and removes it as soon as ansible-playbook has ended,
however that came about. Where the whole controller is gone, nobody renews, and the lease is void.
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

from ..module_utils.node.lock import BEAT_S, FOLDER, RELEASE, RENEW, UPTIME
from .refusal import Refusal

#: How often a play that waits asks again. Seconds.
LOOK_S = 2

Lease = dict[str, Any]


class HeldError(ValueError):
    """Another play has the node; the message says which, since when, and what to do."""


class LockingAction(ActionBase):  # type: ignore[misc]
    """Base of the action plugins whose module takes the node with the option ``lock`` and returns it as ``lock``."""

    def _locked(self, module: str, task_vars: dict[str, Any], timeout_s: float, **args: Any) -> dict[str, Any]:
        """Call the module until the node is this play's, and keep it so. With --check nothing changes: no lock."""
        if self._task.check_mode:
            return self._answer(module, args, task_vars)
        me = identity(os.getppid(), task_vars)
        host = task_vars.get("inventory_hostname", "node")
        try:
            said = wait(
                lambda: self._answer(module, {**args, "lock": me}, task_vars),
                timeout_s,
                lambda line: Display().display(f"  {host}: {line}"),
            )
        except HeldError as error:
            raise Refusal(str(error)) from None
        if said["lock"]["new"]:
            start_keeper(os.getppid(), self._command(RENEW, me), self._command(RELEASE, me), self._lock_files())
        return said

    def _answer(self, module: str, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        said: dict[str, Any] = self._execute_module(module_name=module, module_args=args, task_vars=task_vars)
        if said.get("failed"):
            raise AnsibleActionFail(f"{module.rpartition('.')[2]} failed on the node: {said.get('msg')}", result=said)
        return said

    def _command(self, text: str, me: Lease) -> Callable[[], None]:
        """A call of this on the node, as the task's own user."""
        line = text.format(folder=shlex.quote(str(FOLDER)), uptime=UPTIME, id=me["id"])
        return lambda: self._low_level_execute_command(line)

    def _lock_files(self) -> set[int]:
        """The file through which connections agree on who asks about a host's key."""
        number = getattr(self._play_context, "connection_lockfd", None)
        return set() if number is None else {number}


def identity(main: int, task_vars: dict[str, Any]) -> Lease:
    """Who takes the node: the same for all plays of one run of ansible-playbook, whose process is ``main``."""
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
    """When a process began, in whatever form tells two with the same number apart."""
    try:
        # The name, which may hold blanks, is in brackets.
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except OSError:
        asked = ["ps", "-o", "lstart=", "-p", str(pid)]
        return subprocess.run(asked, check=False, capture_output=True, text=True).stdout.strip()


def wait(
    call: Callable[[], dict[str, Any]],
    timeout_s: float,
    show: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Call until the node is taken; what the last call said.

    Only who was seen alive stands in the way: the lease of a play whose controller is gone becomes void meanwhile.

    Raises:
        HeldError: another play was alive when ``timeout_s`` seconds were over.
    """
    began, seen = clock(), None
    while not (said := call())["lock"]["mine"]:
        lease = said["lock"]
        waited = clock() - began
        if seen is None:
            show(f"{_told(lease)}; {'waiting for it' if timeout_s else 'seeing whether it still runs'}")
            seen = lease["beat"]
        elif lease["beat"] != seen and waited >= timeout_s:
            raise HeldError(_refusal(lease, timeout_s))
        sleep(LOOK_S)
    return said


def _told(lease: Lease) -> str:
    job = f", {lease['job']}" if lease.get("job") else ""
    return f"another play has this node: {lease.get('play')} of {lease.get('who')}{job}, since {lease.get('since')}"


def _refusal(lease: Lease, timeout_s: float) -> str:
    waited = f" This play waited {timeout_s:g} s for it." if timeout_s else ""
    told = _told(lease)
    return (
        f"{told[0].upper()}{told[1:]}. Nothing was changed.{waited} Run again when it has ended, or wait "
        f"{'longer' if waited else 'for it'} with -e node_lock_timeout_s={max(600, round(timeout_s * 2))}."
    )


def keep(ended: Callable[[float], bool], renew: Callable[[], None], release: Callable[[], None]) -> None:
    """Renew until it has ended, which ``ended`` waits for as long as it is told; then release."""
    while not ended(BEAT_S):
        with suppress(Exception):  # a connection that broke; the next sign of life is in time
            renew()
    release()


def start_keeper(main: int, renew: Callable[[], None], release: Callable[[], None], files: set[int]) -> None:
    """Fork a process that keeps the lease until the process ``main`` has ended. It has no terminal, and is silent."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    # From here on nothing returns into ansible, whose process this is a copy of.
    try:
        os.setsid()
        if not os.fork():
            _detach(files)
            keep(_ending(main), renew, release)
    finally:
        os._exit(0)


def _detach(files: set[int]) -> None:
    """Let go of all that is the play's: whoever reads its output waits for the last one that could write there."""
    for told in (signal.SIGINT, signal.SIGTERM):
        signal.signal(told, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDWR)
    for number in {int(name) for name in os.listdir("/dev/fd")} - files - {null}:
        # Not closed: what still writes to that number must not meet another file.
        with suppress(OSError):
            os.fstat(number)
            os.dup2(null, number, inheritable=number < 3)
    display = Display()
    display._final_q = None
    display.verbosity = 0


def _ending(main: int) -> Callable[[float], bool]:
    """Waits up to so many seconds for the end of a process; whether it has ended."""
    try:
        handle = os.pidfd_open(main)
    except ProcessLookupError:
        return lambda _seconds: True
    except (AttributeError, OSError):  # no Linux, or one that does not know it
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
