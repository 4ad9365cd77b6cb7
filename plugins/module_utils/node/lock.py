# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One play at a time on a node: a lease in a folder that only root may read and that a reboot empties.

``held`` names the holder. ``beat`` is the node's uptime at the holder's last renewal: setting the clock does not change
it. Each read or write of either holds flock on the folder. A lease without a renewal for VOID_S seconds is void.
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
#: How often a holder renews its lease, and after how long without a renewal the lease is void. Seconds.
BEAT_S = 10
VOID_S = 60

#: The holder runs these on the node. Both fail if it no longer has the lease.
RENEW = "cd {folder} && flock . sh -c 'grep -qF {id} held && cut -d\" \" -f1 {uptime} >beat'"
RELEASE = "cd {folder} && flock . sh -c 'grep -qF {id} held && rm -f held beat'"

Lease = Dict[str, Any]


def taken(module: Any, me: Lease) -> Dict[str, Lease]:
    """Take the lease and return the module's result; fail the module if the folder cannot be written."""
    try:
        return {"lock": take(me, time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()))}
    except OSError as error:
        module.fail_json(
            msg=f"This play cannot lock the node before it changes it: {error.strerror}: {error.filename or FOLDER}. "
            "It must run as root there: set become: true."
        )
        raise


def take(me: Lease, since: str, folder: Path = FOLDER, uptime: Path = UPTIME) -> Lease:
    """Take the lease if the node is free; return who holds it now.

    ``me`` has the ``id`` of the run of ansible-playbook and a description for people. ``since`` is the time to show.
    The answer has ``beat``, ``mine``, and ``new`` if this call took the lease.
    """
    now = uptime.read_text(encoding="ascii").split()[0]
    with alone(folder):
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
def alone(folder: Path) -> Iterator[None]:
    """Hold flock on a folder, which is made if it does not exist. Raises OSError if it cannot be made or opened."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read(folder: Path) -> Tuple[Lease, str]:
    """The holder and the last renewal; empty if either file is missing or incomplete."""
    try:
        lease = json.loads((folder / "held").read_text(encoding="utf-8"))
        beat = (folder / "beat").read_text(encoding="ascii").strip()
        float(beat)
    except (OSError, ValueError):
        return {}, ""
    return (lease, beat) if isinstance(lease, dict) else ({}, "")


def _alive(beat: str, now: float) -> bool:
    """Whether the lease was renewed in time. A renewal in the future is from before a reboot that kept the folder."""
    return bool(beat) and 0 <= now - float(beat) <= VOID_S
