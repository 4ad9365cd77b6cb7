# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One play at a time on a node: a lease in a folder that only root reads and that a restart of the node empties.

``held`` says who has it. ``beat`` is the node's uptime at the holder's last sign of life: no step of a clock moves it.
Whoever reads or writes either holds the folder's own lock meanwhile. A lease with no sign of life for VOID_S is void.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, Tuple

FOLDER = Path("/run/gpunode/play")
UPTIME = Path("/proc/uptime")
#: How often a holder gives a sign of life, and after how long without one the node is free. Seconds.
BEAT_S = 10
VOID_S = 60

#: What the holder runs on the node. Both end with another status than 0 where the lease is not its own any more.
RENEW = "cd {folder} && flock . sh -c 'grep -qF {id} held && cut -d\" \" -f1 {uptime} >beat'"
RELEASE = "cd {folder} && flock . sh -c 'grep -qF {id} held && rm -f held beat'"

Lease = Dict[str, Any]


def taken(module: Any, me: Lease) -> Dict[str, Lease]:
    """What a module returns of it; a module that may not take it fails."""
    try:
        return {"lock": take(me, time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()))}
    except OSError as error:
        module.fail_json(
            msg=f"This play cannot say on the node that it changes it: {error.strerror}: {error.filename or FOLDER}. "
            "It has to be root there (become: true)."
        )
        raise


def take(me: Lease, since: str, folder: Path = FOLDER, uptime: Path = UPTIME) -> Lease:
    """Take the node where it is free; return who has it now.

    ``me`` has the ``id`` of the run of ansible-playbook and what tells people of it. ``since`` is the time to show.
    The answer has ``beat``, ``mine``, and ``new`` where this call took it.
    """
    now = uptime.read_text(encoding="ascii").split()[0]
    with _alone(folder):
        lease, beat = _read(folder)
        mine = lease.get("id") == me["id"]
        new = not _alive(beat, float(now))
        if new:
            lease, mine = {**me, "since": since}, True
            (folder / "held").write_text(json.dumps(lease), encoding="utf-8")
        if mine:
            beat = now
            (folder / "beat").write_text(beat, encoding="ascii")
    return {**lease, "beat": beat, "mine": mine, "new": new}


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read(folder: Path) -> Tuple[Lease, str]:
    """Who has it and the last sign of life; nothing where either was never written or not to its end."""
    try:
        lease = json.loads((folder / "held").read_text(encoding="utf-8"))
        beat = (folder / "beat").read_text(encoding="ascii").strip()
        float(beat)
    except (OSError, ValueError):
        return {}, ""
    return (lease, beat) if isinstance(lease, dict) else ({}, "")


def _alive(beat: str, now: float) -> bool:
    """A sign of life from the future is one of before a restart, where the folder outlived that."""
    return bool(beat) and 0 <= now - float(beat) <= VOID_S
