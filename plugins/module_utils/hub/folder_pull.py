# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The job of ``pull.py`` with a folder in place of the hub: link or copy, compare, write the manifest.

A separate file, because it does not need the hub's client.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import Sequence

from ..node import files as node_files
from . import folder as hub_folder, snapshot as hub_snapshot
from .api import HubError
from .file import HashedFile, keep
from .folder import Offer
from .job import Job, PullError
from .progress import Progress
from .pull import Pull
from .snapshot import RepoFile


class Import(Pull):
    """Brings a snapshot from a folder of this node into the cache."""

    def __init__(self, job: Job, progress: Progress, offer: Offer) -> None:
        super().__init__(job, progress, self.copy)
        self.offer = offer
        self.links = hub_folder.linkable(job.source, job.home)

    def check_space(self, lacking: Sequence[RepoFile]) -> None:
        """Count no space for hard links."""
        copied = [file for file in lacking if not self.is_linked(file)]
        if copied:
            super().check_space(copied)

    def is_linked(self, file: RepoFile) -> bool:
        """Whether the file is hard-linked. Only if nobody but root can change it after its verification."""
        return self.links and hub_folder.is_roots_own(self.offer.places[file.path])

    def fetch(self, file: RepoFile) -> None:
        """Link or copy one file. No retry: a damaged file in the folder stays damaged."""
        partial, blob = self.cache.partial(self.job.repo_id, file), self.cache.blob(self.job.repo_id, file)
        os.makedirs(os.path.dirname(partial), mode=0o755, exist_ok=True)
        got = self.link_here(file, partial) if self.is_linked(file) else self.attempt(file, partial)
        if got != file.etag:
            os.unlink(partial)
            raise PullError(
                f"{self.offer.places[file.path]} is damaged: its {file.hash_name} is {got}, expected {file.etag}"
                f" (from {self.offer.vouched})"
            )
        keep(partial, blob)

    def link_here(self, file: RepoFile, partial: str) -> str:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
        os.link(os.path.realpath(self.offer.places[file.path]), partial)
        return hub_snapshot.digest(partial, file, lambda amount: self.note(file, amount))

    def copy(self, file: RepoFile, target: HashedFile) -> None:
        """Copy the rest of a file; an interrupted copy resumes."""
        for block in node_files.blocks(self.offer.places[file.path], hub_snapshot.BLOCK, target.size):
            target.write(block)

    def hashes(self, files: Sequence[RepoFile]) -> list[RepoFile]:
        """The files with the hashes computed from disk."""
        self.progress.begin("hashing", files)
        hashed: list[RepoFile] = []

        def hash_one(file: RepoFile) -> None:
            wanted = replace(file, sha256="0" * 64)  # any value: it selects SHA-256
            place = self.offer.places[file.path]
            hashed.append(
                replace(file, oid="", sha256=hub_snapshot.digest(place, wanted, lambda n: self.note(file, n)))
            )
            self.progress.finished(file)

        self.in_parallel(hash_one, files)
        return sorted(hashed, key=lambda file: file.path)


def import_snapshot(job: Job, progress: Progress) -> None:
    try:
        offer = hub_folder.find(job.source, job.snapshot)
    except HubError as refusal:
        raise PullError(str(refusal).rstrip(".")) from refusal
    work = Import(job, progress, offer)
    how = "linked" if work.links else "copied"
    progress.say(f"{job.repo_id} is {how} from {job.source}; the hashes are from {offer.vouched}")
    files = offer.files if offer.hashed else work.hashes(offer.files)
    manifest = work.run(files)
    if offer.listing:  # the hub's client reads it offline
        path = work.cache.listing(job.repo_id, job.commit)
        node_files.write_atomically(path, hub_snapshot.listing_text(offer.listing))
    work.write_manifest(replace(manifest, origin=f"{job.source}, {how}; hashes: {offer.vouched}"))
