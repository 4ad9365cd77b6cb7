# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fingerprints of OpenPGP public keys, read from the bytes: a fresh node has no gpg to ask."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Iterator, List, Tuple

PUBLIC_KEY = 6
ARMOR = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----[ \t]*\r?\n(.*?)-----END PGP PUBLIC KEY BLOCK-----", re.DOTALL
)


def dearmor(data: bytes) -> bytes:
    """The binary keys of an armored text; binary keys pass unchanged.

    Raises:
        ValueError: there is no key in it.
    """
    blocks = ARMOR.findall(data)
    if not blocks:
        if data[:1] and data[0] & 0x80:
            return data
        raise ValueError(f"this is no OpenPGP key: it begins with {data[:60]!r}")
    return b"".join(_decode(block) for block in blocks)


def _decode(block: bytes) -> bytes:
    lines = [line.strip() for line in block.splitlines()]
    if b"" in lines:  # armor headers, such as Version:, end with an empty line
        lines = lines[lines.index(b"") + 1 :]
    body = b"".join(line for line in lines if not line.startswith(b"="))
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise ValueError(f"the armor of this OpenPGP key is damaged: {error}") from error


def packets(data: bytes) -> Iterator[Tuple[int, bytes]]:
    """The packets of a binary key, as (tag, body).

    Raises:
        ValueError: the bytes end too soon or are no packets.
    """
    at = 0
    while at < len(data):
        head = data[at]
        if not head & 0x80:
            raise ValueError(f"byte {at} begins no OpenPGP packet")
        tag, start, size = _new_format(data, at) if head & 0x40 else _old_format(data, at)
        if start + size > len(data):
            raise ValueError("this OpenPGP key is cut short")
        yield tag, data[start : start + size]
        at = start + size


def _new_format(data: bytes, at: int) -> Tuple[int, int, int]:
    tag, field = data[at] & 0x3F, data[at + 1 : at + 6]
    if field and field[0] < 192:
        return tag, at + 2, field[0]
    if len(field) >= 2 and field[0] < 224:
        return tag, at + 3, ((field[0] - 192) << 8) + field[1] + 192
    if len(field) == 5 and field[0] == 255:
        return tag, at + 6, int.from_bytes(field[1:], "big")
    raise ValueError("this OpenPGP key has a packet of no definite length")


def _old_format(data: bytes, at: int) -> Tuple[int, int, int]:
    tag, kind = (data[at] >> 2) & 0x0F, data[at] & 3
    if kind == 3:
        raise ValueError("this OpenPGP key has a packet of no definite length")
    width = 1 << kind
    return tag, at + 1 + width, int.from_bytes(data[at + 1 : at + 1 + width], "big")


def fingerprints(data: bytes) -> List[str]:
    """The fingerprint of every primary key, in order. Subkeys answer to theirs.

    Raises:
        ValueError: there is no key in it, or one of a kind that apt does not take.
    """
    found = [_fingerprint(body) for tag, body in packets(dearmor(data)) if tag == PUBLIC_KEY]
    if not found:
        raise ValueError("there is no public key in it")
    return found


def _fingerprint(body: bytes) -> str:
    if not body or body[0] != 4:
        raise ValueError(f"an OpenPGP key of version {body[0] if body else '?'} is in it; only version 4 is known")
    # The fingerprint is defined over SHA-1 (RFC 4880, 12.2).
    stream = b"\x99" + len(body).to_bytes(2, "big") + body
    return hashlib.sha1(stream, usedforsecurity=False).hexdigest().upper()


def normal(text: str) -> str:
    """A fingerprint as written by anybody: spaces, colons, 0x and small letters are nothing to it.

    Raises:
        ValueError: it is not 40 hexadecimal digits.
    """
    plain = re.sub(r"^0[xX]", "", re.sub(r"[\s:]", "", text)).upper()
    if not re.fullmatch(r"[0-9A-F]{40}", plain):
        raise ValueError(f"{text!r} is no key fingerprint: it takes all 40 hexadecimal digits")
    return plain


def spelt(fingerprint: str) -> str:
    """In groups of four, as people compare them."""
    return " ".join(fingerprint[at : at + 4] for at in range(0, len(fingerprint), 4))


def refusal(data: bytes, expected: str, origin: str) -> str:
    """Why these bytes are not the one key expected, in a sentence; empty where they are."""
    wanted = normal(expected)
    try:
        found = fingerprints(data)
    except ValueError as error:
        return f"{origin} gives no key to check against {spelt(wanted)}: {error}."
    if found == [wanted]:
        return ""
    others = ", ".join(spelt(one) for one in found)
    return f"The key from {origin} has the fingerprint {others}, but {spelt(wanted)} was expected; it is not trusted."
