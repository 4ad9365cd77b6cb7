# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetch files with rsync from a node that has them. Takes the place of ``client.py`` in a follower's job.

The list of files and their hashes come from the seeder's manifest through the play, not over this connection:
rsync authenticates the follower to the seeder, but not the seeder to the follower.
"""

from __future__ import annotations

import os
import re
import subprocess
from typing import Mapping

from ..node import files as node_files
from . import snapshot as hub_snapshot
from .file import HashedFile
from .job import Job, Passing, PullError
from .snapshot import Cache, Manifest, RepoFile

#: The names of the rsync module and of its user.
MODULE, USER = "weights", "gpunode"
LOOK_EVERY_S = 0.5
#: Seconds until a dead connection is noticed; the download then resumes.
SILENCE_S, CONNECT_S = 60, 20
#: rsync's exit codes that a retry cannot fix: wrong usage, a missing file, a full disk. A refused password is
#: transient: a play that starts again gives the seeder, and then this job, a new one.
FINAL = (1, 2, 3, 4, 11, 23)


class Neighbour:
    """The seeder: its ``name`` and ``url``, files with ``secret`` and ``manifest``, the local address to ``bind``."""

    def __init__(self, job: Job, seeder: Mapping[str, str]) -> None:
        self.job, self.seeder = job, seeder
        self.manifest = Manifest.load(node_files.read_text(seeder["manifest"]))

    def tree(self) -> list[RepoFile]:
        return self.manifest.listing

    def transfer(self, file: RepoFile, target: HashedFile) -> None:
        """Fetch the rest of a file. rsync appends to it and this process hashes it as it grows."""
        command = self.command(file, target.path)
        try:
            # run_command would show no progress. This runs in a job of its own on the node.
            process = subprocess.Popen(  # pylint: disable=ansible-bad-function
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
        except OSError as trouble:
            raise PullError(f"{command[0]} cannot be started: {trouble.strerror}") from trouble
        with process:
            try:
                stderr = self.follow(process, target)
            except BaseException:
                process.kill()
                raise
        target.take_in()
        if process.returncode != 0:
            raise self.trouble(process.returncode, stderr, file)

    def follow(self, process: subprocess.Popen[str], target: HashedFile) -> str:
        while True:
            try:
                return process.communicate(timeout=LOOK_EVERY_S)[1]
            except subprocess.TimeoutExpired:
                target.take_in()

    def command(self, file: RepoFile, path: str) -> list[str]:
        # --append resumes within the file, --copy-links follows the cache's link, and -s (--secluded-args; older
        # releases have only the short name) keeps spaces in names.
        here = [f"--address={self.seeder['bind']}"] if self.seeder.get("bind") else []
        remote = os.path.relpath(Cache("/").pointer(self.job.repo_id, self.job.commit, file.path), Cache("/").hub)
        return [
            "rsync",
            "--append",
            "--copy-links",
            "-s",
            f"--timeout={SILENCE_S}",
            f"--contimeout={CONNECT_S}",
            f"--password-file={self.seeder['secret']}",
            *here,
            f"{self.seeder['url']}/{literal(remote)}",
            path,
        ]

    def trouble(self, code: int, stderr: str, file: RepoFile) -> Passing:
        """Return a transient error; raise a permanent one."""
        lines = [line.strip() for line in stderr.splitlines() if line.strip()]
        reason = lines[0] if lines else f"rsync ended with {code}"
        sentence = f"{self.seeder['name']}: {reason}"
        if code in FINAL:
            raise PullError(f"{file.path} of {self.job.repo_id} from {sentence}")
        return Passing(sentence)

    def seal(self) -> None:
        """Write the listing that huggingface_hub's offline mode reads, as its own download does."""
        if not all(f.oid for f in self.tree()):
            return  # the seeder got the weights from a source without hashes
        path = Cache(self.job.home).listing(self.job.repo_id, self.job.commit)
        node_files.write_atomically(path, hub_snapshot.listing_text(self.tree()))


def literal(path: str) -> str:
    """Escape a path for the daemon, which reads wildcards in it, and backslashes if it has wildcards."""
    return re.sub(r"([][*?\\])", r"\\\1", path) if re.search(r"[][*?]", path) else path
