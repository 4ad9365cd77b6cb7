# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""apt sources as text, what other files claim, and which packages are missing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils import _apt

DOCKER = _apt.Source(
    uri="https://download.docker.com/linux/debian",
    suite="bookworm",
    components=("stable",),
    architectures=("amd64",),
    signed_by="/etc/apt/keyrings/docker.asc",
)
FLAT = _apt.Source(
    "https://nvidia.github.io/x/deb/$(ARCH)", "/", (), (), "/etc/apt/keyrings/nvidia.asc", "Why.\n\nHow."
)


def test_render() -> None:
    assert DOCKER.render() == (
        "Types: deb\nURIs: https://download.docker.com/linux/debian\nSuites: bookworm\nComponents: stable\n"
        "Architectures: amd64\nSigned-By: /etc/apt/keyrings/docker.asc\n"
    )


def test_render_flat() -> None:
    assert FLAT.render() == (
        "# Why.\n#\n# How.\nTypes: deb\nURIs: https://nvidia.github.io/x/deb/$(ARCH)\nSuites: /\n"
        "Signed-By: /etc/apt/keyrings/nvidia.asc\n"
    )


@pytest.mark.parametrize("field", ["uri", "suite", "components", "architectures", "signed_by"])
@pytest.mark.parametrize("evil", ["x\nTrusted: yes", "x\n\nTypes: deb", "x\r\ny", "x\ty", "x\x00y"])
def test_no_value_begins_a_field_of_its_own(field: str, evil: str) -> None:
    value = (evil,) if field in ("components", "architectures") else evil
    with pytest.raises(ValueError, match="control character"):
        replace(DOCKER, **{field: value}).render()


@pytest.mark.parametrize("value", ['/x";Acquire::AllowInsecureRepositories "true', '/x"\n#include', "/x\ny"])
def test_no_value_ends_before_its_end(value: str) -> None:
    with pytest.raises(ValueError, match="control character|quotation mark"):
        _apt.configuration({"Dir::State::Lists": value})


def test_claims_its_own_rendering() -> None:
    assert _apt.claims("x.sources", FLAT.render()) == [_apt.Claim("x.sources", FLAT.uri, "/", FLAT.signed_by)]


URI = DOCKER.uri
GUIDE = f"deb [arch=amd64 signed-by=/etc/apt/keyrings/docker.asc] {URI} bookworm stable\n"


@pytest.mark.parametrize(
    ("path", "text", "clashes"),
    [
        ("a.list", "", False),
        ("a.list", f"deb {URI} bookworm stable\n", True),
        ("a.list", f"# deb {URI} bookworm stable\n", False),
        ("a.list", f"deb [arch=amd64] {URI}/ bookworm stable\n", True),
        ("a.list", f"deb [signed-by=/usr/share/keyrings/docker.gpg] {URI} bookworm stable\n", True),
        ("a.list", GUIDE, False),
        ("a.list", f"deb {URI} trixie stable\n", False),
        ("a.list", "deb http://other/linux/debian bookworm stable\n", False),
        ("a.sources", f"Types: deb\nURIs: {URI}\nSuites: bookworm\nSigned-By: /k.gpg\n", True),
        ("a.sources", f"Types: deb\nURIs: http://x {URI}\nSuites: trixie bookworm\n", True),
        ("a.sources", f"Types: deb\nURIs: http://x\n {URI}\nSuites: bookworm\n", True),
        ("a.sources", f"Enabled: no\nTypes: deb\nURIs: {URI}\nSuites: bookworm\n", False),
        (
            "a.sources",
            f"Types: deb\nURIs: http://x\nSuites: x\n\n# c\nURIs: {URI}\nSuites: bookworm\n",
            True,
        ),
        ("a.sources", DOCKER.render(), False),
    ],
)
def test_clash(path: str, text: str, clashes: bool) -> None:
    found = _apt.clash(DOCKER, _apt.claims(path, text))
    assert (found is not None) == clashes
    if found:
        assert found.path == path


STATUS = (
    "docker-ce\tii \t5:29.8.1-1~debian.12~bookworm\ndocker-ce-cli\thi \t5:29.8.1-1~debian.12~bookworm\n"
    "docker.io\trc \t20.10.24\nrunc\tun \t\ncontainerd.io\tiU \t2.1.5-1\n"
)


def test_installed() -> None:
    assert _apt.installed(STATUS) == {
        "docker-ce": _apt.Package("5:29.8.1-1~debian.12~bookworm", False),
        "docker-ce-cli": _apt.Package("5:29.8.1-1~debian.12~bookworm", True),
    }
    assert _apt.installed("") == {}


@pytest.mark.parametrize(
    ("version", "missing"),
    [
        (None, ["containerd.io"]),
        ("", ["containerd.io"]),
        ("5:29", ["containerd.io"]),
        ("5:29.8", ["containerd.io"]),
        ("5:29.8.1", ["containerd.io"]),
        ("5:29.8.1-1~debian.12~bookworm", ["containerd.io"]),
        ("29.8.1", ["docker-ce=29.8.1[.-]*", "docker-ce-cli=29.8.1[.-]*", "containerd.io"]),
        ("5:29.80", ["docker-ce=5:29.80[.-]*", "docker-ce-cli=5:29.80[.-]*", "containerd.io"]),
        ("5:2", ["docker-ce=5:2[.-]*", "docker-ce-cli=5:2[.-]*", "containerd.io"]),
        ("5:29.8.1-2", ["docker-ce=5:29.8.1-2", "docker-ce-cli=5:29.8.1-2", "containerd.io"]),
    ],
)
def test_missing(version: str | None, missing: list[str]) -> None:
    packages = ["docker-ce", "docker-ce-cli", "containerd.io"]
    specs = _apt.pin(packages, version, ["docker-ce", "docker-ce-cli", "docker-ce-rootless-extras"])
    assert _apt.missing(specs, _apt.installed(STATUS)) == missing


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            "W: GPG error: x NO_PUBKEY 1\nE: no InRelease\nW: GPG error: x NO_PUBKEY 1\n",
            "GPG error: x NO_PUBKEY 1 no InRelease",
        ),
        ("Killed\n", "Killed"),
    ],
)
def test_complaint(said: str, expected: str) -> None:
    assert _apt.complaint(said) == expected
