# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Weights in a folder of this node, which may be a mounted share: answers the same questions as the hub.

There are two layouts. The hub's cache (an HF_HOME, or its folder ``hub``) holds many models. File hashes come from our
manifest, else from the listing that the hub's client keeps, else from the names of the blobs. A plain folder holds one
model, with ``config.json`` at the top. ``hf download --local-dir`` stores commit and hash of each file beside them.
A file without a known hash is used as it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from dataclasses import dataclass, replace
from typing import Any, Iterator, Mapping, Sequence

from .. import paths
from ..node import files as node_files
from . import snapshot as hub_snapshot
from .api import About, HubError
from .snapshot import Cache, Manifest, RepoFile, Snapshot

_ETAG = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
AS_FOUND = "as found"


class SourceError(HubError):
    """The folder does not hold what was asked for."""

    def __init__(self, sentence: str) -> None:
        super().__init__("no_source", sentence)


@dataclass(frozen=True)
class Offer:
    """What a folder has of a snapshot. ``vouched``: where the hashes come from."""

    commit: str
    files: Sequence[RepoFile]
    places: Mapping[str, str]
    vouched: str
    #: The hub's listing, which may name more files than the folder has; empty if there is none.
    listing: Sequence[RepoFile] = ()
    gated: bool = False

    @property
    def hashed(self) -> bool:
        """Whether the hashes are known. If not, they are computed from the files."""
        return self.vouched != AS_FOUND


def find(source: str, snapshot: Snapshot) -> Offer:
    """Find the snapshot in the folder.

    Raises:
        SourceError: the snapshot or one of its files is missing, or a file lies outside of the folder.
    """
    offer = listed(source, snapshot)
    short = [
        f.path for f in offer.files if snapshot.wants(f.path) and hub_snapshot.size_of(offer.places[f.path]) != f.size
    ]
    if short:
        names = ", ".join(short[:3]) + (f" and {len(short) - 3} more" if len(short) > 3 else "")
        raise SourceError(
            f"{source} does not hold all of {snapshot.repo_id} at {offer.commit}: {names} is missing or incomplete."
        )
    return offer


def listed(source: str, snapshot: Snapshot) -> Offer:
    """What the folder says that the snapshot holds, whether all of it is there or not.

    Raises:
        SourceError: it does not have the snapshot, or names files that lie elsewhere.
    """
    cache = _cache(source, snapshot.repo_id)
    try:
        offer = _offer(cache, source, snapshot)
        paths.disjoint(file.path for file in offer.files)
    except paths.Refused as refused:
        raise SourceError(f"{source} has an invalid listing of {snapshot.repo_id}: {refused}.") from refused
    _check_inside(source, cache, snapshot.repo_id, {f.path: offer.places[f.path] for f in offer.files})
    return offer


def _offer(cache: Cache | None, source: str, snapshot: Snapshot) -> Offer:
    if cache:
        return _in_cache(cache, source, snapshot)
    if os.path.isfile(os.path.join(source, "config.json")):
        return _in_folder(source, snapshot)
    name = os.path.basename(Cache("").folder(snapshot.repo_id))
    raise SourceError(
        f"{source} on this node holds no {snapshot.repo_id}: it has neither {name} (the layout of the hub's cache)"
        " nor config.json (a folder of one model). Check that it is mounted."
    )


def _check_inside(source: str, cache: Cache | None, repo_id: str, places: Mapping[str, str]) -> None:
    """Reject links that leave the folder: a share must not make root read or publish other files of the node."""
    roots = [cache.home, cache.folder(repo_id)] if cache else [source]
    inside = tuple(os.path.join(os.path.realpath(root), "") for root in roots)
    for path, place in sorted(places.items()):
        if not os.path.exists(place):
            continue  # reported with the other missing files
        real = os.path.realpath(place)
        if not real.startswith(inside):
            raise SourceError(f"{source} has {path} of {repo_id} as a link to {real}, outside of the folder.")
        if not stat.S_ISREG(os.stat(real).st_mode):
            raise SourceError(f"{source} has {path} of {repo_id}, which is not a file.")


def linkable(source: str, home: str) -> bool:
    """Whether files can be hard-linked into ``home`` instead of copied: same filesystem, and the folder is root's own.

    A file of another user is copied all the same.
    """
    folder = os.path.realpath(home)
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    there = os.stat(source) if os.path.exists(source) else None
    return there is not None and there.st_dev == os.stat(folder).st_dev and there.st_uid == 0


def is_roots_own(place: str) -> bool:
    """Whether root alone may change a file, so that its bytes stay as they were verified.

    The owner of the folder above is no proof: other users may have filled it.
    """
    there = os.stat(place)
    return there.st_uid == 0 and not there.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


@dataclass(frozen=True)
class Folder:
    """Same interface as ``api.Hub``, for a local folder; needs no token."""

    source: str
    requested: Sequence[Snapshot]
    token: str = ""

    def account(self) -> str:
        return ""

    def check_access(self, snapshot: Snapshot, account: str = "") -> None:
        several = sorted({snapshot.repo_id for snapshot in self.requested})
        if len(several) > 1 and not _cache(self.source, snapshot.repo_id):
            raise SourceError(
                f"{self.source} holds no {snapshot.repo_id} in the layout of the hub's cache. A plain folder holds one"
                f" model, but {len(several)} are requested: {', '.join(several)}."
            )
        find(self.source, snapshot)

    def commit(self, snapshot: Snapshot) -> str:
        return find(self.source, snapshot).commit

    def tree(self, snapshot: Snapshot, commit: str) -> list[RepoFile]:
        return list(find(self.source, replace(snapshot, revision=commit)).files)

    def about(self, snapshot: Snapshot) -> About:
        """What is known of a revision and its files, also of those that are not here."""
        offer = listed(self.source, snapshot)
        return About(offer.commit, offer.gated, "", offer.files)

    def read(self, snapshot: Snapshot, commit: str, file: RepoFile) -> bytes:
        """A small file's content."""
        place = listed(self.source, replace(snapshot, revision=commit)).places[file.path]
        try:
            return node_files.read_bytes(place)
        except OSError as trouble:
            raise SourceError(f"{place} cannot be read: {trouble.strerror}.") from trouble


# -- the layout of the hub's cache -----------------------------------------------------------------------------------
def _cache(source: str, repo_id: str) -> Cache | None:
    """The cache that holds the repository: ``source`` is its HF_HOME, or the folder ``hub`` in it."""
    for home in (source, os.path.dirname(source.rstrip("/")) if os.path.basename(source.rstrip("/")) == "hub" else ""):
        if home and os.path.isdir(Cache(home).folder(repo_id)):
            return Cache(home)
    return None


def _in_cache(cache: Cache, source: str, snapshot: Snapshot) -> Offer:
    repo_id = snapshot.repo_id
    commit = snapshot.revision if snapshot.pinned else _branch(cache, repo_id, snapshot.revision)
    if not commit or not os.path.isdir(cache.snapshot(repo_id, commit)):
        here = sorted(_listdir(os.path.join(cache.folder(repo_id), "snapshots")))
        raise SourceError(
            f"{source} holds {repo_id}, but not {snapshot.revision}. It has: {', '.join(here) or 'no revision'}."
        )
    listing = _listing(_read(cache.listing(repo_id, commit)))
    places = dict(walk(cache.snapshot(repo_id, commit)))
    manifest = _manifest(_read(cache.manifest(repo_id, commit)))
    gated = manifest is not None and manifest.gated
    files, vouched = [*manifest.files, *manifest.left_out] if manifest else [], "its manifest"
    if not files and listing:
        files, vouched = listing, "the hub's listing beside it"
    if not files:
        files, vouched = _named(places), "the names of its blobs"
    if not files:
        files, vouched = _as_found(places), AS_FOUND
    every = {**{f.path: cache.pointer(repo_id, commit, f.path) for f in files}, **places}
    return Offer(commit, files, every, vouched, listing, gated)


def _branch(cache: Cache, repo_id: str, branch: str) -> str:
    """The commit of a branch: from our record, else from the ref that the hub's own tools keep."""
    noted = _read(os.path.join(cache.folder(repo_id), "refs", *branch.split("/"))).strip()
    return hub_snapshot.recorded_commit(cache, repo_id, branch) or (noted if paths.COMMIT.fullmatch(noted) else "")


def _manifest(text: str) -> Manifest | None:
    try:
        return Manifest.load(text)
    except paths.Refused:
        raise
    except ValueError:
        return None


def _listing(text: str) -> list[RepoFile]:
    """The files in the listing that huggingface_hub keeps in ``trees``. Skips files that are not on this node."""
    try:
        entries: Mapping[str, Mapping[str, Any]] = json.loads(text)["files"]
        return [
            RepoFile(path, entry["size"], entry["blob_id"], entry.get("lfs_sha256") or "", entry.get("xet_hash") or "")
            for path, entry in entries.items()
        ]
    except paths.Refused:
        raise
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def _named(places: Mapping[str, str]) -> list[RepoFile]:
    """Files with the hashes in the names of their blobs. A blob outside (shared by xet) is not named after its hash."""
    files = []
    for path, place in places.items():
        blob = os.path.realpath(place)
        name = os.path.basename(blob)
        own = os.path.basename(os.path.dirname(blob)) == "blobs"
        if not own or not _ETAG.fullmatch(name):
            return []
        files.append(_file(path, place, name))
    return files


# -- a plain folder ---------------------------------------------------------------------------------------------------
def _in_folder(source: str, snapshot: Snapshot) -> Offer:
    places = {path: place for path, place in walk(source) if not path.split("/")[0].startswith(".")}
    commits, files = set(), []
    for path, place in places.items():
        # commit, etag and time, as hf download --local-dir writes them
        lines = _read(os.path.join(source, ".cache", "huggingface", "download", path + ".metadata")).splitlines()
        if len(lines) < 2 or not paths.COMMIT.fullmatch(lines[0]) or not _ETAG.fullmatch(lines[1]):
            continue
        commits.add(lines[0])
        files.append(_file(path, place, lines[1]))
    if len(files) == len(places) and len(commits) == 1:
        offer = Offer(commits.pop(), files, places, "the metadata of hf download")
    else:
        hashed = _as_found(places)
        stands_for = hashlib.sha1("".join(f.oid for f in hashed).encode(), usedforsecurity=False).hexdigest()
        offer = Offer(snapshot.revision if snapshot.pinned else stands_for, hashed, places, AS_FOUND)
    if snapshot.pinned and offer.commit != snapshot.revision:
        requested = f"{snapshot.revision} of {snapshot.repo_id}"
        raise SourceError(f"{source} holds commit {offer.commit}, but {requested} is requested.")
    return offer


def _as_found(places: Mapping[str, str]) -> list[RepoFile]:
    """Files without a known hash. Their oid only shows whether the folder has changed."""
    files = []
    for path, place in sorted(places.items()):
        shown = os.stat(place)
        state = f"{path} {shown.st_size} {int(shown.st_mtime)}"
        files.append(RepoFile(path, shown.st_size, hashlib.sha1(state.encode(), usedforsecurity=False).hexdigest()))
    return files


def _file(path: str, place: str, etag: str) -> RepoFile:
    size = max(0, hub_snapshot.size_of(place))
    return RepoFile(path, size, "", etag) if len(etag) == 64 else RepoFile(path, size, etag)


def walk(folder: str) -> Iterator[tuple[str, str]]:
    """Every file below a folder, as (path in the repository, path on disk)."""
    for at, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            place = os.path.join(at, name)
            yield os.path.relpath(place, folder).replace(os.sep, "/"), place


def _listdir(path: str) -> list[str]:
    return os.listdir(path) if os.path.isdir(path) else []


def _read(path: str) -> str:
    try:
        return node_files.read_text(path)
    except (OSError, UnicodeDecodeError):
        return ""
