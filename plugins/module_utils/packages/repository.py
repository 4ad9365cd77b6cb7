# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two files of a package repository: its key, trusted only by its fingerprint, and its source."""

from __future__ import annotations

import os
import tempfile
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from ..node import files as node_files, web
from . import key as packages_key

Change = Tuple[bytes, Optional[Dict[str, str]]]
#: The options of a repository that apt_source and rpm_source have in common.
OPTIONS: Dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "description": {"type": "str", "default": ""},
    "uri": {"type": "str", "required": True},
    "key_url": {"type": "str", "no_log": False},
    "key": {"type": "str", "no_log": False},
    "fingerprint": {"type": "str", "required": True},
    "timeout": {"type": "int", "default": 30},
    "ca_certificate": {"type": "str"},
    "packages": {"type": "list", "elements": "str", "default": []},
    "version": {"type": "str"},
    "pinned": {"type": "list", "elements": "str"},
    "unless_exists": {"type": "path"},
    "conflicts": {"type": "list", "elements": "str", "default": []},
}
REQUIRED_ONE_OF = [("key_url", "key")]


def write(path: str, data: bytes, move: Callable[[str, str], object]) -> None:
    """Move a file into place, readable for all: apt reads its files as a user of its own."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    move(node_files.staged(data), path)
    os.chmod(path, 0o644)


def write_both(files: Sequence[Tuple[str, bytes]], move: Callable[[str, str], object]) -> None:
    """Write the key and then the source, each unless it is there already.

    The key comes first: apt and dnf work for no package while a source lacks its key.
    """
    for path, data in files:
        if data:
            write(path, data, move)


def text_change(path: str, after: str) -> Change:
    """The text to write, None if it is there already; and the change as a diff."""
    before = node_files.bytes_of(path).decode("utf-8", "replace")
    if before == after:
        return b"", None
    return after.encode(), {"before_header": path, "after_header": path, "before": before, "after": after}


def matters(diff: Optional[Dict[str, str]]) -> bool:
    """Whether a change affects more than comments."""

    def without_comments(text: str) -> List[str]:
        return [line for line in text.splitlines() if line and not line.startswith("#")]

    return diff is not None and without_comments(diff["before"]) != without_comments(diff["after"])


#: Where each system keeps its trusted certificates in one file.
AUTHORITIES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")


def authorities(folder: str, certificate: Optional[str]) -> str:
    """A file in the folder with the system's certificates and one that is not installed yet; empty if there is none."""
    if not certificate:
        return ""
    path = os.path.join(folder, "authorities.pem")
    node_files.write(path, b"".join(map(node_files.bytes_of, AUTHORITIES)) + b"\n" + certificate.encode() + b"\n")
    return path


def fetched_key(given: Mapping[str, Any], repository: str, open_url: Callable[..., Any]) -> bytes:
    """The key as given or as its address returns it. It is not verified yet.

    Args:
        given: ``key`` or ``key_url``, ``timeout`` in seconds and ``ca_certificate``, as the modules take them.
        open_url: Ansible's, or a function with the same arguments.

    Raises:
        ValueError: it cannot be fetched; the message is a sentence.
    """
    if given.get("key"):
        return str(given["key"]).encode()
    with tempfile.TemporaryDirectory(prefix="gpunode-key-") as folder:
        options = {"timeout": given.get("timeout") or 30, "http_agent": "ansible"}
        trusted = authorities(folder, given.get("ca_certificate"))
        try:
            answer = web.following(open_url)(given["key_url"], **options, **({"ca_path": trusted} if trusted else {}))
            return bytes(answer.read(packages_key.LIMIT + 1))
        except (OSError, ValueError) as error:
            address = web.without_password(given["key_url"])
            raise ValueError(
                f"The key of {repository} could not be fetched from {address}: {web.cause(error)}."
            ) from error


def shown(words: str, uri: str) -> str:
    """A program's output, without the password in an address."""
    return words.replace(uri, web.without_password(uri)).replace(uri.rstrip("/"), web.without_password(uri.rstrip("/")))


def key_change(path: str, fingerprint: str, origin: str, fetch: Callable[[], bytes]) -> Change:
    """The key to write, None if the right one is there already; and the change as a diff of fingerprints.

    If the file has the right key and other content, which an earlier release allowed, it is written again without using
    the network.

    Raises:
        ValueError: it has another fingerprint, or other content.
    """
    there = node_files.bytes_of(path)
    try:
        wanted = packages_key.checked(there, fingerprint, path)
    except ValueError:
        wanted = packages_key.checked(fetch(), fingerprint, origin)
    if wanted == there:
        return b"", None
    return wanted, {"before_header": path, "after_header": path, "before": _as_text(there), "after": _as_text(wanted)}


def origin(given: Mapping[str, Any]) -> str:
    """Where a key comes from, without a password."""
    return web.without_password(given["key_url"]) if given.get("key_url") else "the key given"


def given_key_change(path: str, given: Mapping[str, Any], repository: str, open_url: Callable[..., Any]) -> Change:
    """The key of a repository to write, given or fetched if needed; and the change as a diff of fingerprints."""
    return key_change(path, given["fingerprint"], origin(given), lambda: fetched_key(given, repository, open_url))


def due_key(
    path: str, source_diff: Optional[Dict[str, str]], key: Change, missing: Callable[[], Sequence[str]]
) -> Optional[bytes]:
    """The key with which a repository must be checked; None if source and key stay and no package is missing.

    Args:
        path: where the key is on the node.
        missing: returns the missing packages; called only if neither file changes.
    """
    data, key_diff = key
    moved = matters(source_diff) or matters(key_diff)
    return (data or node_files.bytes_of(path)) if moved or missing() else None


def settled(change: Callable[[], Change], key_path: str, wanted: Mapping[str, Any], look: Callable[[], Any]) -> bool:
    """Whether apt_source or rpm_source would change nothing, with no package to install or to remove. Asks no network.

    Args:
        change: returns the source to write.
        look: returns the node's state of the packages, with ``missing`` and ``conflicting``.
    """

    def refuse() -> bytes:
        raise ValueError("the key is not there")

    try:
        source, _diff = change()
        key, _diff = key_change(key_path, wanted["fingerprint"], "", refuse)
    except ValueError:
        return False
    state = look()
    return not (source or key or state["missing"] or state["conflicting"])


def _as_text(data: bytes) -> str:
    try:
        fingerprints = packages_key.fingerprints(data) if data else []
        text = "".join(f"{packages_key.spelt(fingerprint)}\n" for fingerprint in fingerprints)
        plain = not data or data == packages_key.armor(packages_key.dearmor(data))
        return text if plain else f"{text}# in another form\n"
    except ValueError as error:
        return f"{error}\n"
