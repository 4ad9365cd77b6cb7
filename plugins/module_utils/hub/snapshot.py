# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Hugging Face repository holds, what of it is on this node, and whether that is what the hub has.

The cache is the hub's own (``HF_HOME/hub/models--ORG--NAME/{blobs,refs,snapshots}``), so every other tool finds the
files. Beside them lies one folder more, ``manifests/``: ``COMMIT.json`` is written last, once every file was compared
with the hash in the hub's listing, and names file, size and hash. A snapshot is complete if its manifest says so and
the files are there at their sizes; that takes no network and no hashing. ``manifests/refs/BRANCH`` is the commit that a
branch was resolved to here: ``refs/BRANCH`` is moved by whichever tool comes by.

This file is also copied to the node for the job that pulls: standard library only, and nothing of Ansible.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Callable, Iterable, Mapping, Sequence

from .. import paths
from ..node import files as node_files
from ..node.schema import SCHEMA, number_of
from ..paths import COMMIT, Refused
from . import sight as hub_sight

BLOCK = 4 * 1024 * 1024


@dataclass(frozen=True)
class RepoFile:
    """One file of a repository. ``sha256`` where the hub keeps it as a large file, else git's own hash counts.

    A cache that names a large file by its SHA-256 does not tell its ``oid``, which is empty then.

    Raises:
        Refused: whoever lists it gives a path that leads elsewhere, or a hash or a size that is none.
    """

    path: str
    size: int
    oid: str
    sha256: str = ""
    xet_hash: str = ""

    def __post_init__(self) -> None:
        paths.relative(self.path)
        paths.size(self.size)
        if self.sha256 or not self.oid:
            paths.sha256(self.sha256)
        if self.oid:
            paths.commit(self.oid)
        if self.xet_hash:
            paths.sha256(self.xet_hash)

    @property
    def etag(self) -> str:
        """The name of its blob in the cache."""
        return self.sha256 or self.oid

    @property
    def hash_name(self) -> str:
        return "SHA-256" if self.sha256 else "git oid"


@dataclass(frozen=True)
class Snapshot:
    """One revision of one repository, less what is not wanted of it. No revision means the branch ``main``.

    ``branch`` is what a commit was resolved from before it came here, to be recorded with it.
    """

    repo_id: str
    revision: str = "main"
    ignore_patterns: Sequence[str] = ()
    branch: str = ""

    def __post_init__(self) -> None:
        paths.repo_id(self.repo_id)
        paths.revision(self.revision)
        if self.branch:
            paths.revision(self.branch, "branch")

    @property
    def pinned(self) -> bool:
        return bool(COMMIT.fullmatch(self.revision))

    def wants(self, path: str) -> bool:
        """Patterns as the hub's own tools read them."""
        return not any(fnmatchcase(path, p + "*" if p.endswith("/") else p) for p in self.ignore_patterns)


def parse_snapshots(raw: Iterable[Mapping[str, Any]]) -> list[Snapshot]:
    """Each revision once, whatever else the entries hold: several instances may serve one model."""
    found: dict[tuple[str, str], Snapshot] = {}
    for entry in raw:
        if not isinstance(entry, Mapping) or not entry.get("repo_id"):
            raise ValueError(f"a snapshot needs a repo_id: {entry!r}")
        patterns = entry.get("ignore_patterns") or ()
        revision, branch = str(entry.get("revision") or "main"), str(entry.get("branch") or "")
        one = Snapshot(str(entry["repo_id"]), revision, tuple(map(str, patterns)), branch)
        key = (one.repo_id, one.revision)
        if key in found:  # what one of them wants is fetched
            both = [p for p in found[key].ignore_patterns if p in one.ignore_patterns]
            one = Snapshot(one.repo_id, one.revision, tuple(both), one.branch or found[key].branch)
        found[key] = one
    return list(found.values())


def at_commit(instance: Mapping[str, Any], commit: str, branch: str) -> Mapping[str, Any]:
    """An instance of a branch as one of the commit that it stands for, by what the hub or a seeder says."""
    paths.commit(commit)
    config = {**instance.get("config", {}), "revision": commit}
    return {**instance, "revision": commit, "branch": branch, "config": config}


@dataclass(frozen=True)
class Manifest:
    """What was verified, and what the revision holds besides.

    ``origin``: where it came from, if not from the hub. ``damaged``: what was wanted, and is missing or wrong since.
    """

    repo_id: str
    revision: str
    files: Sequence[RepoFile]
    left_out: Sequence[RepoFile] = ()
    origin: str = ""
    damaged: Sequence[RepoFile] = ()

    def content(self) -> dict[str, Any]:
        content: dict[str, Any] = {
            "schema": SCHEMA,
            "repo_id": self.repo_id,
            "revision": self.revision,
            "files": {f.path: _dump_file(f) for f in self.files},
            "left_out": {f.path: _dump_file(f) for f in self.left_out},
        }
        if self.origin:
            content["origin"] = self.origin
        if self.damaged:
            content["damaged"] = {f.path: _dump_file(f) for f in self.damaged}
        return content

    def dump(self) -> str:
        return json.dumps(self.content(), indent=1, sort_keys=True) + "\n"

    @property
    def listing(self) -> list[RepoFile]:
        """Everything that the revision holds."""
        return [*self.files, *self.left_out, *self.damaged]

    @classmethod
    def load(cls, text: str) -> Manifest:
        return cls.read(json.loads(text))

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Manifest:
        """What ``content`` made.

        Raises:
            Refused: it names what no file, hash, repository or commit may be called.
            ValueError: it is no manifest of this format.
        """
        try:
            if number_of(raw) != SCHEMA:
                raise ValueError(f"a manifest of schema {number_of(raw)}; this release reads schema {SCHEMA}")
            groups = (raw["files"], raw["left_out"], raw.get("damaged", {}))
            files, left_out, damaged = ([_load_file(path, file) for path, file in group.items()] for group in groups)
            paths.disjoint(file.path for file in (*files, *left_out, *damaged))
            repo_id, revision = paths.repo_id(raw["repo_id"]), paths.commit(raw["revision"])
            return cls(repo_id, revision, files, left_out, str(raw.get("origin", "")), damaged)
        except (KeyError, TypeError, AttributeError):
            raise ValueError("a manifest without what belongs into one") from None


def _dump_file(file: RepoFile) -> dict[str, Any]:
    short = {"size": file.size, "oid": file.oid, "sha256": file.sha256, "xet_hash": file.xet_hash}
    return {key: value for key, value in short.items() if value != ""}


def _load_file(path: str, raw: Mapping[str, Any]) -> RepoFile:
    return RepoFile(path, raw["size"], raw.get("oid", ""), raw.get("sha256", ""), raw.get("xet_hash", ""))


def parse_tree(entries: Iterable[Mapping[str, Any]]) -> list[RepoFile]:
    """The files in the hub's listing of a revision.

    Raises:
        Refused: it lists a file outside of its repository, or is no listing.
    """
    try:
        files = []
        for entry in entries:
            if entry.get("type") != "file":
                continue
            lfs = entry.get("lfs") or {}
            sha256 = lfs.get("oid") or lfs.get("sha256") or ""
            files.append(RepoFile(entry["path"], entry["size"], entry["oid"], sha256, entry.get("xetHash") or ""))
        return files
    except (KeyError, TypeError, AttributeError):
        raise Refused("an entry without path, size and oid") from None


def listing_text(files: Iterable[RepoFile]) -> str:
    """The listing of a revision as the hub's own client keeps it in ``trees``, which its offline mode reads."""
    entries = {file.path: _entry(file) for file in sorted(files, key=lambda file: file.path)}
    return json.dumps({"format_version": 1, "files": entries}, indent=1)


def _entry(file: RepoFile) -> dict[str, Any]:
    large = {"lfs_sha256": file.sha256, "lfs_size": file.size} if file.sha256 else {}
    xet = {"xet_hash": file.xet_hash} if file.xet_hash else {}
    return {"size": file.size, "blob_id": file.oid, **large, **xet}


@dataclass(frozen=True)
class Cache:
    """Where things lie under an HF_HOME."""

    home: str

    @property
    def hub(self) -> str:
        return os.path.join(self.home, "hub")

    def folder(self, repo_id: str) -> str:
        return os.path.join(self.hub, "models--" + repo_id.replace("/", "--"))

    def snapshot(self, repo_id: str, commit: str) -> str:
        return os.path.join(self.folder(repo_id), "snapshots", commit)

    def pointer(self, repo_id: str, commit: str, path: str) -> str:
        return os.path.join(self.snapshot(repo_id, commit), *path.split("/"))

    def blob(self, repo_id: str, file: RepoFile) -> str:
        return os.path.join(self.folder(repo_id), "blobs", file.etag)

    def partial(self, repo_id: str, file: RepoFile) -> str:
        return self.blob(repo_id, file) + ".incomplete"

    def manifest(self, repo_id: str, commit: str) -> str:
        return os.path.join(self.folder(repo_id), "manifests", f"{commit}.json")

    def listing(self, repo_id: str, commit: str) -> str:
        """The hub's own tools keep what the hub has listed of a revision here."""
        return os.path.join(self.folder(repo_id), "trees", f"{commit}.json")

    def record(self, repo_id: str, branch: str) -> str:
        return os.path.join(self.folder(repo_id), "manifests", "refs", *branch.split("/"))


@dataclass(frozen=True)
class Found:
    """How a snapshot stands on this node. ``outside``: a sentence of what a container would not see of it."""

    snapshot: Snapshot
    commit: str = ""
    path: str = ""
    bytes: int = 0
    missing: Sequence[str] = ()
    recorded: bool = True
    manifest: Manifest | None = field(default=None, compare=False)
    outside: str = ""

    @property
    def complete(self) -> bool:
        return self.manifest is not None and not self.missing and self.recorded and not self.outside


def look(home: str, snapshot: Snapshot) -> Found:
    """What is here of a snapshot, from the manifest and the files' sizes alone."""
    cache = Cache(home)
    commit = snapshot.revision if snapshot.pinned else recorded_commit(cache, snapshot.repo_id, snapshot.revision)
    blobs = os.path.join(cache.folder(snapshot.repo_id), "blobs")
    outside = hub_sight.out_of_sight(cache.hub, [blobs])
    if not commit:
        return Found(snapshot, outside=outside)
    path = cache.snapshot(snapshot.repo_id, commit)
    try:
        manifest = Manifest.load(node_files.read_text(cache.manifest(snapshot.repo_id, commit)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Found(snapshot, commit, path, outside=outside or hub_sight.out_of_sight(cache.hub, [path]))
    here = {f.path for f in manifest.files if size_of(cache.pointer(snapshot.repo_id, commit, f.path)) == f.size}
    wanted = [f for f in manifest.listing if snapshot.wants(f.path)]
    missing = [f.path for f in wanted if f.path not in here]
    recorded = not snapshot.branch or recorded_commit(cache, snapshot.repo_id, snapshot.branch) == commit
    pointers = [cache.pointer(snapshot.repo_id, commit, f.path) for f in wanted if f.path in here]
    outside = outside or hub_sight.out_of_sight(cache.hub, [path, *pointers])
    amount = sum(f.size for f in wanted if f.path in here)
    return Found(snapshot, commit, path, amount, missing, recorded, manifest, outside)


def recorded_commit(cache: Cache, repo_id: str, branch: str) -> str:
    """The commit that a branch was resolved to when it was fetched here; empty when it never was."""
    try:
        commit = node_files.read_text(cache.record(repo_id, branch)).strip()
    except OSError:
        return ""
    return commit if COMMIT.fullmatch(commit) else ""


def size_of(path: str) -> int:
    """The size of what the path leads to; -1 where it leads nowhere."""
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def bytes_here(home: str, snapshot: Snapshot, commit: str, tree: Sequence[RepoFile]) -> int:
    """How many of the wanted bytes need no fetching: complete files, and what an interrupted pull left."""
    cache, total, seen = Cache(home), 0, set()
    for file in tree:
        if not snapshot.wants(file.path):
            continue
        places = [cache.pointer(snapshot.repo_id, commit, file.path), cache.blob(snapshot.repo_id, file)]
        whole = any(size_of(place) == file.size for place in places)
        if not whole and file.etag in seen:
            whole = True  # two names for one content: one blob, fetched once
        seen.add(file.etag)
        partial = size_of(cache.partial(snapshot.repo_id, file))
        total += file.size if whole else min(max(partial, 0), file.size)
    return total


def wanted_bytes(snapshot: Snapshot, tree: Sequence[RepoFile]) -> int:
    return sum(file.size for file in tree if snapshot.wants(file.path))


class Hasher:
    """The hash by which the hub knows a file, fed in pieces."""

    def __init__(self, file: RepoFile) -> None:
        if file.sha256:
            self._hash = hashlib.sha256()
        else:
            self._hash = hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)

    def update(self, data: bytes) -> None:
        self._hash.update(data)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def digest(path: str, file: RepoFile, seen: Callable[[int], None] = lambda amount: None) -> str:
    """The hash of what is on disk; ``seen`` is told of every block."""
    hasher = Hasher(file)
    for block in node_files.blocks(path, BLOCK):
        hasher.update(block)
        seen(len(block))
    return hasher.hexdigest()
