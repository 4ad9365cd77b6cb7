# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.docker import engine as docker_engine
from ansible_collections.gpunode.llm.plugins.module_utils.docker.engine import config_settled
from ansible_collections.gpunode.llm.plugins.module_utils.packages import apt as packages_apt


@pytest.mark.parametrize(
    ("text", "wanted", "expected"),
    [
        (None, {}, True),
        (None, {"debug": True}, False),
        ('{"debug": true, "labels": ["a"]}', {"debug": True}, True),
        ('{"debug": false}', {"debug": True}, False),
        ('{"log-opts": {"max-size": "1m"}}', {"log-opts": {"max-file": "3"}}, False),
        ('{"debug": true}', {"debug": None}, False),  # a null takes its key away
        ("{", {}, False),  # whoever merges says what is wrong with it
    ],
)
def test_config_settled(tmp_path, text, wanted, expected):
    path = tmp_path / "daemon.json"
    if text is not None:
        path.write_text(text)
    assert config_settled(str(path), wanted) is expected


def nothing(_command):
    return 1, "", ""


@pytest.mark.parametrize(
    ("users", "sudo", "expected"),
    [
        (None, "daemon", (["daemon"], [])),
        (None, "root", ([], [])),
        ([], "daemon", ([], [])),
        (["daemon", "no-such-user"], "root", (["daemon"], ["no-such-user"])),
    ],
)
def test_the_users_of_docker(monkeypatch, users, sudo, expected):
    monkeypatch.setenv("SUDO_USER", sudo)
    facts = docker_engine.describe({"users": users, "group": "no-such-group"}, nothing, lambda _name: None)
    assert (facts["users_missing"], facts["users_unknown"]) == expected
    assert facts["group_exists"] is False


def test_a_node_without_docker(monkeypatch):
    monkeypatch.delenv("SUDO_USER", raising=False)
    facts = docker_engine.describe({"markers": ["/no/such/file"]}, nothing, lambda _name: None)
    assert (facts["works"], facts["client_version"], facts["ours"]) == (False, "", False)
    assert facts["service"] == {"known": False, "active": False, "enabled": False, "drop_ins": []}


def test_a_node_with_docker(tmp_path):
    answer = {"docker": '{"Client": {"Version": "28.5.1"}, "Server": {"Version": "28.5.0"}}'}
    answer["systemctl"] = "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\nDropInPaths=/a.conf /b.conf\n"
    marker = tmp_path / "docker.sources"
    marker.write_text("# Managed by Ansible (gpunode.llm, role docker).")
    request = {"users": [], "markers": [str(marker)], "config_path": str(tmp_path / "none"), "config": {"debug": True}}
    here = docker_engine.describe(request, lambda command: (0, answer.get(command[0], ""), ""), lambda name: name)
    assert (here["works"], here["server_version"], here["ours"], here["config_settled"]) == (
        True,
        "28.5.0",
        True,
        False,
    )
    assert here["service"] == {"known": True, "active": True, "enabled": True, "drop_ins": ["/a.conf", "/b.conf"]}


SERVER = '{"Client": {"Version": "28.5.1", "Context": "%s"}, "Server": {"Version": "28.5.1"}}'
RUNS = "LoadState=loaded\nActiveState=active\n"
GONE = "LoadState=not-found\nActiveState=inactive\n"
DEAD = "LoadState=loaded\nActiveState=failed\n"


@pytest.mark.parametrize(
    ("units", "context", "host", "info", "message"),
    [
        ([RUNS, GONE], "default", "", None, ""),
        ([RUNS, GONE], "default", "unix:///var/run/docker.sock", None, ""),
        ([RUNS, GONE], "mine", "", "[]", ""),  # a context that names the node's own socket
        ([GONE, RUNS], "default", "", '["name=apparmor"]', "comes from snap"),
        ([GONE, GONE], "default", "", '["name=seccomp","name=rootless"]', "is rootless"),
        ([RUNS, GONE], "rootless", "", '["name=rootless"]', "is rootless and belongs to one user (unix:///run/user/7"),
        ([RUNS, GONE], "default", "tcp://build:2375", "[]", "(tcp://build:2375)"),
        ([GONE, GONE], "default", "", "[]", "answers without docker.service"),
        ([DEAD, GONE], "default", "", "[]", "answers without docker.service"),
    ],
)
def test_a_docker_that_is_not_docker_services_is_named(monkeypatch, units, context, host, info, message):
    """Where all is as it should be, Docker is not asked a second time."""
    monkeypatch.setenv("DOCKER_HOST", host)
    sockets = {"mine": "unix:///var/run/docker.sock", "rootless": "unix:///run/user/7/docker.sock"}

    def run(command):
        if command[0] == "systemctl":
            assert command[2:4] == ["docker.service", "snap.docker.dockerd.service"]
            return 0, "\n".join(units), ""
        answers = {"version": SERVER % context, "context": sockets.get(context), "info": info}
        return 0, answers[command[1]], ""

    request = {"users": [], "markers": ["/no/such/file"]}
    here = docker_engine.describe(request, run, lambda name: None if name == "nvidia-ctk" else name)
    assert message in here["obstacle"]
    assert bool(here["obstacle"]) is bool(message)


def test_the_toolkit_that_is_there():
    here = docker_engine.describe(
        {"users": []},
        lambda command: (0, "NVIDIA Container Toolkit CLI version 1.19.1\n" if "ctk" in command[0] else "", ""),
        lambda name: name,
    )
    assert here["toolkit_version"] == "1.19.1"


WANTED = {"name": "docker", "uri": "https://a", "suite": "s", "fingerprint": "AA", "packages": ["docker-ce"]}
HERE = "docker-ce\tii \t5:29.1.0-1\n"


@pytest.mark.parametrize(
    ("here", "more", "settled"),
    [
        (HERE, {}, True),
        (HERE, {"version": "5:29"}, True),
        (HERE, {"version": "5:28"}, False),
        (HERE, {"suite": "t"}, False),
        (HERE, {"fingerprint": "BB"}, False),
        ("", {}, False),
        (HERE + "docker.io\tii \t1\n", {"conflicts": ["docker.io"]}, False),
    ],
)
def test_whether_apt_has_anything_to_do(monkeypatch, tmp_path, here, more, settled):
    monkeypatch.setattr(packages_apt, "SOURCES", str(tmp_path))
    monkeypatch.setattr(packages_apt, "KEYRINGS", str(tmp_path))
    source, key = packages_apt.paths("docker")
    text, _diff = packages_apt.source_change(WANTED)
    with open(source, "wb") as stream:
        stream.write(text)
    with open(key, "w", encoding="utf-8") as stream:
        stream.write("AA")

    def checked(data, fingerprint, _origin):
        if data.decode() != fingerprint:
            raise ValueError("another key")
        return data

    monkeypatch.setattr(packages_apt.packages_repository.packages_key, "checked", checked)
    request = {"markers": ["/no/such/file"], "apt": {**WANTED, **more}}
    facts = docker_engine.describe(
        request, lambda command: (0, here if "dpkg" in command[0] else "", ""), lambda _name: None
    )
    assert facts["packages_settled"] is settled


def test_another_source_with_another_key_is_not_settled(monkeypatch, tmp_path):
    monkeypatch.setattr(packages_apt, "SOURCES", str(tmp_path))
    (tmp_path / "other.list").write_text("deb https://a s stable\n")
    assert packages_apt.settled(WANTED, lambda _command: (0, HERE, "")) is False
