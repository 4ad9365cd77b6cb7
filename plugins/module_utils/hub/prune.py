# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which revisions in the cache are old, what of their files nothing else leads to, and how both are removed.

A revision stays if it was asked for, if a branch leads to it, or if a unit of this node names it. A unit that names a
repository and none of its commits keeps all of them: a pull that goes on, or somebody's own service.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
from dataclasses import dataclass
from typing import Iterable, Iterator, Mapping, Sequence

from ..instance import known
from ..instance.names import RECORD_DIRS, SECOND_UNIT_DIR, UNIT_DIR
from ..node import files as node_files
from . import cache as hub_cache, snapshot as hub_snapshot
from .snapshot import Cache, Snapshot

UNIT_DIRS = (UNIT_DIR, SECOND_UNIT_DIR, "/run/systemd/transient", "/run/systemd/generator")


_BRANCH = "it is the commit of "
_UNUSED = "nothing of its repository is in use, and unlisted is false"


@dataclass(frozen=True)
class Revision:
    """A commit of a repository in the cache; ``kept``: by what, empty for one that is old."""

    repo_id: str
    commit: str
    kept: str = ""


@dataclass(frozen=True)
class Plan:
    """What stays, what goes, and the files that go with it."""

    revisions: Sequence[Revision]
    files: Sequence[str]
    freed: int

    @property
    def old(self) -> list[Revision]:
        return [one for one in self.revisions if not one.kept]

    @property
    def whole(self) -> list[str]:
        """The repositories of which nothing stays."""
        return sorted({one.repo_id for one in self.old} - {one.repo_id for one in self.revisions if one.kept})


def make_plan(
    home: str,
    asked: Sequence[Snapshot],
    unit_texts: Mapping[str, str],
    unlisted: bool,
    brought: Sequence[str] = (),
) -> Plan:
    """``unlisted``: also repositories of which nothing stays. Otherwise those are not touched.

    ``brought``: repositories that the collection brought. That a branch leads to a commit of one is its own doing, so
    it keeps none where nothing of the repository is in use.
    """
    commits: dict[str, list[str]] = {}
    for row in hub_cache.others(home, []):
        commits.setdefault(row["repo_id"], []).append(row["revision"])
    wanted = {(one.repo_id, hub_snapshot.look(home, one).commit) for one in asked}
    revisions = []
    for repo_id, here in sorted(commits.items()):
        reasons = {commit: _reason(home, repo_id, commit, here, wanted, unit_texts) for commit in here}
        if repo_id in brought and not any(map(_in_use, reasons.values())):
            reasons = {commit: why and ("" if unlisted else f"{why}; {_UNUSED}") for commit, why in reasons.items()}
        if not unlisted and not any(reasons.values()):
            reasons = dict.fromkeys(here, _UNUSED)
        revisions += [Revision(repo_id, commit, reasons[commit]) for commit in here]
    files, freed = _files_of(home, revisions)
    return Plan(revisions, files, freed)


def _reason(
    home: str,
    repo_id: str,
    commit: str,
    here: Sequence[str],
    wanted: Iterable[tuple[str, str]],
    unit_texts: Mapping[str, str],
) -> str:
    if (repo_id, commit) in wanted:
        return "it was asked for"
    name = re.compile(rf"(?<![\w.-])({re.escape(repo_id)}|models--{re.escape(repo_id.replace('/', '--'))})(?![\w.-])")
    for unit, text in sorted(unit_texts.items()):
        if commit in text or (name.search(text) and not any(other in text for other in here)):
            return f"{unit} names it"
    branch = _branches(Cache(home), repo_id).get(commit, "")
    return f"{_BRANCH}{branch}" if branch else ""


def _in_use(reason: str) -> bool:
    return bool(reason) and not reason.startswith(_BRANCH)


def _branches(cache: Cache, repo_id: str) -> dict[str, str]:
    """commit -> a branch that leads to it, by our record and by that of the hub's own tools."""
    found = {}
    for folder in (os.path.join(cache.folder(repo_id), "refs"), os.path.dirname(cache.record(repo_id, "x"))):
        for path in _walk(folder):
            with contextlib.suppress(OSError, UnicodeDecodeError):
                found[node_files.read_text(path).strip()] = os.path.relpath(path, folder)
    return found


def unit_texts(folders: Sequence[str] = UNIT_DIRS, record_dirs: Sequence[str] = RECORD_DIRS) -> dict[str, str]:
    """What each unit of the node says, with its drop-ins and, where it is ours, its configuration."""
    configs = {one.unit: one.files.config for one in known.instances(folders, record_dirs)}
    texts: dict[str, str] = {unit: node_files.text_of(path) for unit, path in configs.items()}
    for folder in folders:
        for path in [*glob.glob(f"{folder}/*.service"), *glob.glob(f"{folder}/*.service.d/*.conf")]:
            name = os.path.basename(path if path.endswith(".service") else os.path.dirname(path)[: -len(".d")])
            texts[name] = texts.get(name, "") + node_files.text_of(path)
    return texts


# -- files ------------------------------------------------------------------------------------------------------------
def _files_of(home: str, revisions: Sequence[Revision]) -> tuple[list[str], int]:
    """The files that only old revisions lead to, and their bytes. A blob may be shared, also between repositories."""
    cache = Cache(home)
    gone: set[str] = set()
    stays: set[str] = set()
    for one in revisions:
        for path in _walk(cache.snapshot(one.repo_id, one.commit)):
            (stays if one.kept else gone).update(_leads_to(path))
    # Blobs of other repositories lead to shared ones, also where no snapshot names them.
    for path in glob.glob(os.path.join(glob.escape(cache.hub), "*--*", "blobs", "*")):
        if path not in gone:
            stays.update(_leads_to(path))
    files = sorted(path for path in gone - stays if _inside(path, cache.hub) and os.path.lexists(path))
    # A file with a further name elsewhere, which was linked from a folder, does not free its bytes.
    real = [os.lstat(path) for path in files if not os.path.islink(path)]
    return files, sum(shown.st_size for shown in real if shown.st_nlink == 1)


def _leads_to(path: str) -> Iterator[str]:
    """The path, and each that it leads to."""
    for _hop in range(8):
        yield path
        if not os.path.islink(path):
            return
        path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))


def _inside(path: str, folder: str) -> bool:
    return path.startswith(os.path.join(folder, ""))


def _walk(folder: str) -> Iterator[str]:
    for at, _folders, names in os.walk(folder):
        for name in names:
            yield os.path.join(at, name)


def remove(home: str, plan: Plan) -> None:
    """First what says that the revision is here, so that a removal that breaks off leaves nothing half believed."""
    cache = Cache(home)
    for one in plan.old:
        folder = cache.folder(one.repo_id)
        _unlink(cache.manifest(one.repo_id, one.commit))
        _unlink(os.path.join(folder, "trees", f"{one.commit}.json"))
        for kind in (".no_exist", "snapshots"):
            shutil.rmtree(os.path.join(folder, kind, one.commit), ignore_errors=True)
    for path in plan.files:
        _unlink(path)
        _unlink(f"{path}.refs")  # who shares it, where the hub's own tools keep that
    for repo_id in plan.whole:
        shutil.rmtree(cache.folder(repo_id), ignore_errors=True)


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
