# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of a node: read, and written whole or not at all.

The jobs of the weights and of bundles take this file along: standard library only, and nothing of Ansible.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Iterator, Union

Path = Union[str, "os.PathLike[str]"]
Data = Union[str, bytes]


def read_bytes(path: Path) -> bytes:
    """Raises OSError where there is none that can be read."""
    with open(path, "rb") as stream:
        return stream.read()


def read_text(path: Path, errors: str = "strict", limit: int = -1) -> str:
    """The text in UTF-8, or its first ``limit`` characters.

    Raises:
        OSError: there is none that can be read.
        UnicodeDecodeError: it is no UTF-8, and ``errors`` is strict.
    """
    with open(path, encoding="utf-8", errors=errors) as stream:
        return stream.read(limit)


def bytes_of(path: Path) -> bytes:
    """What is in a file that need not be there."""
    try:
        return read_bytes(path)
    except OSError:
        return b""


def text_of(path: Path, limit: int = -1) -> str:
    """The text of a file that need not be there, and may be of anybody."""
    try:
        return read_text(path, "replace", limit)
    except OSError:
        return ""


def blocks(path: Path, size: int, skip: int = 0) -> Iterator[bytes]:
    """A large file in blocks of ``size`` bytes, after the first ``skip`` bytes of it."""
    with open(path, "rb", buffering=0) as stream:
        stream.seek(skip)
        while block := stream.read(size):
            yield block


def write(path: Path, data: Data, mode: int = 0o644) -> None:
    """Into a folder that nobody else looks into: the file is seen while it is written."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with open(descriptor, "wb") as stream:
        stream.write(_bytes(data))
        os.fchmod(descriptor, mode)


def write_atomically(
    path: Path, data: Data, mode: int = 0o644, folder_mode: int = 0o755, power_cut: bool = True
) -> None:
    """The file is there whole or not at all, also after a power cut where that matters."""
    os.makedirs(os.path.dirname(path) or ".", mode=folder_mode, exist_ok=True)
    temporary = f"{os.fspath(path)}.{os.getpid()}.tmp"
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as stream:
        stream.write(_bytes(data))
        stream.flush()
        if power_cut:
            os.fsync(stream.fileno())
    os.replace(temporary, path)


def copy_atomically(source: Path, path: Path) -> None:
    """Put a copy to a place, with its mode and its times."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    temporary = f"{os.fspath(path)}.{os.getpid()}.tmp"
    shutil.copy2(source, temporary)
    os.replace(temporary, path)


def staged(data: Data, suffix: str = "") -> str:
    """A file of its own for a candidate, which the caller moves to its place or removes; nobody else can read it."""
    handle, path = tempfile.mkstemp(prefix="gpunode-", suffix=suffix)
    with open(handle, "wb") as stream:
        stream.write(_bytes(data))
    return path


def _bytes(data: Data) -> bytes:
    return data.encode("utf-8") if isinstance(data, str) else data
