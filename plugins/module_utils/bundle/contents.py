# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bundle: everything that a node without a network needs, as a folder or a tar, with a manifest of every byte.

``manifest.json`` names each file with its size and SHA-256, each link with its target, and the system that the packages
are for. It is the first file of the tar, so the other files are compared while they are unpacked. The manifest detects
a damaged copy. It does not prove who made the bundle: packages are also checked by their publishers' signatures. So the
manifest is treated as hostile: each path must lie in the bundle, a link must point to one of its files, no file may lie
below a link, and a file that the manifest does not name is rejected.

This file is also copied to the node for the job: standard library only, no import of Ansible.
"""

from __future__ import annotations

import io
import json
import os
import posixpath
import re
import shutil
import stat
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, Callable, Mapping, Sequence

from .. import paths
from ..hub import snapshot as hub_snapshot
from ..hub.progress import Progress
from ..hub.snapshot import RepoFile
from ..node import files as node_files, words
from ..node.schema import SCHEMA, number_of, numbered

MANIFEST = "manifest.json"
SYSTEM = ("release", "architecture")
WORKERS = 4
#: Files of the hub's tools and of interrupted transfers, which do not belong to a bundle.
_LEFTOVER = re.compile(r"(^|/)hub/\.locks/|\.incomplete$|\.tmp$|/oci-put-blob[^/]*$")
#: More than a manifest of a hundred thousand files needs, and more than the header of any file. tarfile reads both into
#: memory, so a larger one is rejected first.
LARGEST_MANIFEST = 64 << 20
LARGEST_HEADER = 8 << 10


class BundleError(Exception):
    """The message is for the user."""


@dataclass(frozen=True)
class Contents:
    """What a bundle's manifest holds. ``system``: the release and architecture that its packages are for.

    Raises:
        BundleError: a path leads out of the bundle.
    """

    system: Mapping[str, str]
    files: Sequence[RepoFile]
    links: Mapping[str, str]

    def __post_init__(self) -> None:
        own = [file.path for file in self.files]
        try:
            for path in self.links:
                paths.relative(path)
            paths.disjoint([MANIFEST, *own, *self.links])
        except paths.Refused as refused:
            raise BundleError(f"The bundle is invalid: {refused}.") from refused
        there = set(own)
        for path, target in self.links.items():
            if leads_to(path, target) not in there:
                raise BundleError(f"The bundle has a link that points to none of its files: {path!r} to {target!r}.")

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    def dump(self) -> str:
        files = {file.path: {"size": file.size, "sha256": file.sha256} for file in self.files}
        content = {"system": dict(self.system), "files": files, "links": dict(self.links)}
        return json.dumps(numbered(content), indent=1, sort_keys=True) + "\n"

    @classmethod
    def load(cls, text: str) -> Contents:
        try:
            raw = json.loads(text)
            if number_of(raw) != SCHEMA:
                raise BundleError(f"The bundle has schema {number_of(raw)}; this release reads schema {SCHEMA}.")
            files = [RepoFile(path, file["size"], "", file["sha256"]) for path, file in raw["files"].items()]
            system = {key: str(raw["system"][key]) for key in SYSTEM}
            return cls(system, files, {path: str(target) for path, target in raw["links"].items()})
        except paths.Refused as refused:
            raise BundleError(f"The bundle is invalid: {refused}.") from refused
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise BundleError(f"{MANIFEST} of the bundle is damaged.") from None


def leads_to(path: str, target: str) -> str:
    """Where a link points, from its text alone. It may first go up from its own folder, and then down. Else empty.

    A path that goes up after it went down depends on what is there, which may be another link.
    """
    if target.startswith("/") or posixpath.normpath(target) != target:
        return ""
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), target))


# -- making -----------------------------------------------------------------------------------------------------------
def survey(folder: str) -> tuple[dict[str, int], dict[str, str]]:
    """The files of the bundle with their sizes, and its links.

    Raises:
        BundleError: there is something else, such as a device or a pipe.
    """
    files, links = {}, {}
    for at, folders, names in os.walk(folder):
        for name in sorted([*names, *(f for f in folders if os.path.islink(os.path.join(at, f)))]):
            place = os.path.join(at, name)
            path = os.path.relpath(place, folder).replace(os.sep, "/")
            shown = os.lstat(place)
            if stat.S_ISLNK(shown.st_mode):
                links[path] = os.readlink(place)
            elif not stat.S_ISREG(shown.st_mode):
                raise BundleError(f"{place} is neither a file nor a link. A bundle holds nothing else: remove it.")
            elif path != MANIFEST and not _LEFTOVER.search(path):
                files[path] = shown.st_size
    return files, links


def named_hash(path: str) -> str:
    """The SHA-256 in the name of a blob, which was compared when it was downloaded; empty for other files."""
    folder, name = posixpath.split(path)
    return name if posixpath.basename(folder) in ("blobs", "sha256") and paths.SHA256.fullmatch(name) else ""


def seal(folder: str, system: Mapping[str, str], progress: Progress) -> Contents:
    """Hash the files in the folder and write the manifest."""
    sizes, links = survey(folder)
    known = [RepoFile(path, size, "", named_hash(path)) for path, size in sizes.items() if named_hash(path)]
    rest = [RepoFile(path, size, "", "0" * 64) for path, size in sizes.items() if not named_hash(path)]
    progress.begin("hashing", rest)
    hashed = [RepoFile(file.path, file.size, "", got) for file, got in _digests(folder, rest, progress)]
    return Contents(system, sorted([*known, *hashed], key=lambda file: file.path), links)


def pack(folder: str, tar: str, contents: Contents, progress: Progress) -> None:
    """Write the folder as a tar, the manifest first. The same bundle gives the same bytes."""
    progress.begin("packing", contents.files)
    partial = f"{tar}.partial"
    with tarfile.open(partial, "w|", format=tarfile.PAX_FORMAT) as stream:
        text = contents.dump().encode()
        stream.addfile(_member(MANIFEST, len(text)), io.BytesIO(text))
        for file in contents.files:
            with open(os.path.join(folder, file.path), "rb") as source:
                stream.addfile(_member(file.path, file.size), _Told(source, lambda n, f=file: progress.add(f, n)))  # type: ignore[misc]
            progress.finished(file)
        for path, target in contents.links.items():
            link = _member(path, 0)
            link.type, link.linkname, link.mode = tarfile.SYMTYPE, target, 0o777
            stream.addfile(link)
    os.replace(partial, tar)


def _member(path: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(path)
    member.size, member.mode = size, 0o644
    return member


class _Told(io.RawIOBase):
    """A file that reports how much of it was read."""

    def __init__(self, stream: IO[bytes], seen: Callable[[int], None]) -> None:
        super().__init__()
        self.stream, self.seen = stream, seen

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(size)
        self.seen(len(data))
        return data


# -- opening ----------------------------------------------------------------------------------------------------------
def packed_manifest(tar: str) -> str:
    """The manifest of a tar, which is its first file.

    Raises:
        BundleError: the first file is not a manifest, or is too large for one.
    """
    try:
        with open(tar, "rb") as stream:
            first = tarfile.TarInfo.frombuf(stream.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
            if (first.name, first.type) == (MANIFEST, tarfile.REGTYPE) and first.size <= LARGEST_MANIFEST:
                return stream.read(first.size).decode()
    except (tarfile.TarError, OSError, UnicodeDecodeError):
        pass
    raise BundleError(f"{tar} is not a bundle, or its first bytes are damaged.")


def check(folder: str, contents: Contents, progress: Progress) -> None:
    """Compare every file with the manifest.

    Raises:
        BundleError: names the files that are missing or wrong.
    """
    sizes, links = survey(folder)
    listed = {file.path: file.size for file in contents.files}
    wrong = [
        f"{path} is not the original link (rsync -a and cp -a keep links, scp does not)"
        for path, target in contents.links.items()
        if links.get(path) != target
    ]
    known = {*listed, *contents.links}
    wrong += [f"{path!r} is there but not in its manifest: remove it" for path in [*sizes, *links] if path not in known]
    for path, size in listed.items():
        here = sizes.get(path, -1)
        if here != size:
            wrong.append(f"{path} is missing" if here < 0 else f"{path} has {here} bytes of {size}")
    whole = [file for file in contents.files if sizes.get(file.path) == file.size]
    progress.begin("verifying", contents.files)
    wrong += [f"{f.path} differs from its SHA-256" for f, got in _digests(folder, whole, progress) if got != f.sha256]
    if wrong:
        raise BundleError(damage(folder, wrong))


def damage(where: str, wrong: Sequence[str]) -> str:
    more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return f"The bundle {where} is damaged: {'; '.join(wrong[:3])}{more}. Copy it again."


def unpack(tar: str, folder: str, contents: Contents, progress: Progress) -> None:
    """Unpack to a temporary folder, verify, then rename."""
    partial = f"{folder}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    free = shutil.disk_usage(os.path.dirname(folder)).free
    if contents.size > free:
        raise BundleError(
            f"{os.path.dirname(folder)} has {words.size(free)} free, but the bundle needs {words.size(contents.size)}"
        )
    headers = (len(contents.files) + len(contents.links)) * LARGEST_HEADER
    if os.path.getsize(tar) > contents.size + headers + LARGEST_MANIFEST:
        raise BundleError(damage(tar, ["it holds more files than its manifest names"]))
    progress.begin("unpacking", contents.files)
    os.mkdir(partial, mode=0o755)  # fails if something with this name could not be removed: it may be a link
    try:
        with tarfile.open(tar, "r|") as stream:
            _take(stream, partial, contents, progress)
    except (BundleError, tarfile.TarError, ValueError) as trouble:  # tarfile raises ValueError for numbers in a header
        shutil.rmtree(partial, ignore_errors=True)
        reason = str(trouble) if isinstance(trouble, BundleError) else damage(tar, [f"it is incomplete ({trouble})"])
        raise BundleError(reason) from trouble
    node_files.write_atomically(os.path.join(partial, MANIFEST), contents.dump())
    os.rename(partial, folder)


def _take(stream: tarfile.TarFile, folder: str, contents: Contents, progress: Progress) -> None:
    """Extract the files that the manifest names, then the links: so nothing is written through a link."""
    lacking = {file.path: file for file in contents.files}
    links = dict(contents.links)
    for member in stream:
        if member.name == MANIFEST or member.isdir():
            continue
        if member.issym() and links.pop(member.name, None) == member.linkname:
            continue
        file, data = lacking.pop(member.name, None), stream.extractfile(member) if member.isreg() else None
        if file is None or data is None or member.size != file.size:
            raise BundleError(damage(str(stream.name), [f"{member.name!r} differs from the manifest"]))
        place = os.path.join(folder, file.path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if _copy(data, place, file, progress) != file.sha256:
            raise BundleError(damage(str(stream.name), [f"{file.path} differs from its SHA-256"]))
        progress.finished(file)
    if lacking or links:
        raise BundleError(damage(str(stream.name), [f"{path} is missing" for path in [*lacking, *links]]))
    for path, target in contents.links.items():
        place = os.path.join(folder, path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.symlink(target, place)


def _copy(data: IO[bytes], place: str, file: RepoFile, progress: Progress) -> str:
    hasher = hub_snapshot.Hasher(file)
    with open(place, "xb") as target:
        while block := data.read(hub_snapshot.BLOCK):
            target.write(block)
            hasher.update(block)
            progress.add(file, len(block))
    return hasher.hexdigest()


def _digests(folder: str, files: Sequence[RepoFile], progress: Progress) -> list[tuple[RepoFile, str]]:
    def digest_of(file: RepoFile) -> tuple[RepoFile, str]:
        got = hub_snapshot.digest(os.path.join(folder, file.path), file, lambda amount: progress.add(file, amount))
        progress.finished(file)
        return file, got

    with ThreadPoolExecutor(max_workers=WORKERS) as pool:
        return list(pool.map(digest_of, files))
