# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A follower's pull, with a program in rsync's place that sends what the test says."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import replace

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.hub import __main__ as hub_main, snapshot as hub_snapshot
from ansible_collections.gpunode.llm.plugins.module_utils.hub.file import HashedFile
from ansible_collections.gpunode.llm.plugins.module_utils.hub.job import Job, Passing, PullError, Stopped
from ansible_collections.gpunode.llm.plugins.module_utils.hub.progress import Progress
from ansible_collections.gpunode.llm.plugins.module_utils.hub.rsync import Neighbour, literal
from ansible_collections.gpunode.llm.plugins.module_utils.hub.snapshot import Cache, Manifest, RepoFile
from ansible_collections.gpunode.llm.plugins.module_utils.node import files as node_files

COMMIT = "0e9e39f249a16976918f6564b8830bc894c89659"
BIG = bytes(range(256)) * 40_000
FILE = RepoFile("sub/model.safetensors", len(BIG), "0" * 40, hashlib.sha256(BIG).hexdigest(), "f" * 64)
SMALL = RepoFile("config.json", 2, "9e26dfeeb6e641a33dae4961196235bdb965b21b")
UNWANTED = RepoFile("original/x.pth", 9, "1" * 40)

# As rsync --append does: what is there is taken for right, and the rest comes after it.
PROGRAM = f"""#!{sys.executable}
import json, os, sys, time
orders = json.load(open(os.environ["ORDERS"]))
with open(sys.argv[-1], "ab") as out, open(os.environ["ORDERS"] + ".content", "rb") as content:
    content.seek(out.tell())
    out.write(content.read(orders.get("bytes", -1)))
open(os.environ["ORDERS"] + ".ran", "a").write(json.dumps(sys.argv[1:]) + "\\n")
time.sleep(orders.get("sleep", 0))
open(os.environ["ORDERS"] + ".ended", "w").close()
sys.stderr.write(orders.get("stderr", ""))
sys.exit(orders.get("code", 0))
"""


class World:
    def __init__(self, tmp_path, monkeypatch) -> None:
        self.folder, self.orders = tmp_path / "job", tmp_path / "orders"
        program = tmp_path / "bin" / "rsync"
        for folder in (self.folder, program.parent):
            folder.mkdir()
        program.write_text(PROGRAM)
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        monkeypatch.setenv("ORDERS", str(self.orders))
        (tmp_path / "orders.content").write_bytes(BIG)
        (self.folder / "secret").write_text("s3cr3t\n")
        manifest = Manifest("org/name", COMMIT, [FILE, SMALL], [UNWANTED])
        (self.folder / "manifest.json").write_text(manifest.dump())
        self.seeder = {
            "name": "node-1",
            "url": "rsync://gpunode@10.0.0.1:8730/weights",
            "bind": "10.0.0.2",
            "secret": str(self.folder / "secret"),
            "manifest": str(self.folder / "manifest.json"),
        }
        self.job = Job(str(tmp_path / "home"), "org/name", COMMIT, seeder=self.seeder, attempts=2)
        self.seen: list[int] = []
        self.says()

    def says(self, **how) -> None:
        self.orders.write_text(json.dumps(how))

    def ran(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.orders.parent / "orders.ran").read_text().splitlines()]

    def target(self, here=b"", seen=None) -> HashedFile:
        path = str(self.folder / "partial")
        with open(path, "wb") as stream:
            stream.write(here)
        return HashedFile(path, FILE, seen or self.seen.append)

    def neighbour(self) -> Neighbour:
        return Neighbour(self.job, self.seeder)


@pytest.fixture
def world(tmp_path, monkeypatch):
    return World(tmp_path, monkeypatch)


@pytest.mark.parametrize("here", [0, 5_000_000])
def test_the_rest_of_a_file_is_appended_and_hashed(world, here):
    target = world.target(BIG[:here])
    world.neighbour().transfer(FILE, target)
    assert (target.size, target.seal(), sum(world.seen)) == (len(BIG), FILE.sha256, len(BIG) - here)


def test_it_is_hashed_while_it_grows(world):
    """What came is counted before rsync has ended, or a large file would show no progress."""
    world.says(sleep=2)
    ended = world.orders.parent / "orders.ended"
    early = []
    target = world.target(seen=lambda amount: early.append(amount) if not ended.exists() else None)
    world.neighbour().transfer(FILE, target)
    assert (ended.exists(), sum(early)) == (True, len(BIG))


def test_what_rsync_is_asked(world):
    world.neighbour().transfer(FILE, world.target())
    (argv,) = world.ran()
    assert (
        argv[-2] == f"rsync://gpunode@10.0.0.1:8730/weights/models--org--name/snapshots/{COMMIT}/sub/model.safetensors"
    )
    assert {"--append", "--copy-links", "--address=10.0.0.2", f"--password-file={world.seeder['secret']}"} <= set(argv)
    assert "s3cr3t" not in json.dumps(argv)


@pytest.mark.parametrize(
    ("code", "message", "passing", "words"),
    [
        (
            10,
            "rsync: failed to connect to 10.0.0.1: Connection refused (111)\nrsync error: x\n",
            True,
            "node-1: rsync: failed to connect",
        ),
        (5, "@ERROR: auth failed on module weights\n", True, "node-1: @ERROR: auth failed"),
        (30, "", True, "node-1: rsync ended with 30"),
        (
            23,
            'rsync: link_stat "x" failed: No such file or directory (2)\n',
            False,
            "sub/model.safetensors of org/name from node-1: ",
        ),
        (11, "rsync: write failed: No space left on device (28)\n", False, "No space left"),
    ],
)
def test_troubles(world, code, message, passing, words):
    world.says(code=code, stderr=message, bytes=4096)
    with pytest.raises(Passing if passing else PullError, match=words.replace("(", r"\(")):
        world.neighbour().transfer(FILE, world.target())
    assert sum(world.seen) == 4096  # what came stays


def test_no_rsync(world, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(PullError, match="rsync cannot be started"):
        world.neighbour().transfer(FILE, world.target())


def test_another_file_failed(world):
    """A transfer does not outlive the pull."""
    world.says(sleep=60)

    def over(amount):
        if amount > 0:
            raise Stopped("another file failed")

    with pytest.raises(Stopped):
        world.neighbour().transfer(FILE, world.target(seen=over))


@pytest.mark.parametrize(
    ("path", "expected"),
    [("a b/c.json", "a b/c.json"), ("a\\b", "a\\b"), ("a[1]*?.bin", r"a\[1\]\*\?.bin"), ("[\\", r"\[\\")],
)
def test_names_are_no_patterns(path, expected):
    assert literal(path) == expected


def test_the_whole_job(world, capsys):
    """With the seeder's listing for the hub's, and what the hub's own tools read at the end."""
    (world.folder / "manifest.json").write_text(Manifest("org/name", COMMIT, [FILE], [UNWANTED]).dump())
    job = replace(world.job, ignore_patterns=["original/*"])
    (world.folder / "job.json").write_text(json.dumps(vars(job)))
    assert hub_main.main(str(world.folder)) == 0
    assert hub_snapshot.look(job.home, job.snapshot).complete
    tree = json.loads(
        node_files.read_text(os.path.join(Cache(world.job.home).folder("org/name"), "trees", f"{COMMIT}.json"))
    )
    large = {
        "blob_id": "0" * 40,
        "size": len(BIG),
        "lfs_sha256": FILE.sha256,
        "lfs_size": len(BIG),
        "xet_hash": "f" * 64,
    }
    unwanted = {"blob_id": "1" * 40, "size": 9}
    assert tree == {"format_version": 1, "files": {FILE.path: large, UNWANTED.path: unwanted}}
    assert not (world.folder / "secret").exists()
    assert "complete" in capsys.readouterr().out


def test_a_damaged_seeder_is_named(world):
    (world.orders.parent / "orders.content").write_bytes(b"X" + BIG[1:])
    (world.folder / "job.json").write_text(json.dumps(vars(world.job)))
    assert hub_main.main(str(world.folder)) == 1
    error = json.loads((world.folder / "status.json").read_text())["error"]
    assert error.startswith("sub/model.safetensors of org/name: node-1 sends bytes whose SHA-256 is ")
    assert error.endswith("Its copy is damaged: verify the weights there")
    assert len([argv for argv in world.ran() if argv[-1].endswith(f"{FILE.sha256}.incomplete")]) == 2
    assert not (world.folder / "secret").exists()


@pytest.mark.parametrize(
    ("path", "there"), [("../../../../../profile.d/site.sh", "profile.d"), ("ABSOLUTE/cron.d/evil", "cron.d")]
)
def test_a_hostile_seeder_gets_nothing_out_of_the_snapshot(world, tmp_path, path, there):
    """Its manifest lists a file, with the right hash of its bytes, that would become a link elsewhere."""
    good = Manifest("org/name", COMMIT, [FILE]).content()
    evil = {"size": len(BIG), "sha256": FILE.sha256}
    good["files"][path.replace("ABSOLUTE", str(tmp_path))] = evil
    (world.folder / "manifest.json").write_text(json.dumps(good))
    (world.folder / "job.json").write_text(json.dumps(vars(world.job)))
    assert hub_main.main(str(world.folder)) == 1
    assert "leads outside of its folder" in json.loads((world.folder / "status.json").read_text())["error"]
    assert not list(tmp_path.rglob(there))
    assert not os.path.exists(Cache(world.job.home).hub)


def test_no_listing_where_the_seeder_does_not_know_it(world):
    """A folder that stood in for the hub need not tell git's own hashes."""
    (world.folder / "manifest.json").write_text(Manifest("org/name", COMMIT, [RepoFile("a", 1, "", "0" * 64)]).dump())
    world.neighbour().seal()
    assert not os.path.exists(os.path.join(Cache(world.job.home).folder("org/name"), "trees"))


def test_progress_is_of_what_came(world):
    progress = Progress(str(world.folder), lambda line: None)
    progress.begin("fetching", [FILE])
    world.neighbour().transfer(FILE, world.target(seen=lambda amount: progress.add(FILE, amount)))
    assert (progress.status.done, progress.status.total) == (len(BIG), len(BIG))
