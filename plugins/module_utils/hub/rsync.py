# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The other way to a file: rsync from a node that has it. Takes the place of ``client.py`` in a follower's pull.

What the files are and what they must hash to came with the play, from the seeder's manifest, and not over this line:
rsync proves the follower to the seeder and not the reverse.
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

#: What the daemon calls the cache, and whom it lets in.
MODULE, USER = "weights", "gpunode"
LOOK_EVERY_S = 0.5
#: A dead line is noticed after so long; the pull then begins again where it was.
SILENCE_S, CONNECT_S = 60, 20
#: rsync's exit codes for what a second attempt cannot mend: wrong usage, a file that is not there, a full disk. A
#: refused password may pass: a play that was started again gives the seeder a new one, and this job too.
FINAL = (1, 2, 3, 4, 11, 23)


class Neighbour:
    """The seeder: its ``name`` and ``url``, files with ``secret`` and ``manifest``, the address to ``bind`` here."""

    def __init__(self, job: Job, seeder: Mapping[str, str]) -> None:
        self.job, self.seeder = job, seeder
        self.manifest = Manifest.load(node_files.read_text(seeder["manifest"]))

    def tree(self) -> list[RepoFile]:
        return self.manifest.listing

    def transfer(self, file: RepoFile, target: HashedFile) -> None:
        """The rest of a file, which rsync appends and this process hashes as it grows."""
        command = self.command(file, target.path)
        try:
            # A module's run_command would show no progress; this runs in a job of its own on the node.
            process = subprocess.Popen(  # pylint: disable=ansible-bad-function
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
        except OSError as trouble:
            raise PullError(f"{command[0]} cannot be started: {trouble.strerror}") from trouble
        with process:
            try:
                said = self.follow(process, target)
            except BaseException:
                process.kill()
                raise
        target.take_in()
        if process.returncode != 0:
            raise self.trouble(process.returncode, said, file)

    def follow(self, process: subprocess.Popen[str], target: HashedFile) -> str:
        while True:
            try:
                return process.communicate(timeout=LOOK_EVERY_S)[1]
            except subprocess.TimeoutExpired:
                target.take_in()

    def command(self, file: RepoFile, path: str) -> list[str]:
        # --append goes on within the file, --copy-links takes what the cache's link leads to, and --secluded-args
        # (by its short name, which is the older one) leaves spaces alone.
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

    def trouble(self, code: int, said: str, file: RepoFile) -> Passing:
        """A trouble that may pass is returned, one that will not is raised."""
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        reason = lines[0] if lines else f"rsync ended with {code}"
        sentence = f"{self.seeder['name']}: {reason}"
        if code in FINAL:
            raise PullError(f"{file.path} of {self.job.repo_id} from {sentence}")
        return Passing(sentence)

    def seal(self) -> None:
        """Write the listing that huggingface_hub's offline mode reads, as its own download does."""
        if not all(f.oid for f in self.tree()):
            return  # the seeder has the weights from somewhere that did not tell
        path = Cache(self.job.home).listing(self.job.repo_id, self.job.commit)
        node_files.write_atomically(path, hub_snapshot.listing_text(self.tree()))


def literal(path: str) -> str:
    """A daemon reads wildcards in a path, and backslashes where there are wildcards."""
    return re.sub(r"([][*?\\])", r"\\\1", path) if re.search(r"[][*?]", path) else path
