# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An apt source on this node, in the form of apt_source's options, and its packages as dpkg lists them.

It compares source, key and packages with the node, and lets apt check the source before it is written.
"""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import os
import re
import tempfile
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from .. import paths as own_paths
from ..node import files as node_files
from . import repository as packages_repository

SOURCES = "/etc/apt/sources.list.d"
KEYRINGS = "/etc/apt/keyrings"
#: Give up a server after so many seconds without a byte.
REPOSITORY_TIMEOUT_S = 20

Wanted = Mapping[str, Any]
Runner = Callable[[Sequence[str]], Tuple[int, str, str]]


@dataclass(frozen=True)
class Source:
    """One repository, and the only key that may sign it."""

    uri: str
    suite: str
    components: Tuple[str, ...]
    architectures: Tuple[str, ...]
    signed_by: str
    comment: str = ""

    def render(self) -> str:
        """The .sources file.

        Raises:
            Refused: a value would start a new field or another repository.
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
        lines += [f"{name}: {own_paths.line(value, name)}" for name, value in fields.items() if value]
        return "\n".join(lines) + "\n"


def configuration(settings: Mapping[str, str]) -> str:
    """A file for ``APT_CONFIG``.

    Raises:
        Refused: a value cannot be quoted.
    """
    for name, value in settings.items():
        if '"' in own_paths.line(value, name):
            raise own_paths.Refused(f"{value!r} is no {name}: it holds a quotation mark")
    return "".join(f'{name} "{value}";\n' for name, value in settings.items())


#: Disables the commands that packages configure apt to run after an update, in a configuration for ``-c``.
NO_HOOKS = "".join(f"#clear APT::Update::{when};\n" for when in ("Pre-Invoke", "Post-Invoke", "Post-Invoke-Success"))
#: apt's last line for any error in its sources.
SOURCES_UNREAD = "The list of sources could not be read."


def complaint(output: str) -> str:
    """apt-get's errors, each once."""
    lines = [line[2:].strip() for line in output.splitlines() if line.startswith(("E:", "W:"))]
    kept = [line for at, line in enumerate(lines) if line not in lines[:at] and line != SOURCES_UNREAD]
    return " ".join(kept) or output.strip()


@dataclass(frozen=True)
class Package:
    """An installed package, as dpkg lists it."""

    version: str
    held: bool = False


QUERY = "${Package}\t${db:Status-Abbrev}\t${Version}\n"


def installed(answer: str) -> Dict[str, Package]:
    """The packages that are installed completely, from ``dpkg-query -W -f QUERY``."""
    packages = {}
    for line in answer.splitlines():
        name, status, version = line.split("\t")
        if status[1:2] == "i":
            packages[name] = Package(version, status[0] == "h")
    return packages


def split_spec(spec: str) -> Tuple[str, str]:
    """``docker-ce=5:29*`` is (docker-ce, 5:29*); without a version, any version matches."""
    name, _equals, version = spec.partition("=")
    return name, version or "*"


def pin(packages: List[str], version: Optional[str], pinned: List[str]) -> List[str]:
    """The packages in apt's syntax: pinned ones at the version, or at any release that begins with it.

    5:29.8 stands for 5:29.8.1-1~debian.12 and not for 5:29.80; with a hyphen it is a whole version.
    """
    if not version:
        return list(packages)
    pattern = version if "-" in version else f"{version}[.-]*"
    return [f"{name}={pattern}" if name in pinned else name for name in packages]


def missing(specs: List[str], have: Dict[str, Package]) -> List[str]:
    """The wanted packages that are not installed, or not at the wanted version."""
    lacking = []
    for spec in specs:
        name, version = split_spec(spec)
        if name not in have or not fnmatch.fnmatchcase(have[name].version, version):
            lacking.append(spec)
    return lacking


def paths(name: str) -> Tuple[str, str]:
    """The path of the source's file, and that of its key."""
    return f"{SOURCES}/{name}.sources", f"{KEYRINGS}/{name}.asc"


def source(wanted: Wanted, key_path: str) -> Source:
    """The source as requested, with the path of its key."""
    return Source(
        uri=wanted["uri"],
        suite=wanted["suite"],
        components=tuple(wanted.get("components") or ()),
        architectures=tuple(wanted.get("architectures") or ()),
        signed_by=key_path,
        comment=wanted.get("description") or "",
    )


def source_change(wanted: Wanted) -> packages_repository.Change:
    """The source to write, None if it is there already; and the change as a diff."""
    path, key_path = paths(wanted["name"])
    return packages_repository.text_change(path, source(wanted, key_path).render())


def sources(run: Runner) -> List[str]:
    """The files with apt's sources, in the order in which apt reads them."""
    _rc, out, _err = run(
        ["apt-config", "shell", "single", "Dir::Etc::SourceList/f", "parts", "Dir::Etc::SourceParts/d"]
    )
    places = dict(re.findall(r"^(\w+)='(.*)'$", out, re.MULTILINE))
    parts = sorted(glob.glob(f"{glob.escape(places.get('parts', SOURCES))}/*"))
    files = [places.get("single", ""), *(part for part in parts if part.endswith((".list", ".sources")))]
    return [path.replace("//", "/") for path in files if os.path.isfile(path)]


def in_order(files: Sequence[str]) -> List[str]:
    """The order of apt: of two entries for one repository the first one counts."""
    return sorted(files, key=lambda path: (os.path.basename(path) != "sources.list", os.path.basename(path)))


def reads(files: Sequence[str], folder: str, run: Runner) -> str:
    """apt's error for these files as its sources; empty if it can read them.

    Args:
        folder: an existing folder, for temporary files.
    """
    parts = os.path.join(folder, "asked")
    os.makedirs(parts, exist_ok=True)
    for name in os.listdir(parts):
        os.unlink(os.path.join(parts, name))
    links = {os.path.join(parts, f"{at:04}-{os.path.basename(path)}"): path for at, path in enumerate(in_order(files))}
    for link, path in links.items():
        os.symlink(path, link)
    only = ["-o", "Dir::Etc::SourceList=/dev/null", "-o", f"Dir::Etc::SourceParts={parts}"]
    rc, _out, err = run(["apt-get", "indextargets", *only])
    problem = complaint(err) if rc != 0 else ""
    for link, path in links.items():
        problem = problem.replace(link, path)
    return problem


def conflicts(mine: str, others: Sequence[str], folder: str, run: Runner) -> Dict[str, str]:
    """The other files that apt can read alone but not together with this one, each with apt's error.

    Only apt can decide whether two entries, however spelled, are for one repository, and which settings conflict.
    """
    problems = {}
    for other in others if reads([*others, mine], folder, run) else ():
        problem = reads([other, mine], folder, run)
        if problem and not reads([other], folder, run):
            problems[other] = problem
    return problems


def kept(wanted: Wanted) -> bool:
    """Whether the node keeps the packages that it has."""
    program = wanted.get("unless_exists")
    return bool(program) and os.path.exists(str(program)) and not os.path.exists(paths(wanted["name"])[0])


def needed_key(wanted: Wanted, run: Runner, open_url: Callable[..., Any]) -> Optional[bytes]:
    """The key with which apt must check the repository; None if nothing is needed from it.

    Raises:
        ValueError: the key cannot be fetched, or is not the one expected; a sentence.
    """
    _text, source_diff = source_change(wanted)
    key = key_change(wanted, open_url)
    return packages_repository.due_key(paths(wanted["name"])[1], source_diff, key, lambda: look(wanted, run)["missing"])


def key_change(wanted: Wanted, open_url: Callable[..., Any]) -> packages_repository.Change:
    """The key to write, None if the right one is there already; and the change as a diff.

    Raises:
        ValueError: the key cannot be fetched, or is not the one expected; a sentence.
    """
    repository = f"the apt repository {wanted['name']!r}"
    return packages_repository.given_key_change(paths(wanted["name"])[1], wanted, repository, open_url)


def objection(wanted: Wanted, key: bytes, run: Runner) -> str:
    """Why apt rejects the source or its repository, in one sentence; empty if it does not. Leaves no trace."""
    with staged(wanted, key) as folder:
        problem = refusal(folder, wanted, run)
        if problem:
            return problem
        rc, _out, err = run(update(folder, trace=False))
        return rejection(wanted, err) if rc != 0 else ""


@contextlib.contextmanager
def staged(wanted: Wanted, key: bytes) -> Iterator[str]:
    """A folder with the source as it will be, and a second copy with the key in the same folder, for apt to check.

    Readable for everybody, because apt downloads as a separate user.
    """
    with tempfile.TemporaryDirectory(prefix="gpunode-apt-") as folder:
        os.chmod(folder, 0o755)
        texts = {
            own(folder, wanted): source(wanted, paths(wanted["name"])[1]).render().encode(),
            f"{folder}/alone.sources": source(wanted, f"{folder}/key.asc").render().encode(),
            f"{folder}/key.asc": key,
            f"{folder}/apt.conf": (configuration(settings(folder, wanted)) + NO_HOOKS).encode(),
        }
        for path, text in texts.items():
            node_files.write(path, text)
        os.makedirs(f"{folder}/lists/partial")
        yield folder


def own(folder: str, wanted: Wanted) -> str:
    return os.path.join(folder, os.path.basename(paths(wanted["name"])[0]))


def settings(folder: str, wanted: Wanted) -> Dict[str, str]:
    """Options for an apt that leaves no trace and has a time limit."""
    trusted = packages_repository.authorities(folder, wanted.get("ca_certificate"))
    return {
        **({"Acquire::https::CaInfo": trusted} if trusted else {}),
        "Dir::State::Lists": f"{folder}/lists",
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "Acquire::http::Timeout": str(REPOSITORY_TIMEOUT_S),
        "Acquire::https::Timeout": str(REPOSITORY_TIMEOUT_S),
        "Acquire::Retries": "1",
    }


def update(folder: str, trace: bool) -> List[str]:
    """Make apt read the staged source only: its address, its signature, its lists.

    Args:
        trace: whether to keep the lists in apt's own folder.
    """
    alone = ["-o", f"Dir::Etc::SourceList={folder}/alone.sources", "-o", "Dir::Etc::SourceParts=-"]
    command = ["apt-get", "update", "-q", "--error-on=any", *alone]
    if trace:
        return [*command, "-o", "APT::Get::List-Cleanup=0"]
    return ["timeout", "-k", "5", str(4 * REPOSITORY_TIMEOUT_S), *command, "-c", f"{folder}/apt.conf"]


def refusal(folder: str, wanted: Wanted, run: Runner) -> str:
    """Why apt cannot read this source together with the node's own, in one sentence; empty if it can."""
    mine = own(folder, wanted)
    others = [other for other in sources(run) if os.path.basename(other) != os.path.basename(mine)]
    problem = reads([*others, mine], folder, run)
    if not problem:
        return ""
    for other, words in conflicts(mine, others, folder, run).items():
        repository = f"{wanted['uri']} {wanted['suite']}"
        problem = (
            f"{other} names the repository {repository} as well, with other settings, and apt would stop at that for "
            f"every package ({words.rstrip('.')}). Remove that entry; what was installed from it stays."
        )
        return packages_repository.shown(problem, wanted["uri"])
    broken = next((other for other in others if reads([other], folder, run)), "")
    return f"apt does not read {broken or 'the sources of this node'} ({problem.rstrip('.')}). Mend that first."


def rejection(wanted: Wanted, output: str) -> str:
    """The message that apt rejects the source, in one sentence."""
    words = f"apt does not take {wanted['uri']} {wanted['suite']}: {complaint(output).rstrip('.')}."
    return packages_repository.shown(words, wanted["uri"])


def look(wanted: Wanted, run: Runner) -> Dict[str, Any]:
    """dpkg's information on the wanted packages."""
    names, conflicts = list(wanted.get("packages") or ()), list(wanted.get("conflicts") or ())
    specs = pin(names, wanted.get("version"), wanted.get("pinned") or names)
    have: Dict[str, Package] = {}
    if names or conflicts:
        # dpkg-query exits 1 if any package is unknown but still lists the rest.
        _rc, out, _err = run(["dpkg-query", "-W", "-f", QUERY, *names, *conflicts])
        have = installed(out)
    return {
        "missing": missing(specs, have),
        "versions": {name: have[name].version for name in sorted(have)},
        "held": [name for name in names if name in have and have[name].held],
        "conflicting": [name for name in conflicts if name in have],
    }


def settled(wanted: Wanted, run: Runner) -> bool:
    """Whether apt_source would change nothing, and would find nothing to install or to remove. Asks no network."""
    key_path = paths(wanted["name"])[1]
    return packages_repository.settled(lambda: source_change(wanted), key_path, wanted, lambda: look(wanted, run))
