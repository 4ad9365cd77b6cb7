# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody else has written down and what becomes a path, a hash or a size here: the one place that judges it.

A hub's listing, a seeder's manifest, a folder of weights, a bundle and a registry all name files that root then writes,
links or removes. Each name goes through here before it is a name at all: ``RepoFile`` and ``Contents`` ask on their way
into the world, so that there is no door beside this one.

This file is also copied to the node for the jobs: standard library only, and nothing of Ansible.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Iterable, Set

#: What a filesystem takes as one name, in bytes, and what is left of its longest path below any folder of ours.
LONGEST_NAME, LONGEST_PATH = 255, 1024
COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
_REVISION = re.compile(r"[\w.-]+(?:/[\w.-]+)*")


class Refused(ValueError):
    """A name, hash or size that is not taken. The message is for people, and no sentence yet: who gave it is added."""


def relative(path: object) -> str:
    """The path of a file below a folder, as it was written: it leads nowhere else and means one file only.

    Raises:
        Refused: it does not.
    """
    if not isinstance(path, str) or not path:
        raise Refused(f"{path!r} is no name of a file")
    parts = path.split("/")
    if ".." in parts or path.startswith("/"):
        raise Refused(f"{_shown(path)} leads outside of its folder")
    if "" in parts or "." in parts or "\\" in path or not path.isprintable():
        raise Refused(f"{_shown(path)} is no plain name of a file: an empty part, a backslash or a control character")
    if ".git" in (part.casefold() for part in parts):
        raise Refused(f"{_shown(path)} lies in a folder of git's own")
    if len(path.encode()) > LONGEST_PATH or max(len(part.encode()) for part in parts) > LONGEST_NAME:
        most = f"{LONGEST_NAME} bytes are the most of a name, {LONGEST_PATH} of a path"
        raise Refused(f"{_shown(path)} is too long: {most}")
    return path


def disjoint(paths: Iterable[str]) -> None:
    """No file twice, and none below another: what is below a link lies wherever that link leads.

    Raises:
        Refused: it names two that cannot both be.
    """
    seen: Set[str] = set()
    for path in paths:
        if path in seen:
            raise Refused(f"{_shown(path)} is listed twice")
        seen.add(path)
    for path in seen:
        parts = path.split("/")
        above = next((up for up in ("/".join(parts[:depth]) for depth in range(1, len(parts))) if up in seen), "")
        if above:
            raise Refused(f"{_shown(path)} lies below {_shown(above)}, which is no folder")


def size(amount: object) -> int:
    """A number of bytes.

    Raises:
        Refused: it is none.
    """
    if not isinstance(amount, int) or isinstance(amount, bool) or amount < 0:
        raise Refused(f"{amount!r} is no size in bytes")
    return amount


def image_digest(text: object) -> str:
    """A digest as registries write it, which is also where a layout keeps the blob.

    Raises:
        Refused: it is none.
    """
    return _matching(_DIGEST, text, "a digest of an image")


def sha256(text: object) -> str:
    """A SHA-256 in hexadecimal.

    Raises:
        Refused: it is none.
    """
    return _matching(SHA256, text, "a SHA-256")


def commit(text: object) -> str:
    """A git hash in full: a commit's, or a blob's.

    Raises:
        Refused: it is none.
    """
    return _matching(COMMIT, text, "a git hash")


def repo_id(text: object) -> str:
    """A repository's name. Its folder's is made of it, with ``--`` between the two parts, so the first holds none.

    Raises:
        Refused: it is none.
    """
    if not isinstance(text, str) or not _REPO_ID.fullmatch(text) or re.search(r"--.*/|-/|/[-.]|\.\.|[-.]$", text):
        raise Refused(f"{_shown(text)} is not a repository's name: it is written organisation/name")
    return relative(text)


def revision(text: object, what: str = "revision: a commit, a branch or a tag is meant") -> str:
    """A commit, a branch or a tag; a branch's commit is recorded in a file of its name.

    Raises:
        Refused: it is none.
    """
    if not isinstance(text, str) or not _REVISION.fullmatch(text) or ".." in text:
        raise Refused(f"{_shown(text)} is not a {what}")
    return relative(text)


def address(text: object) -> str:
    """An IP address, in the one way in which it is written. None with a zone: a zone may be any text.

    Raises:
        Refused: it is none.
    """
    try:
        if "%" not in str(text):
            return str(ipaddress.ip_address(str(text)))
    except ValueError:
        pass
    raise Refused(f"{_shown(text)} is not an address")


def line(text: object, what: str) -> str:
    """A value that becomes one line, or part of one, in a file that a program reads line by line.

    Raises:
        Refused: it holds what would begin another line.
    """
    if not isinstance(text, str) or not text.isprintable():
        raise Refused(f"{_shown(text)} is no {what}: it holds a control character")
    return text


def _matching(form: re.Pattern[str], text: object, what: str) -> str:
    if not isinstance(text, str) or not form.fullmatch(text):
        raise Refused(f"{_shown(text)} is not {what}")
    return text


def _shown(text: object) -> str:
    shown = repr(text)
    return shown if len(shown) <= 120 else f"{shown[:100]}... ({len(shown)} characters)"
