# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hub's token and its file: which token counts, whether the file holds it, and how it is written."""

from __future__ import annotations

import os
import stat
from typing import Optional

from ..node import files as node_files


def read(path: str) -> str:
    """The token in the file; empty where there is none."""
    return node_files.text_of(path).strip()


def in_force(given: Optional[str], path: str) -> str:
    """The token that questions to the hub have: the given one, else that of the file."""
    return (given or "").strip() or read(path)


def current(path: str, given: Optional[str]) -> bool:
    """Whether the file holds the given token, for its owner alone. Without a token any file is right, or none."""
    token = (given or "").strip()
    if not token:
        return True
    try:
        return stat.S_IMODE(os.stat(path).st_mode) == 0o600 and read(path) == token
    except OSError:
        return False


def write(path: str, token: str) -> None:
    """Write it for its owner alone. A folder that is not there is made for its owner alone; one that is there stays."""
    node_files.write_atomically(path, token.strip(), mode=0o600, folder_mode=0o700)
