# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node tells of its driver, from files and programs; and how another one is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.node import driver
from ansible_collections.gpunode.llm.plugins.plugin_utils.node.driver import proof_of
from ansible_collections.gpunode.llm.tests.unit.plugins.node.driving import board, node


class Programs:
    """Answers by the beginning of the command; anything else fails, as a program that is not there."""

    def __init__(self, answers: dict[str, tuple[int, str, str] | str]) -> None:
        self.answers = answers
        self.calls: list[str] = []

    def run(self, argv: Sequence[str]) -> tuple[int, str, str]:
        line = " ".join(argv)
        self.calls.append(line)
        for start, answer in self.answers.items():
            if line.startswith(start):
                return (0, answer, "") if isinstance(answer, str) else answer
        return 127, "", f"{argv[0]}: not found"

    def which(self, name: str) -> str | None:
        return name if any(start.split()[0] == name for start in self.answers) else None


@pytest.mark.parametrize(
    ("text", "version", "is_open"),
    [
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build  (dvs-builder)\n",
            "580.159.04",
            True,
        ),
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.309.01  Tue Mar  3 10:00:00 UTC 2026\n",
            "535.309.01",
            False,
        ),
        ("", "", False),
    ],
)
def test_the_module_that_runs(text: str, version: str, is_open: bool) -> None:
    assert driver.loaded(text) == {"version": version, "open": is_open}


def test_the_module_on_the_disk() -> None:
    said = "filename:       /lib/modules/6.8/nvidia.ko\nversion:        580.159.04\nlicense:        Dual MIT/GPL\n"
    assert driver.on_disk(Programs({"modinfo": said}).run) == {"version": "580.159.04", "open": True}
    said = "version:        535.309.01\nlicense:        NVIDIA\n"
    assert driver.on_disk(Programs({"modinfo": said}).run) == {"version": "535.309.01", "open": False}
    assert driver.on_disk(Programs({}).run) == {"version": "", "open": False}


def test_packages_of_dpkg() -> None:
    listed = "nvidia-driver-cuda\thi \t580.178.04-1\nlinux-image-amd64\tii \t6.1.148-1\nnvidia-smi\trc \t535.1-1\n"
    programs = Programs({"dpkg-query": (1, listed, "no packages found matching nvlsm")})
    assert driver.packages(programs.run, apt=True) == {
        "packages": {"linux-image-amd64": "6.1.148-1", "nvidia-driver-cuda": "580.178.04-1"},
        "held": ["nvidia-driver-cuda"],
    }


def test_packages_of_rpm() -> None:
    programs = Programs({"rpm -qa": "nvidia-driver-cuda\t580.178.04-1.el9\n"})
    found = driver.packages(programs.run, apt=False)
    assert found == {"packages": {"nvidia-driver-cuda": "580.178.04-1.el9"}, "held": []}


MADISON = """\
nvidia-driver-cuda | 595.71.05-1 | https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64  Packages
nvidia-driver-cuda | 580.178.04-1 | https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64  Packages
nvidia-driver-cuda | 580.178.04-1 | file:/srv  Packages
nvidia-graphics-drivers | 535.309.01-1 | http://deb.debian.org/debian bookworm/non-free Sources
"""


def test_versions_in_apts_lists() -> None:
    programs = Programs({"apt-cache madison nvidia-driver-cuda nvlsm": MADISON})
    found = driver.offered(["nvidia-driver-cuda", "nvlsm"], programs.run, apt=True)
    assert found == {"nvidia-driver-cuda": ["595.71.05-1", "580.178.04-1"], "nvlsm": []}


def test_versions_in_dnfs_lists() -> None:
    programs = Programs({"timeout": "kmod-nvidia-open-dkms\t3:580.178.04-1.el9\nLast metadata expiration check\n"})
    assert driver.offered(["kmod-nvidia-open-dkms"], programs.run, apt=False) == {
        "kmod-nvidia-open-dkms": ["3:580.178.04-1.el9"]
    }
    assert "dnf -q repoquery" in programs.calls[0]
    assert "--disableexcludes=all" in programs.calls[0]


def test_nothing_is_asked_of_no_package() -> None:
    programs = Programs({})
    assert driver.offered([], programs.run, apt=True) == {}
    assert programs.calls == []


@pytest.mark.parametrize(("value", "on"), [(b"\x06\0\0\0\x01", True), (b"\x06\0\0\0\0", False), (None, None)])
def test_secure_boot(tmp_path: Path, value: bytes | None, on: bool | None) -> None:
    if value is not None:
        (tmp_path / "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c").write_bytes(value)
    assert driver.secure_boot(f"{tmp_path}/SecureBoot-*") is on


@pytest.mark.parametrize(
    ("program", "command"),
    [("update-initramfs", ["update-initramfs", "-u"]), ("dracut", ["dracut", "--force"]), ("other", [])],
)
def test_the_command_for_the_first_file_system_of_the_boot(program: str, command: list[str]) -> None:
    assert driver.initramfs(Programs({program: ""}).which) == command


def test_the_version_of_fabric_manager() -> None:
    programs = Programs({"nv-fabricmanager --version": "Fabric Manager version is : 580.178.04\n"})
    assert driver.fabric_manager(programs.run, programs.which) == "580.178.04"
    assert driver.fabric_manager(programs.run, lambda _name: None) == ""


LSMOD = "Module                  Size  Used by\nnvidia_uvm   1556480  0\nnvidia  9707520  1 nvidia_uvm\ntun 1 0\n"


def test_another_driver_is_loaded_once_nothing_holds_the_old_one() -> None:
    programs = Programs(
        {
            "systemctl is-active --quiet nvidia-persistenced": "",
            "systemctl is-active": (3, "", ""),
            "systemctl": "",
            "lsmod": LSMOD,
            "modprobe": "",
        }
    )
    assert driver.reload(programs.run) == ""
    assert [call for call in programs.calls if "is-active" not in call] == [
        "systemctl stop nvidia-persistenced",
        "lsmod",
        "modprobe -r nvidia_uvm",
        "modprobe -r nvidia",
        "modprobe nvidia",
        "systemctl start nvidia-persistenced",
    ]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((1, "", "modprobe: FATAL: Module nvidia_uvm is in use.\n"), "modprobe: FATAL: Module nvidia_uvm is in use."),
        ((1, "", ""), "modprobe -r nvidia_uvm ended with status 1"),
    ],
)
def test_a_driver_in_use_stays_with_its_services(answer: tuple[int, str, str], why: str) -> None:
    programs = Programs({"systemctl": "", "lsmod": LSMOD, "modprobe -r": answer, "modprobe": ""})
    assert driver.reload(programs.run) == why
    assert "modprobe nvidia" not in programs.calls
    assert programs.calls[-1] == "systemctl start nvidia-dcgm"


def gpu(**changes: Any) -> dict[str, Any]:
    return {"fabric_state": "", "processes": [], **changes}


def proved(**changes: Any) -> list[str]:
    works = {
        "state": "ok",
        "message": "",
        "driver_version": "580.178.04",
        "gpus": [gpu()],
        "pci_gpus": [board()],
        "nvswitches": 0,
    }
    answer = node(loaded="580.178.04", disk="580.178.04")
    return proof_of(
        {
            **answer,
            **{name: value for name, value in changes.items() if name != "gpus"},
            "gpus": {**works, **changes.get("gpus", {})},
        }
    )


def test_a_driver_that_works_has_no_finding() -> None:
    assert proved() == []
    assert proved(fabric_manager="590.48.01") == []
    assert proved(fabric_manager="580.178.04", gpus={"gpus": [gpu(fabric_state="Completed")]}) == []


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"gpus": {"state": "driver_mismatch", "message": "Restart the host."}}, "Restart the host."),
        ({"gpus": {"pci_gpus": [board(), board()]}}, "nvidia-smi lists 1 of the 2 GPUs on the PCI bus"),
        ({"gpus": {"driver_version": "580.126.09"}}, "loaded 580.178.04, installed 580.178.04, nvidia-smi 580.126.09"),
        (
            {"fabric_manager": "590.48.01", "gpus": {"nvswitches": 4}},
            "Fabric Manager is 590.48.01 and the driver 580.178.04",
        ),
        ({"gpus": {"gpus": [gpu(fabric_state="In Progress")]}}, "journalctl -u nvidia-fabricmanager"),
    ],
)
def test_what_does_not_work_is_named(changes: dict[str, Any], part: str) -> None:
    (finding,) = proved(**changes)
    assert part in finding
