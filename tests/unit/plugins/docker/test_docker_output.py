# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Docker and the NVIDIA tools say, understood."""

from __future__ import annotations

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.docker import engine as docker_engine
from ansible_collections.gpunode.llm.plugins.module_utils.programs import diagnosis

ANSWERS = {
    '{"Client":{"Version":"29.8.1"},"Server":{"Version":"29.8.1"}}': ("29.8.1", "29.8.1"),
    '{"Client":{"Version":"20.10.24+dfsg1"},"Server":null}': ("20.10.24+dfsg1", ""),
    '{"Client":{"Version":"20.10.24+dfsg1"}}': ("20.10.24+dfsg1", ""),
    "": ("", ""),
    "null": ("", ""),
    "Cannot connect to the Docker daemon": ("", ""),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_parse_version(answer: str) -> None:
    engine = docker_engine.parse_version(answer)
    assert (engine.client, engine.server) == ANSWERS[answer]
    assert engine.works == bool(engine.server)


@pytest.mark.parametrize(
    ("server", "knows", "on"),
    [
        ("", False, False),
        ("20.10.24+dfsg1", False, False),
        ("24.0.9", False, False),
        ("25.0.0", True, False),
        ("26.1.5+dfsg1", True, False),
        ("28.2.2", True, False),
        ("28.3.0", True, True),
        ("29.8.1", True, True),
    ],
)
def test_cdi(server: str, knows: bool, on: bool) -> None:
    engine = docker_engine.Engine(server=server)
    assert (engine.knows_cdi, engine.cdi_is_on) == (knows, on)


def test_docker_info_is_read() -> None:
    answer = (
        '{"Client":{"Version":"28.5.1","Context":"mine"},"Server":{"Version":"28.5.1","Platform":{"Name":"Docker Engine'
        ' - Community"},"Components":[{"Name":"Engine"},{"Name":"rootlesskit"}]}}'
    )
    engine = docker_engine.parse_version(answer)
    assert (engine.context, engine.platform) == ("mine", "Docker Engine - Community")
    assert engine.components == ("Engine", "rootlesskit")


ANY = {"client": "28.5.1", "server": "28.5.1"}


@pytest.mark.parametrize(
    ("docker", "roots", "expected"),
    [
        ({}, {}, ""),
        ({}, {"service": False}, ""),  # a node without Docker
        (ANY, {}, ""),
        ({"client": "28.5.1"}, {"service": False}, ""),  # one that is down
        (ANY, {"snap": True}, ""),  # a snap beside a Docker that docker.service runs
        (ANY, {"snap": True, "service": False}, "comes from snap"),
        ({}, {"snap": True, "service": False}, "`snap remove docker`"),
        (ANY, {"rootless": True, "elsewhere": "unix:///run/user/7/docker.sock"}, "unix:///run/user/7/docker.sock"),
        ({**ANY, "components": ("Engine", "rootlesskit")}, {"service": False}, "is rootless"),
        ({**ANY, "platform": "Docker Desktop 4.49.0 (208700)"}, {"service": False}, "Docker Desktop"),
        (ANY, {"elsewhere": "tcp://build:2375"}, "somewhere else for root's docker command (tcp://build:2375)"),
        ({}, {"elsewhere": "tcp://build:2375"}, "DOCKER_HOST"),
        ({**ANY, "components": ("Podman Engine",)}, {"service": False}, "remove podman-docker"),
        (ANY, {"service": False}, "started by hand"),
    ],
)
def test_a_docker_on_which_nothing_can_run(docker: dict, roots: dict, expected: str) -> None:
    message = docker_engine.obstacle(docker_engine.Engine(**docker), docker_engine.Roots(**roots))
    assert expected in message
    assert bool(message) is bool(expected)
    # One sentence, whole.
    assert message.count(". ") == 0
    assert "{" not in message


@pytest.mark.parametrize(
    ("answer", "version", "old"),
    [
        ("NVIDIA Container Toolkit CLI version 1.20.0\ncommit: 0123456\n", "1.20.0", False),
        ("NVIDIA Container Toolkit CLI version 1.14.3\n", "1.14.3", True),
        ("NVIDIA Container Toolkit CLI version 1.14.4\n", "1.14.4", False),
        ("NVIDIA Container Toolkit CLI version 1.13.5-rc.1\n", "1.13.5", True),
        ("NVIDIA Container Toolkit CLI version unknown\n", "", False),
        ("", "", False),
    ],
)
def test_a_toolkit_and_whether_it_is_too_old(answer: str, version: str, old: bool) -> None:
    assert docker_engine.toolkit_version(answer) == version
    assert bool(docker_engine.toolkit_trouble(version)) is old


def test_gpu_uuids() -> None:
    listing = (
        "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-00000001-0000-0000-0000-000000000001)\n"
        "  MIG 1g.10gb     Device  0: (UUID: MIG-00000003-0000-0000-0000-000000000001)\n"
        "GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-00000002-0000-0000-0000-000000000002)\n"
    )
    assert docker_engine.gpu_uuids(listing) == [
        "GPU-00000001-0000-0000-0000-000000000001",
        "GPU-00000002-0000-0000-0000-000000000002",
    ]
    assert docker_engine.gpu_uuids("No devices found.\n") == []


SAID = {
    "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=all": "nvidia-ctk cdi list",
    "CDI device injection failed: failed to stat /dev/nvidia7": "systemctl restart gpunode-cdi",
    'could not select device driver "cdi" with capabilities: []': "features.cdi",
    "docker: Error response from daemon: unknown or invalid runtime name: nvidia.": "not reloaded",
    "docker: Error response from daemon: No such image: a:1": "pull it first",
    'exec: "nvidia-smi": executable file not found in $PATH': "not put into the container",
    "Failed to initialize NVML: Driver/library version mismatch": "do not match the driver",
    "a great\n   surprise": "it did not run",
}


@pytest.mark.parametrize("expected", SAID)
def test_proof_failure(expected: str) -> None:
    message = docker_engine.proof_failure(expected)
    assert SAID[expected] in message
    assert " ".join(expected.split()) in message
    assert message[-1] == "."


def test_the_proof_has_no_table_of_its_own() -> None:
    """What a start says of the GPUs, the proof says of them as well."""
    message = "failed to fulfil mount request: open /usr/lib/libcuda.so.580.1: no such file or directory"
    found = diagnosis.diagnose([message])
    assert str(found) in docker_engine.proof_failure(message)
