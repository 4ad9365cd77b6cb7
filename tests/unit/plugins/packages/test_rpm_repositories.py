# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""dnf repositories as text, what other files have under the same name, and which packages are missing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.packages import rpm as packages_rpm

DOCKER = packages_rpm.Source("docker-ce-stable", "Docker", "https://x/9/$basearch/stable", "/etc/pki/k", True, False)
NVIDIA = packages_rpm.Source("nvidia", "nvidia", "https://y/$basearch", "/k", False, True, ("a", "b"), "Why.\n\nHow.")


def test_render() -> None:
    assert DOCKER.render() == (
        "[docker-ce-stable]\nname=Docker\nbaseurl=https://x/9/$basearch/stable\nenabled=1\n"
        "gpgcheck=1\nrepo_gpgcheck=0\ngpgkey=file:///etc/pki/k\n"
    )


@pytest.mark.parametrize("field", ["repo_id", "title", "uri", "key_path", "excludes"])
def test_no_value_begins_a_line_of_its_own(field: str) -> None:
    value = ("x\ngpgcheck=0",) if field == "excludes" else "x\ngpgcheck=0"
    with pytest.raises(ValueError, match="control character"):
        replace(DOCKER, **{field: value}).render()


def test_render_signed_metadata_and_a_hold() -> None:
    assert NVIDIA.render() == (
        "# Why.\n#\n# How.\n[nvidia]\nname=nvidia\nbaseurl=https://y/$basearch\nenabled=1\n"
        "gpgcheck=0\nrepo_gpgcheck=1\ngpgkey=file:///k\nexcludepkgs=a b\n"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        (DOCKER.render(), ()),
        (NVIDIA.render(), ("a", "b")),
        ("[other]\nexcludepkgs=x\n[nvidia]\nexcludepkgs = a*, b\n", ("a*", "b")),
        ("[nvidia]\nexcludepkgs=\n", ()),
        ("excludepkgs=x\n", ()),
    ],
)
def test_held(text: str, expected: tuple[str, ...]) -> None:
    assert packages_rpm.held(text, "nvidia") == expected


def test_twins() -> None:
    files = {"/a.repo": "[docker-ce-stable]\nenabled=1\n", "/b.repo": "#[docker-ce-stable]\n[docker-ce-test]\n"}
    assert packages_rpm.twins("docker-ce-stable", files) == ["/a.repo"]


def test_installed() -> None:
    answer = "docker-ce\t29.8.1-1.el9\npackage docker-ce-cli is not installed\n"
    assert packages_rpm.installed(answer) == {"docker-ce": "29.8.1-1.el9"}


@pytest.mark.parametrize(
    ("version", "have", "expected"),
    [
        (None, {}, ["docker-ce", "containerd.io"]),
        (None, {"docker-ce": "28.0.0-1", "containerd.io": "1-1"}, []),
        ("29.8", {}, ["docker-ce-29.8.*", "containerd.io"]),
        ("5:29.8", {"containerd.io": "1-1"}, ["docker-ce-29.8.*"]),  # the epoch of Debian's packages
        ("29.8.1", {"containerd.io": "1-1"}, ["docker-ce-29.8.1"]),
        ("3:29.8.1-1.el9", {"containerd.io": "1-1"}, ["docker-ce-29.8.1-1.el9"]),
        ("29.8", {"docker-ce": "29.8.1-1.el9", "containerd.io": "1-1"}, []),
        ("29.8.1", {"docker-ce": "29.8.1-1.el9", "containerd.io": "1-1"}, []),
        ("29.8.1-1.el9", {"docker-ce": "29.8.1-1.el9", "containerd.io": "1-1"}, []),
        ("29.8", {"docker-ce": "29.80.0-1.el9", "containerd.io": "1-1"}, ["docker-ce-29.8.*"]),
        ("29.8.1", {"docker-ce": "29.8.10-1.el9", "containerd.io": "1-1"}, ["docker-ce-29.8.1"]),
    ],
)
def test_missing(version: str | None, have: dict[str, str], expected: list[str]) -> None:
    assert packages_rpm.missing(["docker-ce", "containerd.io"], version, ["docker-ce"], have) == expected
