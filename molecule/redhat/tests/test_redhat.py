# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Repositories, versions, holds and signatures, asked of dnf and rpm."""

from __future__ import annotations

import pytest
from scenario import CHECKOUT, run_play

CONVERGE = str(CHECKOUT / "molecule/redhat/converge.yml")
REPOSITORIES = {"docker-ce-stable": "docker-ce", "nvidia-container-toolkit": "nvidia-container-toolkit"}
# Nothing that dnf learnt before is of help.
FRESH = "rm -rf /tmp/dnf && dnf -q -y --setopt=cachedir=/tmp/dnf --setopt=*.skip_if_unavailable=0"


def versions(host, *names: str) -> list[str]:
    return host.run(f"rpm -q --qf '%{{VERSION}}-%{{RELEASE}}\\n' {' '.join(names)}").stdout.split()


def test_the_facts_are_those_of_setup() -> None:
    result = run_play(str(CHECKOUT / "molecule/shared/facts.yml"))
    assert result.status == 0, result.text[-3000:]


def test_docker_is_the_newest_of_the_release_asked_for(host) -> None:
    """29.8 is neither 29.7.2 nor 29.80.0."""
    assert versions(host, "docker-ce", "docker-ce-cli") == ["29.8.1-1.el9"] * 2
    assert versions(host, "containerd.io", "docker-buildx-plugin", "docker-compose-plugin") == ["2.1.5-1.el9"] * 3


def test_toolkit_is_pinned(host) -> None:
    names = ["nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container1"]
    assert versions(host, *names) == ["1.20.0-1"] * 3


DRIVER = ("nvidia-driver-cuda", "kmod-nvidia-open-dkms", "nvidia-persistenced")


def test_the_driver_is_the_newest_of_its_stream_and_loaded(host) -> None:
    """595 has a stream of its own, which dnf does not see."""
    assert versions(host, *DRIVER) == ["580.178.04-1.el9"] * 3
    assert "Driver Version: 580.178.04" in host.run("nvidia-smi").stdout
    assert host.service("nvidia-persistenced").is_running


def test_the_driver_stays_at_an_upgrade_and_moves_when_asked(host) -> None:
    older = run_play(CONVERGE, "-e", "nvidia_driver_version=580.173.02")
    assert older.status == 0, older.text
    upgrade = host.run("dnf -y upgrade")
    assert upgrade.rc == 0, upgrade.stderr
    assert versions(host, *DRIVER) == ["580.173.02-1.el9"] * 3
    assert "Driver Version: 580.173.02" in host.run("nvidia-smi").stdout
    back = run_play(CONVERGE, "-e", "nvidia_driver_version=580.178.04")
    assert (back.status, versions(host, *DRIVER)) == (0, ["580.178.04-1.el9"] * 3), back.text


def test_what_was_in_the_way_is_gone(host) -> None:
    assert host.run("rpm -q podman-docker").rc == 1


def test_service_runs_and_starts_with_the_node(host) -> None:
    assert host.service("docker").is_running
    assert host.service("docker").is_enabled
    assert "docker" in host.user("lab").groups


@pytest.mark.parametrize("repository", REPOSITORIES)
def test_dnf_takes_the_repository(host, repository: str) -> None:
    result = host.run(f"{FRESH} --repo={repository} makecache")
    assert result.rc == 0, result.stderr


def test_dnf_refuses_strangers_packages(host) -> None:
    """Docker's packages, signed with another key: dnf has only the one that the role put there."""
    source = "--repofrompath=stranger,file:///srv/rpm/stranger/9/$(uname -m)/stable --repo=stranger"
    key = "--setopt=stranger.gpgcheck=1 --setopt=stranger.gpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-docker-ce"
    result = host.run(f"{FRESH} {source} {key} --installroot=/tmp/root --releasever=9 install docker-ce-cli")
    assert result.rc != 0
    assert "GPG check FAILED" in result.stderr, result.stderr


def test_dnf_refuses_metadata_that_changed(host) -> None:
    at = "/srv/rpm/nvidia/$(uname -m)/repodata/repomd.xml"
    host.run(f"cp {at} /root/right.xml && echo '<!-- -->' >>{at}")
    result = host.run(f"{FRESH} --repo=nvidia-container-toolkit makecache")
    host.run(f"cp /root/right.xml {at}")
    assert result.rc != 0
    assert "repomd.xml GPG signature verification error" in result.stderr, result.stderr


def test_play_refuses_a_strangers_key(host) -> None:
    """A mirror that serves another key: both fingerprints are said, and nothing is trusted."""
    key = "/etc/pki/rpm-gpg/RPM-GPG-KEY-docker-ce"
    host.run(f"mv {key} /root/right.key")
    result = run_play(CONVERGE, "-e", "docker_rpm_key_url=file:///srv/rpm/stranger/gpg")
    left = host.file(key).exists
    host.run(f"mv /root/right.key {key}")
    assert result.status != 0
    assert "was expected; it is not trusted" in result.words
    assert not left


def test_held_packages_stay_at_an_upgrade_and_move_when_asked(host) -> None:
    upgrade = host.run("dnf -y upgrade docker-ce")
    assert upgrade.rc == 0, upgrade.stderr
    assert versions(host, "docker-ce") == ["29.8.1-1.el9"]
    moved = run_play(CONVERGE, "-e", "docker_version=29.7")
    assert moved.status == 0, moved.text
    assert versions(host, "docker-ce", "docker-ce-cli") == ["29.7.2-1.el9"] * 2
    back = run_play(CONVERGE)
    assert (back.status, versions(host, "docker-ce")) == (0, ["29.8.1-1.el9"]), back.text


def test_same_again_changes_nothing(host) -> None:
    again = run_play(CONVERGE)
    assert (again.status, again.changed) == (0, 0), again.text


def test_a_toolkit_from_elsewhere_stays(host) -> None:
    """NVIDIA's own instructions write a file of the same name, without this collection's words."""
    path = "/etc/yum.repos.d/nvidia-container-toolkit.repo"
    theirs = "[nvidia-container-toolkit]\nname=theirs\nbaseurl=https://nvidia.example.net/$basearch\n"
    host.run(f"cp {path} /root/ours.repo && touch /usr/bin/nvidia-ctk")
    host.run(f"printf %s '{theirs}' >{path}")
    result = run_play(CONVERGE, "-e", "nvidia_container_toolkit_version=1.20.1-1")
    left = host.file(path).content_string
    host.run(f"mv /root/ours.repo {path} && rm /usr/bin/nvidia-ctk")
    assert (result.status, result.changed, left) == (0, 0, theirs), result.text


def test_the_client_has_a_python_that_dnf_brought(host) -> None:
    """The system's own is 3.9, which the client does not run on."""
    assert versions(host, "python3.11", "python3-packaging") == ["1.0-1.el9"] * 2
    result = host.run("/opt/huggingface-hub/bin/python -c 'import sys, huggingface_hub; print(sys._base_executable)'")
    assert (result.rc, result.stdout.strip()) == (0, "/usr/bin/python3.11"), result.stderr


def test_the_weights_are_here(host) -> None:
    snapshots = host.file("/var/lib/huggingface/hub/models--gpunode--tiny-llama/snapshots")
    (commit,) = snapshots.listdir()
    assert host.file(f"{snapshots.path}/{commit}/model.safetensors").size > 1_000_000


def test_rsync_comes_from_dnf_where_it_is_wanted(host) -> None:
    result = run_play(str(CHECKOUT / "molecule/redhat/seed.yml"))
    assert result.status == 0, result.text
    assert versions(host, "rsync") == ["1.0-1.el9"]


def test_teardown_takes_what_the_roles_brought(host) -> None:
    """And not the system's Python, which others may use."""
    result = run_play("playbooks/teardown.yml", "-e", "level=packages")
    assert result.status == 0, result.text
    left = host.run(f"rpm -q docker-ce docker-ce-cli nvidia-container-toolkit {' '.join(DRIVER)}").stdout
    assert left.count("is not installed") == 6, left
    assert host.file("/etc/yum.repos.d").listdir() == ["appstream.repo"]
    assert host.file("/etc/pki/rpm-gpg").listdir() == []
    assert not host.file("/opt/huggingface-hub").exists
    assert host.run("rpm -q python3.11").rc == 0
    assert run_play("playbooks/teardown.yml", "-e", "level=packages").changed == 0
