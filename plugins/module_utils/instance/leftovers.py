# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the collection has left on a node and no service uses: by updates, removals and plays that were stopped."""

from __future__ import annotations

import glob
import os
import re
from typing import Any, Dict, Iterable, List, Mapping, Sequence

from ..node import files as node_files
from . import names
from .record import MARK, Record
from .status import Unit

#: Units for long work, which runs independently of the play that started it.
JOBS = tuple(
    f"gpunode-{work}-*.service" for work in ("benchmark", "bundle", "layout", "network", "pull", "tune", "weights")
)
#: The work that has trials.
TUNES = "gpunode-tune-"
#: A second instance, which serves while the first one is replaced.
SECOND_UNITS = f"{names.SECOND_UNIT_DIR}/{names.unit_of(names.second_of('*'))}"
#: The unit of a tune's candidates.
TRIAL_UNITS = f"{names.SECOND_UNIT_DIR}/{names.unit_of(names.trial_of('*'))}"
#: The endings of an instance's files.
ENDS = (".keys.yaml", ".yaml", ".env", ".json")
Left = Dict[str, Any]


def jobs(units: Iterable[Unit]) -> List[Left]:
    """Jobs that run and jobs that failed. systemd keeps a completed job as active/exited; those are not listed."""
    left = []
    for unit in units:
        if not unit.name.startswith(tuple(pattern.partition("*")[0] for pattern in JOBS)):
            continue
        if unit.active == "failed":
            left.append({"kind": "failed_job", "name": unit.name})
        elif unit.active in ("active", "activating") and unit.sub != "exited":
            left.append({"kind": "job", "name": unit.name})
    return left


def brought(noted: Mapping[str, Sequence[str]], served: Sequence[Record]) -> List[Left]:
    """Images and models that the collection downloaded and that no unit names any more."""
    images = {record.image for record in served}
    models = {name for record in served for name in (record.model, *record.beside)}
    left = [{"kind": "image", "name": name} for name in noted.get("images", ()) if name not in images]
    return left + [{"kind": "model", "name": name} for name in noted.get("models", ()) if name not in models]


def paths(
    here: Iterable[str], config_dirs: Iterable[str], cache: str = names.CACHE_DIR, kept: str = names.KEPT_DIR
) -> List[Left]:
    """Files and folders of instances without a unit. Files of the operator are not listed."""
    known = set(here)
    folders = sorted({names.CONFIG_DIR, *config_dirs})
    files = [path for folder in folders for path in sorted(glob.glob(f"{glob.escape(folder)}/*.*"))]
    left = [
        path
        for path in files
        if path.endswith(ENDS) and _instance(path) not in known and MARK in node_files.text_of(path, 1024)
    ]
    for folder in (cache, kept):
        inside = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        left += [os.path.join(folder, name) for name in inside if _whose(name) not in known]
    return [{"kind": "file", "name": path} for path in left]


def _instance(path: str) -> str:
    """tiny for /etc/vllm/tiny.keys.yaml."""
    name = os.path.basename(path)
    return next(name[: -len(end)] for end in ENDS if name.endswith(end))


def _whose(name: str) -> str:
    """tiny for tiny.new and tiny.old, which exist while one set replaces another, and for tiny-beside."""
    return re.sub(r"(\.new|\.old|-beside)$", "", name)


def seconds() -> List[Left]:
    """Second instances: each exists only while a play replaces the first one."""
    return [{"kind": "second", "name": os.path.basename(path)} for path in sorted(glob.glob(SECOND_UNITS))]


def trials(units: Iterable[Unit]) -> List[Left]:
    """Units of candidates that no tune runs in any more. Each tune removes its own."""
    tuning = {left["name"] for left in jobs(units) if left["kind"] == "job" and left["name"].startswith(TUNES)}
    found = [] if tuning else sorted(glob.glob(TRIAL_UNITS))
    return [{"kind": "trial", "name": os.path.basename(path)} for path in found]
