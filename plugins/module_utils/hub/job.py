# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a job of the weights is, where its files may come from, and how it may fail.

``pull.py`` does the work; ``client.py`` and ``rsync.py`` are its sources.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, Mapping, Protocol, Sequence

from .file import HashedFile
from .snapshot import RepoFile, Snapshot

#: In the job's folder: the password that a seeder asks for. Gone when the job is.
SECRET = "secret"


class PullError(Exception):
    """The pull is over; the message is for people."""


class Stopped(PullError):
    """Not a trouble of its own: another file has failed for good."""


class Passing(Exception):
    """A trouble that may pass; ``retry_after`` where the hub said when."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True)
class Job:
    """What job.json holds. ``branch`` is what the commit was resolved from, if it was; ``source`` a folder."""

    home: str
    repo_id: str
    commit: str
    branch: str = ""
    ignore_patterns: Sequence[str] = ()
    endpoint: str = "https://huggingface.co"
    source: str = ""
    workers: int = 8
    attempts: int = 8
    xet: bool = False
    verify: bool = False
    fetch: bool = True
    #: The node that has the files, see ``rsync.py``; empty where they come from the hub.
    seeder: Mapping[str, str] = field(default_factory=dict)

    @property
    def snapshot(self) -> Snapshot:
        return Snapshot(self.repo_id, self.commit, tuple(self.ignore_patterns))


#: Fetch the rest of a file: file, where to write, how many bytes are there. Raises Passing or PullError.
Transfer = Callable[[RepoFile, HashedFile], None]


class Source(Protocol):
    """Where the files come from. ``seal`` leaves the cache as huggingface_hub would."""

    def tree(self) -> list[RepoFile]: ...

    def transfer(self, file: RepoFile, target: HashedFile) -> None: ...

    def seal(self) -> None: ...
