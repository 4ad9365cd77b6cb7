# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fingerprints as gpg has them, and every kind of wrong key refused in a sentence."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import yaml
from ansible_collections.gpunode.llm.plugins.module_utils.packages import key as packages_key

CHECKOUT = Path(__file__).resolve().parents[4]
KEYS = CHECKOUT / "tests" / "fixtures" / "openpgp"
RSA = "D15E51EA410750E7325605E566E77F2ACD7201D8"
ED25519 = "9A58EF462DFAA5B1C0AA8E895C5E98107D136C57"


def key(name: str) -> bytes:
    return (KEYS / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rsa3072.asc", [RSA]),
        ("ed25519.asc", [ED25519]),
        ("with-subkey.asc", [RSA]),
        ("two-keys.asc", [RSA, ED25519]),
    ],
)
def test_fingerprints(name: str, expected: list[str]) -> None:
    armored = key(name)
    assert packages_key.fingerprints(armored) == expected
    assert packages_key.fingerprints(packages_key.dearmor(armored)) == expected


def test_armor_may_have_headers() -> None:
    lines = key("rsa3072.asc").decode().splitlines()
    dressed = "\r\n".join(["", lines[0], "Version: 1", "Comment: x", *lines[1:], "", ""])
    assert packages_key.fingerprints(dressed.encode()) == [RSA]


@pytest.mark.parametrize("name", ["rsa3072.asc", "ed25519.asc", "with-subkey.asc"])
def test_armor_is_gpgs_own(name: str) -> None:
    assert packages_key.armor(packages_key.dearmor(key(name))) == key(name)


def test_old_and_new_lengths() -> None:
    body = next(body for tag, body in packages_key.packets(packages_key.dearmor(key("rsa3072.asc"))) if tag == 6)
    size = len(body)
    forms = [
        bytes([0x98 | 1]) + size.to_bytes(2, "big"),
        bytes([0x98 | 2]) + size.to_bytes(4, "big"),
        bytes([0xC6, ((size - 192) >> 8) + 192, (size - 192) & 0xFF]),
        bytes([0xC6, 255]) + size.to_bytes(4, "big"),
    ]
    assert [packages_key.fingerprints(form + body) for form in forms] == [[RSA]] * 4


def test_default_is_the_fingerprint_of_dockers_key() -> None:
    defaults = yaml.safe_load((CHECKOUT / "roles/docker/defaults/main.yml").read_text())
    packet = base64.b64decode(key("docker-primary.b64"))
    assert packages_key.fingerprints(packet) == [packages_key.normal(defaults["docker_apt_key_fingerprint"])]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not an OpenPGP key"),
        (b"<html>404</html>", "not an OpenPGP key"),
        (b"to whom it may concern\n" + key("rsa3072.asc"), "other text beside"),
        (key("rsa3072.asc") + b"bye\n", "other text beside"),
        (key("rsa3072.asc") * 2, "2 armored blocks"),
        (key("rsa3072.asc").replace(b"BLOCK-----\n\n", b"BLOCK-----\n"), "damaged: it has no empty line"),
        (key("rsa3072.asc").replace(b"\n=", b"\n=A"), "damaged"),
        (key("rsa3072.asc").replace(b"\n=", b"\n=AAAA\n="), "damaged"),
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmA==\n=AAAA\n-----END PGP PUBLIC KEY BLOCK-----\n", "checksum"),
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n!!!!\n-----END PGP PUBLIC KEY BLOCK-----\n", "damaged"),
        (b"\x99\x01", "incomplete"),
        (b"\x9b\x01\x02", "indefinite length"),
        (b"\xc6\xe1\x00", "indefinite length"),
        (b"\xc6\x02\x06\x00", "only version 4"),
        (b"\xb4\x01x", "no public key"),
        (b"\xb4\x01x" + packages_key.dearmor(key("rsa3072.asc")), "something before it"),
        (packages_key.dearmor(key("rsa3072.asc")) + b"\x94\x01x", "packets of type 5"),
        (packages_key.dearmor(key("rsa3072.asc")) + b"\xca\x03PGP", "packets of type 10"),
        (b"\xc6\xff\x00\x01\x00\x00\x04" + bytes(0xFFFF), "65536 bytes"),
        (b"\x99" + bytes(1 << 20), "more than 1048576 bytes"),
        (b"\xb4\x01xy", "no OpenPGP packet begins"),
    ],
)
def test_invalid_keys(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        packages_key.fingerprints(data)
    with pytest.raises(ValueError, match=words) as error:
        packages_key.checked(data, RSA, "http://mirror/gpg")
    assert str(error.value).startswith("http://mirror/gpg has no key to compare with D15E 51EA")


@pytest.mark.parametrize("text", [RSA, RSA.lower(), "0x" + RSA, packages_key.spelt(RSA), ":".join(RSA), f" {RSA}\n"])
def test_normal(text: str) -> None:
    assert packages_key.normal(text) == RSA


@pytest.mark.parametrize("text", ["", "CD7201D8", RSA[:-1], RSA + "0", "G" + RSA[1:]])
def test_normal_wants_all_of_it(text: str) -> None:
    with pytest.raises(ValueError, match="40 hexadecimal digits"):
        packages_key.normal(text)


def test_right_key() -> None:
    for data in (key("with-subkey.asc"), packages_key.dearmor(key("with-subkey.asc"))):
        assert packages_key.checked(data, packages_key.spelt(RSA), "here") == key("with-subkey.asc")


@pytest.mark.parametrize("name", ["ed25519.asc", "two-keys.asc"])
def test_wrong_key_is_refused_with_both_fingerprints(name: str) -> None:
    """A second key beside the right one would be trusted as well, so it is refused too."""
    with pytest.raises(ValueError, match="it is not trusted") as error:
        packages_key.checked(key(name), RSA, "http://mirror/gpg")
    message = str(error.value)
    assert "http://mirror/gpg" in message
    assert packages_key.spelt(RSA) in message
    assert packages_key.spelt(ED25519) in message
    assert message.count(". ") == 0
