# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The job that seals or opens a bundle: ``python -m ….module_utils.bundle FOLDER``, with ``job.json`` in it."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Mapping

from .. import paths
from ..hub.progress import Progress
from ..node import files as node_files
from . import contents as bundle_contents
from .contents import BundleError, Contents


def seal(job: Mapping[str, Any], progress: Progress) -> None:
    """Write the manifest and, if requested, the tar, unless the tar already has this manifest."""
    folder, tar = job["path"], job["tar"]
    contents = bundle_contents.seal(folder, job["system"], progress)
    manifest = os.path.join(folder, bundle_contents.MANIFEST)
    if not os.path.exists(manifest) or node_files.read_text(manifest) != contents.dump():
        node_files.write_atomically(manifest, contents.dump())
        progress.status.changed = True
    if tar and not (os.path.exists(tar) and bundle_contents.packed_manifest(tar) == contents.dump()):
        bundle_contents.pack(folder, tar, contents, progress)
        progress.status.changed = True


def open_(job: Mapping[str, Any], progress: Progress) -> None:
    """Unpack the tar if the folder does not exist; else check the folder."""
    folder, tar = job["path"], job["tar"]
    if os.path.isdir(folder):
        manifest = node_files.read_text(os.path.join(folder, bundle_contents.MANIFEST))
        bundle_contents.check(folder, Contents.load(manifest), progress)
    else:
        bundle_contents.unpack(tar, folder, Contents.load(bundle_contents.packed_manifest(tar)), progress)
    progress.status.changed = True


def say(line: str) -> None:
    """Print a line to the unit's journal at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(folder: str) -> int:
    progress = Progress(folder, say)
    try:
        job = json.loads(node_files.read_text(os.path.join(folder, "job.json")))
        with progress.ticking():
            {"sealed": seal, "opened": open_}[job["state"]](job, progress)
        progress.status.phase = "complete"
    except (BundleError, OSError, paths.Refused) as trouble:
        progress.status.error = str(trouble)
        progress.say(f"failed: {trouble}")
        return 1
    finally:
        progress.tick(words=not progress.status.error)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
