# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""For how long something has lasted, by a clock that nobody sets, also between processes of a node.

What a node calls the time may jump by years, when it is first told by the network. A duration within one process takes
``time.monotonic``. One that is carried from call to call takes this: the seconds since the node was started, with the
name of that start beside them.
"""

from __future__ import annotations

import time
from typing import Any, Dict, Mapping

from . import files as node_files

BOOT_ID = "/proc/sys/kernel/random/boot_id"


def seconds() -> float:
    """Since the node was started, sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot() -> str:
    """Which start of the node this is; empty where the kernel does not say."""
    return node_files.text_of(BOOT_ID).strip()


def begin() -> Dict[str, Any]:
    """What a call hands to the next one, so that it can ask ``elapsed``."""
    return {"started": seconds(), "boot": boot()}


def elapsed(begun: Mapping[str, Any]) -> float:
    """The seconds since ``begin``; since the node was started, where that was later."""
    return seconds() - (begun["started"] if begun.get("boot", boot()) == boot() else 0)
