# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hub's token and its file: which token counts, whether the file holds it, and writing it."""

from __future__ import annotations

import os
import stat
from typing import Optional

from ..node import files as node_files


def read(path: str) -> str:
    """The token in the file; empty if there is no file."""
    return node_files.text_of(path).strip()


def in_force(given: Optional[str], path: str) -> str:
    """The token for requests to the hub: the given one, else that of the file."""
    return (given or "").strip() or read(path)


def current(path: str, given: Optional[str]) -> bool:
    """Whether the file holds the given token with mode 0600. Without a token, any file (or none) is right."""
    token = (given or "").strip()
    if not token:
        return True
    try:
        return stat.S_IMODE(os.stat(path).st_mode) == 0o600 and read(path) == token
    except OSError:
        return False


def write(path: str, token: str) -> None:
    """Write the token with mode 0600. Create a missing folder with mode 0700; leave an existing one as it is."""
    node_files.write_atomically(path, token.strip(), mode=0o600, folder_mode=0o700)
