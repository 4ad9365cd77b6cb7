# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine, its settings and who may use it, as Docker and apt tell it."""

from __future__ import annotations

import json

import pytest
from scenario import CHECKOUT, run_play

CONVERGE = str(CHECKOUT / "molecule/docker/converge.yml")
MIRROR = "http://lab.gpunode.test/docker/linux/debian"


def converge(**settings: object):
    return run_play(CONVERGE, "-e", json.dumps(settings))


def test_the_release_asked_for_answers(host) -> None:
    result = host.run("docker version --format '{{.Server.Version}}'")
    assert result.rc == 0, result.stderr
    assert result.stdout.startswith("26.")


def test_only_the_packages_asked_for(host) -> None:
    assert host.package("docker-ce").is_installed
    assert not host.package("docker-buildx-plugin").is_installed
    assert not host.package("runc").is_installed


def test_settings_are_merged_and_taken_away(host) -> None:
    config = json.loads(host.file("/etc/docker/daemon.json").content_string)
    assert config == {"log-opts": {"max-size": "37m"}, "labels": ["rack=12"]}
    info = json.loads(host.run("docker info --format '{{json .}}'").stdout)
    assert info["Labels"] == ["rack=12"]
    assert info["Debug"] is False


def test_docker_pulls_through_the_proxy_and_hides_its_password(host) -> None:
    info = json.loads(host.run("docker info --format '{{json .}}'").stdout)
    assert "proxy.gpunode.test:3128" in info["HttpsProxy"]
    assert info["NoProxy"] == ".gpunode.test"
    file = host.file("/etc/docker/gpunode-proxy.env")
    assert (file.mode, file.user) == (0o600, "root")
    assert host.run("systemctl cat docker && systemctl show docker").stdout.count("s3cret") == 0


def test_the_site_authority_is_trusted(host) -> None:
    result = host.run("openssl verify -CApath /etc/ssl/certs /root/site.pem")
    assert result.rc == 0, result.stderr


def test_the_user_and_nobody_else(host) -> None:
    assert host.run("sudo -u ada docker version").rc == 0
    assert host.run("sudo -u lab docker version").rc != 0


def test_it_starts_with_the_node(host) -> None:
    assert host.service("docker").is_enabled


def test_an_unknown_user_is_refused_before_anything_changes(host) -> None:
    result = converge(docker_users=["grace"], docker_daemon_config={"labels": ["rack=13"]})
    assert result.status != 0
    assert "docker_users names grace, and this node has no such user" in result.words
    assert "rack=12" in host.file("/etc/docker/daemon.json").content_string


def test_settings_that_docker_refuses_do_not_land(host) -> None:
    before = host.file("/etc/docker/daemon.json").content_string
    result = converge(docker_daemon_config={"storage-opts": 7})
    assert result.status != 0
    assert "Docker would not start with this /etc/docker/daemon.json" in result.words
    assert host.file("/etc/docker/daemon.json").content_string == before
    assert host.run("docker version").rc == 0


def test_a_file_that_would_lose_something_is_refused_and_a_link_stays_one(host) -> None:
    """A site keeps its file elsewhere."""
    path = "/etc/docker/daemon.json"
    host.run(f"mv {path} /etc/site.json && ln -s ../site.json {path} && cp -p /etc/site.json /root/whole.json")
    host.run("""sed -i 's/"labels"/"labels": [], "labels"/' /etc/site.json""")
    result = converge(docker_daemon_config={"labels": ["rack=13"]})
    assert result.status != 0
    assert f"{path} is not valid JSON, so nothing was written to it: the key labels occurs twice" in result.words
    host.run("cp -p /root/whole.json /etc/site.json")
    result = converge(docker_daemon_config={"labels": ["rack=13"]})
    assert result.status == 0, result.text
    assert host.file(path).is_symlink
    assert json.loads(host.file("/etc/site.json").content_string)["labels"] == ["rack=13"]
    assert converge().status == 0


def test_a_docker_that_was_started_by_hand_is_refused(host) -> None:
    before = host.file("/etc/docker/daemon.json").content_string
    host.run("systemctl stop docker.service docker.socket && systemd-run --unit=by-hand /usr/bin/dockerd")
    assert host.run("for n in $(seq 60); do docker version && break; sleep 1; done").rc == 0
    result = converge(docker_daemon_config={"labels": ["rack=14"]})
    host.run("systemctl stop by-hand && systemctl start docker.service")
    assert result.status != 0
    assert "answers without docker.service" in result.words
    assert host.file("/etc/docker/daemon.json").content_string == before


NOWHERE = "http://lab.gpunode.test/nothing"
SOURCES = "/etc/apt/sources.list.d"


def updates(host) -> bool:
    """Whether apt works, for everybody."""
    return host.run("apt-get update --error-on=any").rc == 0


@pytest.mark.parametrize("how", [[], ["--check"]])
def test_a_source_that_apt_refuses_does_not_stay(host, how) -> None:
    before = host.file(f"{SOURCES}/docker.sources").content_string
    result = run_play(CONVERGE, *how, "-e", f"docker_apt_url={NOWHERE}", "-e", f"docker_apt_key_url={MIRROR}/gpg")
    assert result.status != 0
    assert f"apt does not take {NOWHERE} " in result.words
    assert host.file(f"{SOURCES}/docker.sources").content_string == before
    assert updates(host)


def test_an_older_entry_in_another_spelling_is_named_before_apt_stops(host) -> None:
    """Its source alone, by no key. The role's own file is to change, for the slash at the end of its address."""
    codename = host.run("sh -c '. /etc/os-release; echo $VERSION_CODENAME'").stdout.strip()
    before = host.file(f"{SOURCES}/docker.sources").content_string
    host.run(f"echo 'deb-src [trusted=yes] {MIRROR} {codename} stable' > {SOURCES}/docker-old.list")
    try:
        result = converge(docker_apt_url=f"{MIRROR}/", docker_apt_key_url=f"{MIRROR}/gpg")
    finally:
        host.run(f"rm {SOURCES}/docker-old.list")
    assert result.status != 0
    assert f"{SOURCES}/docker-old.list names the repository {MIRROR}/ {codename} as well" in result.words
    assert host.file(f"{SOURCES}/docker.sources").content_string == before
    assert updates(host)


def test_all_that_is_unavailable_is_refused_before_anything_changes(host) -> None:
    """Of a whole site.yml, in a check: two repositories and an image."""
    request = {
        "model": "tiny",
        "vllm_gpus": "1xH100",
        "docker_apt_url": NOWHERE,
        "nvidia_container_toolkit_apt_url": f"{NOWHERE}/deb",
        "vllm_image": "registry.gpunode.test:5000/vllm/nothing:v1",
    }
    result = run_play("site.yml", "--check", "-e", json.dumps(request))
    assert result.status != 0
    assert f"apt does not take {NOWHERE} " in result.words
    assert f"apt does not take {NOWHERE}/deb /" in result.words
    assert "registry.gpunode.test:5000 answers, but has no such image" in result.words
    assert result.changed == 0


def test_hold_and_proxy_go_when_asked(host) -> None:
    assert "docker-ce" in host.run("apt-mark showhold").stdout.split()
    result = converge(docker_hold=False, docker_proxy={})
    assert result.status == 0, result.text
    assert host.run("apt-mark showhold").stdout.split() == []
    assert not host.file("/etc/docker/gpunode-proxy.env").exists
    assert json.loads(host.run("docker info --format '{{json .}}'").stdout)["HttpsProxy"] == ""
