# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A driver that came by the role: installed, loaded, held, changed under an engine, refused, and taken away."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from scenario import CHECKOUT, Play, docker, nodes, on_node, run_play, wait_until

VARS = ("-e", f"@{CHECKOUT}/molecule/driver/vars/node.yml")
STOPS = ("-e", "nvidia_driver_stop_engines=true")
NAMES = ("nvidia-driver-cuda", "nvidia-kernel-open-dkms", "nvidia-persistenced", "libnvidia-ml1")
FIRST, OTHER, THIRD = "580.178.04", "580.173.02", "580.126.09"


def site(*args: str) -> Play:
    return run_play("site.yml", *VARS, *args)


def driver(*args: str) -> Play:
    return run_play("playbooks/driver.yml", *VARS, *args)


def at(version: str) -> tuple[str, ...]:
    return ("-e", f"nvidia_driver_version={version}")


def loaded() -> str:
    return re.findall(r"\d+\.\d+\.\d+", on_node("cat /proc/driver/nvidia/version"))[0]


def installed(*names: str) -> set[str]:
    """The versions of these packages, all of which are there."""
    lines = on_node(f"dpkg-query -W -f '${{Version}}\\n' {' '.join(names or NAMES)}").splitlines()
    assert len(lines) == len(names or NAMES)
    return {line.removesuffix("-1") for line in lines}


def restarts() -> int:
    return int(docker("inspect", "-f", "{{.RestartCount}}", f"gpunode-lab-node-{nodes()[0]}"))


def serves() -> bool:
    return "gpunode/tiny-llama" in on_node("curl -s http://127.0.0.1:8000/v1/models", check=False)


def assert_all_is(version: str) -> None:
    """Packages, module and nvidia-smi are one version, and the engine serves with the libraries of that version."""
    assert installed() == {version}
    assert loaded() == version
    assert f"Driver Version: {version}" in on_node("nvidia-smi")
    assert on_node("systemctl is-active nvidia-persistenced") == "active"
    assert f"libcuda.so.{version}" in on_node("cat /run/cdi/nvidia.yaml")
    wait_until(serves)
    assert "GPU 0: NVIDIA H100" in on_node("docker exec vllm-a nvidia-smi -L")


def test_a_bare_node_got_its_driver_with_one_restart() -> None:
    """nouveau held the board until then."""
    assert_all_is(FIRST)
    assert restarts() == 1


def test_upgrades_leave_the_driver_alone() -> None:
    assert {*NAMES} - {"libnvidia-ml1"} <= set(on_node("apt-mark showhold").split())
    assert "nvidia" not in on_node("apt-get -s dist-upgrade")
    # A part that is not held has no other candidate, newer ones though there are.
    assert f"Candidate: {FIRST}-1" in on_node("apt-cache policy libnvidia-ml1")
    assert '"libnvidia-"' in on_node("apt-config dump | grep Unattended-Upgrade::Package-Blacklist")


def test_a_driver_under_an_engine_is_left_alone_without_consent() -> None:
    refused = site(*at(OTHER))
    assert refused.status == 2
    assert "vllm-a runs on the driver that is to be changed. nvidia_driver_stop_engines: true drains" in refused.words
    assert installed() == {FIRST}
    assert serves()


def test_it_is_changed_under_an_engine_with_consent_and_without_a_restart() -> None:
    before = restarts()
    done = site(*at(OTHER), *STOPS)
    assert done.status == 0, done.text
    assert_all_is(OTHER)
    assert restarts() == before


def test_what_moved_by_hand_is_found_and_loaded() -> None:
    specs = " ".join(f"{name}={THIRD}-1" for name in NAMES)
    on_node(f"apt-get install -qq -y --allow-downgrades --allow-change-held-packages {specs} 2>&1")
    assert "Driver/library version mismatch" in on_node("nvidia-smi", check=False)
    shown = driver("--check")
    assert f"The NVIDIA driver {THIRD} is installed, while {OTHER} is loaded: it will be loaded." in shown.words
    assert "vllm-a runs on the driver" in shown.words
    done = driver(*STOPS)
    assert done.status == 0, done.text
    assert_all_is(THIRD)


@contextmanager
def node_with(script: str, undo: str) -> Iterator[None]:
    on_node(script)
    try:
        yield
    finally:
        on_node(undo)


SWITCH = "/run/gpunode-lab/pci/0000:00:07.0"
WITH_SWITCH = f"mkdir {SWITCH} && cd {SWITCH} && echo 0x10de >vendor && echo 0x22a3 >device && echo 0x068000 >class"


def test_fabric_manager_comes_at_the_version_of_the_driver() -> None:
    # The next test has it too; a restart of the node makes boards anew.
    on_node(WITH_SWITCH)
    refused = driver(*at(FIRST), *STOPS)
    assert refused.status == 2
    assert f"do not have the version {FIRST} for all of the driver" in refused.words
    assert f"nvidia-fabricmanager or nvidia-fabricmanager-580 {OTHER}" in refused.words
    assert installed() == {THIRD}
    assert serves()
    done = driver()  # beside the driver that stays, and under the engine
    assert done.status == 0, done.text
    assert "which stays, comes what its boards need: nvidia-fabricmanager." in done.words
    assert installed(*NAMES, "nvidia-fabricmanager") == {THIRD}
    assert on_node("systemctl is-active nvidia-fabricmanager") == "active"
    assert serves()


def test_a_driver_in_use_needs_a_restart_and_that_consent() -> None:
    before = restarts()
    on_node("touch /run/gpunode-lab/in-use")
    stopped = driver(*at(OTHER), *STOPS, "-e", "nvidia_driver_reboot=false")
    assert stopped.status == 2
    assert "is in use. Restart the node and run this again, or set nvidia_driver_reboot: true" in stopped.words
    assert (loaded(), installed(), restarts()) == (THIRD, {OTHER}, before)
    done = driver(*STOPS)
    assert done.status == 0, done.text
    assert_all_is(OTHER)
    assert restarts() == before + 1


EFI = "/sys/firmware/efi/efivars"
ON = f"printf '\\006\\000\\000\\000\\001' >{EFI}/SecureBoot-8be4df61"
SECURE = f"mount -t tmpfs efi /sys/firmware && mkdir -p {EFI} && {ON}"


@pytest.mark.parametrize(
    ("script", "undo", "args", "sentence"),
    [
        (SECURE, "umount /sys/firmware", (), "Secure Boot is on, and it refuses modules that DKMS builds"),
        (
            ":",
            ":",
            ("-e", "nvidia_driver_modules=proprietary", "-e", "nvidia_driver_branch=620"),
            "has open modules alone",
        ),
        (
            "echo 0x2901 >/run/gpunode-lab/pci/0000:00:06.0/device",
            "echo 0x2330 >/run/gpunode-lab/pci/0000:00:06.0/device",
            ("-e", "nvidia_driver_modules=proprietary"),
            "with proprietary modules does not serve the GPU 10de:2901",
        ),
        (
            "echo 0x1db1 >/run/gpunode-lab/pci/0000:00:06.0/device",
            "echo 0x2330 >/run/gpunode-lab/pci/0000:00:06.0/device",
            ("-e", "nvidia_driver_branch=595"),
            "set nvidia_driver_branch to 580, the last one for it",
        ),
    ],
    ids=["secure-boot", "open-branch", "open-board", "old-board"],
)
def test_it_is_refused_before_anything_changes(script: str, undo: str, args: tuple[str, ...], sentence: str) -> None:
    with node_with(script, undo):
        refused = driver(*at(FIRST), *STOPS, *args)
    assert refused.status == 2
    assert sentence in refused.words
    assert installed() == {OTHER}
    wait_until(serves)


def test_a_teardown_takes_it_away() -> None:
    done = run_play("playbooks/teardown.yml", *VARS, "-e", "level=packages")
    assert done.status == 0, done.text
    left = on_node("dpkg-query -W -f '${Package} ${db:Status-Abbrev}\\n' '*nvidia*' | grep ' .i' || :", check=False)
    assert left == ""
    files = "/etc/apt/preferences.d /etc/apt/apt.conf.d /etc/apt/sources.list.d /etc/apt/keyrings /etc/modprobe.d"
    assert on_node(f"ls {files} | grep -e nvidia -e nouveau || :") == ""
