# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Durations by a clock that nobody sets, also between processes of a node.

A node's time of day may jump by years when it is first set over the network. Within one process, ``time.monotonic`` is
enough. From one call to the next, use this: seconds since the boot, together with the ID of that boot.
"""

from __future__ import annotations

import time
from typing import Any, Dict, Mapping

from . import files as node_files

BOOT_ID = "/proc/sys/kernel/random/boot_id"


def seconds() -> float:
    """Seconds since the boot, including sleep."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot() -> str:
    """The ID of this boot; empty if the kernel does not tell."""
    return node_files.text_of(BOOT_ID).strip()


def begin() -> Dict[str, Any]:
    """The start of a duration, for a later call of ``elapsed``."""
    return {"started": seconds(), "boot": boot()}


def elapsed(begun: Mapping[str, Any]) -> float:
    """Seconds since ``begin``, or since the boot if the node was rebooted in between."""
    return seconds() - (begun["started"] if begun.get("boot", boot()) == boot() else 0)
