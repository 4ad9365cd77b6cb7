# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two files of a package repository: its key, trusted by its fingerprint alone, and its source."""

from __future__ import annotations

import os
import tempfile
from typing import Callable, Dict, Optional, Tuple

from . import _openpgp

Change = Tuple[bytes, Optional[Dict[str, str]]]


def read(path: str) -> bytes:
    """The file, or nothing where there is none."""
    if not os.path.exists(path):
        return b""
    with open(path, "rb") as stream:
        return stream.read()


def write(path: str, data: bytes, move: Callable[[str, str], object]) -> None:
    """Put a file to its place in one step, for everybody to read: apt reads its own as a user of its own."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    handle, staged = tempfile.mkstemp()
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
    move(staged, path)
    os.chmod(path, 0o644)


def text_change(path: str, after: str) -> Change:
    """The text to write, or nothing where it is there; and the change as a diff."""
    before = read(path).decode("utf-8", "replace")
    if before == after:
        return b"", None
    return after.encode(), {"before_header": path, "after_header": path, "before": before, "after": after}


def key_change(path: str, fingerprint: str, origin: str, fetch: Callable[[], bytes]) -> Change:
    """The key to write, or nothing where the right one is there; and the change as a diff of fingerprints.

    Raises:
        ValueError: it has another fingerprint, or there is a second one beside it.
    """
    there = read(path)
    if there and not _openpgp.refusal(there, fingerprint, path):
        return b"", None
    wanted = fetch()
    refused = _openpgp.refusal(wanted, fingerprint, origin)
    if refused:
        raise ValueError(refused)
    return wanted, {"before_header": path, "after_header": path, "before": _told(there), "after": _told(wanted)}


def _told(data: bytes) -> str:
    try:
        return "".join(f"{_openpgp.spelt(one)}\n" for one in _openpgp.fingerprints(data)) if data else ""
    except ValueError as error:
        return f"{error}\n"
