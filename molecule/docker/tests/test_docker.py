# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine, its settings and who may use it, as Docker and apt tell it."""

from __future__ import annotations

import json

from scenario import CHECKOUT, run_play

CONVERGE = str(CHECKOUT / "molecule/docker/converge.yml")


def converge(**settings: object):
    return run_play(CONVERGE, "-e", json.dumps(settings))


def test_the_release_asked_for_answers(host) -> None:
    told = host.run("docker version --format '{{.Server.Version}}'")
    assert told.rc == 0, told.stderr
    assert told.stdout.startswith("26.")


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
    told = host.run("openssl verify -CApath /etc/ssl/certs /root/site.pem")
    assert told.rc == 0, told.stderr


def test_the_user_and_nobody_else(host) -> None:
    assert host.run("sudo -u ada docker version").rc == 0
    assert host.run("sudo -u lab docker version").rc != 0


def test_it_starts_with_the_node(host) -> None:
    assert host.service("docker").is_enabled


def test_an_unknown_user_is_refused_before_anything_changes(host) -> None:
    told = converge(docker_users=["grace"], docker_daemon_config={"labels": ["rack=13"]})
    assert told.status != 0
    assert "docker_users names grace, and this node has no such user" in told.text
    assert "rack=12" in host.file("/etc/docker/daemon.json").content_string


def test_settings_that_docker_refuses_do_not_land(host) -> None:
    before = host.file("/etc/docker/daemon.json").content_string
    told = converge(docker_daemon_config={"storage-opts": 7})
    assert told.status != 0
    assert "Docker would not start with this /etc/docker/daemon.json" in told.text
    assert host.file("/etc/docker/daemon.json").content_string == before
    assert host.run("docker version").rc == 0


def test_a_file_that_would_lose_something_is_refused_and_a_link_stays_one(host) -> None:
    """A site keeps its file elsewhere."""
    path = "/etc/docker/daemon.json"
    host.run(f"mv {path} /etc/site.json && ln -s ../site.json {path} && cp -p /etc/site.json /root/whole.json")
    host.run("""sed -i 's/"labels"/"labels": [], "labels"/' /etc/site.json""")
    told = converge(docker_daemon_config={"labels": ["rack=13"]})
    assert told.status != 0
    assert f"{path} is not valid JSON, so nothing was written to it: labels stands in it twice" in told.text
    host.run("cp -p /root/whole.json /etc/site.json")
    told = converge(docker_daemon_config={"labels": ["rack=13"]})
    assert told.status == 0, told.text
    assert host.file(path).is_symlink
    assert json.loads(host.file("/etc/site.json").content_string)["labels"] == ["rack=13"]
    assert converge().status == 0


def test_a_docker_that_was_started_by_hand_is_refused(host) -> None:
    before = host.file("/etc/docker/daemon.json").content_string
    host.run("systemctl stop docker.service docker.socket && systemd-run --unit=by-hand /usr/bin/dockerd")
    assert host.run("for n in $(seq 60); do docker version && break; sleep 1; done").rc == 0
    told = converge(docker_daemon_config={"labels": ["rack=14"]})
    host.run("systemctl stop by-hand && systemctl start docker.service")
    assert told.status != 0
    assert "answers without docker.service" in told.text
    assert host.file("/etc/docker/daemon.json").content_string == before


def test_hold_and_proxy_go_when_asked(host) -> None:
    assert "docker-ce" in host.run("apt-mark showhold").stdout.split()
    told = converge(docker_hold=False, docker_proxy={})
    assert told.status == 0, told.text
    assert host.run("apt-mark showhold").stdout.split() == []
    assert not host.file("/etc/docker/gpunode-proxy.env").exists
    assert json.loads(host.run("docker info --format '{{json .}}'").stdout)["HttpsProxy"] == ""
