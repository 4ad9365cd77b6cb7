# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An apt source in deb822 form, what apt says of it, and what dpkg says of packages."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Tuple

from .. import paths


@dataclass(frozen=True)
class Source:
    """One repository and the key that alone may sign it."""

    uri: str
    suite: str
    components: Tuple[str, ...]
    architectures: Tuple[str, ...]
    signed_by: str
    comment: str = ""

    def render(self) -> str:
        """The .sources file.

        Raises:
            Refused: a value would begin another field, or another repository, of its own.
        """
        lines = [f"# {line}".rstrip() for line in self.comment.splitlines()]
        fields = {
            "Types": "deb",
            "URIs": self.uri,
            "Suites": self.suite,
            "Components": " ".join(self.components),
            "Architectures": " ".join(self.architectures),
            "Signed-By": self.signed_by,
        }
        lines += [f"{name}: {paths.line(value, name)}" for name, value in fields.items() if value]
        return "\n".join(lines) + "\n"


def configuration(settings: Mapping[str, str]) -> str:
    """A file for ``APT_CONFIG``.

    Raises:
        Refused: a value would end before its end.
    """
    for name, value in settings.items():
        if '"' in paths.line(value, name):
            raise paths.Refused(f"{value!r} is no {name}: it holds a quotation mark")
    return "".join(f'{name} "{value}";\n' for name, value in settings.items())


#: What packages have apt run after its lists are new, taken out of a configuration that is given by ``-c``.
NO_HOOKS = "".join(f"#clear APT::Update::{when};\n" for when in ("Pre-Invoke", "Post-Invoke", "Post-Invoke-Success"))
#: What apt ends with whatever is wrong with its sources.
SOURCES_UNREAD = "The list of sources could not be read."


def complaint(said: str) -> str:
    """What apt-get has to say in the end: its errors, without the repetitions."""
    lines = [line[2:].strip() for line in said.splitlines() if line.startswith(("E:", "W:"))]
    kept = [line for at, line in enumerate(lines) if line not in lines[:at] and line != SOURCES_UNREAD]
    return " ".join(kept) or said.strip()


@dataclass(frozen=True)
class Package:
    """What dpkg knows of an installed package."""

    version: str
    held: bool = False


QUERY = "${Package}\t${db:Status-Abbrev}\t${Version}\n"


def installed(answer: str) -> Dict[str, Package]:
    """The packages that are fully there, from ``dpkg-query -W -f QUERY``."""
    found = {}
    for line in answer.splitlines():
        name, status, version = line.split("\t")
        if status[1:2] == "i":
            found[name] = Package(version, status[0] == "h")
    return found


def split_spec(spec: str) -> Tuple[str, str]:
    """``docker-ce=5:29*`` is (docker-ce, 5:29*); without a version any will do."""
    name, _equals, version = spec.partition("=")
    return name, version or "*"


def pin(packages: List[str], version: Optional[str], pinned: List[str]) -> List[str]:
    """The packages as apt is asked for them: those pinned at the version, or at the releases that it begins.

    5:29.8 stands for 5:29.8.1-1~debian.12 and not for 5:29.80; with a hyphen it is a whole version.
    """
    if not version:
        return list(packages)
    pattern = version if "-" in version else f"{version}[.-]*"
    return [f"{name}={pattern}" if name in pinned else name for name in packages]


def missing(specs: List[str], have: Dict[str, Package]) -> List[str]:
    """Those asked for that are not installed, or not at the version asked for."""
    lacking = []
    for spec in specs:
        name, version = split_spec(spec)
        if name not in have or not fnmatch.fnmatchcase(have[name].version, version):
            lacking.append(spec)
    return lacking
