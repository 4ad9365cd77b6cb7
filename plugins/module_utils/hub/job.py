# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The job of downloading weights: its parameters, its sources and its errors.

``pull.py`` does the work; ``client.py`` and ``rsync.py`` are its sources.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, Mapping, Protocol, Sequence

from .file import HashedFile
from .snapshot import RepoFile, Snapshot

#: In the job's folder: the seeder's password. Deleted when the job ends.
SECRET = "secret"


class PullError(Exception):
    """The download failed. The message is for the user."""


class Stopped(PullError):
    """Stopped because another file failed."""


class Passing(Exception):
    """Transient error; ``retry_after`` if the hub sent one."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True)
class Job:
    """The content of job.json. ``branch``: what the commit was resolved from, if anything. ``source``: a folder."""

    home: str
    repo_id: str
    commit: str
    branch: str = ""
    ignore_patterns: Sequence[str] = ()
    allow_patterns: Sequence[str] = ()
    gated: bool = False
    endpoint: str = "https://huggingface.co"
    source: str = ""
    workers: int = 8
    attempts: int = 8
    xet: bool = False
    verify: bool = False
    fetch: bool = True
    #: The node that has the files, see ``rsync.py``; empty if they come from the hub.
    seeder: Mapping[str, str] = field(default_factory=dict)

    @property
    def snapshot(self) -> Snapshot:
        ignored, allowed = tuple(self.ignore_patterns), tuple(self.allow_patterns)
        return Snapshot(self.repo_id, self.commit, ignored, allow_patterns=allowed)


#: Download the rest of a file. Arguments: file, target. Raises Passing or PullError.
Transfer = Callable[[RepoFile, HashedFile], None]


class Source(Protocol):
    """Where the files come from. ``seal`` leaves the cache as huggingface_hub would."""

    def tree(self) -> list[RepoFile]: ...

    def transfer(self, file: RepoFile, target: HashedFile) -> None: ...

    def seal(self) -> None: ...
