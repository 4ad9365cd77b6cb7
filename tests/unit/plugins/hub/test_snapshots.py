# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib
import os

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.hub import snapshot as hub_snapshot
from ansible_collections.gpunode.llm.plugins.module_utils.hub.snapshot import Cache, Manifest, RepoFile, Snapshot
from ansible_collections.gpunode.llm.plugins.module_utils.node import files as node_files, words

COMMIT = "0e9e39f249a16976918f6564b8830bc894c89659"
OTHER = "1605565b47bb9346c5515c34102e054115b4f98b"


def large(path: str, content: bytes) -> RepoFile:
    return RepoFile(path, len(content), "0" * 40, hashlib.sha256(content).hexdigest())


def small(path: str, content: bytes) -> RepoFile:
    return RepoFile(path, len(content), hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest())


CONTENT = {"config.json": b"{}", "model.safetensors": b"weights" * 999, "original/model.pth": b"again"}
CONFIG, MODEL, ORIGINAL = (
    small("config.json", b"{}"),
    large("model.safetensors", b"weights" * 999),
    large("original/model.pth", b"again"),
)


def put(home, files, commit=COMMIT, left_out=(), repo_id="org/name") -> Cache:
    """A snapshot as a pull leaves it."""
    cache = Cache(str(home))
    for file in files:
        blob, pointer = cache.blob(repo_id, file), cache.pointer(repo_id, commit, file.path)
        for path in (blob, pointer):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(blob, "wb") as stream:
            stream.write(CONTENT[file.path])
        os.symlink(os.path.relpath(blob, os.path.dirname(pointer)), pointer)
    node_files.write_atomically(cache.manifest(repo_id, commit), Manifest(repo_id, commit, files, left_out).dump())
    return cache


@pytest.mark.parametrize(
    "repo_id", ["", "name", "org/", "/name", "a/b/c", "org/na me", "../etc", "org/..", "-org/name", "org/name\n"]
)
def test_a_repository_has_two_names(repo_id):
    with pytest.raises(ValueError, match="organisation/name"):
        Snapshot(repo_id)


@pytest.mark.parametrize("revision", ["", "a b", "../x", "/etc", "a//b", "x/../../y", "ü\n"])
def test_a_revision_is_a_name(revision):
    with pytest.raises(ValueError, match="not a revision"):
        Snapshot("org/name", revision)


@pytest.mark.parametrize(
    ("revision", "pinned"),
    [(COMMIT, True), ("main", False), ("refs/pr/1", False), (COMMIT[:12], False), ("v1.0", False)],
)
def test_only_a_whole_commit_pins(revision, pinned):
    assert Snapshot("org/name", revision).pinned is pinned


@pytest.mark.parametrize(
    ("patterns", "path", "wanted"),
    [
        ((), "original/x.pth", True),
        (("original/*",), "original/x.pth", False),
        (("original/*",), "original/deep/x.pth", False),
        (("original/",), "original/x.pth", False),
        (("original/*",), "model.safetensors", True),
        (("*.pth", "*.gguf"), "x.gguf", False),
        (("*.PTH",), "x.pth", True),
    ],
)
def test_patterns_are_read_as_the_hub_does(patterns, path, wanted):
    assert Snapshot("org/name", ignore_patterns=patterns).wants(path) is wanted


def test_instances_of_one_model_are_one_snapshot():
    plan = [
        {"repo_id": "a/b", "revision": COMMIT, "ignore_patterns": ["original/*", "*.pth"], "port": 8000},
        {"repo_id": "a/b", "revision": COMMIT, "ignore_patterns": ["*.pth"], "port": 8001},
        {"repo_id": "a/b", "revision": None},
    ]
    assert hub_snapshot.parse_snapshots(plan) == [Snapshot("a/b", COMMIT, ("*.pth",)), Snapshot("a/b", "main", ())]
    pinned = {"repo_id": "a/b", "revision": COMMIT, "branch": "v1"}
    assert hub_snapshot.parse_snapshots([pinned, {**pinned, "branch": None}])[0].branch == "v1"


def test_of_what_is_allowed_the_rest_is_left_out():
    snapshot = Snapshot("org/name", ignore_patterns=("*.bin",), allow_patterns=("*.json", "q4/"))
    assert [snapshot.wants(path) for path in ("config.json", "q4/a.gguf", "q4/a.bin", "model.safetensors")] == [
        True
    ] * 2 + [False] * 2


def test_what_one_of_two_instances_allows_is_fetched():
    both = [{"repo_id": "a/b", "allow_patterns": ["*.json"]}, {"repo_id": "a/b", "allow_patterns": ["*.txt"]}]
    assert hub_snapshot.parse_snapshots(both)[0].allow_patterns == ("*.json", "*.txt")
    assert hub_snapshot.parse_snapshots([*both, {"repo_id": "a/b"}])[0].allow_patterns == ()


def test_a_folder_of_the_node_is_no_snapshot():
    assert hub_snapshot.parse_snapshots([{"repo_id": "/srv/mine", "folder": "/srv/mine"}]) == []


def test_that_a_repository_is_gated_is_kept_with_it():
    kept = Manifest.load(Manifest("org/name", COMMIT, [], gated=True).dump())
    assert kept.gated
    assert "gated" not in Manifest("org/name", COMMIT, []).content()


def test_a_branch_is_a_name():
    with pytest.raises(ValueError, match="not a branch"):
        Snapshot("org/name", COMMIT, branch="../x")


@pytest.mark.parametrize("raw", [{}, {"repo_id": ""}, "a/b", {"revision": "main"}])
def test_a_snapshot_without_a_repository_is_refused(raw):
    with pytest.raises(ValueError, match="repo_id"):
        hub_snapshot.parse_snapshots([raw])


def test_manifest_survives_being_written():
    xet = RepoFile("x.bin", 3, "1" * 40, "2" * 64, "3" * 64)
    manifest = Manifest("a/b", COMMIT, [CONFIG, xet], [ORIGINAL], damaged=[MODEL])
    assert Manifest.load(manifest.dump()) == manifest


def test_manifest_of_another_schema_is_refused():
    with pytest.raises(ValueError, match="schema 9"):
        Manifest.load('{"schema": 9}')


def test_listing():
    entries = [
        {"type": "directory", "path": "original", "oid": "x", "size": 0},
        {"type": "file", "path": "config.json", "oid": "a" * 40, "size": 2},
        {"type": "file", "path": "m.bin", "oid": "b" * 40, "size": 9, "lfs": {"oid": "c" * 64}, "xetHash": "d" * 64},
    ]
    large = RepoFile("m.bin", 9, "b" * 40, "c" * 64, "d" * 64)
    assert hub_snapshot.parse_tree(entries) == [RepoFile("config.json", 2, "a" * 40), large]


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../../b"])
def test_a_listing_may_not_lead_out(path):
    with pytest.raises(ValueError, match="outside"):
        hub_snapshot.parse_tree([{"type": "file", "path": path, "oid": "a" * 40, "size": 1}])


def test_nothing_is_here(tmp_path):
    found = hub_snapshot.look(str(tmp_path), Snapshot("org/name", COMMIT))
    assert (found.complete, found.commit, found.bytes) == (False, COMMIT, 0)
    assert hub_snapshot.look(str(tmp_path), Snapshot("org/name")).commit == ""


def test_a_snapshot_is_complete_by_its_manifest(tmp_path):
    cache = put(tmp_path, [CONFIG, MODEL], left_out=[ORIGINAL])
    found = hub_snapshot.look(str(tmp_path), Snapshot("org/name", COMMIT, ("original/*",)))
    assert found.complete
    assert found.path == cache.snapshot("org/name", COMMIT)
    assert found.bytes == CONFIG.size + MODEL.size


def test_excluded_files_are_missing_once_they_are_wanted(tmp_path):
    put(tmp_path, [CONFIG, MODEL], left_out=[ORIGINAL])
    found = hub_snapshot.look(str(tmp_path), Snapshot("org/name", COMMIT))
    assert not found.complete
    assert found.missing == ["original/model.pth"]


def test_a_file_that_is_gone_or_short_is_missing(tmp_path):
    cache = put(tmp_path, [CONFIG, MODEL])
    os.truncate(cache.blob("org/name", MODEL), 3)
    os.unlink(cache.pointer("org/name", COMMIT, "config.json"))
    assert hub_snapshot.look(str(tmp_path), Snapshot("org/name", COMMIT)).missing == [
        "config.json",
        "model.safetensors",
    ]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 2}'])
def test_a_broken_manifest_vouches_for_nothing(tmp_path, text):
    cache = put(tmp_path, [CONFIG])
    node_files.write_atomically(cache.manifest("org/name", COMMIT), text)
    assert not hub_snapshot.look(str(tmp_path), Snapshot("org/name", COMMIT)).complete


@pytest.mark.parametrize(("text", "commit"), [(COMMIT + "\n", COMMIT), (OTHER, OTHER), ("main", ""), ("", "")])
def test_a_branch_is_what_was_recorded(tmp_path, text, commit):
    put(tmp_path, [CONFIG])
    node_files.write_atomically(Cache(str(tmp_path)).record("org/name", "main"), text)
    found = hub_snapshot.look(str(tmp_path), Snapshot("org/name"))
    assert found.commit == commit
    assert found.complete is (commit == COMMIT)


def test_a_commit_that_a_branch_stands_for_is_recorded_too(tmp_path):
    cache = put(tmp_path, [CONFIG])
    assert not hub_snapshot.look(str(tmp_path), Snapshot("org/name", COMMIT, branch="main")).complete
    node_files.write_atomically(cache.record("org/name", "main"), COMMIT)
    assert hub_snapshot.look(str(tmp_path), Snapshot("org/name", COMMIT, branch="main")).complete


def test_bytes_here_counts_files_blobs_and_partials(tmp_path):
    cache = put(tmp_path, [CONFIG])
    twin = RepoFile("copy.safetensors", MODEL.size, MODEL.oid, MODEL.sha256)
    snapshot = Snapshot("org/name", COMMIT, ("original/*",))
    tree = [CONFIG, MODEL, twin, ORIGINAL]
    assert hub_snapshot.wanted_bytes(snapshot, tree) == CONFIG.size + 2 * MODEL.size
    assert (
        hub_snapshot.bytes_here(str(tmp_path), snapshot, COMMIT, tree) == CONFIG.size + MODEL.size
    )  # the twin costs nothing
    with open(cache.partial("org/name", MODEL), "wb") as stream:
        stream.write(b"x" * 100)
    assert hub_snapshot.bytes_here(str(tmp_path), snapshot, COMMIT, [CONFIG, MODEL]) == CONFIG.size + 100


@pytest.mark.parametrize("file", [CONFIG, MODEL])
def test_digest_is_the_hubs(tmp_path, file):
    path = tmp_path / "file"
    path.write_bytes(CONTENT[file.path])
    seen: list[int] = []
    assert hub_snapshot.digest(str(path), file, seen.append) == file.etag
    assert sum(seen) == file.size
    path.write_bytes(b"x" * file.size)
    assert hub_snapshot.digest(str(path), file) != file.etag


def test_written_whole_with_its_mode(tmp_path):
    path = tmp_path / "a" / "b"
    node_files.write_atomically(str(path), "text", 0o600)
    assert path.read_text() == "text"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(path.parent) == ["b"]


@pytest.mark.parametrize(
    ("amount", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (410_060_000_000, "410.1 GB"), (2e12, "2.00 TB")]
)
def test_human(amount, text):
    assert words.size(amount) == text


def test_names_for_people():
    assert (CONFIG.hash_name, MODEL.hash_name) == ("git oid", "SHA-256")
