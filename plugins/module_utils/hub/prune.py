# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which revisions in the cache are old, which files only they use, and their removal.

A revision stays if it was requested, if a branch points to it, or if a unit of this node names it. A unit that names a
repository without a commit keeps all its commits: it may be a running download, or a user's own service.
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
    """A commit of a repository in the cache. ``kept``: the reason why it stays, empty if it is old."""

    repo_id: str
    commit: str
    kept: str = ""


@dataclass(frozen=True)
class Plan:
    """What stays, what is removed, and the files that are removed with it."""

    revisions: Sequence[Revision]
    files: Sequence[str]
    freed: int

    @property
    def old(self) -> list[Revision]:
        return [revision for revision in self.revisions if not revision.kept]

    @property
    def whole(self) -> list[str]:
        """The repositories that are removed completely."""
        return sorted(
            {revision.repo_id for revision in self.old}
            - {revision.repo_id for revision in self.revisions if revision.kept}
        )


def make_plan(
    home: str,
    requested: Sequence[Snapshot],
    unit_texts: Mapping[str, str],
    unlisted: bool,
    brought: Sequence[str] = (),
) -> Plan:
    """Decide what stays. ``unlisted``: also remove repositories with no revision in use, else leave them.

    ``brought``: repositories that the collection downloaded. The collection set their branches, so a branch
    alone does not keep a repository that is not in use.
    """
    commits: dict[str, list[str]] = {}
    for row in hub_cache.others(home, []):
        commits.setdefault(row["repo_id"], []).append(row["revision"])
    wanted = {(snapshot.repo_id, hub_snapshot.look(home, snapshot).commit) for snapshot in requested}
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
        return "it was requested"
    name = re.compile(rf"(?<![\w.-])({re.escape(repo_id)}|models--{re.escape(repo_id.replace('/', '--'))})(?![\w.-])")
    for unit, text in sorted(unit_texts.items()):
        if commit in text or (name.search(text) and not any(other in text for other in here)):
            return f"{unit} names it"
    branch = _branches(Cache(home), repo_id).get(commit, "")
    return f"{_BRANCH}{branch}" if branch else ""


def _in_use(reason: str) -> bool:
    return bool(reason) and not reason.startswith(_BRANCH)


def _branches(cache: Cache, repo_id: str) -> dict[str, str]:
    """commit -> a branch that points to it, from our record or from the ref of the hub's own tools."""
    branches = {}
    for folder in (os.path.join(cache.folder(repo_id), "refs"), os.path.dirname(cache.record(repo_id, "x"))):
        for path in _walk(folder):
            with contextlib.suppress(OSError, UnicodeDecodeError):
                branches[node_files.read_text(path).strip()] = os.path.relpath(path, folder)
    return branches


def unit_texts(folders: Sequence[str] = UNIT_DIRS, record_dirs: Sequence[str] = RECORD_DIRS) -> dict[str, str]:
    """The text of each unit of the node, with its drop-ins and, if it is ours, its configuration."""
    configs = {instance.unit: instance.files.config for instance in known.instances(folders, record_dirs)}
    texts: dict[str, str] = {unit: node_files.text_of(path) for unit, path in configs.items()}
    for folder in folders:
        for path in [*glob.glob(f"{folder}/*.service"), *glob.glob(f"{folder}/*.service.d/*.conf")]:
            name = os.path.basename(path if path.endswith(".service") else os.path.dirname(path)[: -len(".d")])
            texts[name] = texts.get(name, "") + node_files.text_of(path)
    return texts


# -- files ------------------------------------------------------------------------------------------------------------
def _files_of(home: str, revisions: Sequence[Revision]) -> tuple[list[str], int]:
    """The files that only old revisions use, and their bytes. A blob may be shared, also between repositories."""
    cache = Cache(home)
    gone: set[str] = set()
    stays: set[str] = set()
    for revision in revisions:
        for path in _walk(cache.snapshot(revision.repo_id, revision.commit)):
            (stays if revision.kept else gone).update(_leads_to(path))
    # Blobs of other repositories may link to shared ones, even if no snapshot names them.
    for path in glob.glob(os.path.join(glob.escape(cache.hub), "*--*", "blobs", "*")):
        if path not in gone:
            stays.update(_leads_to(path))
    files = sorted(path for path in gone - stays if _inside(path, cache.hub) and os.path.lexists(path))
    # A file with another hard link elsewhere, made by an import from a folder, frees no bytes.
    real = [os.lstat(path) for path in files if not os.path.islink(path)]
    return files, sum(shown.st_size for shown in real if shown.st_nlink == 1)


def _leads_to(path: str) -> Iterator[str]:
    """The path, and each path that it links to."""
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
    """Delete the manifest first, so an interrupted removal never looks complete."""
    cache = Cache(home)
    for revision in plan.old:
        folder = cache.folder(revision.repo_id)
        _unlink(cache.manifest(revision.repo_id, revision.commit))
        _unlink(os.path.join(folder, "trees", f"{revision.commit}.json"))
        for kind in (".no_exist", "snapshots"):
            shutil.rmtree(os.path.join(folder, kind, revision.commit), ignore_errors=True)
    for path in plan.files:
        _unlink(path)
        _unlink(f"{path}.refs")  # the hub's own tools keep here which repositories share it
    for repo_id in plan.whole:
        shutil.rmtree(cache.folder(repo_id), ignore_errors=True)


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
