# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether containers have the GPUs already: each thing that the role would do makes it false, alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.docker import (
    container_gpus,
    daemon as docker_daemon,
    engine as docker_engine,
)
from ansible_collections.gpunode.llm.plugins.module_utils.packages import apt as packages_apt

SPEC = "cdiVersion: 0.5.0\ndevices:\n- name: '0'\n"
UNIT = "[Unit]\nDescription=Describe the GPUs\n"
SETTINGS = {**container_gpus.CDI, **container_gpus.RUNTIME}


class Node:
    """A node on which all is settled."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.daemon, self.spec = folder / "daemon.json", folder / "nvidia.yaml"
        self.proof, self.due = folder / "proof.json", folder / "due"
        self.unit, self.enabled = folder / "gpunode-cdi.service", folder / "wants"
        for name, value in {
            "DAEMON": self.daemon,
            "SPEC": self.spec,
            "PROOF": self.proof,
            "ENABLED": self.enabled,
        }.items():
            monkeypatch.setattr(container_gpus, name, str(value))
        monkeypatch.setattr(docker_daemon, "DUE", str(self.due))
        monkeypatch.setattr(packages_apt, "kept", lambda _wanted: self.kept)
        monkeypatch.setattr(packages_apt, "settled", lambda _wanted, _run: self.packages)
        monkeypatch.setattr(packages_apt, "look", lambda _wanted, _run: {"held": self.held})
        self.kept, self.packages, self.held = False, True, []
        self.outputs = {"cdi generate": SPEC, "--version": "NVIDIA Container Toolkit CLI version 1.20.0\n"}
        self.listing = "GPU 0: NVIDIA H100 (UUID: GPU-1)\n"
        self.server, self.programs = "28.5.1", {"nvidia-ctk", "nvidia-container-runtime"}
        self.daemon.write_text(json.dumps(SETTINGS))
        self.spec.write_text(SPEC)
        self.unit.write_text(UNIT)
        self.enabled.mkdir()
        (self.enabled / "gpunode-cdi.service").symlink_to(self.unit)
        self.prove()
        self.request: dict[str, Any] = {
            "repository": {"manager": "apt", "options": {"packages": ["toolkit"]}},
            "hold": None,
            "require_cdi": True,
            "units": {str(self.unit): hashlib.sha256(UNIT.encode()).hexdigest()},
            "image": "i:1",
        }

    @property
    def engine(self) -> docker_engine.Engine:
        return docker_engine.Engine(server=self.server)

    def prove(self) -> None:
        self.proof.write_text(json.dumps(container_gpus.proof("i:1", self.engine, ["GPU-1"], str(self.spec))))

    def run(self, argv: Any) -> tuple[int, str, str]:
        if argv[0] == "nvidia-smi":
            return (0, self.listing, "") if self.listing else (9, "", "no devices")
        return 0, self.outputs[" ".join(argv[1:])], ""

    def which(self, name: str) -> str | None:
        return f"/usr/bin/{name}" if name in self.programs else None

    def settled(self) -> bool:
        return container_gpus.settled(self.request, self.server, self.run, self.which)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    return Node(tmp_path, monkeypatch)


def test_nothing_is_to_be_done(node: Node) -> None:
    assert node.settled()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda n: n.programs.discard("nvidia-ctk"), id="no toolkit"),
        pytest.param(lambda n: setattr(n, "packages", False), id="another source or version"),
        pytest.param(lambda n: n.request.update(hold=True), id="packages are to be held"),
        pytest.param(lambda n: (n.held.append("toolkit"), n.request.update(hold=False)), id="packages are held"),
        pytest.param(lambda n: n.unit.write_text(UNIT + "#"), id="another unit file"),
        pytest.param(lambda n: n.unit.unlink(), id="no unit file"),
        pytest.param(
            lambda n: (n.enabled / "gpunode-cdi.service").unlink(), id="the unit does not start with the node"
        ),
        pytest.param(lambda n: n.outputs.update({"--version": "version 1.13.0"}), id="too old a toolkit"),
        pytest.param(lambda n: setattr(n, "server", "24.0.1"), id="a Docker that knows no CDI"),
        pytest.param(lambda n: n.daemon.write_text("{}"), id="no runtime"),
        pytest.param(lambda n: n.daemon.write_text("{"), id="settings that nobody can read"),
        pytest.param(lambda n: n.due.write_text("restarted"), id="settings not taken up"),
        pytest.param(lambda n: n.outputs.update({"cdi generate": SPEC + "- name: '1'\n"}), id="another GPU"),
        pytest.param(lambda n: n.spec.unlink(), id="no specification"),
        pytest.param(lambda n: n.proof.unlink(), id="no proof since the start"),
        pytest.param(lambda n: n.request.update(image="i:2"), id="another image"),
        pytest.param(lambda n: setattr(n, "listing", n.listing.replace("GPU-1", "GPU-2")), id="another board"),
        pytest.param(lambda n: setattr(n, "listing", ""), id="no GPUs any more"),
    ],
)
def test_each_thing_to_do_counts(node: Node, change: Callable[[Node], object]) -> None:
    change(node)
    assert not node.settled()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(
            lambda n: (n.spec.write_text("devices:\n- name: '0'\ncdiVersion: 0.5.0\n"), n.prove()),
            id="in another order",
        ),
        pytest.param(lambda n: (setattr(n, "kept", True), setattr(n, "packages", False)), id="what it came with stays"),
        pytest.param(lambda n: (n.held.append("toolkit"), n.request.update(hold=True)), id="held as asked"),
        pytest.param(lambda n: (n.proof.unlink(), n.request.update(image="")), id="no proof is asked for"),
    ],
)
def test_what_is_as_good(node: Node, change: Callable[[Node], object]) -> None:
    change(node)
    assert node.settled()
