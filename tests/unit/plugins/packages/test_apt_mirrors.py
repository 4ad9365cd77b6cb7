# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the parts of an apt repository go, from what apt printed."""

from __future__ import annotations

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.packages.mirror import (
    Deb,
    Index,
    Published,
    outdated,
    parse_targets,
    parse_uris,
    place,
    repositories,
    used,
)

DEBIAN = Index(
    "http://mirror.example.org/debian/",
    "http://mirror.example.org/debian/dists/bookworm/",
    "main/binary-amd64/Packages",
    "/l/mirror.example.org_debian_dists_bookworm_main_binary-amd64_Packages",
)
OTHER = Index("http://ppa.test/x/", "http://ppa.test/x/dists/a/", "main/binary-amd64/Packages", "/l/ppa.test_x")
FLAT = Index("https://n.test/deb/amd64/", "https://n.test/deb/amd64/", "Packages", "/l/n.test_deb_amd64_Packages")
DEB = Deb(
    "http://mirror.example.org/debian/pool/main/x/xz/liblzma5_5.4%2bdeb_amd64.deb", "liblzma5_5.4+deb_amd64.deb", 205732
)


def test_apts_output_is_parsed():
    lines = [
        f"{kind}\t{DEBIAN.repository}\t{DEBIAN.base}\t{DEBIAN.key}\t{DEBIAN.held}" for kind in ("Packages", "Sources")
    ]
    assert parse_targets("\n".join(lines)) == [DEBIAN]
    assert parse_uris(f"'{DEB.uri}' {DEB.name} {DEB.size} MD5Sum:e27\nNote: x\n") == [DEB]


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        (DEB.uri, "apt/mirror.example.org/debian/pool/main/x/xz/liblzma5_5.4+deb_amd64.deb"),
        ("https://u:secret@m.test:8/deb/", "apt/m.test:8/deb"),
        ("file:/srv/mirror/x", "apt/srv/mirror/x"),
        ("file:///srv/mirror/x", "apt/srv/mirror/x"),
    ],
)
def test_places(uri, path):
    assert place(uri) == path


@pytest.mark.parametrize("uri", ["http://m.test/../x", "http://m.test/%2e%2e/x"])
def test_nothing_leads_out(uri):
    with pytest.raises(ValueError, match="leads out"):
        place(uri)


@pytest.mark.parametrize(
    ("index", "suite", "component", "signature"),
    [
        (
            DEBIAN,
            "bookworm",
            "main",
            ("/l/mirror.example.org_debian_dists_bookworm_InRelease", "dists/bookworm/InRelease"),
        ),
        (FLAT, "/", "", ("/l/n.test_deb_amd64_InRelease", "amd64/InRelease")),
    ],
)
def test_an_index_knows_its_release(index, suite, component, signature):
    assert (index.suite, index.component) == (suite, component)
    held, there = index.signatures()[0]
    assert held == signature[0]
    assert there.endswith(signature[1])


@pytest.mark.parametrize(
    ("listed", "taken"),
    [
        (
            ["main/binary-amd64/Packages", "main/binary-amd64/Packages.gz", "main/binary-amd64/Packages.xz"],
            "Packages.xz",
        ),
        (["main/binary-amd64/Packages", "main/binary-amd64/Packages.gz", "main/binary-all/Packages.xz"], "Packages.gz"),
        (["main/binary-amd64/Packages"], "Packages"),
    ],
)
def test_an_index_is_taken_as_it_was_published(listed, taken):
    lines = [f" {'a' * 64}  7 {path}" for path in listed]
    release = "\n".join(
        ["MD5Sum:", f" {'b' * 32} 7 main/binary-amd64/Packages.bz2", "SHA256:", *lines, "Acquire-By-Hash: yes"]
    )
    assert DEBIAN.published(release) == Published(f"{DEBIAN.base}main/binary-amd64/{taken}", "a" * 64, 7)


def test_an_index_that_is_not_signed_is_refused():
    with pytest.raises(ValueError, match="lists no main/binary-amd64/Packages"):
        DEBIAN.published("Origin: x\n")


@pytest.mark.parametrize(
    ("others", "stale"),
    [
        ({}, []),
        ({"docker": {"InRelease": 5, "x.deb": 1}}, []),
        ({"docker": {"InRelease": 4}, "more": {"y.deb": 1}}, ["docker"]),
    ],
)
def test_one_index_answers_all_requests(others, stale):
    assert outdated({"InRelease": 5, "x.deb": 1}, others) == stale


def test_only_what_something_comes_from_is_kept():
    assert used([DEBIAN, OTHER, FLAT], [DEB], ["https://n.test/deb/amd64"]) == [DEBIAN, FLAT]
    assert repositories([DEBIAN, FLAT], ["https://n.test/deb/amd64"]) == [
        {"path": "apt/mirror.example.org/debian", "suite": "bookworm", "components": ["main"], "own": False},
        {"path": "apt/n.test/deb/amd64", "suite": "/", "components": [], "own": True},
    ]
