# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A dnf repository on this node, in the form of rpm_source's options, and its packages as rpm lists them.

The counterpart of apt.py, under the same names.
"""

from __future__ import annotations

import glob
import os
import re
import tempfile
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from .. import paths as own_paths
from ..node import commands, files as node_files
from . import repository as packages_repository

SOURCES = "/etc/yum.repos.d"
KEYS = "/etc/pki/rpm-gpg"
#: Give up a server after so many seconds without a byte.
REPOSITORY_TIMEOUT_S = 20

Wanted = Mapping[str, Any]
Runner = Callable[[Sequence[str]], Tuple[int, str, str]]


@dataclass(frozen=True)
class Source:
    """One repository, and the key that must sign each package, or the metadata, which has a hash of each package."""

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
            Refused: a value would start a new line.
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
        return "\n".join(own_paths.line(line, line.partition("=")[0]) for line in lines) + "\n"


def sections(text: str) -> Dict[str, Dict[str, str]]:
    """Parse a .repo file. Ignores errors: dnf reports those."""
    parsed: Dict[str, Dict[str, str]] = {}
    values: Dict[str, str] = {}
    for line in text.splitlines():
        head = re.match(r"\[([^\]]+)\]", line)
        value = re.match(r"(\w+)\s*[=:]\s*(.*)", line)
        if head:
            values = parsed.setdefault(head.group(1), {})
        elif value:
            values[value.group(1)] = value.group(2).strip()
    return parsed


def held(text: str, repo_id: str) -> Tuple[str, ...]:
    """The packages that a .repo file excludes."""
    line = sections(text).get(repo_id, {}).get("excludepkgs", "")
    return tuple(re.findall(r"[^\s,]+", line))


def twins(repo_id: str, files: Mapping[str, str]) -> List[str]:
    """The files, by path, with a repository of the same name: dnf uses one of them, which may not be ours."""
    return [path for path, text in files.items() if repo_id in sections(text)]


def complaint(output: str) -> str:
    """dnf's errors, each once."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [re.sub(r"^Error: ", "", line) for line in lines if line.startswith("Error: ")] or lines[-3:]
    return " ".join(dict.fromkeys(errors))


QUERY = "%{NAME}\t%{VERSION}-%{RELEASE}\n"


def installed(answer: str) -> Dict[str, str]:
    """The versions of installed packages, from ``rpm -q --qf QUERY``, which prints a sentence for any other."""
    return dict(line.split("\t") for line in answer.splitlines() if "\t" in line)


def plain(version: str) -> str:
    """A version without its epoch, which differs between package formats for the same release."""
    return re.sub(r"^\d+:", "", version)


def is_release(version: str, wanted: str) -> bool:
    """Whether a version is the wanted one or begins with it: 29.8 matches 29.8.1-1.el9, but not 29.80."""
    return version == wanted or version.startswith((f"{wanted}.", f"{wanted}-"))


def spec(name: str, wanted: str) -> str:
    """A package in dnf's syntax: a whole version matches exactly, with or without its release; else as a prefix."""
    whole = "-" in wanted or wanted.count(".") >= 2
    return f"{name}-{wanted}" if whole else f"{name}-{wanted}.*"


def missing(packages: List[str], version: Optional[str], pinned: List[str], have: Mapping[str, str]) -> List[str]:
    """Packages, in dnf's syntax, that are not installed or not at the wanted version."""
    wanted = plain(version or "")
    lacking = []
    for name in packages:
        exact = wanted and name in pinned
        if name not in have or (exact and not is_release(have[name], wanted)):
            lacking.append(spec(name, wanted) if exact else name)
    return lacking


def paths(name: str) -> Tuple[str, str]:
    """The path of the repository's file, and that of its key."""
    return f"{SOURCES}/{name}.repo", f"{KEYS}/RPM-GPG-KEY-{name}"


def repo_id(wanted: Wanted) -> str:
    return str(wanted.get("repo_id") or wanted["name"])


def text(path: str) -> str:
    return node_files.bytes_of(path).decode("utf-8", "surrogateescape")


def source(wanted: Wanted, key_path: str) -> Source:
    """The repository as requested, with the path of its key."""
    packages, hold = tuple(wanted.get("packages") or ()), wanted.get("hold")
    left = held(text(paths(wanted["name"])[0]), repo_id(wanted)) if hold is None else ()
    signed = wanted.get("signed") or ["packages"]
    return Source(
        repo_id=repo_id(wanted),
        title=wanted.get("title") or wanted["name"],
        uri=wanted["uri"],
        key_path=key_path,
        packages_signed="packages" in signed,
        metadata_signed="metadata" in signed,
        excludes=packages if hold else left,
        comment=wanted.get("description") or "",
    )


def source_change(wanted: Wanted) -> packages_repository.Change:
    """The file to write, None if it is there already; and the change as a diff.

    Raises:
        ValueError: another file has a repository of the same name.
    """
    path, key_path = paths(wanted["name"])
    files = {other: text(other) for other in sorted(glob.glob(f"{SOURCES}/*.repo")) if other != path}
    for twin in twins(repo_id(wanted), files):
        raise ValueError(
            f"{twin} already has a repository {repo_id(wanted)}, and dnf uses only one with that name. Remove that"
            " entry, or keep the installed packages as they are."
        )
    return packages_repository.text_change(path, source(wanted, key_path).render())


def look(wanted: Wanted, run: Runner) -> Dict[str, Any]:
    """rpm's information on the wanted packages."""
    names, conflicts = list(wanted.get("packages") or ()), list(wanted.get("conflicts") or ())
    have: Dict[str, str] = {}
    if names or conflicts:
        # rpm exits with the number of unknown packages, but still lists the rest.
        _rc, out, _err = run(["rpm", "-q", "--qf", QUERY, *names, *conflicts])
        have = installed(out)
    return {
        "missing": missing(names, wanted.get("version"), wanted.get("pinned") or names, have),
        "versions": {name: have[name] for name in sorted(have)},
        "conflicting": [name for name in conflicts if name in have],
    }


def kept(wanted: Wanted) -> bool:
    """Whether the program came from elsewhere: the publisher's instructions create a file with this name, too."""
    program, path = wanted.get("unless_exists"), paths(wanted["name"])[0]
    began = "".join(f"# {line}\n" for line in (wanted.get("description") or "").splitlines()[:1])
    ours = os.path.exists(path) and text(path).startswith(began)
    return bool(program) and os.path.exists(str(program)) and not ours


def settled(wanted: Wanted, run: Runner) -> bool:
    """Whether rpm_source would change nothing and find no package to install or remove. Asks no network."""
    key_path = paths(wanted["name"])[1]
    return packages_repository.settled(lambda: source_change(wanted), key_path, wanted, lambda: look(wanted, run))


def needed_key(wanted: Wanted, run: Runner, open_url: Callable[..., Any]) -> Optional[bytes]:
    """The key with which dnf must check the repository; None if nothing is needed from it.

    Raises:
        ValueError: the key cannot be fetched, has another fingerprint, or another file is in the way; a sentence.
    """
    _text, source_diff = source_change(wanted)
    key = key_change(wanted, open_url)
    return packages_repository.due_key(paths(wanted["name"])[1], source_diff, key, lambda: look(wanted, run)["missing"])


def key_change(wanted: Wanted, open_url: Callable[..., Any]) -> packages_repository.Change:
    """The key to write, None if the right one is there already; and the change as a diff.

    Raises:
        ValueError: the key cannot be fetched, or has another fingerprint; a sentence.
    """
    repository = f"the dnf repository {wanted['name']!r}"
    return packages_repository.given_key_change(paths(wanted["name"])[1], wanted, repository, open_url)


def objection(wanted: Wanted, key: bytes, run: Runner) -> str:
    """Why dnf rejects the repository, in one sentence; empty if it does not. Leaves no trace."""
    with tempfile.TemporaryDirectory(prefix="gpunode-dnf-") as folder:
        trusted = packages_repository.authorities(folder, wanted.get("ca_certificate"))
        staged = source(wanted, f"{folder}/key").render() + (f"sslcacert={trusted}\n" if trusted else "")
        os.mkdir(f"{folder}/repos")
        for path, data in ((f"{folder}/key", key), (f"{folder}/repos/asked.repo", staged.encode())):
            node_files.write(path, data)
        rc, out, err = run(question(folder))
    problem = f"dnf does not take {wanted['uri']}: {complaint(err or out).rstrip('.')}."
    return packages_repository.shown(problem, wanted["uri"]) if rc != 0 else ""


def question(folder: str) -> Sequence[str]:
    """Make dnf read the metadata of the staged repository only, with its own cache and log."""
    settings = {
        "reposdir": f"{folder}/repos",
        "cachedir": f"{folder}/cache",
        "persistdir": f"{folder}/state",
        "logdir": folder,
        "timeout": str(REPOSITORY_TIMEOUT_S),
        "retries": "1",
        "*.skip_if_unavailable": "0",
    }
    options = [f"--setopt={name}={value}" for name, value in settings.items()]
    return commands.within(4 * REPOSITORY_TIMEOUT_S, "dnf", "-y", "-q", "--noplugins", *options, "makecache")
