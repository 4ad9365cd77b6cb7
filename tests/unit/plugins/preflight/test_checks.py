# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.hub.api import Answer, Hub
from ansible_collections.gpunode.llm.plugins.module_utils.hub.snapshot import Cache, Manifest, RepoFile, Snapshot
from ansible_collections.gpunode.llm.plugins.module_utils.instance.record import Record
from ansible_collections.gpunode.llm.plugins.module_utils.node import files as node_files
from ansible_collections.gpunode.llm.plugins.module_utils.preflight import (
    checks as preflight_checks,
    hub as preflight_hub,
)
from ansible_collections.gpunode.llm.plugins.module_utils.preflight.checks import Filesystem, Need

COMMIT = "0e9e39f249a16976918f6564b8830bc894c89659"
OTHER = "1605565b47bb9346c5515c34102e054115b4f98b"
GB = 10**9
TREE = [RepoFile("a", 4 * GB, "1" * 40, "a" * 64), RepoFile("b", 1 * GB, "2" * 40, "b" * 64)]
ONE = {
    "name": "8b",
    "repo_id": "org/name",
    "revision": COMMIT,
    "weights_bytes": 16 * GB,
    "image": "vllm/vllm-openai:v1",
    "device": "cuda",
    "host": "127.0.0.1",
    "port": 8000,
    "ignore_patterns": [],
}
SUPPORTED = {"distributions": {"Debian": ["12", "13"], "Ubuntu": ["24.04"]}, "architectures": ["x86_64", "aarch64"]}
DEBIAN = {"distribution": "Debian", "version": "12", "architecture": "x86_64", "service_mgr": "systemd"}


# -- disk -------------------------------------------------------------------------------------------------------------
def test_the_filesystem_of_a_path_that_does_not_exist(tmp_path):
    found = preflight_checks.filesystem(str(tmp_path / "not" / "yet"))
    assert (found.device, found.path) == (os.stat(tmp_path).st_dev, str(tmp_path))
    assert found.free > 0


def test_a_link_leads_to_another_filesystem(tmp_path):
    (tmp_path / "link").symlink_to("/proc")
    assert preflight_checks.filesystem(str(tmp_path / "link" / "x")).path == "/proc"


@pytest.mark.parametrize(
    ("needs", "free", "findings"),
    [
        ([], {}, 0),
        ([Need("/a", 0, "x")], {}, 0),
        ([Need("/a", 5 * GB, "x")], {"/a": (1, 6 * GB)}, 0),
        ([Need("/a", 5 * GB, "x")], {"/a": (1, 6 * GB - 1)}, 1),
        # each fits alone, together they do not
        ([Need("/a", 5 * GB, "x"), Need("/b", 5 * GB, "y")], {"/a": (1, 10 * GB), "/b": (1, 10 * GB)}, 1),
        ([Need("/a", 5 * GB, "x"), Need("/b", 5 * GB, "y")], {"/a": (1, 10 * GB), "/b": (2, 10 * GB)}, 0),
        ([Need("/a", 5 * GB, "x"), Need("/b", 5 * GB, "y")], {"/a": (1, 1), "/b": (2, 1)}, 2),
    ],
)
def test_disk(needs, free, findings):
    problems = preflight_checks.check_disk(needs, lambda path: Filesystem(free[path][0], path, free[path][1]))
    assert len(problems) == findings


def test_disk_states_the_numbers():
    needs = [Need("/w", 410 * GB, "the weights of a/b"), Need("/d", 30 * GB, "the image i")]
    (message,) = preflight_checks.check_disk(needs, lambda path: Filesystem(1, "/", 12 * GB))
    for part in (
        "441.0 GB are needed",
        "410.0 GB for the weights of a/b in /w",
        "30.0 GB for the image",
        "12.0 GB free",
    ):
        assert part in message


# -- what is to be written --------------------------------------------------------------------------------------------
def test_weights_by_the_plan_and_by_the_listing(tmp_path):
    home, snapshot = str(tmp_path), Snapshot("org/name", COMMIT)
    (by_plan,) = preflight_checks.weights_needs([ONE], home, {})
    assert (by_plan.path, by_plan.bytes) == (home, 16 * GB)
    (exact,) = preflight_checks.weights_needs([ONE, ONE], home, {snapshot: (COMMIT, TREE)})
    assert exact.bytes == 5 * GB
    partial = Cache(home).partial("org/name", TREE[0])
    os.makedirs(os.path.dirname(partial))
    with open(partial, "wb") as stream:
        stream.truncate(3 * GB)
    (less,) = preflight_checks.weights_needs([ONE], home, {snapshot: (COMMIT, TREE)})
    assert less.bytes == 2 * GB


def test_branches_are_pinned(tmp_path):
    home = str(tmp_path)
    branch, tag = {**ONE, "revision": None, "config": {"port": 8000}}, {**ONE, "revision": "v1"}
    assert preflight_checks.pin([ONE, branch, tag], home, {}) == [ONE, branch, tag]  # nobody knows
    pinned = preflight_checks.pin([ONE, branch, tag], home, {Snapshot("org/name"): (COMMIT, TREE)})
    changes = {"revision": COMMIT, "branch": "main", "config": {"port": 8000, "revision": COMMIT}}
    assert pinned == [ONE, {**ONE, **changes}, tag]
    node_files.write_atomically(Cache(home).record("org/name", "v1"), OTHER)
    assert preflight_checks.pin([tag], home, {})[0]["revision"] == OTHER


def test_weights_that_are_here(tmp_path):
    cache = Cache(str(tmp_path))
    node_files.write_atomically(cache.manifest("org/name", COMMIT), Manifest("org/name", COMMIT, []).dump())
    assert preflight_checks.weights_needs([ONE], str(tmp_path), {}) == []


LORA = {"name": "sql", "repo_id": "org/sql", "revision": OTHER, "weights_bytes": GB}


def test_an_adapter_is_fetched_as_weights_are(tmp_path):
    home, instance = str(tmp_path), {**ONE, "lora": [LORA]}
    needs = preflight_checks.weights_needs([instance], home, {})
    assert [(need.purpose, need.bytes) for need in needs] == [
        ("the weights of org/name", 16 * GB),
        ("the weights of org/sql", GB),
    ]
    folder = {**instance, "folder": "/srv/mine"}
    assert [need.bytes for need in preflight_checks.weights_needs([folder], home, {})] == [GB]
    branch = {**instance, "revision": None, "config": {}}
    (pinned,) = preflight_checks.pin([branch], home, {Snapshot("org/name"): (COMMIT, TREE)})
    assert (pinned["revision"], pinned["lora"]) == (COMMIT, [LORA])
    assert preflight_checks.pin([folder], home, {}) == [folder]


def test_an_adapter_may_come_from_another_node_than_its_model():
    instance = {**ONE, "lora": [LORA, {**LORA, "repo_id": "org/law"}]}
    (assigned,) = preflight_checks.assign([instance], {("org/sql", OTHER): "n2"})
    assert assigned == {**instance, "lora": [{**LORA, "seeder": "n2"}, {**LORA, "repo_id": "org/law"}]}
    (assigned,) = preflight_checks.assign([instance], {("org/name", COMMIT): "n1"})
    assert assigned == {**instance, "seeder": "n1"}


def test_images(monkeypatch):
    requests = []

    def run(argv):
        requests.append(argv[-1])
        return (0, "sha256:1\n", "") if argv[-1].startswith("here") else (1, "\n", "No such image")

    monkeypatch.setattr(preflight_checks, "data_root", lambda: "/d")
    instances = [ONE, ONE, {**ONE, "image": "here:1"}, {**ONE, "image": "cpu:1", "device": "cpu"}, {"name": "none"}]
    sizes = {"cuda": 30 * GB, "cpu": 6 * GB}
    needs = preflight_checks.image_needs(instances, sizes, run, "/usr/bin/docker")
    assert [(n.path, n.bytes) for n in needs] == [("/d", 6 * GB), ("/d", 30 * GB)]
    assert requests == ["cpu:1", "here:1", "vllm/vllm-openai:v1"]
    assert len(preflight_checks.image_needs(instances, sizes, run, "")) == 3  # no Docker yet: none is here


@pytest.mark.parametrize(
    ("text", "root"),
    [('{"data-root": "/big"}', "/big"), ("{}", "/var/lib/docker"), ("[]", "/var/lib/docker"), ("{", "/var/lib/docker")],
)
def test_data_root(tmp_path, text, root):
    (tmp_path / "daemon.json").write_text(text)
    assert preflight_checks.data_root(str(tmp_path / "daemon.json")) == root
    assert preflight_checks.data_root("/nonexistent") == "/var/lib/docker"


# -- ports ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("free", "state", "findings"),
    [
        (True, "inactive", 0),
        (False, "active", 0),
        (False, "activating", 0),  # a container holds its port long before its unit is active
        (False, "inactive", 1),
        (False, "failed", 1),
    ],
)
def test_ports(free, state, findings):
    requests = []

    def run(argv):
        requests.append(argv)
        return 0 if state == "active" else 3, f"{state}\n", ""

    problems = preflight_checks.check_ports([ONE, {"name": "no port"}], run, lambda host, port: free)
    assert len(problems) == findings
    assert all("vllm-8b.service" in message and "8000" in message for message in problems)
    assert all(argv[-1] == "vllm-8b.service" for argv in requests)


OLD = Record("old", "vllm-old.service", port=8000)


@pytest.mark.parametrize(
    ("here", "state", "findings"),
    [
        ([OLD], "active", 0),
        ([OLD], "inactive", 1),
        ([replace(OLD, port=8001)], "active", 1),
        ([replace(OLD, name="8b")], "active", 1),
        ([replace(OLD, port=None)], "active", 1),
        ([], "active", 1),
    ],
)
def test_a_port_of_a_service_that_makes_room(here, state, findings):
    """Another one's port is another one's, also where our old service is down or holds another."""
    going = preflight_checks.making_room(here, [ONE])

    def run(argv):
        return 3, f"{state if argv[-1] == 'vllm-old.service' else 'inactive'}\n", ""

    assert len(preflight_checks.check_ports([ONE], run, lambda host, port: False, going)) == findings


GROUP = {"rank": 0, "addresses": ["10.0.0.1", "10.0.0.2"], "master_port": 29501}
PEER = "gpunode-peer@8b.service"


@pytest.mark.parametrize(
    ("rank", "taken", "active", "words"),
    [
        (0, [], [], []),
        (0, [("10.0.0.1", 29501)], [], ["Port 29501 of 10.0.0.1 is in use, but not by vllm-8b.service"]),
        (0, [("10.0.0.1", 29501), ("10.0.0.1", 30501)], ["vllm-8b.service", PEER], []),
        (1, [("10.0.0.2", 30501)], [], [f"Port 30501 of 10.0.0.2 is in use, but not by {PEER}"]),
        # What only its head listens on.
        (1, [("10.0.0.2", 29501), ("127.0.0.1", 8000)], [], []),
    ],
)
def test_ports_on_which_the_ranks_of_an_engine_meet(rank, taken, active, words):
    def run(argv):
        return 3, "active\n" if argv[-1] in active else "inactive\n", ""

    instance = {**ONE, "host": "127.0.0.1", "group": {**GROUP, "rank": rank}}
    found = preflight_checks.check_ports([instance], run, lambda *address: address not in taken)
    assert [text in finding for text, finding in zip(words, found)] == [True] * len(words) == [True] * len(found)


def test_a_group_whose_addresses_are_not_known_has_no_ports():
    assert preflight_checks.check_ports([{"name": "8b", "group": {"rank": 1, "addresses": []}}], None) == []


# -- platform ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, []),
        ({"version": 13}, []),
        ({"architecture": "aarch64"}, []),
        ({"distribution": "Ubuntu", "version": "24.04"}, []),
        (
            {"distribution": "Ubuntu", "version": "20.04"},
            ["Ubuntu 20.04 is not supported. Supported: Debian 12 13"],
        ),
        ({"distribution": "Rocky", "version": "9"}, ["Rocky 9"]),
        ({"architecture": "ppc64le"}, ["ppc64le"]),
        ({"service_mgr": "openrc", "version": "11"}, ["Debian 11", "need systemd"]),
    ],
)
def test_platform(change, message):
    problems = preflight_checks.check_platform({**DEBIAN, **change}, SUPPORTED)
    assert len(problems) == len(message)
    assert all(part in line for part, line in zip(message, problems))


# -- hub --------------------------------------------------------------------------------------------------------------
class Net:
    def __init__(self, **answers) -> None:
        self.answers, self.requests = answers, []

    def __call__(self, method, url, headers):
        self.requests.append(url)
        kind = "who" if "whoami" in url else "file" if method == "HEAD" else "tree" if "/tree/" in url else "info"
        entry = {"type": "file", "path": "a", "oid": "1" * 40, "size": 7}
        default = {
            "who": Answer(200, {}, b'{"name": "ada"}'),
            "file": Answer(200),
            "tree": Answer(200, {}, json.dumps([entry]).encode()),
            "info": Answer(200, {}, json.dumps({"sha": COMMIT}).encode()),
        }
        answer = self.answers.get(kind)
        return (answer(url) if callable(answer) else answer) or default[kind]

    def hub(self, token="hf_x") -> Hub:
        return Hub("https://hub.example", self, lambda seconds: None, token)


WANTED = [Snapshot("a/b"), Snapshot("c/d", COMMIT)]


def test_hub_is_well():
    problems = preflight_hub.check_hub(Net().hub(), WANTED, False)
    assert (problems.findings, problems.account) == ([], "ada")
    assert {s.repo_id: (commit, len(tree)) for s, (commit, tree) in problems.trees.items()} == {
        "a/b": (COMMIT, 1),
        "c/d": (COMMIT, 1),
    }


@pytest.mark.parametrize(("token", "is_new", "requests"), [("", True, 0), ("hf_x", False, 0), ("hf_x", True, 1)])
def test_a_converged_node_needs_no_hub(token, is_new, requests):
    net = Net()
    assert preflight_hub.check_hub(net.hub(token), [], is_new).findings in ([], ())
    assert len(net.requests) == requests


def test_each_repository_has_its_finding():
    refused = Answer(403, {"x-error-code": "GatedRepo"})
    gone = Answer(404, {"x-error-code": "RevisionNotFound"})
    problems = preflight_hub.check_hub(Net(file=lambda url: refused if "a/b" in url else gone).hub(), WANTED, False)
    assert len(problems.findings) == 2
    assert "https://huggingface.co/a/b" in problems.findings[0]
    assert "has no revision" in problems.findings[1]


def test_a_bad_token_is_one_finding():
    net = Net(who=Answer(401))
    assert len(preflight_hub.check_hub(net.hub(), WANTED, False).findings) == 1
    assert len(net.requests) == 1


def test_a_hub_that_is_away_is_one_finding():
    problems = preflight_hub.check_hub(Net(file=Answer(0, reason="no route")).hub(), WANTED, False)
    assert len(problems.findings) == 1
    assert "no route" in problems.findings[0]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("vllm/vllm-openai:v0.33.0", ""),
        ("registry.example.net:5000/vllm@sha256:" + "a" * 64, ""),
        ("vllm/vllm-openai:latest", "latest"),
        ("vllm/vllm-openai", "names no release"),
    ],
)
def test_an_image_is_named_by_its_release(image, message):
    findings = preflight_checks.check_images([{"image": image}, {"image": image}])
    assert len(findings) == (1 if message else 0)
    assert message in "".join(findings)


@pytest.mark.parametrize(
    ("docker", "gpus", "keep", "messages"),
    [
        ({"obstacle": "", "toolkit_version": "1.20.0"}, [0], True, []),
        ({"obstacle": "", "toolkit_version": "", "server_version": "20.10.24+dfsg1"}, [0], True, ["20.10.24+dfsg1"]),
        ({"obstacle": "", "toolkit_version": "", "server_version": "20.10.24+dfsg1"}, [0], False, []),
        ({"obstacle": "", "toolkit_version": "", "server_version": "20.10.24+dfsg1"}, [], True, []),
        ({"obstacle": "", "toolkit_version": "", "server_version": ""}, [0], True, []),  # none answers: it is installed
        ({"obstacle": "", "toolkit_version": ""}, [0], True, []),
        ({"obstacle": "It comes from snap.", "toolkit_version": ""}, [], True, ["snap"]),
        ({"obstacle": "", "toolkit_version": "1.13.5"}, [0], True, ["1.13.5"]),
        ({"obstacle": "", "toolkit_version": "1.13.5"}, [0], False, []),
        ({"obstacle": "", "toolkit_version": "1.13.5"}, [], True, []),  # nobody needs it
        ({"obstacle": "It comes from snap.", "toolkit_version": "1.13.5"}, [0], True, ["snap", "1.13.5"]),
    ],
)
def test_a_docker_or_a_toolkit_that_will_not_do(docker: dict, gpus: list[int], keep: bool, messages: list[str]) -> None:
    docker = {"server_version": "28.5.1", **docker}
    found = preflight_checks.check_docker(docker, [{"name": "8b", "gpu_indices": gpus}], keep, keep)
    assert len(found) == len(messages)
    assert all(word in finding for word, finding in zip(messages, found))


def test_downloads_and_free_disk_are_returned():
    disks = {"/w": Filesystem(1, "/", 100), "/d": Filesystem(1, "/", 100), "/other": Filesystem(2, "/other", 50)}
    needs = [Need("/w", 30, "the weights of a"), Need("/w", 0, "the weights of b"), Need("/d", 40, "the image i", "i")]
    result = preflight_checks.downloads(needs, ["/w", "/other"], disks.__getitem__)
    assert result["fetch"] == [{"kind": "weights", "bytes": 30}, {"kind": "image", "bytes": 40}]
    assert result["disks"] == [
        {"paths": ["/w", "/d"], "free": 100, "bytes": 70},
        {"paths": ["/other"], "free": 50, "bytes": 0},
    ]
