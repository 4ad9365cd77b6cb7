# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The job that downloads one snapshot to the node: ``python -m ….module_utils.hub FOLDER``.

``job.json`` in the folder holds the job, ``status.json`` its progress. The journal gets the progress in words.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys

from .. import paths
from ..node import files as node_files
from . import snapshot as hub_snapshot
from .client import Client
from .folder_pull import import_snapshot
from .job import SECRET, Job, PullError, Source
from .progress import Progress
from .pull import Pull
from .rsync import Neighbour


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(folder: str) -> int:
    progress = Progress(folder, _say)
    try:
        job = Job(**json.loads(node_files.read_text(os.path.join(folder, "job.json"))))
        with progress.ticking():
            work(job, progress)
        progress.status.phase = "complete"
    except (PullError, OSError, paths.Refused) as trouble:
        progress.status.error = str(trouble)
        progress.say(f"failed: {trouble}")
        return 1
    finally:
        progress.tick(words=not progress.status.error)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, SECRET))
    return 0


def work(job: Job, progress: Progress) -> None:
    present = hub_snapshot.look(job.home, job.snapshot)
    if not job.fetch:
        if present.manifest is None:
            raise PullError(f"{job.repo_id} at {job.commit} has no manifest on this node: its download never completed")
        verified = Pull(job, progress, lambda file, target: None)
        manifest = verified.run(present.manifest.listing)
        if present.manifest.damaged:  # the damaged files were repaired since
            verified.write_manifest(manifest)
        return
    if job.source:
        import_snapshot(job, progress)
        return
    source = source_of(job, progress)
    pull = Pull(job, progress, source.transfer)
    manifest = pull.run(source.tree())
    source.seal()
    pull.write_manifest(manifest)


def source_of(job: Job, progress: Progress) -> Source:
    if job.seeder:
        return Neighbour(job, job.seeder)
    return Client(job, progress.say)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
