# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two files of a package repository: its key, trusted by its fingerprint alone, and its source."""

from __future__ import annotations

import os
import tempfile
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from .. import web
from ..node import files as node_files
from . import key as packages_key

Change = Tuple[bytes, Optional[Dict[str, str]]]


def write(path: str, data: bytes, move: Callable[[str, str], object]) -> None:
    """Put a file to its place in one step, for everybody to read: apt reads its own as a user of its own."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    move(node_files.staged(data), path)
    os.chmod(path, 0o644)


def text_change(path: str, after: str) -> Change:
    """The text to write, or nothing where it is there; and the change as a diff."""
    before = node_files.bytes_of(path).decode("utf-8", "replace")
    if before == after:
        return b"", None
    return after.encode(), {"before_header": path, "after_header": path, "before": before, "after": after}


def matters(diff: Optional[Dict[str, str]]) -> bool:
    """Whether a change is one of more than comments."""

    def said(text: str) -> List[str]:
        return [line for line in text.splitlines() if line and not line.startswith("#")]

    return diff is not None and said(diff["before"]) != said(diff["after"])


#: Where the systems keep the authorities that they trust, as one file.
AUTHORITIES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")


def authorities(folder: str, certificate: Optional[str]) -> str:
    """A file in the folder with the system's authorities and one that is yet to come to them; empty for no such one."""
    if not certificate:
        return ""
    path = os.path.join(folder, "authorities.pem")
    node_files.write(path, b"".join(map(node_files.bytes_of, AUTHORITIES)) + b"\n" + certificate.encode() + b"\n")
    return path


def fetched_key(given: Mapping[str, Any], repository: str, open_url: Callable[..., Any]) -> bytes:
    """The key itself, or what its address has, in whatever form: nothing of it is checked yet.

    Args:
        given: ``key`` or ``key_url``, ``timeout`` in seconds and ``ca_certificate``, as the modules take them.
        open_url: that of ansible, or one that takes the same.

    Raises:
        ValueError: it cannot be fetched; a sentence.
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
    """What a program said, without the password of an address that it names."""
    return words.replace(uri, web.without_password(uri)).replace(uri.rstrip("/"), web.without_password(uri.rstrip("/")))


def key_change(path: str, fingerprint: str, origin: str, fetch: Callable[[], bytes]) -> Change:
    """The key to write, or nothing where the right one is there; and the change as a diff of fingerprints.

    Where the right one is there and its file says more than the key, as an earlier release let pass, it is written
    anew, with no need of the network.

    Raises:
        ValueError: it has another fingerprint, or there is something beside it.
    """
    there = node_files.bytes_of(path)
    try:
        wanted = packages_key.checked(there, fingerprint, path)
    except ValueError:
        wanted = packages_key.checked(fetch(), fingerprint, origin)
    if wanted == there:
        return b"", None
    return wanted, {"before_header": path, "after_header": path, "before": _told(there), "after": _told(wanted)}


def origin(given: Mapping[str, Any]) -> str:
    """Where a key is from, as it may be shown."""
    return web.without_password(given["key_url"]) if given.get("key_url") else "the key given"


def given_key_change(path: str, given: Mapping[str, Any], repository: str, open_url: Callable[..., Any]) -> Change:
    """The same for the key of a repository, which is given, or fetched where it has to be."""
    return key_change(path, given["fingerprint"], origin(given), lambda: fetched_key(given, repository, open_url))


def due_key(
    path: str, source_diff: Optional[Dict[str, str]], key: Change, missing: Callable[[], Sequence[str]]
) -> Optional[bytes]:
    """The key by which a repository has to be asked; None where source and key stay and no package is missing.

    Args:
        path: where the key lies.
        missing: the packages that the node lacks, asked for only where neither file says enough.
    """
    data, key_diff = key
    moved = matters(source_diff) or matters(key_diff)
    return (data or node_files.bytes_of(path)) if moved or missing() else None


def settled(change: Callable[[], Change], key_path: str, wanted: Mapping[str, Any], look: Callable[[], Any]) -> bool:
    """Whether apt_source or rpm_source would change nothing, with no package to install or to remove. Asks no network.

    Args:
        change: the source to write.
        look: what the node has of the packages, with ``missing`` and ``conflicting``.
    """

    def refuse() -> bytes:
        raise ValueError("the key is not there")

    try:
        source, _diff = change()
        key, _diff = key_change(key_path, wanted["fingerprint"], "", refuse)
    except ValueError:
        return False
    found = look()
    return not (source or key or found["missing"] or found["conflicting"])


def _told(data: bytes) -> str:
    try:
        found = "".join(f"{packages_key.spelt(one)}\n" for one in packages_key.fingerprints(data)) if data else ""
        plain = not data or data == packages_key.armor(packages_key.dearmor(data))
        return found if plain else f"{found}# in another form\n"
    except ValueError as error:
        return f"{error}\n"
