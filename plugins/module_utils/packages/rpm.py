# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A repository file of dnf, what other files say under the same name, and what rpm says of packages."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Tuple

from .. import paths


@dataclass(frozen=True)
class Source:
    """One repository and the key that alone may sign it: each package, or the metadata, which has a hash of each."""

    repo_id: str
    title: str
    uri: str
    key_path: str
    packages_signed: bool
    metadata_signed: bool
    excludes: Tuple[str, ...] = ()
    comment: str = ""

    def render(self) -> str:
        """The .repo file.

        Raises:
            Refused: a value would begin another line of its own.
        """
        lines = [f"# {line}".rstrip() for line in self.comment.splitlines()]
        lines += [
            f"[{self.repo_id}]",
            f"name={self.title}",
            f"baseurl={self.uri}",
            "enabled=1",
            f"gpgcheck={int(self.packages_signed)}",
            f"repo_gpgcheck={int(self.metadata_signed)}",
            f"gpgkey=file://{self.key_path}",
        ]
        if self.excludes:
            lines.append(f"excludepkgs={' '.join(self.excludes)}")
        return "\n".join(paths.line(line, line.partition("=")[0]) for line in lines) + "\n"


def sections(text: str) -> Dict[str, Dict[str, str]]:
    """A .repo file, leniently: what makes no sense to this reader is for dnf to complain of."""
    found: Dict[str, Dict[str, str]] = {}
    values: Dict[str, str] = {}
    for line in text.splitlines():
        head = re.match(r"\[([^\]]+)\]", line)
        value = re.match(r"(\w+)\s*[=:]\s*(.*)", line)
        if head:
            values = found.setdefault(head.group(1), {})
        elif value:
            values[value.group(1)] = value.group(2).strip()
    return found


def held(text: str, repo_id: str) -> Tuple[str, ...]:
    """The packages that a .repo file keeps dnf from."""
    line = sections(text).get(repo_id, {}).get("excludepkgs", "")
    return tuple(re.findall(r"[^\s,]+", line))


def twins(repo_id: str, files: Mapping[str, str]) -> List[str]:
    """The files, by path, that have a repository of the same name: dnf reads one of them, and not surely this one."""
    return [path for path, text in files.items() if repo_id in sections(text)]


def complaint(said: str) -> str:
    """What dnf has to say in the end: its errors, without the repetitions."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [re.sub(r"^Error: ", "", line) for line in lines if line.startswith("Error: ")] or lines[-3:]
    return " ".join(dict.fromkeys(errors))


QUERY = "%{NAME}\t%{VERSION}-%{RELEASE}\n"


def installed(answer: str) -> Dict[str, str]:
    """Versions of what is there, from ``rpm -q --qf QUERY``, which has a sentence for each that is not."""
    return dict(line.split("\t") for line in answer.splitlines() if "\t" in line)


def plain(version: str) -> str:
    """A version without its epoch, which differs between the package formats for the same release."""
    return re.sub(r"^\d+:", "", version)


def is_release(version: str, wanted: str) -> bool:
    """Whether a version is the one wanted or begins with it: 29.8 stands for 29.8.1-1.el9 and not for 29.80."""
    return version == wanted or version.startswith((f"{wanted}.", f"{wanted}-"))


def spec(name: str, wanted: str) -> str:
    """As dnf is asked for it: a whole version with or without its release is matched exactly, less is a beginning."""
    whole = "-" in wanted or wanted.count(".") >= 2
    return f"{name}-{wanted}" if whole else f"{name}-{wanted}.*"


def missing(packages: List[str], version: Optional[str], pinned: List[str], have: Mapping[str, str]) -> List[str]:
    """Those that are not installed, or not at the version asked for, as dnf is asked for them."""
    wanted = plain(version or "")
    lacking = []
    for name in packages:
        exact = wanted and name in pinned
        if name not in have or (exact and not is_release(have[name], wanted)):
            lacking.append(spec(name, wanted) if exact else name)
    return lacking
