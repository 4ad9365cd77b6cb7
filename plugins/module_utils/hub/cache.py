# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Revisions in the cache, and the jobs that download them."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
from typing import Any, Sequence

from .. import paths
from ..node import files as node_files
from ..units import job as units_job
from .snapshot import Cache, Found, Manifest

#: Each job has a folder here, named after its unit.
RUN = "/run/gpunode"


def job_unit(repo_id: str, commit: str) -> str:
    """The unit of the job that downloads a commit."""
    return units_job.unit_name("gpunode-weights", f"{repo_id}-{commit[:12]}")


def fetch_seconds(found: Sequence[Found], folder: str = RUN) -> float:
    """Seconds that the longest of these downloads took, from each job's status; 0 if none ran since the boot."""
    took = [0.0]
    for present in found:
        status = os.path.join(folder, job_unit(present.snapshot.repo_id, present.commit), "status.json")
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            took.append(float(json.loads(node_files.read_text(status)).get("seconds", 0)))
    return max(took)


def row(found: Found) -> dict[str, Any]:
    return {
        "repo_id": found.snapshot.repo_id,
        "revision": found.commit,
        "path": found.path,
        "bytes": found.bytes,
        "complete": found.complete,
        "missing": list(found.missing),
    }


def others(home: str, found: Sequence[Found]) -> list[dict[str, str]]:
    """Every revision in the cache that is not among ``found``."""
    wanted = {present.path for present in found}
    rows = []
    for path in sorted(glob.glob(os.path.join(glob.escape(Cache(home).hub), "models--*--*", "snapshots", "*"))):
        if path in wanted or not paths.COMMIT.fullmatch(os.path.basename(path)):
            continue
        folder = os.path.basename(os.path.dirname(os.path.dirname(path)))
        repo_id = folder[len("models--") :].replace("--", "/", 1)
        rows.append({"repo_id": repo_id, "revision": os.path.basename(path), "path": path})
    return rows


def verified(home: str) -> list[dict[str, Any]]:
    """Every snapshot with a manifest, with patterns for the files that its download left out."""
    rows = []
    for path in sorted(glob.glob(os.path.join(glob.escape(Cache(home).hub), "models--*--*", "manifests", "*.json"))):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            manifest = Manifest.load(node_files.read_text(path))
            left_out = [glob.escape(file.path) for file in manifest.left_out]
            row = {"repo_id": manifest.repo_id, "revision": manifest.revision, "ignore_patterns": left_out}
            rows.append({**row, "gated": True} if manifest.gated else row)
    return rows


def client_version(venv: str) -> str:
    """The version in the folder's name: starting the venv's Python would cost half a second on every run."""
    if not os.path.exists(os.path.join(venv, "bin", "python")):
        return ""
    pattern = os.path.join(glob.escape(venv), "lib", "python3*", "site-packages", "huggingface_hub-*.dist-info")
    versions = [re.sub(r".*huggingface_hub-(.+)\.dist-info$", r"\1", path) for path in glob.glob(pattern)]
    return versions[0] if len(versions) == 1 else ""
