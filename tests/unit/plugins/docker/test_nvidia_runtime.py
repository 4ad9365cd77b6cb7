# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GPUs for Docker: what was in daemon.json is still in it, and what cannot be done is said before anything changes.

The whole module runs, with the lab's nvidia-ctk, which does to daemon.json what the real one does.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.gpunode.llm.plugins.module_utils.docker import daemon as docker_daemon
from ansible_collections.gpunode.llm.plugins.modules import nvidia_runtime

STAND_IN = Path(__file__).resolve().parents[3] / "lab" / "stand-ins" / "nvidia-ctk"
DOCKER = json.dumps({"Client": {"Version": "28.5.1"}, "Server": {"Version": "28.5.1"}})
RUNTIME = {"nvidia": {"path": "nvidia-container-runtime", "args": []}}


class Node:
    """A node with Docker, one GPU and the stand-in toolkit."""

    def __init__(self, folder: Path, monkeypatch, capsys) -> None:
        self.folder, self.capsys = folder, capsys
        self.daemon, self.spec = folder / "etc" / "daemon.json", folder / "cdi" / "nvidia.yaml"
        self.daemon.parent.mkdir()
        (folder / "bin").mkdir()
        self.program("docker", f"echo '{DOCKER}'")
        self.program("dockerd", "exit 0")
        self.program("nvidia-smi", "printf '<minor_number>0</minor_number>\\n<uuid>GPU-0</uuid>\\n'")
        self.toolkit("1.20.0")
        monkeypatch.setenv("PATH", f"{folder}/bin:/usr/bin:/bin")
        monkeypatch.setattr(docker_daemon, "DUE", str(folder / "run" / "due"))

    def program(self, name: str, script: str) -> Path:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def toolkit(self, version: str) -> None:
        text = STAND_IN.read_text().replace("@VERSION@", version).split("\n", 1)[1]
        (self.folder / "bin" / "nvidia-ctk").write_text(f"#!{sys.executable}\n{text}")
        (self.folder / "bin" / "nvidia-ctk").chmod(0o755)

    def run(self, **more) -> dict:
        arguments = {"path": str(self.daemon), "spec": str(self.spec), **more}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            nvidia_runtime.main()
        return json.loads(self.capsys.readouterr().out)

    @property
    def config(self) -> dict:
        return json.loads(self.daemon.read_text())


@pytest.fixture
def node(tmp_path, monkeypatch, capsys) -> Node:
    return Node(tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize(
    "before",
    [
        {"features": {"containerd-snapshotter": True}},
        {"features": {"buildkit": False, "cdi": False}, "log-opts": {"max-size": "37m"}},
        {"runtimes": {"kata": {"runtimeType": "io.containerd.kata.v2"}}, "labels": ["rack=12", "<&>"]},
        {"max-concurrent-downloads": 9007199254740993},
        {"features": None, "runtimes": None},
    ],
)
def test_what_was_there_is_there_after(node, before) -> None:
    node.daemon.write_text(json.dumps(before))
    assert node.run()["changed"] is True
    features = {**(before.get("features") or {}), "cdi": True}
    runtimes = {**(before.get("runtimes") or {}), **RUNTIME}
    assert node.config == {**before, "features": features, "runtimes": runtimes}
    # The settings of before come first, in their order.
    assert list(node.config)[: len(before)] == list(before)
    assert node.run()["changed"] is False


def test_a_node_without_settings_gets_them(node) -> None:
    result = node.run()
    assert (result["settings"], node.config) == (
        ["features", "runtimes"],
        {"features": {"cdi": True}, "runtimes": RUNTIME},
    )
    (daemon, spec) = result["diff"]
    assert daemon["after"] == node.daemon.read_text()
    # A node with eight GPUs has some 500 lines of it, and none is anybody's choice.
    assert (spec["before"], spec["after"].count("\n")) == ("", 1)
    assert spec["after"].startswith("(the output of nvidia-ctk cdi generate of ")


def test_a_runtime_of_somebody_else_stays_where_it_works(node) -> None:
    """NVIDIA's older instructions name a whole path; a GPU operator has its own."""
    own = {"path": str(node.program("own-runtime", "exit 0")), "runtimeArgs": ["--debug"]}
    node.daemon.write_text(json.dumps({"runtimes": {"nvidia": own}}))
    node.run()
    assert node.config["runtimes"] == {"nvidia": own}
    node.daemon.write_text(json.dumps({"runtimes": {"nvidia": {**own, "path": "/no/such/runtime"}}}))
    node.run()
    assert node.config["runtimes"]["nvidia"]["path"] == "nvidia-container-runtime"


@pytest.mark.parametrize(
    "own",
    [
        {"runtimeType": "io.containerd.runc.v2", "options": {"BinaryName": "/usr/bin/nvidia-container-runtime"}},
        {"RuntimeType": "io.containerd.runc.v2"},
        {"Path": "/bin/sh"},
    ],
)
def test_a_runtime_by_its_type_gets_no_path(node, own) -> None:
    """Docker does not start with both, and reads the names of a runtime in any case."""
    node.daemon.write_text(json.dumps({"runtimes": {"nvidia": own}}))
    node.run()
    assert node.config == {"runtimes": {"nvidia": own}, "features": {"cdi": True}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"runtimes": []}', "runtimes is a list"),
        (b'{"features": "cdi"}', "features is a text"),
        (b'{"features": {}, "features": {"cdi": true}}', "features occurs twice"),
        ('{"labels": ["büro"]}'.encode("latin-1"), "is not UTF-8 text"),
        (b'{\n  "debug": true,,\n}', "line 2"),
    ],
)
def test_a_file_that_cannot_be_merged_is_named_and_nothing_changes(node, text, message) -> None:
    node.daemon.write_bytes(text)
    result = node.run()
    assert result["failed"] is True
    assert str(node.daemon) in result["msg"]
    assert message in result["msg"]
    assert (node.daemon.read_bytes(), node.spec.exists()) == (text, False)


def test_a_link_stays_one(node) -> None:
    """A site keeps its daemon.json elsewhere, under its own configuration management."""
    real = node.folder / "site" / "docker.json"
    real.parent.mkdir()
    real.write_text('{"debug": true}')
    real.chmod(0o640)
    node.daemon.symlink_to("../site/docker.json")
    node.run()
    assert node.daemon.is_symlink()
    assert (json.loads(real.read_text())["debug"], real.stat().st_mode & 0o777) == (True, 0o640)


@pytest.mark.parametrize(
    ("version", "refused"), [("1.13.5", True), ("1.14.3", True), ("1.14.4", False), ("odd", False)]
)
def test_a_toolkit_that_is_too_old_is_named_before_anything_changes(node, version, refused) -> None:
    node.toolkit(version)
    result = node.run()
    assert result.get("failed", False) is refused
    if refused:
        assert f"NVIDIA Container Toolkit {version}" in result["msg"]
        assert "1.14.4" in result["msg"]
        assert "nvidia_container_toolkit_keep_existing: false" in result["msg"]
    assert (node.daemon.exists(), node.spec.exists()) == (not refused, not refused)


def test_a_docker_that_would_not_start_with_it_keeps_its_file(node) -> None:
    node.daemon.write_text('{"nonsense": 1}')
    node.program("dockerd", 'echo "unknown keys: nonsense" >&2; exit 1')
    result = node.run()
    assert "unknown keys: nonsense" in result["msg"]
    assert node.daemon.read_text() == '{"nonsense": 1}'
