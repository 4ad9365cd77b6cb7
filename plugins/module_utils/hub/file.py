# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file that is being downloaded: resumes a partial file and updates its hash with every block."""

from __future__ import annotations

import os
from io import FileIO
from typing import Callable

from . import snapshot as hub_snapshot
from .snapshot import RepoFile

#: Smaller files start again: the hub sends them compressed, so a byte offset has no meaning.
RESUME_FROM = 4 * 1024 * 1024


class HashedFile:
    """A partial file that huggingface_hub writes to: hashes each block and stays when the process ends."""

    def __init__(self, path: str, file: RepoFile, seen: Callable[[int], None]) -> None:
        self.path, self.file, self.seen = path, file, seen
        self.open()
        if self.size < RESUME_FROM or self.size > file.size:
            self.restart()
        else:
            self.rehash()

    def open(self) -> None:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        self.stream: FileIO = open(descriptor, "r+b", buffering=0)  # noqa: SIM115 (stays open after this call)
        self.hasher = hub_snapshot.Hasher(self.file)
        self.size = os.fstat(self.stream.fileno()).st_size

    def adopt(self, path: str) -> None:
        """Take over a complete file from another tool."""
        self.restart()
        self.stream.close()
        os.replace(path, self.path)
        self.open()
        self.rehash()
        self.seen(self.size)

    def rehash(self) -> None:
        """Hash the part that an earlier process left."""
        while block := self.stream.read(hub_snapshot.BLOCK):
            self.hasher.update(block)

    def take_in(self) -> None:
        """Hash what another process has appended to the file."""
        while block := self.stream.read(hub_snapshot.BLOCK):
            self.hasher.update(block)
            self.size += len(block)
            self.seen(len(block))

    def restart(self) -> None:
        self.seen(-self.size)
        self.size = 0
        self.stream.seek(0)
        self.stream.truncate()
        self.hasher = hub_snapshot.Hasher(self.file)

    # The methods that http_get calls ---------------------------------------------------------------------------------
    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            view = view[self.stream.write(view) or 0 :]
        self.hasher.update(data)
        self.size += len(data)
        self.seen(len(data))
        return len(data)

    def tell(self) -> int:
        return self.size

    def seek(self, offset: int) -> int:
        # Happens only if a server answers a range request with the whole file: start again.
        if offset != self.size:
            self.restart()
        return self.size

    def truncate(self) -> int:
        return self.size

    def seal(self) -> str:
        """Sync the file to the disk; return its hash."""
        os.fsync(self.stream.fileno())
        return self.hasher.hexdigest()

    def close(self) -> None:
        self.stream.close()


def keep(partial: str, blob: str) -> None:
    """Move a complete file to its place in the cache."""
    os.replace(partial, blob)
