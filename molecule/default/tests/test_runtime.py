# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker and the NVIDIA toolkit: from signed repositories, beside what was there, with GPUs in containers."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

MIRROR = "http://lab.gpunode.test"
REPOSITORIES = {
    "docker": (f"{MIRROR}/swapped/docker/linux/debian", "gpg"),
    "nvidia-container-toolkit": (f"{MIRROR}/swapped/nvidia/libnvidia-container", "gpgkey"),
}
PACKAGES = ("docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin", "docker-compose-plugin")
# One source alone, with lists of its own: what the node learnt before is no help.
ONE_SOURCE = (
    "rm -rf /tmp/lists && mkdir -p /tmp/lists/partial && apt-get update --error-on=any -o Dir::State::Lists=/tmp/lists "
    "-o Dir::Etc::SourceParts=- -o APT::Sandbox::User=root -o Dir::Etc::SourceList=/etc/apt/sources.list.d/"
)


@pytest.fixture
def swapped(host, request) -> Iterator[str]:
    """The name of a repository whose trusted key a stranger's has taken the place of; the right one comes back."""
    name = request.param
    key = f"/etc/apt/keyrings/{name}.asc"
    url, file = REPOSITORIES[name]
    assert host.run(f"cp -p {key} /root/right.asc && curl -fsS {url}/{file} -o {key}").rc == 0
    yield name
    host.run(f"mv /root/right.asc {key}")


@pytest.mark.parametrize("package", PACKAGES)
def test_docker_came_from_the_repository(host, package: str) -> None:
    policy = host.run(f"apt-cache policy {package}").stdout
    installed = policy.split("***")[1].splitlines()
    assert f"{MIRROR}/docker/linux/debian" in installed[1]


@pytest.mark.parametrize(
    "package", ("nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container1")
)
def test_toolkit_is_pinned(host, package: str) -> None:
    # A newer one and an older one are there too.
    assert host.package(package).version == "1.20.0-1"


@pytest.mark.parametrize("name", sorted(REPOSITORIES))
def test_apt_trusts_the_right_key(host, name: str) -> None:
    result = host.run(f"{ONE_SOURCE}{name}.sources")
    assert result.rc == 0, result.stderr


@pytest.mark.parametrize("swapped", sorted(REPOSITORIES), indirect=True)
def test_apt_refuses_a_swapped_key(host, swapped: str) -> None:
    result = host.run(f"{ONE_SOURCE}{swapped}.sources")
    assert result.rc != 0
    # gpgv's words and sqv's, which Debian 13 has in its place.
    assert "NO_PUBKEY" in result.stderr or "Missing key" in result.stderr, result.stderr


def test_play_refuses_a_strangers_key(host, play) -> None:
    """A mirror that serves another key: both fingerprints are said, and nothing is trusted."""
    host.run("mv /etc/apt/keyrings/docker.asc /root/right.asc")
    result = play("-e", "model=tiny", "-e", f"docker_apt_key_url={REPOSITORIES['docker'][0]}/gpg")
    left = host.file("/etc/apt/keyrings/docker.asc").exists
    host.run("mv /root/right.asc /etc/apt/keyrings/docker.asc")
    assert result.status != 0
    assert "was expected; it is not trusted" in result.words
    assert not left


def test_user_may_talk_to_docker(host) -> None:
    assert "docker" in host.user("lab").groups
    assert host.run("sudo -u lab docker version").rc == 0


def test_existing_settings_of_daemon_json_are_kept(host) -> None:
    config = json.loads(host.file("/etc/docker/daemon.json").content_string)
    assert config["log-opts"] == {"max-size": "37m"}
    assert config["labels"] == ["rack=12"]
    assert config["runtimes"] == {"nvidia": {"args": [], "path": "nvidia-container-runtime"}}
    assert config["features"] == {"buildkit": True, "cdi": True}
    assert host.run("dockerd --validate").rc == 0


def test_docker_took_the_settings(host) -> None:
    info = json.loads(host.run("docker info --format '{{json .}}'").stdout)
    assert "nvidia" in info["Runtimes"]
    assert "rack=12" in info["Labels"]


def test_gpus_are_described_before_docker_starts(host) -> None:
    assert host.service("docker").is_enabled
    assert host.service("gpunode-cdi").is_enabled
    assert "nvidia.com/gpu=0" in host.run("nvidia-ctk cdi list").stdout.split()


def test_container_sees_the_gpus_after_a_daemon_reload(host) -> None:
    image = host.run("docker images --format '{{.ID}}'").stdout.split()[0]
    started = host.run(f"docker run -d --rm --device=nvidia.com/gpu=all --entrypoint=sleep {image} infinity")
    assert started.rc == 0, started.stderr
    box = started.stdout.strip()
    host.run("systemctl daemon-reload")
    inside = host.run(f"docker exec {box} nvidia-smi -L")
    host.run(f"docker kill {box}")
    assert inside.stdout == host.run("nvidia-smi -L").stdout, inside.stderr
    assert "GPU 0: " in inside.stdout
