# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""apt sources as text, what other files claim, and which packages are missing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.packages import apt as packages_apt

DOCKER = packages_apt.Source(
    uri="https://download.docker.com/linux/debian",
    suite="bookworm",
    components=("stable",),
    architectures=("amd64",),
    signed_by="/etc/apt/keyrings/docker.asc",
)
FLAT = packages_apt.Source(
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
        packages_apt.configuration({"Dir::State::Lists": value})


STATUS = (
    "docker-ce\tii \t5:29.8.1-1~debian.12~bookworm\ndocker-ce-cli\thi \t5:29.8.1-1~debian.12~bookworm\n"
    "docker.io\trc \t20.10.24\nrunc\tun \t\ncontainerd.io\tiU \t2.1.5-1\n"
)


def test_installed() -> None:
    assert packages_apt.installed(STATUS) == {
        "docker-ce": packages_apt.Package("5:29.8.1-1~debian.12~bookworm", False),
        "docker-ce-cli": packages_apt.Package("5:29.8.1-1~debian.12~bookworm", True),
    }
    assert packages_apt.installed("") == {}


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
    specs = packages_apt.pin(packages, version, ["docker-ce", "docker-ce-cli", "docker-ce-rootless-extras"])
    assert packages_apt.missing(specs, packages_apt.installed(STATUS)) == missing


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "W: GPG error: x NO_PUBKEY 1\nE: no InRelease\nW: GPG error: x NO_PUBKEY 1\n",
            "GPG error: x NO_PUBKEY 1 no InRelease",
        ),
        ("Killed\n", "Killed"),
    ],
)
def test_complaint(message: str, expected: str) -> None:
    assert packages_apt.complaint(message) == expected
