# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What came with the node stays, and works; what the role owns replaces it only when asked."""

from __future__ import annotations

import json

from scenario import CHECKOUT, run_play

CONVERGE = str(CHECKOUT / "molecule/lambda/converge.yml")


def test_the_distributions_docker_stays(host) -> None:
    assert host.package("docker.io").is_installed
    assert not host.package("docker-ce").is_installed
    assert host.run("docker version").rc == 0


def test_the_toolkit_stays_at_its_version(host) -> None:
    assert host.package("nvidia-container-toolkit").version == "1.19.1-1"
    assert "1.19.1" in host.run("nvidia-ctk --version").stdout


def test_no_repository_was_added(host) -> None:
    """And none changed: two sources of one repository with two keys would stop apt."""
    listed = host.run("ls /etc/apt/sources.list.d").stdout.split()
    assert "nvidia-container-toolkit.list" in listed
    assert not {"docker.sources", "nvidia-container-toolkit.sources"} & set(listed)


def test_settings_are_merged_all_the_same(host) -> None:
    config = json.loads(host.file("/etc/docker/daemon.json").content_string)
    assert config["insecure-registries"] == ["registry.gpunode.test:5000"]
    assert config["features"]["cdi"] is True
    assert "nvidia" in config["runtimes"]
    assert "registry.gpunode.test:5000" in host.run("docker info").stdout


def test_gpus_have_names(host) -> None:
    assert "nvidia.com/gpu=0" in host.run("nvidia-ctk cdi list").stdout.split()


def test_the_user_may_talk_to_docker(host) -> None:
    assert host.run("sudo -u lab docker version").rc == 0


def test_both_are_replaced_when_asked(host) -> None:
    """The repository that is there is in the way of the role's own, and is named; without it the role's come."""
    options = ["-e", '{"docker_keep_existing": false, "nvidia_container_toolkit_keep_existing": false}']
    refused = run_play(CONVERGE, *options)
    assert refused.status != 0
    assert "/etc/apt/sources.list.d/nvidia-container-toolkit.list names the repository" in refused.words
    host.run("rm /etc/apt/sources.list.d/nvidia-container-toolkit.list")
    result = run_play(CONVERGE, *options)
    assert result.status == 0, result.text
    assert host.package("docker-ce").is_installed
    assert not host.package("docker.io").is_installed
    assert host.package("nvidia-container-toolkit").version == "1.20.0-1"
    assert run_play(CONVERGE).changed == 0
