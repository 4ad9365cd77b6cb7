# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cache with links: complete is what a container sees that has the cache's folder alone."""

from __future__ import annotations

import os
import shutil

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.hub import (
    run as hub_run,
    seed as hub_seed,
    sight as hub_sight,
    snapshot as hub_snapshot,
)
from ansible_collections.gpunode.llm.plugins.module_utils.hub.snapshot import Cache, Manifest, RepoFile, Snapshot
from ansible_collections.gpunode.llm.plugins.module_utils.node import files as node_files
from ansible_collections.gpunode.llm.plugins.module_utils.preflight import checks as preflight_checks

COMMIT = "0e9e39f249a16976918f6564b8830bc894c89659"
REPO = "org/name"
FILE = RepoFile("sub/config.json", 2, "9e26dfeeb6e641a33dae4961196235bdb965b21b")
ASKED = Snapshot(REPO, COMMIT)


@pytest.fixture
def cache(tmp_path) -> Cache:
    """A whole snapshot in tmp_path/home."""
    there = Cache(str(tmp_path / "home"))
    blob, pointer = there.blob(REPO, FILE), there.pointer(REPO, COMMIT, FILE.path)
    for path in (blob, pointer):
        os.makedirs(os.path.dirname(path))
    with open(blob, "wb") as stream:
        stream.write(b"{}")
    os.symlink(os.path.relpath(blob, os.path.dirname(pointer)), pointer)
    node_files.write_atomically(there.manifest(REPO, COMMIT), Manifest(REPO, COMMIT, [FILE]).dump())
    return there


def linked(path: str, disk, relative: bool = False) -> None:
    """Move what is at the path to the disk, and leave a link."""
    there = os.path.join(disk, os.path.basename(path))
    os.makedirs(disk, exist_ok=True)
    shutil.move(path, there)
    os.symlink(os.path.relpath(there, os.path.dirname(path)) if relative else there, path)


LINKS = {
    "the model's folder": lambda cache: cache.folder(REPO),
    "its blobs": lambda cache: os.path.join(cache.folder(REPO), "blobs"),
    "its snapshots": lambda cache: os.path.join(cache.folder(REPO), "snapshots"),
    "one snapshot": lambda cache: cache.snapshot(REPO, COMMIT),
    "a folder in it": lambda cache: os.path.dirname(cache.pointer(REPO, COMMIT, FILE.path)),
    "a blob": lambda cache: cache.blob(REPO, FILE),
}


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("which", LINKS)
def test_a_link_to_another_disk_is_dead_in_a_container(cache, tmp_path, which, relative):
    path = LINKS[which](cache)
    linked(path, tmp_path / "disk", relative)
    if which in ("its snapshots", "one snapshot", "a folder in it"):  # their own links do not survive the move
        pointer = cache.pointer(REPO, COMMIT, FILE.path)
        os.unlink(pointer)
        os.symlink(cache.blob(REPO, FILE), pointer)
    found = hub_snapshot.look(cache.home, ASKED)
    assert found.missing == []  # on the host all is there
    assert not found.complete
    assert found.outside.startswith(f"{path} is a link to ")
    # Wherever it is typed.
    remedy = "cp --remove-destination" if which == "a blob" else "mount --bind"
    assert f"{remedy} {os.path.realpath(path)} {path}" in found.outside
    assert preflight_checks.check_cache([{"repo_id": REPO, "revision": COMMIT}] * 2, cache.home) == [found.outside]


def test_a_link_is_refused_before_anything_is_downloaded(cache, tmp_path):
    linked(cache.folder(REPO), tmp_path / "disk")
    shutil.rmtree(tmp_path / "disk" / "models--org--name")
    os.mkdir(tmp_path / "disk" / "models--org--name")
    for snapshot in (ASKED, Snapshot(REPO)):
        assert "mount --bind" in hub_snapshot.look(cache.home, snapshot).outside


def test_nothing_is_fetched_or_served_through_it(cache, tmp_path):
    linked(cache.folder(REPO), tmp_path / "disk")
    params = {"snapshots": [{"repo_id": REPO, "revision": COMMIT}], "home": cache.home, "resume": None, "source": None}
    with pytest.raises(hub_run.Failed, match=r"a container cannot see.*mount --bind"):
        hub_run.step(params, False, None)
    served = {**params, "address": "127.0.0.1", "port": 1, "followers": ["127.0.0.1"]}
    with pytest.raises(hub_seed.Failed, match="which a container cannot see"):
        hub_seed.serve(served, False, None)


def test_links_within_the_cache_are_seen(cache, tmp_path):
    """As the hub's own tools make them, also for blobs that several models share."""
    linked(cache.blob(REPO, FILE), os.path.join(cache.hub, "shared--blobs", "blobs"), relative=True)
    assert hub_snapshot.look(cache.home, ASKED).complete


def test_an_absolute_link_within_the_cache_is_made_relative(cache):
    linked(cache.blob(REPO, FILE), os.path.join(cache.hub, "shared--blobs", "blobs"))
    outside = hub_snapshot.look(cache.home, ASKED).outside
    assert "Make it a relative one: ln -sfnr" in outside
    line = outside.rpartition("one: ")[2].rstrip(".")
    assert os.system(line) == 0
    assert hub_snapshot.look(cache.home, ASKED).complete


def test_the_home_itself_may_be_a_link(cache, tmp_path):
    """Docker follows it when it mounts the folder."""
    linked(cache.hub, tmp_path / "disk")
    assert hub_snapshot.look(cache.home, ASKED).complete
    linked(cache.home, tmp_path / "other")
    assert hub_snapshot.look(cache.home, ASKED).complete


def test_a_circle_of_links_ends(tmp_path):
    os.symlink("b", tmp_path / "a")
    os.symlink("a", tmp_path / "b")
    assert str(tmp_path) in hub_sight.out_of_sight(str(tmp_path), [str(tmp_path / "a")])
