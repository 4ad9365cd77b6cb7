# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks for names, hashes and sizes from outside that become paths here: the only place that decides.

A hub's listing, a seeder's manifest, a folder of weights, a bundle and a registry all name files that root then writes,
links or removes. Each name is checked here before its first use: ``RepoFile`` and ``Contents`` do it when they are
created, so no name can skip the check.

This file is also copied to the node for the jobs: standard library only, no import of Ansible.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Iterable, Set

#: The longest name that a filesystem allows, in bytes, and the longest path below one of our folders.
LONGEST_NAME, LONGEST_PATH = 255, 1024
COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
_REVISION = re.compile(r"[\w.-]+(?:/[\w.-]+)*")


class Refused(ValueError):
    """A name, hash or size that is rejected. The message is a clause for people: the caller adds who gave it."""


def relative(path: object) -> str:
    """Check the path of a file below a folder: it must not leave the folder, and must have one spelling only.

    Raises:
        Refused: it is not such a path.
    """
    if not isinstance(path, str) or not path:
        raise Refused(f"{path!r} is not the name of a file")
    parts = path.split("/")
    if ".." in parts or path.startswith("/"):
        raise Refused(f"{_shown(path)} leads outside of its folder")
    if "" in parts or "." in parts or "\\" in path or not path.isprintable():
        raise Refused(f"{_shown(path)} is not a plain file name: empty part, backslash or control character")
    if ".git" in (part.casefold() for part in parts):
        raise Refused(f"{_shown(path)} lies in a folder of git")
    if len(path.encode()) > LONGEST_PATH or max(len(part.encode()) for part in parts) > LONGEST_NAME:
        most = f"a name may have {LONGEST_NAME} bytes, a path {LONGEST_PATH}"
        raise Refused(f"{_shown(path)} is too long: {most}")
    return path


def disjoint(paths: Iterable[str]) -> None:
    """Check that no file is listed twice or lies below another one, which could be a link to elsewhere.

    Raises:
        Refused: two of the paths exclude each other.
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
            raise Refused(f"{_shown(path)} lies below {_shown(above)}, which is not a folder")


def size(amount: object) -> int:
    """Check a number of bytes.

    Raises:
        Refused: it is not one.
    """
    if not isinstance(amount, int) or isinstance(amount, bool) or amount < 0:
        raise Refused(f"{amount!r} is not a size in bytes")
    return amount


def image_digest(text: object) -> str:
    """Check a digest as registries write it. A layout uses it as the blob's path.

    Raises:
        Refused: it is not one.
    """
    return _matching(_DIGEST, text, "a digest of an image")


def sha256(text: object) -> str:
    """Check a SHA-256 in hexadecimal.

    Raises:
        Refused: it is not one.
    """
    return _matching(SHA256, text, "a SHA-256")


def commit(text: object) -> str:
    """Check a full git hash, of a commit or a blob.

    Raises:
        Refused: it is not one.
    """
    return _matching(COMMIT, text, "a git hash")


def repo_id(text: object) -> str:
    """Check a repository's name. Its folder joins the two parts with ``--``, so the first part must not contain that.

    Raises:
        Refused: it is not one.
    """
    if not isinstance(text, str) or not _REPO_ID.fullmatch(text) or re.search(r"--.*/|-/|/[-.]|\.\.|[-.]$", text):
        raise Refused(f"{_shown(text)} is not the name of a repository: write organisation/name")
    return relative(text)


def revision(text: object, what: str = "revision: give a commit, a branch or a tag") -> str:
    """Check a commit, a branch or a tag. A branch's commit is recorded in a file with the branch's name.

    Raises:
        Refused: it is not one.
    """
    if not isinstance(text, str) or not _REVISION.fullmatch(text) or ".." in text:
        raise Refused(f"{_shown(text)} is not a {what}")
    return relative(text)


def address(text: object) -> str:
    """An IP address in its standard form. A zone is not allowed: it may be any text.

    Raises:
        Refused: it is not one.
    """
    try:
        if "%" not in str(text):
            return str(ipaddress.ip_address(str(text)))
    except ValueError:
        pass
    raise Refused(f"{_shown(text)} is not an address")


def line(text: object, what: str) -> str:
    """Check a value that becomes one line, or a part of it, in a file that a program reads line by line.

    Raises:
        Refused: it contains a control character, so it could start a new line.
    """
    if not isinstance(text, str) or not text.isprintable():
        raise Refused(f"{_shown(text)} is not a valid {what}: it contains a control character")
    return text


def _matching(form: re.Pattern[str], text: object, what: str) -> str:
    if not isinstance(text, str) or not form.fullmatch(text):
        raise Refused(f"{_shown(text)} is not {what}")
    return text


def _shown(text: object) -> str:
    shown = repr(text)
    return shown if len(shown) <= 120 else f"{shown[:100]}... ({len(shown)} characters)"
