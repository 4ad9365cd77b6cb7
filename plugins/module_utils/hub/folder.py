# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Weights in a folder of this node, a mounted share included, that answers what the hub would be asked.

Two layouts are known. The hub's own cache (an HF_HOME, or its folder ``hub``) holds many models, and says itself what
each file's hash is: in our manifest, else in the hub's listing that its client keeps, else by the names of the blobs.
A plain folder holds one model, and its ``config.json`` lies at the top; where ``hf download --local-dir`` made it, the
client left commit and hash of each file beside them. Where nothing vouches for a file it is taken as it is found.
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
from .api import HubError
from .snapshot import Cache, Manifest, RepoFile, Snapshot

_ETAG = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
AS_FOUND = "as found"


class SourceError(HubError):
    """What was asked for is not in the folder."""

    def __init__(self, sentence: str) -> None:
        super().__init__("no_source", sentence)


@dataclass(frozen=True)
class Offer:
    """What a folder has of a snapshot. ``vouched``: what the hashes were taken from."""

    commit: str
    files: Sequence[RepoFile]
    places: Mapping[str, str]
    vouched: str
    #: The hub's own, which may name more than is here; empty where it is not beside the files.
    listing: Sequence[RepoFile] = ()

    @property
    def hashed(self) -> bool:
        """Whether the files' hashes are known, or are still to be taken from what is found."""
        return self.vouched != AS_FOUND


def find(source: str, snapshot: Snapshot) -> Offer:
    """The snapshot as the folder has it.

    Raises:
        SourceError: it does not have it, or not all of it; or it names files that lie elsewhere.
    """
    cache = _cache(source, snapshot.repo_id)
    try:
        offer = _offer(cache, source, snapshot)
        paths.disjoint(file.path for file in offer.files)
    except paths.Refused as refused:
        raise SourceError(f"What {source} lists of {snapshot.repo_id} is not taken: {refused}.") from refused
    _check_inside(source, cache, snapshot.repo_id, {f.path: offer.places[f.path] for f in offer.files})
    short = [
        f.path for f in offer.files if snapshot.wants(f.path) and hub_snapshot.size_of(offer.places[f.path]) != f.size
    ]
    if short:
        names = ", ".join(short[:3]) + (f" and {len(short) - 3} more" if len(short) > 3 else "")
        raise SourceError(
            f"{source} does not hold all of {snapshot.repo_id} at {offer.commit}: {names} is missing or cut short."
        )
    return offer


def _offer(cache: Cache | None, source: str, snapshot: Snapshot) -> Offer:
    if cache:
        return _in_cache(cache, source, snapshot)
    if os.path.isfile(os.path.join(source, "config.json")):
        return _in_folder(source, snapshot)
    name = os.path.basename(Cache("").folder(snapshot.repo_id))
    raise SourceError(
        f"{source} on this node holds no {snapshot.repo_id}: neither {name}, as"
        " the hub's own tools lay it out, nor the config.json of one model. Is it mounted?"
    )


def _check_inside(source: str, cache: Cache | None, repo_id: str, places: Mapping[str, str]) -> None:
    """Whoever fills a share must not have root read out, or share out, what lies elsewhere on the node."""
    roots = [cache.home, cache.folder(repo_id)] if cache else [source]
    inside = tuple(os.path.join(os.path.realpath(root), "") for root in roots)
    for path, place in sorted(places.items()):
        if not os.path.exists(place):
            continue  # said with the others that are missing
        real = os.path.realpath(place)
        if not real.startswith(inside):
            raise SourceError(f"{source} has {path} of {repo_id} as a link that leads out of it, to {real}.")
        if not stat.S_ISREG(os.stat(real).st_mode):
            raise SourceError(f"{source} has {path} of {repo_id}, which is no file.")


def linkable(source: str, home: str) -> bool:
    """Whether files can get a second name in ``home`` instead of a copy: one filesystem, and root's own folder.

    A file of somebody else is copied all the same.
    """
    folder = os.path.realpath(home)
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    there = os.stat(source) if os.path.exists(source) else None
    return there is not None and there.st_dev == os.stat(folder).st_dev and there.st_uid == 0


def is_roots_own(place: str) -> bool:
    """Whether root alone may change a file, and so its bytes stay those that were verified.

    Whose the folder above is does not say whose a file in it is: anybody may have had a part in filling it.
    """
    there = os.stat(place)
    return there.st_uid == 0 and not there.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


@dataclass(frozen=True)
class Folder:
    """A source with the manners of ``api.Hub``. It knows no token, and all that is asked of it."""

    source: str
    asked: Sequence[Snapshot]
    token: str = ""

    def account(self) -> str:
        return ""

    def check_access(self, snapshot: Snapshot, account: str = "") -> None:
        several = sorted({one.repo_id for one in self.asked})
        if len(several) > 1 and not _cache(self.source, snapshot.repo_id):
            raise SourceError(
                f"{self.source} holds no {snapshot.repo_id} in the layout of the hub's cache, and a plain folder holds"
                f" one model, while {' and '.join(several)} are asked for."
            )
        find(self.source, snapshot)

    def commit(self, snapshot: Snapshot) -> str:
        return find(self.source, snapshot).commit

    def tree(self, snapshot: Snapshot, commit: str) -> list[RepoFile]:
        return list(find(self.source, replace(snapshot, revision=commit)).files)


# -- the hub's own layout ---------------------------------------------------------------------------------------------
def _cache(source: str, repo_id: str) -> Cache | None:
    """The cache that holds the repository, whether its HF_HOME was given or the folder ``hub`` in it."""
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
            f"{source} holds {repo_id}, and not at {snapshot.revision}: {', '.join(here) or 'no revision'} is there."
        )
    listing = _listing(_read(cache.listing(repo_id, commit)))
    places = dict(_walk(cache.snapshot(repo_id, commit)))
    files, vouched = _manifest(_read(cache.manifest(repo_id, commit))), "its manifest"
    if not files and listing:
        files, vouched = listing, "the hub's listing beside it"
    if not files:
        files, vouched = _named(places), "the names of its blobs"
    if not files:
        files, vouched = _as_found(places), AS_FOUND
    every = {**{f.path: cache.pointer(repo_id, commit, f.path) for f in files}, **places}
    return Offer(commit, files, every, vouched, listing)


def _branch(cache: Cache, repo_id: str, branch: str) -> str:
    """The commit of a branch: as recorded by us, else as the hub's own tools note it."""
    noted = _read(os.path.join(cache.folder(repo_id), "refs", *branch.split("/"))).strip()
    return hub_snapshot.recorded_commit(cache, repo_id, branch) or (noted if paths.COMMIT.fullmatch(noted) else "")


def _manifest(text: str) -> list[RepoFile]:
    try:
        manifest = Manifest.load(text)
        return [*manifest.files, *manifest.left_out]
    except paths.Refused:
        raise
    except ValueError:
        return []


def _listing(text: str) -> list[RepoFile]:
    """What huggingface_hub keeps of the hub's listing, in ``trees``. What of it is not here is not on offer."""
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
    """Files by the names of their blobs. One that lies elsewhere (shared by xet) bears another name than its hash."""
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
    places = {path: place for path, place in _walk(source) if not path.split("/")[0].startswith(".")}
    commits, files = set(), []
    for path, place in places.items():
        # commit, etag and time, as hf download --local-dir writes them
        lines = _read(os.path.join(source, ".cache", "huggingface", "download", path + ".metadata")).splitlines()
        if len(lines) < 2 or not paths.COMMIT.fullmatch(lines[0]) or not _ETAG.fullmatch(lines[1]):
            continue
        commits.add(lines[0])
        files.append(_file(path, place, lines[1]))
    if len(files) == len(places) and len(commits) == 1:
        offer = Offer(commits.pop(), files, places, "what hf download noted beside it")
    else:
        found = _as_found(places)
        stands_for = hashlib.sha1("".join(f.oid for f in found).encode(), usedforsecurity=False).hexdigest()
        offer = Offer(snapshot.revision if snapshot.pinned else stands_for, found, places, AS_FOUND)
    if snapshot.pinned and offer.commit != snapshot.revision:
        asked = f"{snapshot.revision} of {snapshot.repo_id}"
        raise SourceError(f"{source} holds commit {offer.commit}, and {asked} is asked for.")
    return offer


def _as_found(places: Mapping[str, str]) -> list[RepoFile]:
    """Files without a hash: the oid only tells one state of the folder from another."""
    files = []
    for path, place in sorted(places.items()):
        shown = os.stat(place)
        state = f"{path} {shown.st_size} {int(shown.st_mtime)}"
        files.append(RepoFile(path, shown.st_size, hashlib.sha1(state.encode(), usedforsecurity=False).hexdigest()))
    return files


def _file(path: str, place: str, etag: str) -> RepoFile:
    size = max(0, hub_snapshot.size_of(place))
    return RepoFile(path, size, "", etag) if len(etag) == 64 else RepoFile(path, size, etag)


def _walk(folder: str) -> Iterator[tuple[str, str]]:
    """Every file below a folder, by its path in the repository."""
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
