# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service of a seeder, on a node whose systemd is a list of calls."""

from __future__ import annotations

import os
import stat

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.hub.seed import Failed, World, end, serve
from ansible_collections.gpunode.llm.plugins.module_utils.hub.snapshot import Cache, Manifest, RepoFile
from ansible_collections.gpunode.llm.plugins.module_utils.node import files as node_files

COMMIT = "0e9e39f249a16976918f6564b8830bc894c89659"
FILE = RepoFile("config.json", 2, "9e26dfeeb6e641a33dae4961196235bdb965b21b")


class Node:
    """``listens``: whether what is started binds its port; ``taken``: whether something else has."""

    def __init__(self, tmp_path) -> None:
        self.home, self.folder = str(tmp_path / "home"), str(tmp_path / "run" / "seed")
        self.ran, self.state, self.listens, self.taken = [], "absent", True, False
        self.params = {
            "snapshots": [{"repo_id": "org/name", "revision": COMMIT}],
            "home": self.home,
            "address": "10.0.0.1",
            "port": 8730,
            "followers": ["10.0.0.2", "fd00::3"],
            "life_s": 60,
        }
        cache = Cache(self.home)
        node_files.write_atomically(cache.pointer("org/name", COMMIT, FILE.path), "{}")
        self.manifest = Manifest("org/name", COMMIT, [FILE])
        node_files.write_atomically(cache.manifest("org/name", COMMIT), self.manifest.dump())

    def run(self, argv):
        self.ran.append(list(argv))
        if argv[0] == "systemd-run":
            self.state = "running" if self.listens else "failed"
        if argv[:2] == ["systemctl", "stop"]:
            self.state = "absent"
        if argv[:2] == ["systemctl", "show"]:
            active = {"absent": "inactive", "running": "active", "failed": "failed"}[self.state]
            return 0, f"LoadState={'not-found' if self.state == 'absent' else 'loaded'}\nActiveState={active}\n", ""
        return 0, "bind() failed: Cannot assign requested address\n" if "--unit" in argv else "", ""

    def free(self, address, port):
        return not (self.taken or self.state == "running")

    def serve(self, check_mode=False, **changes):
        return serve({**self.params, **changes}, check_mode, World(self.run, self.free, lambda s: None, self.folder))

    def secret(self):
        return node_files.read_text(os.path.join(self.folder, "rsyncd.secrets"))


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


def test_what_is_served(node):
    result = node.serve()
    assert result == {"changed": True, "address": "10.0.0.1", "port": 8730, "manifests": [node.manifest.content()]}
    text = node_files.read_text(os.path.join(node.folder, "rsyncd.conf"))
    lines = {key.strip(): value.strip() for key, _is, value in (line.partition("=") for line in text.splitlines())}
    snapshot = f"/models--org--name/snapshots/{COMMIT}/"
    expected = {
        "address": "10.0.0.1",
        "port": "8730",
        "path": f"{node.home}/hub",
        "use chroot": "yes",
        "read only": "yes",
        "list": "no",
        "hosts allow": "10.0.0.2 fd00::3",
        "auth users": "gpunode",
        "strict modes": "yes",
        "include": f"/models--org--name/ /models--org--name/snapshots/ {snapshot} {snapshot}**",
        "exclude": "*",
    }
    assert expected.items() <= lines.items()


def test_the_password_is_in_its_file_alone(node):
    node.serve()
    user, _colon, password = node.secret().strip().partition(":")
    assert user == "gpunode"
    assert len(password) >= 40
    path = os.path.join(node.folder, "rsyncd.secrets")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(node.folder).st_mode) == 0o700
    assert password not in str(node.ran) + node_files.read_text(os.path.join(node.folder, "rsyncd.conf"))


def test_each_play_has_its_own(node):
    node.serve()
    first = node.secret()
    node.serve()
    assert node.secret() != first
    started = [i for i, argv in enumerate(node.ran) if argv[0] == "systemd-run"]
    stopped = [i for i, argv in enumerate(node.ran) if argv[:2] == ["systemctl", "stop"]]
    assert len(started) == 2
    assert started[0] < stopped[-1] < started[1]


def test_it_ends_by_itself(node):
    node.serve()
    (command,) = [argv for argv in node.ran if argv[0] == "systemd-run"]
    assert "--property=RuntimeMaxSec=60" in command
    assert "--property=ProtectSystem=strict" in command


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"followers": []}, "No follower is given"),
        ({"followers": ["10.0.0.0/8"]}, "'10.0.0.0/8' is not an address"),
        ({"address": "node-1"}, "'node-1' is not an address"),
        ({"followers": ["10.0.0.2\nhosts allow = *"]}, "is not an address"),
        # Its own facts name a follower's address, and what stands behind a percent sign may be anything.
        ({"followers": ["fe80::1%x\nuid = root\npre-xfer exec = id"]}, "is not an address"),
        ({"address": "fe80::1%x\nuid = root"}, "is not an address"),
        ({"snapshots": [{"repo_id": "org/other", "revision": COMMIT}]}, f"cannot be served: org/other at {COMMIT}"),
    ],
)
def test_what_is_refused(node, changes, words):
    with pytest.raises(Failed, match=words):
        node.serve(**changes)
    assert node.ran == []


def test_a_port_that_is_taken(node):
    node.taken = True
    with pytest.raises(Failed, match=r"Port 8730 of 10\.0\.0\.1 cannot be bound"):
        node.serve()
    assert not os.path.exists(node.folder)


def test_a_daemon_that_does_not_stay(node):
    node.listens = False
    with pytest.raises(Failed, match="ended at once: bind\\(\\) failed"):
        node.serve()


def test_a_daemon_that_never_listens(node):
    node.free = lambda address, port: True
    with pytest.raises(Failed, match=r"does not listen on 10\.0\.0\.1:8730"):
        node.serve()


def test_the_end(node):
    world = World(node.run, node.free, lambda s: None, node.folder)
    assert end(False, world) == {"changed": False}
    node.serve()
    assert end(True, world) == {"changed": True}
    assert (node.state, os.path.exists(node.folder)) == ("running", True)
    assert end(False, world) == {"changed": True}
    assert (node.state, os.path.exists(node.folder)) == ("absent", False)


def test_a_check_starts_nothing(node):
    """Neither where all is here nor where it is still to come."""
    assert node.serve(check_mode=True)["manifests"] == [node.manifest.content()]
    other = {"repo_id": "org/other", "revision": COMMIT}
    assert node.serve(check_mode=True, snapshots=[other])["manifests"] == []
    assert node.ran == []
