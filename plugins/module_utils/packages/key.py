# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenPGP public keys, parsed here because a fresh node has no gpg.

Each program parses armor in its own way: apt accepts blocks that gpg ignores. So the input bytes are never used
directly: the verified packets are armored again.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Iterator, List, Tuple

PUBLIC_KEY = 6
#: The packet types of a public key: signature, key, user, subkey, picture. Everything else is rejected: a secret key
#: (which gpg accepts as a key too), a nested message, an unknown type.
PARTS = {2: "signature", PUBLIC_KEY: "key", 13: "user", 14: "subkey", 17: "picture"}
#: A publisher's key has about ten thousand bytes; a hundred times as much is not a key.
LIMIT = 1 << 20
BEGIN, END = b"-----BEGIN PGP PUBLIC KEY BLOCK-----", b"-----END PGP PUBLIC KEY BLOCK-----"
HEADER = re.compile(rb"[A-Za-z][A-Za-z-]*:.*")


def dearmor(data: bytes) -> bytes:
    """The binary keys in an armored text; binary keys are returned unchanged.

    Raises:
        ValueError: there is no key, more than one block, or other text beside it.
    """
    if data[:1] and data[0] & 0x80:
        return data
    if BEGIN not in data:
        raise ValueError(f"it is not an OpenPGP key: it begins with {data[:60]!r}")
    if data.count(b"-----BEGIN") > 1:
        raise ValueError(f"it has {data.count(b'-----BEGIN')} armored blocks, but a key has one")
    lines = [line.strip() for line in data.strip().split(b"\n")]
    if lines[0] != BEGIN or lines[-1] != END:
        raise ValueError("it has other text beside its armored block")
    return _decode(lines[1:-1])


def _decode(lines: List[bytes]) -> bytes:
    """Decode the lines between the first and the last: headers, an empty line, the data, its checksum."""
    gap = lines.index(b"") if b"" in lines else len(lines)
    body = [line for line in lines[gap:] if line]
    checksum = body.pop()[1:] if body and body[-1].startswith(b"=") else b""
    try:
        if not all(map(HEADER.fullmatch, lines[:gap])):
            raise ValueError("it has no empty line before its data")
        data = base64.b64decode(b"".join(body), validate=True)
        if checksum and base64.b64decode(checksum, validate=True) != crc24(data):
            raise ValueError("its checksum is wrong")
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
    """The checksum of an armored text (RFC 4880, 6.1)."""
    crc = 0xB704CE
    for byte in data:
        crc = (crc << 8 & 0xFFFFFF) ^ _CRC24[crc >> 16 ^ byte]
    return crc.to_bytes(3, "big")


def armor(data: bytes) -> bytes:
    """Armored text in the format of gpg --export."""
    encoded = base64.b64encode(data)
    lines = [encoded[at : at + 64] for at in range(0, len(encoded), 64)]
    return b"\n".join([BEGIN, b"", *lines, b"=" + base64.b64encode(crc24(data)), END, b""])


def packets(data: bytes) -> Iterator[Tuple[int, bytes]]:
    """The packets of a binary key, as (tag, body).

    Raises:
        ValueError: the bytes are incomplete or are not packets.
    """
    at = 0
    while at < len(data):
        head = data[at]
        if not head & 0x80:
            raise ValueError(f"no OpenPGP packet begins at byte {at}")
        tag, start, size = _new_format(data, at) if head & 0x40 else _old_format(data, at)
        if start + size > len(data):
            raise ValueError("this OpenPGP key is incomplete")
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
    raise ValueError("this OpenPGP key has a packet of indefinite length")


def _old_format(data: bytes, at: int) -> Tuple[int, int, int]:
    tag, kind = (data[at] >> 2) & 0x0F, data[at] & 3
    if kind == 3:
        raise ValueError("this OpenPGP key has a packet of indefinite length")
    width = 1 << kind
    return tag, at + 1 + width, int.from_bytes(data[at + 1 : at + 1 + width], "big")


def fingerprints(data: bytes) -> List[str]:
    """The fingerprints of all primary keys, in order. Subkeys belong to their primary key.

    Raises:
        ValueError: there is no key, a key of a version that apt does not accept, or a packet that is not part of a key.
    """
    if len(data) > LIMIT:
        raise ValueError(f"it has more than {LIMIT} bytes, too many for a publisher's key")
    contents = list(packets(dearmor(data)))
    strange = sorted({tag for tag, _body in contents if tag not in PARTS})
    if strange:
        raise ValueError(f"it has packets of type {', '.join(map(str, strange))}, which do not belong to a public key")
    if PUBLIC_KEY not in [tag for tag, _body in contents[:1]]:
        raise ValueError("it has no public key" + (", or has something before it" if contents else ""))
    return [_fingerprint(body) for tag, body in contents if tag == PUBLIC_KEY]


def _fingerprint(body: bytes) -> str:
    if not body or body[0] != 4:
        raise ValueError(f"it has an OpenPGP key of version {body[0] if body else '?'}; only version 4 is supported")
    if len(body) > 0xFFFF:
        raise ValueError(f"it has an OpenPGP key of {len(body)} bytes; at most 65535 are allowed")
    # OpenPGP defines the fingerprint with SHA-1 (RFC 4880, 12.2).
    stream = b"\x99" + len(body).to_bytes(2, "big") + body
    return hashlib.sha1(stream, usedforsecurity=False).hexdigest().upper()


def normal(text: str) -> str:
    """A fingerprint in one form: without spaces, colons and 0x, in capital letters.

    Raises:
        ValueError: it does not have 40 hexadecimal digits.
    """
    plain = re.sub(r"^0[xX]", "", re.sub(r"[\s:]", "", text)).upper()
    if not re.fullmatch(r"[0-9A-F]{40}", plain):
        raise ValueError(f"{text!r} is not a key fingerprint: it must have all 40 hexadecimal digits")
    return plain


def spelt(fingerprint: str) -> str:
    """The fingerprint in groups of four, as people compare them."""
    return " ".join(fingerprint[at : at + 4] for at in range(0, len(fingerprint), 4))


def checked(data: bytes, expected: str, origin: str) -> bytes:
    """The expected key, armored again from the verified packets: use these bytes, not the input.

    Raises:
        ValueError: it is another key, more than fingerprint key, or has other content; the message is a sentence.
    """
    wanted = normal(expected)
    try:
        found = fingerprints(data)
    except ValueError as error:
        raise ValueError(f"{origin} has no key to compare with {spelt(wanted)}: {error}.") from error
    if found != [wanted]:
        others = ", ".join(spelt(fingerprint) for fingerprint in found)
        raise ValueError(
            f"The key from {origin} has the fingerprint {others}, but {spelt(wanted)} was expected; it is not trusted."
        )
    return armor(dearmor(data))
