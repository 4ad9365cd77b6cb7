# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The job that downloads one snapshot to the node: fetch, resume, compare with the hub's hashes, write the manifest.

hf_snapshot copies the files of the job (``run.CODE``) to the node and starts them as a transient systemd unit, see
``__main__.py``. huggingface_hub does the transfer, from the venv that runs this job. Its own download function discards
the partial file of a killed process, so this job calls the level below it, with a partial file that stays.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Callable, Sequence

from .. import paths
from ..node import files as node_files, words
from . import snapshot as hub_snapshot
from .file import HashedFile, keep
from .job import Job, Passing, PullError, Stopped, Transfer
from .progress import Progress
from .snapshot import Cache, Manifest, RepoFile

#: Space that a download leaves free, for the node's own logs.
RESERVE = 256 * 1024 * 1024
LONGEST_WAIT_S = 120.0


class Pull:
    """Downloads one snapshot to the disk."""

    def __init__(
        self,
        job: Job,
        progress: Progress,
        transfer: Transfer,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self.job, self.progress, self.transfer = job, progress, transfer
        self.over = threading.Event()
        self.sleep = sleep or self.over.wait
        self.cache = Cache(job.home)

    # -- which files --------------------------------------------------------------------------------------------------
    def run(self, tree: Sequence[RepoFile]) -> Manifest:
        paths.disjoint(file.path for file in tree)
        wanted = [f for f in tree if self.job.snapshot.wants(f.path)]
        left_out = [f for f in tree if not self.job.snapshot.wants(f.path)]
        if not wanted:
            raise PullError(f"{self.job.repo_id} has no file left after ignore_patterns")
        lacking = self.lacking(wanted)
        if lacking and not self.job.fetch:
            # Keep only the good files in the manifest, so that the next download repairs just the others.
            rest = [f for f in wanted if f not in lacking]
            self.write_manifest(replace(self.manifest(rest, left_out), damaged=lacking))
            raise PullError(self.damage(lacking))
        if lacking:
            self.check_space(lacking)
            self.fetch_all(wanted, lacking)
        if self.job.fetch:
            self.progress.status.changed = (
                bool(lacking) or not hub_snapshot.look(self.job.home, self.job.snapshot).complete
            )
        return self.manifest(wanted, left_out)

    def manifest(self, files: Sequence[RepoFile], left_out: Sequence[RepoFile]) -> Manifest:
        return Manifest(self.job.repo_id, self.job.commit, files, left_out, gated=self.job.gated)

    def lacking(self, wanted: Sequence[RepoFile]) -> list[RepoFile]:
        """Files that are missing or wrong. Files in a manifest are hashed only if verification was requested."""
        trusted = self.trusted()
        doubtful = [f for f in wanted if f not in trusted and hub_snapshot.size_of(self.pointer(f)) == f.size]
        wrong: list[RepoFile] = []
        if doubtful:
            self.progress.begin("verifying", doubtful)
            self.in_parallel(lambda f: self.check(f, wrong), doubtful)
        here = [f for f in wanted if f in trusted or (f in doubtful and f not in wrong)]
        self.progress.status.wrong = sorted(f.path for f in wrong)
        return [f for f in wanted if f not in here]

    def trusted(self) -> set[RepoFile]:
        present = hub_snapshot.look(self.job.home, self.job.snapshot)
        if self.job.verify or present.manifest is None:
            return set()
        return {f for f in present.manifest.files if hub_snapshot.size_of(self.pointer(f)) == f.size}

    def check(self, file: RepoFile, wrong: list[RepoFile]) -> None:
        pointer = self.pointer(file)
        if hub_snapshot.digest(pointer, file, lambda amount: self.note(file, amount)) != file.etag:
            self.progress.say(f"{file.path}: its {file.hash_name} differs from the hub's")
            wrong.append(file)
        self.progress.finished(file)

    def damage(self, lacking: Sequence[RepoFile]) -> str:
        wrong = set(self.progress.status.wrong)
        parts = [f"{f.path}: {'its bytes differ from the hub' if f.path in wrong else 'missing'}" for f in lacking]
        return f"{self.job.repo_id} at {self.job.commit} is damaged: {'; '.join(parts)}"

    def check_space(self, lacking: Sequence[RepoFile]) -> None:
        unique = {f.etag: f for f in lacking}.values()
        need = sum(f.size - max(0, hub_snapshot.size_of(self.cache.partial(self.job.repo_id, f))) for f in unique)
        os.makedirs(self.cache.hub, mode=0o755, exist_ok=True)
        free = shutil.disk_usage(self.cache.hub).free
        if need + RESERVE > free:
            raise PullError(
                f"{self.job.home} is too small for {self.job.repo_id}: {words.size(need)} to download and"
                f" {words.size(RESERVE)} to leave free, but it has {words.size(free)} free"
            )

    # -- fetching -----------------------------------------------------------------------------------------------------
    def fetch_all(self, wanted: Sequence[RepoFile], lacking: Sequence[RepoFile]) -> None:
        here = sum(f.size for f in wanted if f not in lacking)
        partial = sum(max(0, hub_snapshot.size_of(self.cache.partial(self.job.repo_id, f))) for f in lacking)
        self.progress.begin("fetching", wanted, here + partial, len(wanted) - len(lacking))
        for file in lacking:
            self.unlink(self.pointer(file))
        same: dict[str, list[RepoFile]] = {}
        for file in lacking:
            same.setdefault(file.etag, []).append(file)
        # The largest first, so that no single large file is left at the end.
        groups = sorted(same.values(), key=lambda group: -group[0].size)
        self.in_parallel(self.fetch_group, groups)

    def fetch_group(self, group: Sequence[RepoFile]) -> None:
        """Fetch one content and link it under all its names."""
        first = group[0]
        self.fetch(first)
        for file in group:
            self.link(file)
            self.progress.finished(file)
        if first.size > 50_000_000:
            self.progress.say(f"{first.path}: {words.size(first.size)} downloaded and verified")

    def fetch(self, file: RepoFile) -> None:
        """Fetch until the hash is right, with back-off and a limit. Received bytes reset the count of failures."""
        partial, blob = self.cache.partial(self.job.repo_id, file), self.cache.blob(self.job.repo_id, file)
        os.makedirs(os.path.dirname(partial), mode=0o755, exist_ok=True)
        if os.path.exists(blob) and hub_snapshot.digest(blob, file) == file.etag:
            self.progress.add(file, file.size)
            return
        self.progress.begins(file, max(0, hub_snapshot.size_of(partial)))
        failures = wrong = 0
        while True:
            before = max(0, hub_snapshot.size_of(partial))
            try:
                got = self.attempt(file, partial)
            except Passing as trouble:
                failures = 0 if hub_snapshot.size_of(partial) > before else failures + 1
                self.back_off(file, trouble, failures)
                continue
            if got == file.etag:
                break
            self.progress.add(file, -file.size)
            os.unlink(partial)
            wrong += 1
            self.progress.say(f"{file.path}: received bytes with a wrong {file.hash_name} ({got}), retrying")
            if wrong == 2:
                raise PullError(self.twice_wrong(file, got))
        keep(partial, blob)

    def twice_wrong(self, file: RepoFile, got: str) -> str:
        source, advice = "the hub", "A proxy or mirror in between may hold a broken copy"
        if self.job.seeder:
            source, advice = self.job.seeder["name"], "Its copy is damaged: verify the weights there"
        return (
            f"{file.path} of {self.job.repo_id}: {source} sends bytes whose {file.hash_name} is {got}, but its listing"
            f" says {file.etag}; a second attempt gave the same result. {advice}"
        )

    def attempt(self, file: RepoFile, partial: str) -> str:
        target = HashedFile(partial, file, lambda amount: self.note(file, amount))
        try:
            if target.size < file.size:
                self.transfer(file, target)
            if target.size != file.size:
                raise Passing(f"{target.size} bytes of {file.size} came")
            return target.seal()
        except OSError as trouble:
            raise PullError(f"{partial}: {trouble.strerror or trouble}") from trouble
        finally:
            target.close()

    def back_off(self, file: RepoFile, trouble: Passing, failures: int) -> None:
        if failures >= self.job.attempts:
            raise PullError(f"{file.path} of {self.job.repo_id}: {trouble} ({failures} attempts in a row)")
        wait_s = min(2.0**failures, LONGEST_WAIT_S) * random.uniform(0.5, 1.0)
        if trouble.retry_after is not None:
            wait_s = min(trouble.retry_after, 10 * LONGEST_WAIT_S)
        self.progress.say(f"{file.path}: {trouble}; retrying in {wait_s:.0f} s")
        self.sleep(wait_s)

    def note(self, file: RepoFile, amount: int) -> None:
        """Count received bytes. Runs for every block, so it also stops this thread when another file has failed."""
        if self.over.is_set():
            raise Stopped("another file failed")
        self.progress.add(file, amount)

    def in_parallel(self, work: Callable[[Any], None], items: Sequence[Any]) -> None:
        """The first permanent error stops all downloads; files on disk are kept for the next run."""

        def guarded(item: Any) -> None:
            try:
                if not self.over.is_set():
                    work(item)
            except BaseException:
                self.over.set()
                raise

        with ThreadPoolExecutor(max_workers=max(1, self.job.workers)) as pool:
            troubles = [future.exception() for future in [pool.submit(guarded, item) for item in items]]
        for trouble in sorted((t for t in troubles if t), key=lambda t: isinstance(t, Stopped)):
            raise trouble

    # -- the cache ----------------------------------------------------------------------------------------------------
    def pointer(self, file: RepoFile) -> str:
        return self.cache.pointer(self.job.repo_id, self.job.commit, file.path)

    def unlink(self, path: str) -> None:
        """Remove a name and, if it links to a blob of this repository, that blob too."""
        blob = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path))) if os.path.islink(path) else ""
        if os.path.dirname(blob) == os.path.join(self.cache.folder(self.job.repo_id), "blobs"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(blob)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def link(self, file: RepoFile) -> None:
        pointer = self.pointer(file)
        os.makedirs(os.path.dirname(pointer), mode=0o755, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(pointer)
        os.symlink(os.path.relpath(self.cache.blob(self.job.repo_id, file), os.path.dirname(pointer)), pointer)

    def write_manifest(self, manifest: Manifest) -> None:
        node_files.write_atomically(self.cache.manifest(self.job.repo_id, self.job.commit), manifest.dump())
        if self.job.branch:
            node_files.write_atomically(self.cache.record(self.job.repo_id, self.job.branch), self.job.commit + "\n")
            # The hub's own tools read a branch's commit here, without a newline.
            ref = os.path.join(self.cache.folder(self.job.repo_id), "refs", *self.job.branch.split("/"))
            node_files.write_atomically(ref, self.job.commit)
