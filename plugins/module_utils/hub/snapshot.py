# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Hugging Face repository holds, which of its files are on this node, and whether their hashes are right.

The cache has the hub's own layout (``HF_HOME/hub/models--ORG--NAME/{blobs,refs,snapshots}``), so every other tool finds
the files. We add one folder, ``manifests/``: ``COMMIT.json`` holds name, size and hash of each file. It is written
last, after every file was compared with the hash in the hub's listing. A snapshot is complete if its manifest says so
and the files have their sizes; checking that needs no network and no hashing. ``manifests/refs/BRANCH`` holds the
commit that this collection resolved a branch to: other tools may move ``refs/BRANCH``.

This file is also copied to the node for the download job: standard library only, no import of Ansible.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Callable, Iterable, Iterator, Mapping, Sequence

from .. import paths
from ..node import files as node_files
from ..node.schema import SCHEMA, number_of
from ..paths import COMMIT, Refused
from . import sight as hub_sight

BLOCK = 4 * 1024 * 1024


@dataclass(frozen=True)
class RepoFile:
    """One file of a repository. ``sha256``: for large files; other files have only git's hash, ``oid``.

    ``oid`` is empty if the file comes from a cache that names it by its SHA-256.

    Raises:
        Refused: the path leaves the repository, or a hash or a size is invalid.
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
    """One revision of one repository, without the files that match ``ignore_patterns``. Default revision: ``main``.

    ``branch``: what the commit was resolved from before it came here; it is recorded with the snapshot.
    ``gated``: what the hub said of it; that is recorded as well.
    """

    repo_id: str
    revision: str = "main"
    ignore_patterns: Sequence[str] = ()
    branch: str = ""
    #: Where there are some, only what one of them matches is wanted.
    allow_patterns: Sequence[str] = ()
    gated: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        paths.repo_id(self.repo_id)
        paths.revision(self.revision)
        if self.branch:
            paths.revision(self.branch, "branch")

    @property
    def pinned(self) -> bool:
        return bool(COMMIT.fullmatch(self.revision))

    def wants(self, path: str) -> bool:
        return wanted(path, self.allow_patterns, self.ignore_patterns)


def wanted(path: str, allow_patterns: Sequence[str], ignore_patterns: Sequence[str]) -> bool:
    """Whether a file is fetched. Patterns work as in the hub's own tools."""

    def one_of(patterns: Sequence[str]) -> bool:
        return any(fnmatchcase(path, p + "*" if p.endswith("/") else p) for p in patterns)

    return (not allow_patterns or one_of(allow_patterns)) and not one_of(ignore_patterns)


def repositories(raw: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The entries, and after each what it serves with its model: adapters and a draft, each a repository of its own."""
    for entry in raw:
        yield entry
        if isinstance(entry, Mapping):
            yield from entry.get("lora") or ()
            yield from [entry["draft"]] if entry.get("draft") else ()


def beside(entry: Mapping[str, Any], change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Mapping[str, Any]:
    """The entry with what it serves with its model changed."""
    adapters = {"lora": [change(adapter) for adapter in entry["lora"]]} if entry.get("lora") else {}
    draft = {"draft": change(entry["draft"])} if entry.get("draft") else {}
    return {**entry, **adapters, **draft}


def parse_snapshots(raw: Iterable[Mapping[str, Any]]) -> list[Snapshot]:
    """Each revision once, whatever else the entries hold: several instances may serve one model.

    One that is served from a ``folder`` of the node's own has no revision.
    """
    snapshots: dict[tuple[str, str], Snapshot] = {}
    for entry in repositories(raw):
        if not isinstance(entry, Mapping) or not entry.get("repo_id"):
            raise ValueError(f"a snapshot needs a repo_id: {entry!r}")
        if entry.get("folder"):
            continue
        snapshot = Snapshot(
            repo_id=str(entry["repo_id"]),
            revision=str(entry.get("revision") or "main"),
            ignore_patterns=tuple(map(str, entry.get("ignore_patterns") or ())),
            branch=str(entry.get("branch") or ""),
            allow_patterns=tuple(map(str, entry.get("allow_patterns") or ())),
            gated=bool(entry.get("gated")),
        )
        key = (snapshot.repo_id, snapshot.revision)
        snapshots[key] = _either(snapshots[key], snapshot) if key in snapshots else snapshot
    return list(snapshots.values())


def _either(one: Snapshot, other: Snapshot) -> Snapshot:
    """What one of them wants is fetched."""
    allowed = (*one.allow_patterns, *other.allow_patterns) if one.allow_patterns and other.allow_patterns else ()
    return replace(
        other,
        ignore_patterns=tuple(p for p in one.ignore_patterns if p in other.ignore_patterns),
        branch=other.branch or one.branch,
        allow_patterns=tuple(dict.fromkeys(allowed)),
    )


def at_commit(instance: Mapping[str, Any], commit: str, branch: str) -> Mapping[str, Any]:
    """An instance of a branch, pinned to the commit that the hub or a seeder reported."""
    paths.commit(commit)
    config = {**instance.get("config", {}), "revision": commit}
    return {**instance, "revision": commit, "branch": branch, "config": config}


@dataclass(frozen=True)
class Manifest:
    """The verified files, and the other files of the revision.

    ``origin``: where it came from, if not from the hub. ``damaged``: wanted files that are missing or wrong since.
    ``gated``: whether the hub asks for an accepted licence.
    """

    repo_id: str
    revision: str
    files: Sequence[RepoFile]
    left_out: Sequence[RepoFile] = ()
    origin: str = ""
    damaged: Sequence[RepoFile] = ()
    gated: bool = False

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
        if self.gated:
            content["gated"] = True
        return content

    def dump(self) -> str:
        return json.dumps(self.content(), indent=1, sort_keys=True) + "\n"

    @property
    def listing(self) -> list[RepoFile]:
        """All files of the revision."""
        return [*self.files, *self.left_out, *self.damaged]

    @classmethod
    def load(cls, text: str) -> Manifest:
        return cls.read(json.loads(text))

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Manifest:
        """Read what ``content`` returned.

        Raises:
            Refused: a file, hash, repository or commit has an invalid name.
            ValueError: it is not a manifest of this format.
        """
        try:
            if number_of(raw) != SCHEMA:
                raise ValueError(f"the manifest has schema {number_of(raw)}; this release reads schema {SCHEMA}")
            groups = (raw["files"], raw["left_out"], raw.get("damaged", {}))
            files, left_out, damaged = ([_load_file(path, file) for path, file in group.items()] for group in groups)
            paths.disjoint(file.path for file in (*files, *left_out, *damaged))
            repo_id, revision = paths.repo_id(raw["repo_id"]), paths.commit(raw["revision"])
            origin, gated = str(raw.get("origin", "")), raw.get("gated") is True
            return cls(repo_id, revision, files, left_out, origin, damaged, gated)
        except (KeyError, TypeError, AttributeError):
            raise ValueError("the manifest lacks a required key") from None


def _dump_file(file: RepoFile) -> dict[str, Any]:
    short = {"size": file.size, "oid": file.oid, "sha256": file.sha256, "xet_hash": file.xet_hash}
    return {key: value for key, value in short.items() if value != ""}


def _load_file(path: str, raw: Mapping[str, Any]) -> RepoFile:
    return RepoFile(path, raw["size"], raw.get("oid", ""), raw.get("sha256", ""), raw.get("xet_hash", ""))


def parse_tree(entries: Iterable[Mapping[str, Any]]) -> list[RepoFile]:
    """The files in the hub's listing of a revision.

    Raises:
        Refused: it lists a file outside of its repository, or it is not a listing.
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
    """The listing of a revision in the format of the hub's client (``trees``), which its offline mode reads."""
    entries = {file.path: _entry(file) for file in sorted(files, key=lambda file: file.path)}
    return json.dumps({"format_version": 1, "files": entries}, indent=1)


def _entry(file: RepoFile) -> dict[str, Any]:
    large = {"lfs_sha256": file.sha256, "lfs_size": file.size} if file.sha256 else {}
    xet = {"xet_hash": file.xet_hash} if file.xet_hash else {}
    return {"size": file.size, "blob_id": file.oid, **large, **xet}


@dataclass(frozen=True)
class Cache:
    """The paths below an HF_HOME."""

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
        """Where the hub's own tools keep the hub's listing of a revision."""
        return os.path.join(self.folder(repo_id), "trees", f"{commit}.json")

    def record(self, repo_id: str, branch: str) -> str:
        return os.path.join(self.folder(repo_id), "manifests", "refs", *branch.split("/"))


@dataclass(frozen=True)
class Found:
    """The state of a snapshot on this node. ``outside``: a sentence on files that a container would not see."""

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
    """Find a snapshot on this node, from the manifest and the files' sizes alone."""
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
    """The commit that a branch was resolved to at its last download here; empty if there was none."""
    try:
        commit = node_files.read_text(cache.record(repo_id, branch)).strip()
    except OSError:
        return ""
    return commit if COMMIT.fullmatch(commit) else ""


def size_of(path: str) -> int:
    """The size of the file that the path links to; -1 if there is none."""
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def bytes_here(home: str, snapshot: Snapshot, commit: str, tree: Sequence[RepoFile]) -> int:
    """How many of the wanted bytes need no download: complete files and partial ones."""
    cache, total, seen = Cache(home), 0, set()
    for file in tree:
        if not snapshot.wants(file.path):
            continue
        places = [cache.pointer(snapshot.repo_id, commit, file.path), cache.blob(snapshot.repo_id, file)]
        whole = any(size_of(place) == file.size for place in places)
        if not whole and file.etag in seen:
            whole = True  # two names with one content: one blob, fetched once
        seen.add(file.etag)
        partial = size_of(cache.partial(snapshot.repo_id, file))
        total += file.size if whole else min(max(partial, 0), file.size)
    return total


def wanted_bytes(snapshot: Snapshot, tree: Sequence[RepoFile]) -> int:
    return sum(file.size for file in tree if snapshot.wants(file.path))


class Hasher:
    """The hash that the hub has of a file, updated block by block."""

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
    """The hash of a file on disk; calls ``seen`` with the size of every block."""
    hasher = Hasher(file)
    for block in node_files.blocks(path, BLOCK):
        hasher.update(block)
        seen(len(block))
    return hasher.hexdigest()
