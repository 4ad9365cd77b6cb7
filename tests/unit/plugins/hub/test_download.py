# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pull, with a hub that is a dictionary and breaks as told."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.hub import (
    __main__ as hub_main,
    pull as hub_pull,
    snapshot as hub_snapshot,
)
from ansible_collections.gpunode.llm.plugins.module_utils.hub.file import HashedFile
from ansible_collections.gpunode.llm.plugins.module_utils.hub.job import Job, Passing, PullError
from ansible_collections.gpunode.llm.plugins.module_utils.hub.progress import Progress, Status
from ansible_collections.gpunode.llm.plugins.module_utils.hub.pull import Pull
from ansible_collections.gpunode.llm.plugins.module_utils.hub.snapshot import Cache, RepoFile, Snapshot

COMMIT = "0e9e39f249a16976918f6564b8830bc894c89659"
REPO = "org/name"
BIG = bytes(range(256)) * 40_000  # above what is fetched anew
CONTENT = {"config.json": b"{}", "model.safetensors": BIG, "sub/copy.safetensors": BIG, "original/x.pth": b"no"}


def listed(path: str) -> RepoFile:
    content = CONTENT[path]
    git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return RepoFile(path, len(content), git, hashlib.sha256(content).hexdigest() if "." in path[-12:-5] else "")


TREE = [listed(path) for path in CONTENT]
MODEL = next(f for f in TREE if f.path == "model.safetensors")


class World:
    """A hub and a node. ``script`` holds what goes wrong, a callable for each transfer; None = nothing does."""

    def __init__(self, tmp_path, **options) -> None:
        self.home = str(tmp_path / "home")
        self.folder = tmp_path / "job"
        self.folder.mkdir(exist_ok=True)
        self.messages, self.slept, self.sent, self.script = [], [], {}, []
        self.job = Job(self.home, REPO, COMMIT, branch="main", ignore_patterns=["original/*"], **options)
        self.cache = Cache(self.home)

    def transfer(self, file, target) -> None:
        content = CONTENT[file.path][target.size :]
        trouble = self.script.pop(0) if self.script else None
        if trouble is not None:
            content = trouble(content) or b""
        for start in range(0, len(content), 1_000_000):
            piece = content[start : start + 1_000_000]
            target.write(piece)
            self.sent[file.path] = self.sent.get(file.path, 0) + len(piece)
        if trouble is not None and trouble is not wrong:
            raise Passing("the line went dead")

    def pull(self, tree=TREE):
        self.progress = Progress(str(self.folder), self.messages.append)
        pull = Pull(self.job, self.progress, self.transfer, self.slept.append)
        manifest = pull.run(tree)
        pull.write_manifest(manifest)
        return manifest

    def look(self):
        return hub_snapshot.look(self.home, Snapshot(REPO, COMMIT, ("original/*",)))

    def flip(self, path="model.safetensors") -> None:
        with open(self.cache.pointer(REPO, COMMIT, path), "r+b") as stream:
            stream.write(b"X")


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def nothing(content: bytes) -> bytes:
    return b""


def wrong(content: bytes) -> bytes:
    return b"X" + content[1:]


@pytest.fixture
def world(tmp_path):
    return World(tmp_path, workers=1)


def test_everything_is_fetched_once(world):
    world.pull()
    found = world.look()
    assert found.complete
    assert found.bytes == sum(len(c) for p, c in CONTENT.items() if p != "original/x.pth")
    assert world.sent == {"config.json": 2, "model.safetensors": len(BIG)}  # the copy is the same blob
    for path in ("config.json", "sub/copy.safetensors"):
        with open(os.path.join(found.path, path), "rb") as stream:
            assert stream.read() == CONTENT[path]
        assert not os.path.isabs(os.readlink(os.path.join(found.path, path)))  # the cache can be mounted elsewhere
    assert not [name for name in os.listdir(os.path.dirname(world.cache.blob(REPO, MODEL))) if "incomplete" in name]


@pytest.mark.parametrize("relative", [False, True])
def test_mending_removes_no_file_of_somebody_elses(world, tmp_path, relative):
    """A name in the snapshot may lead anywhere; only a blob of its own repository goes with it."""
    world.pull()
    precious, pointer = tmp_path / "precious", world.cache.pointer(REPO, COMMIT, "config.json")
    precious.write_text("not of the hub")
    os.unlink(pointer)
    os.symlink(os.path.relpath(precious, os.path.dirname(pointer)) if relative else precious, pointer)
    world.pull()
    assert precious.read_text() == "not of the hub"
    assert world.look().complete


def test_the_commit_of_the_branch_is_recorded(world):
    world.pull()
    assert hub_snapshot.look(world.home, Snapshot(REPO, "main", ("original/*",))).complete
    with open(os.path.join(world.cache.folder(REPO), "refs", "main"), encoding="utf-8") as stream:
        assert stream.read() == COMMIT


def test_a_second_pull_fetches_nothing(world):
    world.pull()
    assert world.progress.status.changed
    world.sent.clear()
    world.pull()
    assert world.sent == {}
    assert not world.progress.status.changed


def test_a_cut_link_goes_on_where_it_was(world):
    world.script = [half, half, half]
    world.pull()
    assert world.sent["model.safetensors"] == len(BIG)
    assert len(world.slept) == 3
    assert "the line went dead; retrying in" in world.messages[1]


def test_another_process_goes_on_where_the_first_was(world):
    world.job = Job(**{**world.job.__dict__, "attempts": 1})
    world.script = [half, nothing]
    with pytest.raises(PullError, match="1 attempts"):
        world.pull()
    assert not world.look().complete
    before = world.sent["model.safetensors"]
    assert 0 < before < len(BIG)
    world.pull()
    assert world.sent["model.safetensors"] == len(BIG)
    assert world.look().complete


def test_a_small_beginning_is_not_kept(world, tmp_path):
    path = tmp_path / "part"
    path.write_bytes(b"old")
    seen: list[int] = []
    target = HashedFile(str(path), MODEL, seen.append)
    assert (target.size, seen, path.read_bytes()) == (0, [-3], b"")
    target.close()


@pytest.mark.parametrize("failures", [1, 3])
def test_it_gives_up_after_a_bound_with_the_last_error(world, failures):
    world.job = Job(**{**world.job.__dict__, "attempts": failures})
    world.script = [nothing] * 20
    with pytest.raises(PullError, match=rf"the line went dead \({failures} attempts in a row\)"):
        world.pull()
    assert len(world.slept) == failures - 1


def test_progress_starts_the_count_anew(world):
    world.job = Job(**{**world.job.__dict__, "attempts": 2})
    world.script = [nothing, half, nothing, half, nothing, None]
    world.pull()
    assert world.look().complete


def test_the_hubs_own_pause_is_kept(world):
    def busy(content):
        raise Passing("429", retry_after=17.0)

    world.script = [busy]
    world.pull()
    assert world.slept == [17.0]


def test_wrong_bytes_are_fetched_again_alone(world):
    world.script = [wrong]
    world.pull()
    assert world.sent == {"config.json": 2, "model.safetensors": 2 * len(BIG)}
    assert any("received bytes with a wrong SHA-256" in line for line in world.messages)
    assert world.progress.status.done == world.look().bytes - len(BIG)


def test_bytes_that_stay_wrong_are_never_served(world):
    world.script = [wrong, wrong]
    with pytest.raises(PullError, match=r"model\.safetensors of org/name: the hub sends bytes whose SHA-256"):
        world.pull()
    assert not world.look().complete
    assert not os.path.exists(world.cache.pointer(REPO, COMMIT, "model.safetensors"))
    assert not os.path.exists(world.cache.blob(REPO, MODEL))


def test_short_answers_count_as_trouble(world):
    world.transfer = lambda file, target: target.write(b"x" * min(2, file.size - target.size))
    world.job = Job(**{**world.job.__dict__, "attempts": 2, "workers": 1})
    # Two bytes at a time are progress, but a file this small starts over each time: nothing is gained.
    with pytest.raises(PullError, match="bytes of"):
        world.pull()


def test_a_full_disk_is_refused_before_the_first_byte(world, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=hub_pull.RESERVE)
    monkeypatch.setattr(hub_pull.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(PullError, match=r"too small for org/name: 10\.2 MB to download"):
        world.pull()
    assert world.sent == {}


def test_an_error_of_the_disk_is_final(world):
    def full(file, target):
        raise OSError(28, "No space left on device")

    world.transfer = full
    with pytest.raises(PullError, match=r"\.incomplete: No space left on device"):
        world.pull()
    assert world.slept == []


def test_files_of_another_tool_count_once_they_are_verified(world):
    world.pull()
    os.unlink(world.cache.manifest(REPO, COMMIT))
    world.sent.clear()
    world.pull()
    assert world.sent == {}
    assert any(line.startswith("verifying") for line in world.messages)


def test_damaged_files_of_another_tool_do_not_count(world):
    world.pull()
    os.unlink(world.cache.manifest(REPO, COMMIT))
    world.flip()
    world.sent.clear()
    world.pull()
    assert world.sent == {"model.safetensors": len(BIG)}
    assert world.look().complete


def test_a_blob_of_another_revision_is_used(world):
    world.pull()
    world.sent.clear()
    world.job = Job(**{**world.job.__dict__, "commit": "f" * 40})
    world.pull()
    assert world.sent == {}


def test_wanting_more_fetches_the_rest(world):
    world.pull()
    world.sent.clear()
    world.job = Job(**{**world.job.__dict__, "ignore_patterns": []})
    world.pull()
    assert world.sent == {"original/x.pth": 2}
    assert world.look().complete
    assert hub_snapshot.look(world.home, Snapshot(REPO, COMMIT)).complete


def test_verify_trusts_nothing_and_mends(world):
    world.pull()
    world.flip()
    assert world.look().complete  # a flipped byte does not show in the size
    world.sent.clear()
    world.job = Job(**{**world.job.__dict__, "verify": True})
    world.pull()
    assert world.sent == {"model.safetensors": len(BIG)}
    world.sent.clear()
    world.pull()
    assert world.sent == {}


def test_verify_without_a_hub_names_the_file_and_remembers(world):
    world.pull()
    world.flip()
    os.unlink(world.cache.pointer(REPO, COMMIT, "config.json"))
    world.job = Job(**{**world.job.__dict__, "verify": True, "fetch": False})
    with pytest.raises(PullError) as caught:
        world.pull()
    assert "model.safetensors: its bytes differ from the hub" in str(caught.value)
    assert "config.json: missing" in str(caught.value)
    assert set(world.look().missing) == {"config.json", "model.safetensors", "sub/copy.safetensors"}
    world.sent.clear()
    world.job = Job(**{**world.job.__dict__, "verify": False, "fetch": True})
    world.pull()
    assert world.sent == {"model.safetensors": len(BIG)}  # the blob of config.json was there still


def test_patterns_that_leave_nothing(world):
    world.job = Job(**{**world.job.__dict__, "ignore_patterns": ["*"]})
    with pytest.raises(PullError, match="no file"):
        world.pull()


def test_one_failure_stops_the_others(tmp_path):
    world = World(tmp_path, workers=4)

    def transfer(file, target):
        if file.path == "config.json":
            raise PullError("the first trouble")
        while True:
            target.write(b"x" * 10)
            target.size = 0

    world.transfer = transfer
    with pytest.raises(PullError, match="the first trouble"):
        world.pull()


# -- the file that huggingface_hub writes to --------------------------------------------------------------------------
def test_hashed_file_takes_up_an_earlier_one(tmp_path):
    path, seen = tmp_path / "part", []
    path.write_bytes(BIG[:5_000_000])
    target = HashedFile(str(path), MODEL, seen.append)
    assert target.tell() == 5_000_000
    assert target.write(BIG[5_000_000:]) == len(BIG) - 5_000_000
    assert target.seal() == MODEL.etag
    assert sum(seen) == len(BIG) - 5_000_000
    target.close()


def test_hashed_file_starts_over_when_the_server_does(tmp_path):
    path, seen = tmp_path / "part", []
    path.write_bytes(BIG[:5_000_000])
    target = HashedFile(str(path), MODEL, seen.append)
    assert target.seek(max(target.tell() - 5_000_000, 0)) == 0
    assert target.truncate() == 0
    target.write(BIG)
    assert target.seal() == MODEL.etag
    assert sum(seen) == len(BIG) - 5_000_000
    target.close()


def test_hashed_file_too_long(tmp_path):
    path = tmp_path / "part"
    path.write_bytes(BIG + b"x")
    target = HashedFile(str(path), MODEL, lambda amount: None)
    assert target.size == 0
    target.close()


def test_hashed_file_adopts(tmp_path):
    path, whole, seen = tmp_path / "part", tmp_path / "whole", []
    whole.write_bytes(BIG)
    target = HashedFile(str(path), MODEL, seen.append)
    target.adopt(str(whole))
    assert (target.size, sum(seen), target.seal()) == (len(BIG), len(BIG), MODEL.etag)
    target.close()


# -- words ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("status", "line"),
    [
        (Status(), "starting"),
        (Status("complete"), "complete"),
        (Status("fetching", 50, 100, 0, 1, 2), "fetching 50 B of 100 B (50 %), 1 of 2 files"),
        (Status("fetching", 50, 100, 5, 1, 2), "fetching 50 B of 100 B (50 %), 1 of 2 files"),
        (
            Status("fetching", 10**9, 4 * 10**11, 1e9, 0, 191),
            "fetching 1.0 GB of 400.0 GB (0 %), 1.0 GB/s, 6 min 39 s left, 0 of 191 files",
        ),
        (Status("verifying", 100, 100, 5e6, 2, 2), "verifying 100 B of 100 B (100 %), 2 of 2 files"),
    ],
)
def test_status_line(status, line):
    assert status.line() == line


def test_rate_is_of_the_last_seconds(tmp_path):
    now = [0.0]
    progress = Progress(str(tmp_path), lambda line: None, lambda: now[0])
    progress.begin("fetching", [MODEL])
    for second in range(1, 31):
        now[0] = float(second)
        progress.add(MODEL, 1000 if second > 20 else 50_000)
        progress.tick()
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["rate"] == pytest.approx(1000)
    assert status["seconds"] == 30
    assert status["current"] == {"model.safetensors": [20 * 50_000 + 10 * 1000, MODEL.size]}


def test_words_come_now_and_then(tmp_path):
    now, messages = [0.0], []
    progress = Progress(str(tmp_path), messages.append, lambda: now[0])
    for _second in range(60):
        now[0] += 1
        progress.tick()
    assert len(messages) == 4


def test_ticking_ends(tmp_path):
    progress = Progress(str(tmp_path), lambda line: None)
    with progress.ticking():
        pass
    progress.tick()
    assert (tmp_path / "status.json").exists()


# -- the job ----------------------------------------------------------------------------------------------------------
def run_job(world, **changes) -> tuple[int, dict]:
    job = {**world.job.__dict__, **changes}
    (world.folder / "job.json").write_text(json.dumps(job))
    code = hub_main.main(str(world.folder))
    return code, json.loads((world.folder / "status.json").read_text())


def test_job_verifies_without_a_client(world, capsys):
    world.pull()
    code, status = run_job(world, verify=True, fetch=False)
    assert (code, status["phase"], status["error"]) == (0, "complete", "")
    damaged = Path(world.cache.pointer(REPO, COMMIT, "model.safetensors"))
    whole = damaged.read_bytes()
    world.flip()
    code, status = run_job(world, verify=True, fetch=False)
    assert code == 1
    assert "model.safetensors: its bytes differ" in status["error"]
    assert "failed: org/name at" in capsys.readouterr().out
    # It stays named until somebody puts it right.
    assert run_job(world, verify=True, fetch=False)[0] == 1
    damaged.write_bytes(whole)
    assert run_job(world, verify=True, fetch=False)[0] == 0
    assert world.look().complete


def test_job_without_a_manifest(world):
    code, status = run_job(world, verify=True, fetch=False)
    assert code == 1
    assert "its download never completed" in status["error"]


def test_job_fetches_through_the_client(world, monkeypatch):

    class Client:
        def __init__(self, job, say):
            self.transfer, self.sealed = world.transfer, False

        def tree(self):
            return TREE

        def seal(self):
            assert not world.look().complete  # the manifest is the very last

    monkeypatch.setattr(hub_main, "Client", Client)
    code, status = run_job(world)
    assert (code, status["phase"], status["files_done"]) == (0, "complete", 3)
    assert world.look().complete


def test_the_manifest_matches_the_hubs_listing(world):
    world.job = Job(**{**world.job.__dict__, "gated": True})
    assert world.pull().gated
