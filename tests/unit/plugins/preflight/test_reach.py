# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All that is to be fetched from elsewhere is asked before anything changes, and nothing that is here already."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.gpunode.llm.plugins.module_utils.docker import (
    engine as docker_engine,
    registry as docker_registry,
)
from ansible_collections.gpunode.llm.plugins.module_utils.hub import snapshot as hub_snapshot
from ansible_collections.gpunode.llm.plugins.module_utils.hub.api import Answer
from ansible_collections.gpunode.llm.plugins.module_utils.packages import apt as packages_apt, rpm as packages_rpm
from ansible_collections.gpunode.llm.plugins.module_utils.preflight import (
    answer as preflight_answer,
    checks as preflight_checks,
    hub as preflight_hub,
    reach as preflight_reach,
)
from ansible_collections.gpunode.llm.plugins.modules import preflight_check

KEY = (Path(__file__).resolve().parents[3] / "fixtures" / "openpgp" / "rsa3072.asc").read_text()
FINGERPRINT = "D15E51EA410750E7325605E566E77F2ACD7201D8"
IMAGE = "vllm/vllm-openai:v0.33.0"
INSTANCES = [{"name": "8b", "repo_id": "a/b", "image": IMAGE, "device": "cuda"}]
BARE = {"works": False, "ours": False}


@pytest.fixture
def node(tmp_path, monkeypatch):
    """A node with an apt of its own, no Docker, and a registry that has nothing."""
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "lists" / "partial").mkdir(parents=True)
    settings = {
        "Dir::Etc::SourceList": str(tmp_path / "sources.list"),
        "Dir::Etc::SourceParts": str(tmp_path / "sources.list.d"),
        "Dir::State::Lists": str(tmp_path / "lists"),
        "APT::Sandbox::User": "root",
    }
    (tmp_path / "apt.conf").write_text(packages_apt.configuration(settings))
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    monkeypatch.setattr(packages_apt, "SOURCES", str(tmp_path / "sources.list.d"))
    monkeypatch.setattr(packages_apt, "KEYRINGS", str(tmp_path / "keyrings"))
    monkeypatch.setattr(docker_engine, "describe", lambda *_given: dict(BARE))
    answer = docker_registry.Answer(404)
    docker = docker_registry.Docker(lambda *_given: answer)
    monkeypatch.setattr(docker_registry, "of_node", lambda *_given: docker)
    monkeypatch.setattr(preflight_checks, "data_root", lambda: str(tmp_path))
    return tmp_path


@pytest.fixture
def ask(node, capsys):
    def run(**options):
        given = {
            "instances": INSTANCES,
            "skip": ["platform", "disk", "ports", "hub"],
            "home": str(node / "hub"),
            "token_path": str(node / "token"),
            **options,
        }
        with patch_module_args(given), pytest.raises(SystemExit):
            preflight_check.main()
        return json.loads(capsys.readouterr().out)

    return run


def repository(node, **more):
    options = {"name": "docker", "uri": f"file://{node}/nothing", "suite": "./", "key": KEY, "fingerprint": FINGERPRINT}
    return {"manager": "apt", "options": {**options, "packages": ["docker-ce"]}, **more}


@pytest.mark.skipif(not shutil.which("apt-get"), reason="there is no apt to ask")
def test_a_wrong_repository_and_a_wrong_image_in_one_message(ask, node):
    wrong_key = repository(node)
    wrong_key["options"] = {**wrong_key["options"], "name": "toolkit", "fingerprint": FINGERPRINT[::-1]}
    result = ask(repositories=[repository(node), wrong_key], registry={})
    key, first, second = result["findings"]
    assert "it is not trusted" in key
    assert first.startswith(f"apt does not take file://{node}/nothing ./: ")
    assert second == f"docker.io answers, but has no such image: check the name and the tag of {IMAGE}."
    assert [path.name for path in (node / "sources.list.d").iterdir()] == []
    assert not (node / "keyrings").exists()
    assert list((node / "lists").rglob("*Release*")) == []


@pytest.mark.parametrize("skip", ["repositories", "registry"])
@pytest.mark.skipif(not shutil.which("apt-get"), reason="there is no apt to ask")
def test_either_can_be_left_out(ask, node, skip):
    given = {"repositories": [repository(node)], "registry": {}}
    (message,) = ask(**given, skip=["platform", "disk", "ports", "hub", skip])["findings"]
    assert message.startswith("docker.io answers" if skip == "repositories" else "apt does not")


def asked_nobody(*_given, **_more):
    raise AssertionError("somebody was asked")


def test_what_is_here_is_not_asked_for(ask, node, monkeypatch):
    """Image and packages are there: neither a registry, nor apt, nor the network."""
    monkeypatch.setattr(preflight_checks, "image_needs", lambda *_given: [])
    monkeypatch.setattr(docker_registry, "of_node", asked_nobody)
    monkeypatch.setattr(packages_apt, "staged", asked_nobody)
    monkeypatch.setattr(packages_apt.packages_repository, "fetched_key", asked_nobody)
    monkeypatch.setattr(packages_apt, "look", lambda *_given: {"missing": [], "conflicting": []})
    apt_source = repository(node)
    source, key = packages_apt.paths("docker")
    os.makedirs(os.path.dirname(key))
    Path(key).write_text(KEY)
    Path(source).write_text(packages_apt.source(apt_source["options"], key).render())
    assert ask(repositories=[apt_source], registry={})["findings"] == []


def test_a_docker_that_stays_and_a_toolkit_that_stays_want_no_repository(ask, node, monkeypatch):
    monkeypatch.setattr(packages_apt, "staged", asked_nobody)
    monkeypatch.setattr(packages_apt.packages_repository, "fetched_key", asked_nobody)
    monkeypatch.setattr(docker_engine, "describe", lambda *_given: {"works": True, "ours": False})
    toolkit = repository(node)
    toolkit["options"] = {**toolkit["options"], "unless_exists": "/bin/sh"}
    assert ask(repositories=[repository(node, unless_docker=True), toolkit])["findings"] == []


def test_a_folder_stands_in_for_the_registry(ask, node, monkeypatch):
    monkeypatch.setattr(docker_registry, "of_node", asked_nobody)
    folder = node / "images"
    assert ask(registry={"source": str(folder)})["findings"] == []  # somebody else is going to bring it
    folder.mkdir()
    assert ask(registry={"source": str(folder)})["findings"] == [f"{folder} holds no image {IMAGE}. It has: none."]


def test_hub_has_an_environment_of_its_own(ask, node, monkeypatch):
    """A proxy for the hub is none for apt, and the other way round."""
    seen = {}
    monkeypatch.setenv("GPUNODE_HUB_HTTPS_PROXY", "http://hub:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://node:1")

    def question(_wanted, _key, run):
        seen["apt"] = run(["sh", "-c", "echo $HTTPS_PROXY"])[1].strip()
        return ""

    def hub(_self, _asks):
        seen["hub"] = os.environ["HTTPS_PROXY"]
        return preflight_checks.HubCheck((), {})

    monkeypatch.setattr(packages_apt, "objection", question)
    monkeypatch.setattr(preflight_check.Elsewhere, "hub", hub)
    ask(repositories=[repository(node)], skip=["platform", "disk", "ports"])
    assert seen == {"apt": "http://node:1", "hub": "http://hub:1"}


INDEX = "http://ada:s3cret@127.0.0.1:9/simple"


@pytest.mark.parametrize(
    ("index", "here", "complete", "wanted"),
    [(INDEX, False, False, True), (INDEX, True, False, False), (INDEX, False, True, False), ("", False, False, False)],
)
def test_the_index_of_the_client_is_asked_where_it_is_wanted(ask, node, monkeypatch, index, here, complete, wanted):
    monkeypatch.setattr(preflight_hub, "check_hub", lambda *_given, **_more: preflight_checks.HubCheck((), {}))
    monkeypatch.setattr(
        preflight_answer, "from_hub", lambda _params: [] if complete else [hub_snapshot.Snapshot("a/b")]
    )
    if here:
        (node / "venv" / "bin").mkdir(parents=True)
        (node / "venv" / "bin" / "python").touch()
        (node / "venv/lib/python3.11/site-packages/huggingface_hub-2.4.0.dist-info").mkdir(parents=True)
    client = {"index_url": index, "venv": str(node / "venv")}
    findings = ask(client=client, skip=["platform", "disk", "ports"])["findings"]
    assert [message.startswith("The Python package index http://127.0.0.1:9/simple ") for message in findings] == (
        [True] if wanted else []
    )


@pytest.mark.parametrize(("status", "found"), [(200, True), (302, True), (404, False), (401, False), (0, False)])
def test_what_an_index_answers(status, found):
    seen = []

    def opener(method, url, _headers):
        seen.append((method, url))
        return Answer(status, reason="no")

    assert (preflight_hub.check_index("https://pypi.test/simple/", opener) == []) is found
    assert seen == [("GET", "https://pypi.test/simple/huggingface-hub/")]


RPM = {
    "name": "docker-ce",
    "uri": "https://d.test/$basearch",
    "key": KEY,
    "fingerprint": FINGERPRINT,
    "packages": ["docker-ce"],
}


def test_dnf_is_asked_with_the_key_and_leaves_no_trace(tmp_path, monkeypatch):
    monkeypatch.setattr(packages_rpm, "SOURCES", str(tmp_path))
    monkeypatch.setattr(packages_rpm, "KEYS", str(tmp_path))
    seen = {}

    def run(argv):
        if argv[0] == "rpm":
            return 1, "package docker-ce is not installed\n", ""
        reposdir = next(word.partition("reposdir=")[2] for word in argv if "reposdir=" in word)
        seen["repo"] = (Path(reposdir) / "asked.repo").read_text()
        seen["key"] = Path(reposdir).parent.joinpath("key").read_text()
        return 1, "", "Error: Failed to download metadata for repo 'docker-ce': Cannot download repomd.xml\n"

    entry = {"manager": "dnf", "options": RPM}
    findings, questions = preflight_reach.sources([entry], run, asked_nobody)
    assert findings == []
    (message,) = [question() for question in questions]
    assert message == (
        "dnf does not take https://d.test/$basearch: Failed to download metadata for repo 'docker-ce': "
        "Cannot download repomd.xml."
    )
    assert "baseurl=https://d.test/$basearch\n" in seen["repo"]
    assert seen["key"] == KEY
    assert list(tmp_path.iterdir()) == []
