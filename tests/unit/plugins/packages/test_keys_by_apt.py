# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A key that was let in, asked of apt itself: it takes the repository of the right key, and a stranger's never."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.packages import (
    key as packages_key,
    repository as packages_repository,
)

pytestmark = pytest.mark.skipif(
    not (shutil.which("gpg") and shutil.which("apt-get")), reason="takes gpg to sign and apt to be asked"
)
BEGIN, END = b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n", b"-----END PGP PUBLIC KEY BLOCK-----\n"


@dataclass
class Signers:
    """Two keys, and for each a flat repository that it signed."""

    home: Path

    def gpg(self, *argv: str) -> bytes:
        line = ["gpg", "--homedir", str(self.home / "gnupg"), "--batch", "--pinentry-mode=loopback", "--passphrase", ""]
        done = subprocess.run([*line, *argv], check=False, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def make(self, who: str) -> None:
        self.gpg("--quick-generate-key", who, "rsa2048", "sign", "never")
        repository = self.home / who
        repository.mkdir()
        (repository / "Packages").write_bytes(b"")
        empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        (repository / "Release").write_text(
            f"Date: Thu, 01 Jan 2026 00:00:00 UTC\nArchitectures: all amd64 arm64\nSHA256:\n {empty} 0 Packages\n"
        )
        signed = [f"--local-user={who}", "--output", str(repository / "InRelease"), "--clearsign"]
        self.gpg(*signed, str(repository / "Release"))

    def key(self, who: str) -> bytes:
        return self.gpg("--export", who)

    def fingerprint(self, who: str) -> str:
        return packages_key.fingerprints(self.key(who))[0]

    def accepts(self, keyring: Path, who: str) -> bool:
        """Whether an apt that trusts this key file takes the repository."""
        work = self.home / f"apt-{os.urandom(4).hex()}"
        (work / "lists" / "partial").mkdir(parents=True)
        (work / "cache" / "archives" / "partial").mkdir(parents=True)
        source = work / "one.sources"
        source.write_text(f"Types: deb\nURIs: file://{self.home / who}\nSuites: ./\nSigned-By: {keyring}\n")
        settings = {
            "Dir::Etc::SourceList": source,
            "Dir::Etc::SourceParts": "-",
            "Dir::State::Lists": work / "lists",
            "Dir::Cache": work / "cache",
            "APT::Sandbox::User": "root",
        }
        options = [f"-o{name}={value}" for name, value in settings.items()]
        line = ["apt-get", "update", "-q", "--error-on=any", *options]
        return subprocess.run(line, capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def signers() -> Iterator[Signers]:
    # ansible-test runs each test in a fork, and pytest's own folder is the same in all of them: an agent that one fork
    # left would remove the socket of the next.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        (home / "gnupg").mkdir(mode=0o700)
        both = Signers(home)
        for who in ("publisher", "stranger"):
            both.make(who)
        yield both
        subprocess.run(["gpgconf", "--homedir", str(home / "gnupg"), "--kill", "all"], check=False)


def lines(data: bytes) -> bytes:
    return base64.encodebytes(data)


def block(data: bytes, begin: bytes = BEGIN, end: bytes = END) -> bytes:
    return begin + b"\n" + lines(data) + end


def retagged(key: bytes, tag: int) -> bytes:
    """The primary key's own packet under another tag."""
    body = next(body for _tag, body in packages_key.packets(key))
    return bytes([0xC0 | tag, 255]) + len(body).to_bytes(4, "big") + body


ODD = b"-----BEGIN PGP PUBLIC KEY BLOCK COMMENT-----\n"
ATTACKS: dict[str, Callable[[bytes, bytes], bytes]] = {
    "a block under an odd header before it": lambda right, other: block(other, begin=ODD) + block(right),
    "a block under an odd header after it": lambda right, other: block(right) + block(other, begin=ODD),
    "a block that never ends": lambda right, other: ODD + b"\n" + lines(other) + block(right),
    "a message after it": lambda right, other: block(right) + block(other, b"-----BEGIN PGP MESSAGE-----\n"),
    "a block on the last line": lambda right, other: block(right).rstrip() + b"\n" + block(other, begin=ODD),
    "a block among the headers": lambda right, other: BEGIN + ODD + b"\n" + lines(other) + b"\n" + block(right),
    "another begin in the block": lambda right, other: BEGIN + b"\n" + lines(right) + ODD + b"\n" + lines(other) + END,
    "two blocks": lambda right, other: block(right) + block(other),
    "two keys in a block": lambda right, other: block(right + other),
    "two keys in a keyring": lambda right, other: right + other,
    "a key as a secret one": lambda right, other: block(right + retagged(other, 5)),
    "a key as a subkey": lambda right, other: block(right + retagged(other, 14)),
    "armor after a keyring": lambda right, other: right + block(other, begin=ODD),
}


def let_in(path: Path, data: bytes, fingerprint: str) -> bool:
    """Write what the modules would write; whether they write anything."""
    try:
        taken, _diff = packages_repository.key_change(str(path), fingerprint, "http://mirror/gpg", lambda: data)
    except ValueError:
        return False
    path.write_bytes(taken)
    return True


@pytest.mark.parametrize("attack", ATTACKS)
def test_apt_never_takes_a_strangers_repository(signers: Signers, tmp_path: Path, attack: str) -> None:
    data = ATTACKS[attack](signers.key("publisher"), signers.key("stranger"))
    keyring = tmp_path / "key.asc"
    if let_in(keyring, data, signers.fingerprint("publisher")):
        assert not signers.accepts(keyring, "stranger")


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_key_with_company_that_lies_on_the_node_does_not_stay(signers: Signers, tmp_path: Path, attack: str) -> None:
    """As an older release of this collection may have put it there."""
    right = signers.key("publisher")
    keyring = tmp_path / "key.asc"
    keyring.write_bytes(ATTACKS[attack](right, signers.key("stranger")))
    assert let_in(keyring, right, signers.fingerprint("publisher"))
    assert not signers.accepts(keyring, "stranger")
    assert signers.accepts(keyring, "publisher")


@pytest.mark.parametrize(
    "dress",
    [
        lambda key: key,
        block,
        lambda key: b"\n" + block(key).replace(b"\n", b"\r\n"),
        lambda key: BEGIN + b"Version: 1\nComment: x\n\n" + lines(key) + END,
    ],
)
def test_apt_takes_the_publishers_repository(signers: Signers, tmp_path: Path, dress: Callable[[bytes], bytes]) -> None:
    keyring = tmp_path / "key.asc"
    assert let_in(keyring, dress(signers.key("publisher")), signers.fingerprint("publisher"))
    assert signers.accepts(keyring, "publisher")
    assert not signers.accepts(keyring, "stranger")
    assert keyring.read_bytes() == signers.gpg("--armor", "--export", "publisher")
