# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of a node: read them, and write them completely or not at all.

The jobs for weights and bundles get a copy of this file: standard library only, no import of Ansible.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Iterator, Union

Path = Union[str, "os.PathLike[str]"]
Data = Union[str, bytes]


def read_bytes(path: Path) -> bytes:
    """The file's bytes. Raises OSError if it cannot be read."""
    with open(path, "rb") as stream:
        return stream.read()


def read_text(path: Path, errors: str = "strict", limit: int = -1) -> str:
    """The text in UTF-8, or its first ``limit`` characters.

    Raises:
        OSError: the file cannot be read.
        UnicodeDecodeError: it is not UTF-8, and ``errors`` is strict.
    """
    with open(path, encoding="utf-8", errors=errors) as stream:
        return stream.read(limit)


def bytes_of(path: Path) -> bytes:
    """The file's bytes; empty if it does not exist."""
    try:
        return read_bytes(path)
    except OSError:
        return b""


def text_of(path: Path, limit: int = -1) -> str:
    """The file's text; empty if it does not exist. Replaces bytes that are not UTF-8."""
    try:
        return read_text(path, "replace", limit)
    except OSError:
        return ""


def blocks(path: Path, size: int, skip: int = 0) -> Iterator[bytes]:
    """A large file in blocks of ``size`` bytes, after the first ``skip`` bytes."""
    with open(path, "rb", buffering=0) as stream:
        stream.seek(skip)
        while block := stream.read(size):
            yield block


def write(path: Path, data: Data, mode: int = 0o644) -> None:
    """Write a file in a private folder: a reader would see a half-written file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with open(descriptor, "wb") as stream:
        stream.write(_bytes(data))
        os.fchmod(descriptor, mode)


def write_atomically(
    path: Path, data: Data, mode: int = 0o644, folder_mode: int = 0o755, power_cut: bool = True
) -> None:
    """Write a file completely or not at all, ``power_cut``: also if the power fails."""
    os.makedirs(os.path.dirname(path) or ".", mode=folder_mode, exist_ok=True)
    temporary = f"{os.fspath(path)}.{os.getpid()}.tmp"
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as stream:
        stream.write(_bytes(data))
        stream.flush()
        if power_cut:
            os.fsync(stream.fileno())
    os.replace(temporary, path)


def copy_atomically(source: Path, path: Path) -> None:
    """Copy a file atomically, with its mode and its times."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    temporary = f"{os.fspath(path)}.{os.getpid()}.tmp"
    shutil.copy2(source, temporary)
    os.replace(temporary, path)


def staged(data: Data, suffix: str = "") -> str:
    """Write a candidate to a temporary file that only its owner can read; the caller moves or removes it."""
    handle, path = tempfile.mkstemp(prefix="gpunode-", suffix=suffix)
    with open(handle, "wb") as stream:
        stream.write(_bytes(data))
    return path


def _bytes(data: Data) -> bytes:
    return data.encode("utf-8") if isinstance(data, str) else data
