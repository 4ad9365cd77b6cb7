# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Weights out of a folder: which hashes it vouches with, what is linked, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.hub import folder as hub_folder, snapshot as hub_snapshot
from ansible_collections.gpunode.llm.plugins.module_utils.hub.folder_pull import import_snapshot
from ansible_collections.gpunode.llm.plugins.module_utils.hub.job import Job, PullError
from ansible_collections.gpunode.llm.plugins.module_utils.hub.progress import Progress
from ansible_collections.gpunode.llm.plugins.module_utils.hub.snapshot import Cache, Manifest, RepoFile, Snapshot
from ansible_collections.gpunode.llm.plugins.module_utils.node import files as node_files

COMMIT = "0e9e39f249a16976918f6564b8830bc894c89659"
REPO = "org/name"
CONTENTS = {"config.json": b"{}", "model.safetensors": b"weights" * 999, "sub/extra.bin": b"more"}
SNAPSHOT = Snapshot(REPO, COMMIT, ("original/*",))


def repo_file(path: str, data: bytes) -> RepoFile:
    git = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
    return RepoFile(path, len(data), git, "" if path.endswith(".json") else hashlib.sha256(data).hexdigest())


FILES = [repo_file(path, data) for path, data in CONTENTS.items()]
LEFT_OUT = RepoFile("original/big.pth", 9, "f" * 40)


def cache(home) -> str:
    """The hub's layout, as any of its tools makes it."""
    there = Cache(str(home))
    for file in FILES:
        blob, pointer = there.blob(REPO, file), there.pointer(REPO, COMMIT, file.path)
        for path in (blob, pointer):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(blob, "wb") as stream:
            stream.write(CONTENTS[file.path])
        os.symlink(os.path.relpath(blob, os.path.dirname(pointer)), pointer)
    node_files.write_atomically(os.path.join(there.folder(REPO), "refs", "main"), COMMIT)
    return str(home)


def with_manifest(home) -> str:
    manifest = Manifest(REPO, COMMIT, FILES, [LEFT_OUT])
    node_files.write_atomically(Cache(cache(home)).manifest(REPO, COMMIT), manifest.dump())
    return str(home)


def with_listing(home) -> str:
    entries = {f.path: {"size": f.size, "blob_id": f.oid, "lfs_sha256": f.sha256 or None} for f in [*FILES, LEFT_OUT]}
    path = os.path.join(Cache(cache(home)).folder(REPO), "trees", f"{COMMIT}.json")
    node_files.write_atomically(path, json.dumps({"format_version": 1, "files": entries}))
    return str(home)


def plain(home) -> str:
    for path, data in CONTENTS.items():
        place = home / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    return str(home)


def noted(home) -> str:
    for file in FILES:
        path = os.path.join(plain(home), ".cache", "huggingface", "download", f"{file.path}.metadata")
        node_files.write_atomically(path, f"{COMMIT}\n{file.etag}\n1763.5\n")
    return str(home)


LAYOUTS = [
    pytest.param(with_manifest, "its manifest", id="manifest"),
    pytest.param(with_listing, "the hub's listing beside it", id="listing"),
    pytest.param(cache, "the names of its blobs", id="blobs"),
    pytest.param(noted, "the metadata of hf download", id="local-dir"),
]


@pytest.mark.parametrize(("make", "vouched"), LAYOUTS)
def test_the_hashes_are_the_hubs(tmp_path, make, vouched):
    offer = hub_folder.find(make(tmp_path), SNAPSHOT)
    assert (offer.commit, offer.vouched, offer.hashed) == (COMMIT, vouched, True)
    assert {f.path: f.etag for f in offer.files if SNAPSHOT.wants(f.path)} == {f.path: f.etag for f in FILES}


@pytest.mark.parametrize("make", [with_manifest, with_listing, cache])
def test_a_branch_is_what_the_cache_noted(tmp_path, make):
    home = make(tmp_path)
    assert hub_folder.find(home, Snapshot(REPO, ignore_patterns=("original/*",))).commit == COMMIT
    assert hub_folder.find(f"{home}/hub/", SNAPSHOT).commit == COMMIT


def test_a_plain_folder_is_taken_as_found_and_known_again(tmp_path):
    folder = plain(tmp_path)
    offers = [hub_folder.find(folder, Snapshot(REPO)) for _time in range(2)]
    assert (offers[0].vouched, offers[0].hashed) == (hub_folder.AS_FOUND, False)
    assert offers[0].commit == offers[1].commit
    os.utime(tmp_path / "config.json", (1, 1))
    assert hub_folder.find(folder, Snapshot(REPO)).commit != offers[0].commit


@pytest.mark.parametrize(
    ("make", "snapshot", "message"),
    [
        (cache, Snapshot("org/other", COMMIT), "holds no org/other"),
        (cache, Snapshot(REPO, "f" * 40), f"not {'f' * 40}. It has: {COMMIT}"),
        (with_manifest, Snapshot(REPO, COMMIT), "original/big.pth is missing"),
        (noted, Snapshot(REPO, "f" * 40), f"holds commit {COMMIT}"),
    ],
)
def test_missing_weights_are_refused(tmp_path, make, snapshot, message):
    with pytest.raises(hub_folder.SourceError, match=message):
        hub_folder.find(make(tmp_path), snapshot)


@pytest.mark.parametrize("make", [with_manifest, with_listing, cache, noted, plain])
def test_a_link_out_of_the_folder_is_not_followed(tmp_path, make):
    """Whoever fills the share could have root read out a file of the node's own."""
    (tmp_path / "shadow").write_bytes(CONTENTS["config.json"])
    source = make(tmp_path / "share")
    place = hub_folder.find(source, SNAPSHOT).places["config.json"]
    os.unlink(place)
    os.symlink(tmp_path / "shadow", place)
    with pytest.raises(hub_folder.SourceError, match=f"as a link to {tmp_path}/shadow"):
        hub_folder.find(source, SNAPSHOT)


def test_a_pipe_is_no_file(tmp_path):
    source = plain(tmp_path)
    os.mkfifo(os.path.join(source, "extra.bin"))
    with pytest.raises(hub_folder.SourceError, match=r"extra\.bin of org/name, which is not a file"):
        hub_folder.find(source, SNAPSHOT)


def test_the_listing_is_written_anew(tmp_path, monkeypatch):
    """What the hub's own client reads offline is what was checked, and not the text of the share."""
    source = with_listing(tmp_path / "source")
    home = run(tmp_path, source, False, monkeypatch)
    with open(Cache(home).listing(REPO, COMMIT), encoding="utf-8") as stream:
        entries = json.load(stream)["files"]
    assert {path: (entry["size"], entry["blob_id"]) for path, entry in entries.items()} == {
        f.path: (f.size, f.oid) for f in [*FILES, LEFT_OUT]
    }


def test_a_plain_folder_holds_one_model(tmp_path):
    both = [Snapshot(REPO), Snapshot("org/other")]
    with pytest.raises(hub_folder.SourceError, match="2 are requested: org/name, org/other"):
        hub_folder.Folder(plain(tmp_path), both).check_access(both[0])


def run(tmp_path, source: str, links: bool, monkeypatch, revision: str = COMMIT, others: tuple[str, ...] = ()) -> str:
    monkeypatch.setattr(hub_folder, "linkable", lambda source, home: links)
    monkeypatch.setattr(hub_folder, "is_roots_own", lambda place: not place.endswith(others))
    home = str(tmp_path / "node")
    job = Job(home, REPO, revision, "main", ["original/*"], source=source)
    import_snapshot(job, Progress(str(tmp_path), lambda line: None))
    return home


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("make", [with_manifest, with_listing, cache, noted, plain])
def test_it_comes_whole_into_the_cache(tmp_path, make, links, monkeypatch):
    home = run(tmp_path, make(tmp_path / "source"), links, monkeypatch)
    found = hub_snapshot.look(home, SNAPSHOT)
    assert found.complete
    for path, data in CONTENTS.items():
        pointer = os.path.join(found.path, path)
        assert os.path.islink(pointer)
        with open(pointer, "rb") as stream:
            assert stream.read() == data
        assert os.stat(pointer).st_nlink == (2 if links else 1)
    assert found.manifest is not None
    assert ("linked" if links else "copied") in found.manifest.origin
    assert (hub_folder.AS_FOUND in found.manifest.origin) is (make is plain)


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize(("make", "vouched"), LAYOUTS)
def test_a_flipped_byte_is_named(tmp_path, make, vouched, links, monkeypatch):
    source = make(tmp_path / "source")
    place = hub_folder.find(source, SNAPSHOT).places["model.safetensors"]
    with open(place, "r+b") as stream:
        stream.write(b"W")
    with pytest.raises(PullError, match=f"model.safetensors is damaged: its SHA-256 is .*{vouched}"):
        run(tmp_path, source, links, monkeypatch)
    assert not hub_snapshot.look(str(tmp_path / "node"), SNAPSHOT).complete
    with open(place, "r+b") as stream:  # the source itself was not touched
        assert stream.read(7) == b"Weights"


def test_what_somebody_else_may_change_is_copied(tmp_path, monkeypatch):
    """The folder is root's, and whoever fetched the weights into it may still write to a file that was verified."""
    home = run(tmp_path, with_manifest(tmp_path / "source"), True, monkeypatch, others=("model.safetensors",))
    names = {path: os.stat(Cache(home).pointer(REPO, COMMIT, path)).st_nlink for path in CONTENTS}
    assert names == {"config.json": 2, "model.safetensors": 1, "sub/extra.bin": 2}


def test_a_file_that_others_may_write_to_is_not_roots_own(tmp_path):
    place = tmp_path / "file"
    place.write_bytes(b"")
    mine = os.stat(place).st_uid == 0
    for mode, own in ((0o644, mine), (0o664, False), (0o646, False)):
        place.chmod(mode)
        assert hub_folder.is_roots_own(str(place)) is own


def test_only_roots_own_files_on_one_filesystem_are_linked(tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.mkdir()
    mine = os.stat(source).st_uid == 0
    assert hub_folder.linkable(str(source), str(tmp_path / "a" / "b")) is mine
    assert hub_folder.linkable("/proc", str(tmp_path)) is False
    assert hub_folder.linkable(str(tmp_path / "none"), str(tmp_path)) is False
