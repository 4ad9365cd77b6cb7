# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What others write down of files: no door lets in a path that leads elsewhere, or a hash or a size that is none."""

from __future__ import annotations

import json
import os

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.bundle.contents import BundleError, Contents
from ansible_collections.gpunode.llm.plugins.module_utils.hub import (
    folder as hub_folder,
    job as hub_job,
    pull as hub_pull,
    snapshot as hub_snapshot,
)
from ansible_collections.gpunode.llm.plugins.module_utils.hub.api import Answer, Hub, HubError
from ansible_collections.gpunode.llm.plugins.module_utils.hub.snapshot import Cache, Manifest, Snapshot
from ansible_collections.gpunode.llm.plugins.module_utils.node import files as node_files

COMMIT = "0e9e39f249a16976918f6564b8830bc894c89659"
REPO = "org/name"
OID, SHA = "a" * 40, "b" * 64
HOSTILE = [
    "../../etc/profile.d/site.sh",
    "..",
    "a/../../../b",
    "a/../b",
    "/etc/cron.d/x",
    "",
    "a//b",
    "a/",
    "./a",
    "a/./b",
    "a\\b",
    "a\nTrusted: yes",
    "a\x00b",
    "a\u202eb",
    "\udcff",
    ".git/config",
    "sub/.GIT/hooks/post-checkout",
    "x" * 256,
    "x/" * 600 + "x",
]
KIND = [".gitattributes", "a b/c,d.safetensors", "original/..x", "日本.txt", "x" * 255, "a.git/b"]


def answering(body):
    """A hub that answers everything with one text."""

    def opener(_method, _url, _headers):
        return Answer(200, {}, json.dumps(body).encode())

    return opener


# -- the doors: each takes path, size and hashes as its own kind of text has them --------------------------------------
def hub(tmp_path, path, size, oid, sha256):
    entry = {"type": "file", "path": path, "size": size, "oid": oid, "lfs": {"oid": sha256}}
    Hub("https://hub.example", answering([entry]), lambda seconds: None).tree(Snapshot(REPO), COMMIT)


def content(path, size, oid, sha256, group="files"):
    groups = {"files": {}, "left_out": {}, group: {path: {"size": size, "oid": oid, "sha256": sha256}}}
    return {"format": 1, "repo_id": REPO, "revision": COMMIT, **groups}


def seeder(tmp_path, *file):
    Manifest.read(content(*file))


def seeder_leaves_out(tmp_path, *file):
    Manifest.read(content(*file, group="left_out"))


def own_manifest(tmp_path, *file):
    node_files.write_atomically(Cache(str(tmp_path)).manifest(REPO, COMMIT), json.dumps(content(*file)))
    if hub_snapshot.look(str(tmp_path), Snapshot(REPO, COMMIT)).manifest is None:
        raise ValueError("it vouches for nothing")


def source(tmp_path, manifest="", listing=""):
    cache = Cache(str(tmp_path))
    os.makedirs(cache.snapshot(REPO, COMMIT))
    for path, text in {cache.manifest(REPO, COMMIT): manifest, cache.listing(REPO, COMMIT): listing}.items():
        node_files.write_atomically(path, text)
    hub_folder.find(str(tmp_path), Snapshot(REPO, COMMIT, ("*",)))


def source_manifest(tmp_path, *file):
    source(tmp_path, manifest=json.dumps(content(*file)))


def source_listing(tmp_path, path, size, oid, sha256):
    entry = {"size": size, "blob_id": oid, "lfs_sha256": sha256}
    source(tmp_path, listing=json.dumps({"files": {path: entry}}))


def bundle(tmp_path, path, size, oid, sha256):
    files = {path: {"size": size, "sha256": sha256}}
    system = {"release": "Debian 12", "architecture": "x86_64"}
    Contents.load(json.dumps({"format": 1, "system": system, "files": files, "links": {}}))


DOORS = [hub, seeder, seeder_leaves_out, own_manifest, source_manifest, source_listing, bundle]
REFUSALS = (ValueError, HubError, BundleError)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("path", HOSTILE)
def test_no_door_takes_a_path_that_leads_elsewhere(tmp_path, door, path):
    with pytest.raises(REFUSALS):
        door(tmp_path, path, 1, OID, SHA)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("path", KIND)
def test_every_door_takes_a_files_name(tmp_path, door, path):
    door(tmp_path, path, 1, OID, SHA)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("size", "oid", "sha256"),
    [
        (1, OID, "../../../../etc/x"),
        (1, OID, "b" * 63),
        (1, OID, "B" * 64),
        (1, OID, SHA + "\n"),
        (-1, OID, SHA),
        (1.5, OID, SHA),
        ("1", OID, SHA),
        (True, OID, SHA),
        (None, OID, SHA),
    ],
)
def test_every_door_wants_hash_and_size_of_the_right_form(tmp_path, door, size, oid, sha256):
    with pytest.raises(REFUSALS):
        door(tmp_path, "a", size, oid, sha256)


@pytest.mark.parametrize("door", [way for way in DOORS if way is not bundle])
@pytest.mark.parametrize("oid", ["../../x", "a" * 39, "", None])
def test_a_small_file_is_named_by_gits_hash(tmp_path, door, oid):
    with pytest.raises(REFUSALS):
        door(tmp_path, "a", 1, oid, "")


@pytest.mark.parametrize("key", ["repo_id", "revision"])
def test_a_manifest_is_of_a_repository_and_a_commit(key):
    with pytest.raises(ValueError, match="not (a|the) "):
        Manifest.read({**content("a", 1, OID, SHA), key: "../../x"})


@pytest.mark.parametrize("paths", [["a", "a/b"], ["a/b/c", "a/b"], ["a", "a"]])
def test_no_file_lies_below_another(paths):
    entries = [{"type": "file", "path": path, "size": 1, "oid": OID} for path in paths]
    tree = hub_snapshot.parse_tree(entries)
    with pytest.raises(ValueError, match=r"below|twice"):
        hub_pull.Pull(hub_job.Job("/nowhere", REPO, COMMIT), None, None).run(tree)


@pytest.mark.parametrize(
    "name",
    ["../x", "a/..", "a--b/c", "a-/-b", "a/--b", "a/.b", "a/b.", "a/b\n", "a/b/c", "ä/b", "a" * 300 + "/b", None],
)
def test_a_repository_becomes_one_folder_of_its_own(name):
    with pytest.raises(ValueError, match=r"repo|too long"):
        list(hub_snapshot.parse_snapshots([{"repo_id": name}]))


@pytest.mark.parametrize(
    "name", ["..", "refs/../../x", ".", "./main", ".git", "a/.git/b", "/main", "main\n", "x" * 256]
)
def test_a_branch_becomes_a_file_of_its_own(name):
    with pytest.raises(ValueError, match="main|not a|git|long|plain"):
        Snapshot(REPO, name)
    with pytest.raises(ValueError, match="main|not a|git|long|plain"):
        Snapshot(REPO, COMMIT, branch=name)


@pytest.mark.parametrize("commit", ["../../x", "main", "", None, ["x"]])
def test_a_branch_stands_for_a_commit(commit):
    with pytest.raises(HubError, match="is not a git hash"):
        Hub("https://hub.example", answering({"sha": commit}), lambda seconds: None).commit(Snapshot(REPO))
    with pytest.raises(ValueError, match="git hash"):
        hub_snapshot.at_commit({}, commit, "main")
