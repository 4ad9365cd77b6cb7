# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one version that all packages of a driver have in a node's lists."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.plugin_utils.node.driver import choice_of
from ansible_collections.gpunode.llm.tests.unit.plugins.node.driving import DEBIAN, ROCKY, UBUNTU, node

CUDA_DEBIAN: dict[str, Any] = {
    "nvidia-driver-cuda": ["595.71.05-1", "580.178.04-1", "580.173.02-1"],
    "nvidia-kernel-open-dkms": ["595.71.05-1", "580.178.04-1", "580.173.02-1"],
    "nvidia-persistenced": ["595.71.05-1", "580.178.04-1", "580.173.02-1"],
    "nvidia-modprobe": ["595.71.05-1"],
    "linux-headers-amd64": ["6.1.148-1"],
}


def choice(answer: dict[str, Any], lists: dict[str, list[str]], **settings: Any) -> dict[str, Any]:
    return choice_of({**answer, "lists": lists}, settings)


def test_the_newest_of_the_branch() -> None:
    found = choice(node(DEBIAN), CUDA_DEBIAN)
    assert found["version"] == "580.178.04"
    assert found["specs"] == [
        "nvidia-driver-cuda=580.178.04-1",
        "nvidia-kernel-open-dkms=580.178.04-1",
        "nvidia-persistenced=580.178.04-1",
        "nvidia-modprobe",
        "linux-headers-amd64",
    ]
    assert found["names"][0] == "nvidia-driver-cuda"


def test_fabric_manager_decides_too() -> None:
    lists = {**CUDA_DEBIAN, "nvidia-fabricmanager": ["580.173.02-1"], "nvidia-fabricmanager-580": ["580.126.09-1"]}
    assert choice(node(DEBIAN, switches=4), lists)["version"] == "580.173.02"


def test_it_has_either_name() -> None:
    lists = {**CUDA_DEBIAN, "nvidia-fabricmanager-580": ["580.178.04-1"], "nvidia-fabricmanager": ["595.71.05-1"]}
    assert "nvidia-fabricmanager-580=580.178.04-1" in choice(node(DEBIAN, switches=4), lists)["specs"]


def test_the_version_that_is_asked_for() -> None:
    assert choice(node(DEBIAN), CUDA_DEBIAN, version="580.173.02")["version"] == "580.173.02"


def test_another_version_of_fabric_manager_is_refused() -> None:
    """As NVIDIA's own image of 580.126.09 that got Fabric Manager 590.48.01."""
    lists = {**CUDA_DEBIAN, "nvidia-fabricmanager": ["590.48.01-1", "580.126.09-1"]}
    found = choice(node(DEBIAN, switches=4), lists)
    assert (found["specs"], found["names"]) == ([], [])
    (finding,) = found["findings"]
    assert "do not have one version of the branch 580 for all of the driver" in finding
    assert "nvidia-driver-cuda 580.178.04" in finding
    assert "nvidia-fabricmanager or nvidia-fabricmanager-580 580.126.09" in finding


@pytest.mark.parametrize(
    ("answer", "lists", "settings", "part"),
    [
        (node(DEBIAN), CUDA_DEBIAN, {"version": "580.65.06"}, "do not have the version 580.65.06 for all"),
        (node(DEBIAN), {**CUDA_DEBIAN, "nvidia-modprobe": []}, {}, "have no nvidia-modprobe."),
        (node(DEBIAN, headers=False), CUDA_DEBIAN, {}, "the headers of the kernel 6.1.0-41-amd64 that runs, which"),
        (node(DEBIAN), {}, {"branch": "595"}, "nvidia-driver-cuda none, "),
    ],
)
def test_what_the_lists_lack_is_named(
    answer: dict[str, Any], lists: dict[str, list[str]], settings: dict[str, Any], part: str
) -> None:
    assert part in " ".join(choice(answer, lists, **settings)["findings"])


CANONICAL: dict[str, Any] = {
    "linux-modules-nvidia-580-server-open-6.8.0-60-generic": ["6.8.0-60.63+1"],
    "nvidia-headless-no-dkms-580-server-open": ["580.173.02-0ubuntu0.24.04.1", "580.126.09-0ubuntu0.24.04.1"],
    "nvidia-utils-580-server": ["580.173.02-0ubuntu0.24.04.1"],
    "nvidia-compute-utils-580-server": ["580.173.02-0ubuntu0.24.04.1"],
}


def test_canonicals_modules_have_the_version_of_their_kernel() -> None:
    found = choice(node(UBUNTU), CANONICAL)
    assert found["version"] == "580.173.02"
    assert found["specs"] == [
        "linux-modules-nvidia-580-server-open-6.8.0-60-generic",
        "nvidia-headless-no-dkms-580-server-open=580.173.02-0ubuntu0.24.04.1",
        "nvidia-utils-580-server=580.173.02-0ubuntu0.24.04.1",
        "nvidia-compute-utils-580-server=580.173.02-0ubuntu0.24.04.1",
    ]


def test_a_kernel_without_canonicals_modules_is_named() -> None:
    lists = {name: found for name, found in CANONICAL.items() if not name.startswith("linux-modules")}
    (finding,) = choice(node(UBUNTU), lists)["findings"]
    assert "no modules of the driver 580 for the kernel 6.8.0-60-generic that runs" in finding


def test_ubuntus_archive_may_lack_the_subnet_manager() -> None:
    lists = {**CANONICAL, "nvidia-fabricmanager-580": ["580.173.02-0ubuntu0.24.04.1"], "infiniband-diags": ["52"]}
    lists["libnvsdm-580"] = ["580.173.02-0ubuntu0.24.04.1"]
    (finding,) = choice(node(UBUNTU), lists, fabric="nvlsm")["findings"]
    assert finding == "Ubuntu's archive has no nvlsm: set nvidia_driver_source to nvidia."


CUDA_RHEL: dict[str, Any] = {
    "nvidia-driver-cuda": ["3:580.178.04-1.el9", "3:580.173.02-1.el9"],
    "kmod-nvidia-open-dkms": ["3:580.178.04-1.el9"],
    "nvidia-persistenced": ["3:580.178.04-1.el9"],
    "nvidia-modprobe": ["3:580.178.04-1.el9"],
    "dkms": ["0:3.2.1-1.el9"],
    "kernel-devel": ["0:5.14.0-687.50.1.el9_8", "0:5.14.0-687.51.1.el9_8"],
}


def test_dnfs_packages_have_an_epoch_and_the_kernels_own_headers() -> None:
    assert choice(node(ROCKY, headers=False), CUDA_RHEL)["specs"] == [
        "nvidia-driver-cuda-3:580.178.04-1.el9",
        "kmod-nvidia-open-dkms-3:580.178.04-1.el9",
        "nvidia-persistenced-3:580.178.04-1.el9",
        "nvidia-modprobe",
        "kernel-devel-0:5.14.0-687.51.1.el9_8",
        "dkms",
    ]


@pytest.mark.parametrize(
    ("without", "part"),
    [
        ("dkms", "comes from EPEL: install epel-release"),
        ("kernel-devel", "kernel 5.14.0-687.51.1.el9_8.x86_64 that runs"),
    ],
)
def test_what_a_rhel_lacks_is_named(without: str, part: str) -> None:
    lists = {name: found for name, found in CUDA_RHEL.items() if name != without}
    (finding,) = choice(node(ROCKY, headers=False), lists)["findings"]
    assert part in finding
