# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenPGP public keys, read from the bytes: a fresh node has no gpg to ask.

Every program reads armor in its own way: apt takes for a block what gpg takes for a remark. So the bytes that come in
are never those that are used: what was checked is armored anew.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Iterator, List, Tuple

PUBLIC_KEY = 6
#: What a public key is made of: signature, key, user, subkey, picture. A secret key, which gpg takes for a key as well,
#: a nested message or anything unknown is no part of it.
PARTS = {2: "signature", PUBLIC_KEY: "key", 13: "user", 14: "subkey", 17: "picture"}
#: A publisher's key has some ten thousand bytes; what is a hundred times as long is none.
LIMIT = 1 << 20
BEGIN, END = b"-----BEGIN PGP PUBLIC KEY BLOCK-----", b"-----END PGP PUBLIC KEY BLOCK-----"
HEADER = re.compile(rb"[A-Za-z][A-Za-z-]*:.*")


def dearmor(data: bytes) -> bytes:
    """The binary keys of an armored text; binary keys pass unchanged.

    Raises:
        ValueError: there is no key in it, or more than one block, or something beside it.
    """
    if data[:1] and data[0] & 0x80:
        return data
    if BEGIN not in data:
        raise ValueError(f"this is no OpenPGP key: it begins with {data[:60]!r}")
    if data.count(b"-----BEGIN") > 1:
        raise ValueError(f"there are {data.count(b'-----BEGIN')} armored blocks in it, and a key is one")
    lines = [line.strip() for line in data.strip().split(b"\n")]
    if lines[0] != BEGIN or lines[-1] != END:
        raise ValueError("there is something beside its armored block")
    return _decode(lines[1:-1])


def _decode(lines: List[bytes]) -> bytes:
    """What stands between the first line and the last: headers, an empty line, the data, its checksum."""
    gap = lines.index(b"") if b"" in lines else len(lines)
    body = [line for line in lines[gap:] if line]
    checksum = body.pop()[1:] if body and body[-1].startswith(b"=") else b""
    try:
        if not all(map(HEADER.fullmatch, lines[:gap])):
            raise ValueError("it has no empty line before its data")
        data = base64.b64decode(b"".join(body), validate=True)
        if checksum and base64.b64decode(checksum, validate=True) != crc24(data):
            raise ValueError("its checksum is another")
    except ValueError as error:  # binascii.Error is one
        raise ValueError(f"the armor of this OpenPGP key is damaged: {error}") from error
    return data


def _crc24_row(byte: int) -> int:
    crc = byte << 16
    for _bit in range(8):
        crc = crc << 1 ^ (0x1864CFB if crc & 0x800000 else 0)
    return crc & 0xFFFFFF


_CRC24 = [_crc24_row(byte) for byte in range(256)]


def crc24(data: bytes) -> bytes:
    """The checksum of armor (RFC 4880, 6.1)."""
    crc = 0xB704CE
    for byte in data:
        crc = (crc << 8 & 0xFFFFFF) ^ _CRC24[crc >> 16 ^ byte]
    return crc.to_bytes(3, "big")


def armor(data: bytes) -> bytes:
    """As gpg exports it."""
    encoded = base64.b64encode(data)
    lines = [encoded[at : at + 64] for at in range(0, len(encoded), 64)]
    return b"\n".join([BEGIN, b"", *lines, b"=" + base64.b64encode(crc24(data)), END, b""])


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
        ValueError: there is no key in it, or one of a kind that apt does not take, or something that is no part of one.
    """
    if len(data) > LIMIT:
        raise ValueError(f"it has more than {LIMIT} bytes, which no publisher's key has")
    found = list(packets(dearmor(data)))
    strange = sorted({tag for tag, _body in found if tag not in PARTS})
    if strange:
        raise ValueError(f"it holds packets of type {', '.join(map(str, strange))}, which are no part of a public key")
    if PUBLIC_KEY not in [tag for tag, _body in found[:1]]:
        raise ValueError("there is no public key in it" + (", or something before it" if found else ""))
    return [_fingerprint(body) for tag, body in found if tag == PUBLIC_KEY]


def _fingerprint(body: bytes) -> str:
    if not body or body[0] != 4:
        raise ValueError(f"an OpenPGP key of version {body[0] if body else '?'} is in it; only version 4 is known")
    if len(body) > 0xFFFF:
        raise ValueError(f"an OpenPGP key of {len(body)} bytes is in it, and it may have 65535")
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


def checked(data: bytes, expected: str, origin: str) -> bytes:
    """The one key expected, armored anew from the packets that were checked: these bytes are the ones to use.

    Raises:
        ValueError: it is another key, there is a second one, or something beside it; a sentence.
    """
    wanted = normal(expected)
    try:
        found = fingerprints(data)
    except ValueError as error:
        raise ValueError(f"{origin} gives no key to check against {spelt(wanted)}: {error}.") from error
    if found != [wanted]:
        others = ", ".join(spelt(one) for one in found)
        raise ValueError(
            f"The key from {origin} has the fingerprint {others}, but {spelt(wanted)} was expected; it is not trusted."
        )
    return armor(dearmor(data))
