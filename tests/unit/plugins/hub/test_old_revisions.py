# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which revisions are old, and which of their files nothing else leads to."""

from __future__ import annotations

import os

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.hub import prune as hub_prune
from ansible_collections.gpunode.llm.plugins.module_utils.hub.snapshot import Cache, Snapshot
from ansible_collections.gpunode.llm.plugins.module_utils.node import files as node_files

OLD, NEW, THIRD = "a" * 40, "b" * 40, "c" * 40


class Home:
    """A cache with the layout of the hub's own tools."""

    def __init__(self, path) -> None:
        self.path, self.cache = str(path), Cache(str(path))

    def blob(self, repo_id: str, name: str, text: str = "", shared: str = "") -> None:
        path = os.path.join(self.cache.folder(repo_id), "blobs", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if shared:
            store = os.path.join(self.cache.hub, "blobs", shared[:2], shared)
            node_files.write_atomically(store, text)
            node_files.write_atomically(store + ".refs", "")
            os.symlink(os.path.relpath(store, os.path.dirname(path)), path)
        else:
            node_files.write_atomically(path, text)

    def file(self, repo_id: str, commit: str, name: str, blob: str) -> None:
        pointer = self.cache.pointer(repo_id, commit, name)
        os.makedirs(os.path.dirname(pointer), exist_ok=True)
        os.symlink(f"../../blobs/{blob}", pointer)
        node_files.write_atomically(self.cache.manifest(repo_id, commit), "{}")

    def branch(self, repo_id: str, name: str, commit: str, theirs: bool = False) -> None:
        ours = self.cache.record(repo_id, name)
        node_files.write_atomically(f"{self.cache.folder(repo_id)}/refs/{name}" if theirs else ours, commit)

    def everything(self) -> set[str]:
        found = [os.path.join(at, name) for at, _folders, names in os.walk(self.path) for name in names]
        return {os.path.relpath(path, self.cache.hub) for path in found}


@pytest.fixture
def home(tmp_path):
    """org/name in three revisions: a blob for each, and one that they share."""
    made = Home(tmp_path)
    made.blob("org/name", "common", "12345")
    for commit in (OLD, NEW, THIRD):
        made.blob("org/name", commit[:3], "123")
        made.file("org/name", commit, "own", commit[:3])
        made.file("org/name", commit, "sub", "common")
    return made


def old(home, snapshots=(), units=None, unlisted=False) -> list[str]:
    plan = hub_prune.make_plan(home.path, snapshots, units or {}, unlisted)
    return [revision.commit for revision in plan.old]


INSTANCE = "[X-gpunode]\nInstance=x\nModel=org/name\n"
CASES = {
    "nothing is in use": ((), {}, []),
    "asked for": ([Snapshot("org/name", NEW)], {}, [OLD, THIRD]),
    "asked for in vain": ([Snapshot("org/name", "d" * 40)], {}, []),
    "a unit serves it": ((), {"vllm-x.service": f"{INSTANCE}revision: {NEW}"}, [OLD, THIRD]),
    "two units": ((), {"1.service": f"org/name {NEW}", "2.service": f"org/name {OLD}"}, [THIRD]),
    "a unit without a commit": ((), {"my.service": "ExecStart=vllm serve org/name"}, []),
    "a unit and its folder": ((), {"my.service": "-v /srv/hub/models--org--name/snapshots"}, []),
    "a unit of another": ((), {"my.service": f"org/name-2 org/names {NEW}"}, [OLD, THIRD]),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_old(home, case):
    snapshots, units, gone = CASES[case]
    assert old(home, snapshots, units) == gone


@pytest.mark.parametrize("theirs", [True, False])
def test_a_branch_keeps_its_commit(home, theirs):
    home.branch("org/name", "refs/pr/1", NEW, theirs)
    assert old(home) == [OLD, THIRD]


def test_a_model_out_of_use_goes_only_when_that_is_asked_for(home):
    home.blob("org/other", "x", "1234567")
    home.file("org/other", OLD, "x", "x")
    snapshots = [Snapshot("org/name", NEW)]
    assert old(home, snapshots) == [OLD, THIRD]
    plan = hub_prune.make_plan(home.path, snapshots, {}, unlisted=True)
    assert [(revision.repo_id, revision.commit) for revision in plan.old] == [
        ("org/name", OLD),
        ("org/name", THIRD),
        ("org/other", OLD),
    ]
    assert plan.freed == 3 + 3 + 7
    hub_prune.remove(home.path, plan)
    assert os.listdir(home.cache.hub) == ["models--org--name"]


def test_blobs_of_what_stays_stay(home):
    plan = hub_prune.make_plan(home.path, [Snapshot("org/name", NEW)], {}, unlisted=False)
    assert plan.freed == 6
    before = home.everything()
    hub_prune.remove(home.path, plan)
    gone = before - home.everything()
    assert gone == {
        f"models--org--name/{path}"
        for commit in (OLD, THIRD)
        for path in (
            f"snapshots/{commit}/own",
            f"snapshots/{commit}/sub",
            f"manifests/{commit}.json",
            f"blobs/{commit[:3]}",
        )
    }
    assert old(home, [Snapshot("org/name", NEW)]) == []


@pytest.mark.parametrize("also", [True, False])
def test_a_blob_that_repositories_share(home, also):
    """In the hub's newer layout a repository's blob is a link into a store of the whole cache."""
    shared = "f" * 64
    home.blob("org/name", "big", "123456789", shared)
    home.file("org/name", OLD, "big", "big")
    if also:
        home.blob("org/other", "big", "123456789", shared)  # no snapshot yet: a tool is at work there
    plan = hub_prune.make_plan(home.path, [Snapshot("org/name", NEW)], {}, unlisted=False)
    assert plan.freed == 6 + (0 if also else 9)
    hub_prune.remove(home.path, plan)
    assert os.path.exists(f"{home.cache.hub}/blobs/ff/{shared}") is also
    assert os.path.exists(f"{home.cache.hub}/blobs/ff/{shared}.refs") is also
    assert not os.path.lexists(f"{home.cache.folder('org/name')}/blobs/big")


def test_nothing_outside_of_the_cache_is_touched(home, tmp_path):
    outside = tmp_path / "precious"
    outside.write_text("x")
    os.symlink(outside, home.cache.pointer("org/name", OLD, "link"))
    plan = hub_prune.make_plan(home.path, [Snapshot("org/name", NEW)], {}, unlisted=False)
    hub_prune.remove(home.path, plan)
    assert outside.read_text() == "x"


def test_a_file_with_another_name_frees_nothing(home, tmp_path):
    os.link(f"{home.cache.folder('org/name')}/blobs/{OLD[:3]}", tmp_path / "share")
    plan = hub_prune.make_plan(home.path, [Snapshot("org/name", NEW)], {}, unlisted=False)
    assert plan.freed == 3


def test_texts_of_units_include_their_files(tmp_path):
    (tmp_path / "x.yaml").write_text(f"revision: {NEW}\n")
    (tmp_path / "vllm-x.service").write_text(f"[X-gpunode]\nInstance=x\nConfig={tmp_path}/x.yaml\n")
    (tmp_path / "vllm-x.service.d").mkdir()
    (tmp_path / "vllm-x.service.d" / "override.conf").write_text(f"# {OLD}\n")
    (tmp_path / "gone.service").symlink_to(tmp_path / "nowhere")
    texts = hub_prune.unit_texts([str(tmp_path), str(tmp_path / "none")], [])
    assert texts["gone.service"] == ""
    assert NEW in texts["vllm-x.service"]
    assert OLD in texts["vllm-x.service"]


@pytest.mark.parametrize("theirs", [True, False])
def test_what_was_brought_goes_with_its_last_user_whatever_branch_leads_to_it(home, theirs):
    """As after a teardown of the service: nothing names the model any more."""
    home.branch("org/name", "main", NEW, theirs)

    def gone(unlisted, brought, units=None):
        return [revision.commit for revision in hub_prune.make_plan(home.path, [], units or {}, unlisted, brought).old]

    assert gone(True, ["org/name"]) == [OLD, NEW, THIRD]
    assert gone(True, []) == [OLD, THIRD]
    assert gone(False, ["org/name"]) == [OLD, THIRD]
    assert gone(True, ["org/name"], {"vllm-x.service": f"revision: {THIRD}"}) == [OLD]
    assert hub_prune.make_plan(home.path, [], {}, True, ["org/name"]).whole == ["org/name"]
    (kept,) = [
        revision for revision in hub_prune.make_plan(home.path, [], {}, False, ["org/name"]).revisions if revision.kept
    ]
    assert kept.kept == "it is the commit of main; nothing of its repository is in use, and unlisted is false"
