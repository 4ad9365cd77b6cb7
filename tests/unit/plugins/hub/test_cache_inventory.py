# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.hub import cache as hub_cache, snapshot as hub_snapshot
from ansible_collections.gpunode.llm.plugins.module_utils.hub.snapshot import Cache, Manifest, RepoFile, Snapshot
from ansible_collections.gpunode.llm.plugins.module_utils.node import files as node_files

COMMIT = "0e9e39f249a16976918f6564b8830bc894c89659"
OTHER = "1605565b47bb9346c5515c34102e054115b4f98b"


def test_others_are_what_was_not_asked_for(tmp_path):
    cache = Cache(str(tmp_path))
    for commit in (COMMIT, OTHER, "not-a-commit"):
        node_files.write_atomically(cache.pointer("org/na--me", commit, "config.json"), "{}")
    node_files.write_atomically(cache.manifest("org/na--me", COMMIT), Manifest("org/na--me", COMMIT, []).dump())
    found = [hub_snapshot.look(str(tmp_path), Snapshot("org/na--me", COMMIT))]
    assert hub_cache.others(str(tmp_path), found) == [
        {"repo_id": "org/na--me", "revision": OTHER, "path": cache.snapshot("org/na--me", OTHER)}
    ]
    assert hub_cache.row(found[0])["complete"] is True


def test_verified_is_what_has_a_manifest_less_what_was_left_out(tmp_path):
    cache = Cache(str(tmp_path))
    kept, odd = RepoFile("config.json", 2, "a" * 40), RepoFile("original/[1].pth", 3, "b" * 40)
    text = Manifest("org/name", COMMIT, [], [odd], damaged=[kept]).dump()
    node_files.write_atomically(cache.manifest("org/name", COMMIT), text)
    node_files.write_atomically(cache.manifest("org/name", OTHER), "half a mani")
    (row,) = hub_cache.verified(str(tmp_path))
    assert (row["repo_id"], row["revision"]) == ("org/name", COMMIT)
    (snapshot,) = hub_snapshot.parse_snapshots([row])
    assert [file.path for file in (kept, odd) if snapshot.wants(file.path)] == ["config.json"]
    # What was found damaged is still missing to whoever looks.
    assert hub_snapshot.look(str(tmp_path), snapshot).missing == ["config.json"]


@pytest.mark.parametrize(
    ("status", "seconds"), [('{"seconds": 12.5}', 12.5), ("{}", 0), ("half a", 0), ("[]", 0), (None, 0)]
)
def test_how_long_the_job_took(tmp_path, status, seconds):
    """It ended while the play did something else, and what it noted is all that is left of it."""
    if status is not None:
        node_files.write_atomically(str(tmp_path / hub_cache.job_unit("org/name", COMMIT) / "status.json"), status)
    found = [
        hub_snapshot.look(str(tmp_path), Snapshot("org/name", COMMIT)),
        hub_snapshot.look(str(tmp_path), Snapshot("org/two", OTHER)),
    ]
    assert hub_cache.fetch_seconds(found, str(tmp_path)) == seconds


def test_client_version(tmp_path):
    assert hub_cache.client_version(str(tmp_path)) == ""
    site = tmp_path / "lib" / "python3.11" / "site-packages"
    (site / "huggingface_hub-2.4.0.dist-info").mkdir(parents=True)
    assert hub_cache.client_version(str(tmp_path)) == ""  # half a venv
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    assert hub_cache.client_version(str(tmp_path)) == "2.4.0"
    (site / "huggingface_hub-1.0.0.dist-info").mkdir()
    assert hub_cache.client_version(str(tmp_path)) == ""  # an upgrade that broke off
