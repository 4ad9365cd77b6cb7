# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each level of the teardown in turn: what goes, what is still there, and what an operator has in any case.

The node serves the tiny model when this begins. An operator has a container, an image, keys in daemon.json, a member of
Docker's group, a model in the cache, and a unit whose name begins with vllm-.
"""

from __future__ import annotations

import json

import pytest
from scenario import Play, on_node, run_play

IMAGE = "registry.gpunode.test:5000/vllm/vllm-openai-cpu:v0.32.0"
HUB = "/var/lib/huggingface/hub"
#: What is ours, by the level that takes it away: a shell's test that is true while it is there.
OURS = {
    "unit": (
        "test -e /etc/systemd/system/vllm-tiny.service",
        "test -e /etc/vllm/tiny.yaml",
        "test -e /etc/vllm/tiny.env",
        "test -e /etc/vllm/tiny.json",
        "test -e /var/lib/gpunode/vllm/tiny",
        "test -e /usr/local/lib/gpunode/vllm-wait.py",
        "test -e /etc/systemd/system/gpunode-engines.service",
        "ls /etc/systemd/system/*.wants/gpunode-engines.service",
        "systemctl is-active --quiet vllm-tiny",
        "docker container inspect vllm-tiny >/dev/null 2>&1",
        "curl -fsS -m 5 http://127.0.0.1:8000/health",
    ),
    "image": (f"docker image inspect {IMAGE} >/dev/null 2>&1",),
    "weights": (f"test -e {HUB}/models--gpunode--tiny-llama",),
    "runtime": (
        "test -e /etc/huggingface/token",
        "test -e /opt/huggingface-hub",
        "test -e /etc/systemd/system/gpunode-cdi.service",
        "test -e /etc/apt/sources.list.d/nvidia-container-toolkit.sources",
        "test -e /etc/apt/keyrings/nvidia-container-toolkit.asc",
        "dpkg-query -W -f '${db:Status-Status}' nvidia-container-toolkit | grep -qx installed",
    ),
    "packages": (
        "test -e /etc/apt/sources.list.d/docker.sources",
        "test -e /etc/apt/keyrings/docker.asc",
        "dpkg-query -W -f '${db:Status-Status}' docker-ce | grep -qx installed",
        "docker version >/dev/null 2>&1",
    ),
}
LEVELS = list(OURS)
NOTES = "/var/lib/gpunode/brought.json"
THEIRS = (
    "systemctl is-active --quiet vllm-theirs",
    "test -e /etc/systemd/system/vllm-theirs.service",
    f"test -e {HUB}/models--theirs--model/snapshots/main/config.json",
    "id -nG ada | grep -qw docker",
    "id -nG lab | grep -qw docker",
)


def true(test: str) -> bool:
    return on_node(f"if {test}; then echo yes; else echo no; fi").splitlines()[-1] == "yes"


def teardown(level: str, *args: str) -> Play:
    result = run_play("playbooks/teardown.yml", "-e", f"level={level}", *args)
    assert result.status == 0, result.text[-3000:]
    return result


@pytest.fixture(scope="module", autouse=True)
def operator() -> None:
    """A container of an operator's own, from an image of his own."""
    on_node(
        "tar -P -ch /usr/bin/sleep $(ldd /usr/bin/sleep | grep -o '/[^ ]*') | docker import - theirs/sleep:1 >/dev/null"
        " && docker run -d --name theirs --restart=always theirs/sleep:1 /usr/bin/sleep infinity"
    )


def test_all_of_it_is_there_before() -> None:
    assert [test for tests in OURS.values() for test in tests if not true(test)] == []


def test_a_check_takes_nothing() -> None:
    result = teardown("packages", "--check", "--diff")
    assert result.changed > 0
    # The files of the hub's client alone are some three thousand.
    assert len(result.text.splitlines()) < 300
    assert "/opt/huggingface-hub" in result.text
    assert [test for tests in OURS.values() for test in tests if not true(test)] == []


def test_a_level_that_is_none_is_refused() -> None:
    result = run_play("playbooks/teardown.yml", "-e", "level=everything")
    assert result.status != 0
    assert "level must be one of unit, image, weights, runtime, packages" in result.words
    assert true(OURS["unit"][0])


@pytest.mark.parametrize("level", LEVELS[:-1])
def test_a_level_takes_its_own_and_those_before_it(level: str) -> None:
    """The service is gone after the first one, and what it ran and served is remembered for those that follow."""
    teardown(level)
    gone, left = LEVELS[: LEVELS.index(level) + 1], LEVELS[LEVELS.index(level) + 1 :]
    assert [test for name in gone for test in OURS[name] if true(test)] == []
    assert [test for name in left for test in OURS[name] if not true(test)] == []
    theirs = (*THEIRS, "docker ps --format '{{.Names}}' | grep -qx theirs")
    assert [test for test in theirs if not true(test)] == []
    assert teardown(level).changed == 0
    known = {"unit": (True, True), "image": (False, True)}.get(level, (False, False))
    notes = on_node(f"cat {NOTES}", check=False)
    assert (IMAGE in notes, "gpunode/tiny-llama" in notes) == known
    # What is left of the models may go by either way.
    pruned = run_play("playbooks/prune.yml", "--check", "-e", "huggingface_prune_unlisted=true")
    assert pruned.status == 0, pruned.text[-3000:]
    assert ("1 old revisions would be removed" in pruned.words) is known[1]


def test_unknown_images_and_models_cause_a_warning() -> None:
    """No service tells which images and models were its own, none is noted, and none is named."""
    assert "name them in teardown_images and teardown_models" in teardown("weights").text


def test_docker_stays_while_somebody_needs_it() -> None:
    result = teardown("packages")
    assert "Docker stays, since there are other containers on this node" in result.words
    assert [test for test in (*OURS["packages"], *THEIRS) if not true(test)] == []


def test_packages_go_and_what_docker_held_stays() -> None:
    """The operator's image, his keys, and the members of the group outlive the packages."""
    on_node("docker rm -f theirs")
    before = on_node("find /var/lib/docker/image -name '*.json' | sort")
    teardown("packages")
    assert [test for test in OURS["packages"] if true(test)] == []
    assert [test for test in THEIRS if not true(test)] == []
    config = json.loads(on_node("cat /etc/docker/daemon.json"))
    assert config["log-opts"] == {"max-size": "37m"}
    assert config["labels"] == ["rack=12"]
    assert before
    assert on_node("find /var/lib/docker/image -name '*.json' | sort") == before
    assert teardown("packages").changed == 0
