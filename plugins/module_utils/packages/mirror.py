# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A part of an apt repository as files: its signed index as published, and the packages that are needed from it.

apt decides what is needed and downloads it. This file parses apt's output and decides where each file goes: below
``apt/``, at its address without the scheme, so that ``file://BUNDLE/apt/HOST/PATH`` replaces the address.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import Any, Iterable, Mapping, Sequence
from urllib.parse import unquote, urlsplit

from .. import paths

TARGETS = "$(CREATED_BY)\t$(REPO_URI)\t$(BASE_URI)\t$(METAKEY)\t$(FILENAME)"
_URI = re.compile(r"^'([^']+)' (\S+) (\d+)", re.MULTILINE)
_HASHED = re.compile(r"^ ([0-9a-f]{64}) +(\d+) (\S+)$", re.MULTILINE)
#: The signature of an index: inside one file, or in a second one.
SIGNATURES = ("InRelease", "Release", "Release.gpg")


@dataclass(frozen=True)
class Published:
    uri: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Index:
    """One list of packages. ``held``: apt's copy of it; ``base``: the address of the release that signs it."""

    repository: str
    base: str
    key: str
    held: str

    @property
    def suite(self) -> str:
        """The suite of a flat repository is a path, ``/`` for the repository itself."""
        below = self.base[len(self.repository) :].strip("/")
        return below[len("dists/") :] if below.startswith("dists/") else f"{below}/"

    @property
    def component(self) -> str:
        return self.key.rpartition("/binary-")[0]

    def signatures(self) -> list[tuple[str, str]]:
        """The files that may sign it: apt's copies, of which only some exist, and the place of each in the bundle."""
        prefix = self.held[: -len(self.key.replace("/", "_"))]
        return [(prefix + name, place(self.base + name)) for name in SIGNATURES]

    def published(self, release: str) -> Published:
        """The list as published, since apt's own copy is unpacked and apt asks a mirror for the packed file.

        Raises:
            ValueError: the release does not list it.
        """
        listed = {path: (sha256, int(size)) for sha256, size, path in _HASHED.findall(release)}
        for ending in (".xz", ".gz", ".bz2", ""):
            if self.key + ending in listed:
                return Published(self.base + self.key + ending, *listed[self.key + ending])
        raise ValueError(f"the release at {self.base} lists no {self.key} with its SHA-256")


@dataclass(frozen=True)
class Deb:
    uri: str
    name: str
    size: int


def settings(work: str) -> dict[str, str]:
    """The configuration of a separate apt, below a folder, that sees no installed package."""
    return {
        "Dir::Etc::SourceList": "/dev/null",
        "Dir::Etc::SourceParts": f"{work}/sources.list.d",
        "Dir::State::Lists": f"{work}/lists",
        "Dir::State::status": f"{work}/status",
        "Dir::Cache::Archives": f"{work}/archives",
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",
        "APT::Install-Recommends": "false",
        # Ubuntu offers an update to some machines first. Whether this host is one of them must not matter.
        "APT::Get::Always-Include-Phased-Updates": "true",
        "Debug::NoLocking": "true",
    }


def place(uri: str) -> str:
    """The place in the bundle for a file at an address.

    >>> place("https://user:secret@deb.example.net:8080/debian/pool/a%2bb.deb")
    'apt/deb.example.net:8080/debian/pool/a+b.deb'
    """
    parts = urlsplit(uri)
    path = unquote(f"{parts.netloc.rpartition('@')[2]}/{parts.path.lstrip('/')}").lstrip("/")
    if ".." in path.split("/"):
        raise ValueError(f"the address {uri} leads out of its repository")
    return paths.relative(posixpath.normpath(f"apt/{path}"))


def parse_targets(text: str) -> list[Index]:
    """Parse the output of ``apt-get indextargets --format TARGETS``."""
    rows = [line.split("\t") for line in text.splitlines()]
    return [Index(*row[1:]) for row in rows if row[0] == "Packages"]


def parse_uris(text: str) -> list[Deb]:
    """Parse the output of ``apt-get install --print-uris``."""
    return [Deb(uri, name, int(size)) for uri, name, size in _URI.findall(text)]


def used(indexes: Iterable[Index], debs: Sequence[Deb], repositories: Sequence[str]) -> list[Index]:
    """The lists that the node needs: of the requested repositories, and of those that a package comes from."""
    wanted = [uri.rstrip("/") + "/" for uri in repositories]

    def needed(index: Index) -> bool:
        return index.repository.rstrip("/") + "/" in wanted or any(d.uri.startswith(index.repository) for d in debs)

    return [index for index in indexes if needed(index)]


def outdated(files: Mapping[str, int], others: Mapping[str, Mapping[str, int]]) -> list[str]:
    """The other requests that used an older index, by name, with the files of each."""
    return [name for name, had in others.items() if any(path in had and had[path] != files[path] for path in files)]


def repositories(indexes: Iterable[Index], own: Sequence[str]) -> list[dict[str, Any]]:
    """The repositories to record in the bundle for the node's apt. ``own``: those for which a role has a source."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    ours = [place(uri) for uri in own]
    for index in indexes:
        path = place(index.repository)
        row = rows.setdefault((path, index.suite), {"path": path, "suite": index.suite, "components": []})
        row["own"] = path in ours
        if index.component and index.component not in row["components"]:
            row["components"].append(index.component)
    return list(rows.values())
