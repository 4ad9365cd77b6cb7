# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What apt says of a source before it is written: apt itself is asked, with sources of the test's own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.packages import apt as packages_apt

pytestmark = pytest.mark.skipif(not shutil.which("apt-get"), reason="there is no apt to ask")
FLAT = {"name": "nvidia-container-toolkit", "uri": "https://nvidia.test/stable/deb/$(ARCH)", "suite": "/"}
DOCKER = {"name": "docker", "uri": "https://docker.test/linux/debian", "suite": "bookworm", "components": ["stable"]}
URI = DOCKER["uri"]
ARCH = "amd64"


class Node:
    """An apt that has its sources in a folder of the test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.parts = root / "sources.list.d"
        self.parts.mkdir()
        (root / "lists" / "partial").mkdir(parents=True)
        settings = {
            "APT::Architecture": ARCH,
            "Dir::Etc::SourceList": str(root / "sources.list"),
            "Dir::Etc::SourceParts": str(self.parts),
            "Dir::State::Lists": str(root / "lists"),
            "Dir::Cache": str(root),
            "APT::Sandbox::User": "root",
        }
        (root / "apt.conf").write_text(packages_apt.configuration(settings))

    def run(self, argv: Sequence[str]) -> tuple[int, str, str]:
        environment = {**os.environ, "APT_CONFIG": str(self.root / "apt.conf"), "LC_ALL": "C"}
        done = subprocess.run(argv, capture_output=True, text=True, env=environment, check=False)
        return done.returncode, done.stdout, done.stderr

    def refusal(self, wanted: dict[str, object]) -> str:
        with packages_apt.staged(wanted, b"") as folder:
            return packages_apt.refusal(folder, wanted, self.run)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


KEY = "signed-by=/usr/share/keyrings/other.gpg"


@pytest.mark.parametrize(
    ("wanted", "name", "text"),
    [
        (FLAT, "n.list", f"deb [{KEY}] https://nvidia.test/stable/deb/amd64 /\n"),
        (FLAT, "n.list", f"deb [{KEY}] https://nvidia.test/stable/deb/amd64/ /\n"),
        (FLAT, "n.list", f"deb [arch=amd64 {KEY}] https://nvidia.test/stable/deb/$(ARCH) /\n"),
        (FLAT, "n.list", "# NVIDIA's\ndeb [trusted=yes] https://nvidia.test/stable/deb/amd64 /\n"),
        (DOCKER, "a.list", f"deb [{KEY}] {URI} bookworm stable\n"),
        (DOCKER, "z.list", f"deb {URI} bookworm stable\n"),
        (DOCKER, "z.list", f"deb-src [{KEY}] {URI} bookworm stable\n"),
        (DOCKER, "z.list", f"deb [trusted=yes signed-by=/etc/apt/keyrings/docker.asc] {URI}/ bookworm stable\n"),
        (DOCKER, "a.list", f"deb [allow-insecure=yes] {URI}/ bookworm stable\n"),
        (DOCKER, "../sources.list", f"deb [{KEY}] {URI} bookworm nightly\n"),
        (
            DOCKER,
            "a.sources",
            f"Types: deb\nURIs: http://x.test\n {URI}\nSuites: x bookworm\nComponents: y\nSigned-By: /k.gpg\n",
        ),
    ],
)
def test_another_entry_at_which_apt_would_stop_is_named(node, wanted, name, text):
    path = os.path.normpath(node.parts / name)
    Path(path).write_text(text)
    (node.parts / "fine.list").write_text("deb http://other.test bookworm main\n")
    message = node.refusal(wanted)
    assert message.startswith(f"{path} names the repository {wanted['uri']} {wanted['suite']} as well")
    assert "(Conflicting values set for option" in message
    assert message.endswith("Remove that entry; what was installed from it stays.")
    assert str(node.root / "asked") not in message


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.list", ""),
        ("a.list", f"# deb [{KEY}] {URI} bookworm stable\n"),
        ("a.list", f"deb [signed-by=/etc/apt/keyrings/docker.asc] {URI} bookworm stable\n"),
        ("a.list", f"deb [{KEY}] {URI} trixie stable\n"),
        ("a.list", f"deb {URI} bookworm stable\n"),  # read first, and then ours says by which key
        ("a.sources", f"Enabled: no\nTypes: deb\nURIs: {URI}\nSuites: bookworm\nSigned-By: /k.gpg\nComponents: x\n"),
        ("docker.sources", f"Types: deb\nURIs: {URI}\nSuites: bookworm\nComponents: stable\nSigned-By: /k.gpg\n"),
    ],
)
def test_what_apt_reads_is_let_be(node, name, text):
    (node.parts / name).write_text(text)
    assert node.refusal(DOCKER) == ""


def test_what_was_broken_before_is_named(node):
    (node.parts / "fine.list").write_text("deb http://other.test bookworm main\n")
    (node.parts / "odd.list").write_text("deb http://other.test\n")
    message = node.refusal(DOCKER)
    assert message.startswith(
        f"apt does not read {node.parts}/odd.list (Malformed entry 1 in list file {node.parts}/odd.list"
    )
    assert message.endswith("Mend that first.")


def test_an_address_without_a_repository_is_refused_and_leaves_no_trace(node, tmp_path):
    wanted = {**DOCKER, "uri": f"file://{tmp_path}/nothing"}
    with packages_apt.staged(wanted, b"") as folder:
        rc, _out, err = node.run(packages_apt.update(folder, trace=False))
    assert rc != 0
    message = packages_apt.rejection(wanted, err)
    assert message.startswith(f"apt does not take file://{tmp_path}/nothing bookworm: ")
    assert "does not have a Release file" in message or "File not found" in message
    assert sorted(path.name for path in node.root.rglob("*") if path.is_file()) == ["apt.conf"]
    assert not os.path.exists(folder)


def test_mirror_lets_conflicting_entries_stand_back(node):
    """The host that makes a bundle has an entry of its own for the same repository: the others still serve."""
    other, fine = node.parts / "n.list", node.parts / "fine.list"
    other.write_text(f"deb [{KEY}] https://nvidia.test/stable/deb/amd64 /\n")
    fine.write_text("deb http://other.test bookworm main\n")
    with packages_apt.staged(FLAT, b"") as folder:
        found = packages_apt.conflicts(packages_apt.own(folder, FLAT), packages_apt.sources(node.run), folder, node.run)
    assert list(found) == [str(other)]


def test_a_password_in_an_address_is_not_shown(node, tmp_path):
    wanted = {**DOCKER, "uri": "http://ada:s3cret@127.0.0.1:9/debian"}
    (node.parts / "a.list").write_text(f"deb [{KEY}] {wanted['uri']} bookworm stable\n")
    assert "s3cret" not in node.refusal(wanted)
    with packages_apt.staged(wanted, b"") as folder:
        _rc, _out, err = node.run(packages_apt.update(folder, trace=False))
    assert "s3cret" not in packages_apt.rejection(wanted, err)
