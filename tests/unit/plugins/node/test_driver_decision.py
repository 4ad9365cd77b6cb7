# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which driver a node gets: systems, boards and what is there already, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.plugin_utils.node.driver import Decision, Seen, Wanted, decide, plan_of
from ansible_collections.gpunode.llm.tests.unit.plugins.node.driving import (
    DEBIAN,
    ROCKY,
    UBUNTU,
    board,
    node,
    process,
)


def decision(answer: dict[str, Any], **settings: Any) -> Decision:
    return decide(Wanted(**settings), Seen(answer))


def asks(answer: dict[str, Any], **settings: Any) -> list[str]:
    return list(plan_of(answer, settings)["asks"])


#: The names that Canonical's and NVIDIA's repositories have, as public records of installations show them.
NAMES = [
    (
        node(UBUNTU),
        {},
        [
            "linux-modules-nvidia-580-server-open-6.8.0-60-generic",
            "linux-modules-nvidia-580-server-open-generic",
            "nvidia-headless-no-dkms-580-server-open",
            "nvidia-utils-580-server",
            "nvidia-compute-utils-580-server",
        ],
    ),
    (
        node(UBUNTU, packages={"linux-image-aws": "6.8.0.1021", "linux-image-6.8.0-1021-aws": "6.8.0"}),
        {"branch": "595"},
        [
            "linux-modules-nvidia-595-server-open-6.8.0-60-generic",
            "linux-modules-nvidia-595-server-open-aws",
            "nvidia-headless-no-dkms-595-server-open",
            "nvidia-utils-595-server",
            "nvidia-compute-utils-595-server",
        ],
    ),
    (
        node(UBUNTU, (board("1db1"),)),
        {},
        [
            "linux-modules-nvidia-580-server-6.8.0-60-generic",
            "linux-modules-nvidia-580-server-generic",
            "nvidia-headless-no-dkms-580-server",
            "nvidia-utils-580-server",
            "nvidia-compute-utils-580-server",
        ],
    ),
    (
        node(UBUNTU),
        {"source": "nvidia"},
        [
            "libnvidia-compute-580",
            "nvidia-dkms-580-open",
            "nvidia-utils-580",
            "nvidia-compute-utils-580",
            "linux-headers-generic",
        ],
    ),
    (
        node(UBUNTU, headers=False),
        {"source": "nvidia", "branch": "595"},
        [
            "libnvidia-compute",
            "nvidia-dkms-open",
            "nvidia-utils",
            "nvidia-compute-utils",
            "linux-headers-6.8.0-60-generic",
            "linux-headers-generic",
        ],
    ),
    (
        node(DEBIAN, headers=False),
        {},
        [
            "nvidia-driver-cuda",
            "nvidia-kernel-open-dkms",
            "nvidia-persistenced",
            "nvidia-modprobe",
            "linux-headers-6.1.0-41-amd64",
            "linux-headers-amd64",
        ],
    ),
    (
        node(DEBIAN, (board("1db4"),)),
        {},
        ["nvidia-driver-cuda", "nvidia-kernel-dkms", "nvidia-persistenced", "nvidia-modprobe", "linux-headers-amd64"],
    ),
    (
        node(ROCKY, headers=False),
        {},
        [
            "nvidia-driver-cuda",
            "kmod-nvidia-open-dkms",
            "nvidia-persistenced",
            "nvidia-modprobe",
            "kernel-devel",
            "dkms",
        ],
    ),
    (
        node(ROCKY),
        {"modules": "proprietary"},
        ["nvidia-driver-cuda", "kmod-nvidia-latest-dkms", "nvidia-persistenced", "nvidia-modprobe", "dkms"],
    ),
]


@pytest.mark.parametrize(("answer", "settings", "names"), NAMES)
def test_the_packages_have_the_names_of_their_repositories(
    answer: dict[str, Any], settings: dict[str, Any], names: list[str]
) -> None:
    found = decision(answer, **settings)
    assert (found.state, found.findings) == ("install", ())
    assert asks(answer, **settings) == names


HGX_B200 = tuple(board("2901") for _ in range(8))
BOTH = ["nvidia-fabricmanager", "nvidia-fabricmanager-580"]


@pytest.mark.parametrize(
    ("answer", "settings", "names", "services"),
    [
        (node(switches=4), {}, BOTH, ["nvidia-fabricmanager"]),
        (node(UBUNTU, switches=4), {}, ["nvidia-fabricmanager-580"], ["nvidia-fabricmanager"]),
        (
            node(boards=HGX_B200),
            {},
            [*BOTH, "libnvsdm", "libnvsdm-580", "nvlsm", "infiniband-diags"],
            ["nvidia-fabricmanager"],
        ),
        (node(boards=HGX_B200[:2]), {}, [], []),
        (node(boards=(board("2941"),)), {}, ["nvidia-imex", "nvidia-imex-580"], ["nvidia-imex"]),
        (
            node({**DEBIAN, "architecture": "aarch64"}),
            {"fabric": "nvlsm"},
            [*BOTH, "nvlsm", "infiniband-diags"],
            ["nvidia-fabricmanager"],
        ),
        (node(switches=4), {"fabric": "none"}, [], []),
    ],
)
def test_boards_get_what_connects_them(
    answer: dict[str, Any], settings: dict[str, Any], names: list[str], services: list[str]
) -> None:
    plain = asks(answer, **{**settings, "fabric": "none"})
    assert asks(answer, **settings) == plain + names
    assert decision(answer, **settings).services == ("nvidia-persistenced", *services)


def without_programs(answer: dict[str, Any]) -> dict[str, Any]:
    return {**answer, "gpus": {**answer["gpus"], "driver_version": "", "state": "no_driver"}}


PROGRAMS = {"nvidia-driver-cuda": "580.159.04-1"}
RUNS = {"loaded": "580.159.04", "disk": "580.159.04", "packages": PROGRAMS}


@pytest.mark.parametrize(
    ("answer", "settings", "state"),
    [
        (node(boards=()), {}, "none"),
        (node(boards=(board(driver="vfio-pci"),)), {}, "none"),
        (node(**RUNS), {}, "kept"),
        (node(**{**RUNS, "packages": {}}), {}, "kept"),  # from a .run file
        (node(boards=(), loaded="580.159.04"), {}, "kept"),  # a container, whose host has it
        (node(**{**RUNS, "loaded": ""}), {}, "load"),
        (node(**{**RUNS, "loaded": "580.126.09"}), {}, "load"),
        (node(**RUNS), {"version": "580.178.04"}, "install"),
        # Its packages were removed, and the module runs until the next boot.
        (without_programs(node(loaded="580.159.04")), {}, "install"),
        (node(**RUNS), {"branch": "595"}, "install"),
        # The programs have moved, and the module was not built.
        (node(**{**RUNS, "disk": "580.126.09"}), {}, "install"),
        (node(switches=4, **RUNS), {}, "install"),
        (node(switches=4, **{**RUNS, "packages": {**PROGRAMS, "nvidia-fabricmanager": "580.159.04-1"}}), {}, "kept"),
        (node(switches=4, **{**RUNS, "packages": {**PROGRAMS, "nvidia-fabricmanager": "580.126.09-1"}}), {}, "install"),
    ],
)
def test_a_driver_of_the_branch_stays(answer: dict[str, Any], settings: dict[str, Any], state: str) -> None:
    assert decision(answer, **settings).state == state


def test_what_connects_boards_comes_at_the_version_of_the_driver_that_stays() -> None:
    found = decision(node(switches=4, engines=["vllm-8b.service"], **RUNS))
    assert (found.version, found.changes, found.stops) == ("580.159.04", False, ())
    assert [slot.names[0] for slot in found.slots] == ["nvidia-fabricmanager"]
    assert found.text == (
        "To the NVIDIA driver 580.159.04, which stays, comes what its boards need: nvidia-fabricmanager."
    )


@pytest.mark.parametrize(
    ("answer", "settings", "text"),
    [
        (node(boards=()), {}, "This node has no NVIDIA GPU, so no driver is installed."),
        (node(**RUNS), {}, "The NVIDIA driver 580.159.04 stays."),
        (
            node(UBUNTU),
            {},
            "The NVIDIA driver 580 will be installed from Ubuntu's archive, with open kernel modules, prebuilt and "
            "signed by Canonical: linux-modules-nvidia-580-server-open-6.8.0-60-generic,"
            " linux-modules-nvidia-580-server-open-generic, nvidia-headless-no-dkms-580-server-open,"
            " nvidia-utils-580-server, nvidia-compute-utils-580-server. No restart of the node is due, unless the "
            "modules that are loaded cannot be unloaded.",
        ),
        (
            node(boards=(board(driver="nouveau"),)),
            {},
            "The NVIDIA driver 580 will be installed from NVIDIA's repository, with open kernel modules, built by DKMS:"
            " nvidia-driver-cuda, nvidia-kernel-open-dkms, nvidia-persistenced, nvidia-modprobe, linux-headers-amd64. "
            "The node must be restarted, since nouveau holds the GPUs until then: the play ends after the installation"
            " (nvidia_driver_reboot).",
        ),
        (
            node(boards=(board("1db1", "nouveau"),), loaded="535.309.01", disk="535.309.01", packages=PROGRAMS),
            {"version": "580.178.04", "reboot": True},
            "The NVIDIA driver 580.178.04 will be installed from NVIDIA's repository in place of 535.309.01, with"
            " proprietary kernel modules, built by DKMS: nvidia-driver-cuda, nvidia-kernel-dkms, nvidia-persistenced,"
            " nvidia-modprobe, linux-headers-amd64. The node must be restarted, since nouveau holds the GPUs until "
            "then: it is restarted once.",
        ),
        (
            node(**{**RUNS, "loaded": "580.126.09"}),
            {},
            "The NVIDIA driver 580.159.04 is installed, while 580.126.09 is loaded: it will be loaded. No "
            "restart of the node is due, unless the modules that are loaded cannot be unloaded.",
        ),
        (
            node(**{**RUNS, "loaded": ""}),
            {},
            "The NVIDIA driver 580.159.04 is installed, and not loaded: it will be loaded. No restart of the node is "
            "due, unless the modules that are loaded cannot be unloaded.",
        ),
    ],
)
def test_a_sentence_says_what_comes(answer: dict[str, Any], settings: dict[str, Any], text: str) -> None:
    assert decision(answer, **settings).text == text


ENGINE = ["vllm-8b.service"]
OLD = {"loaded": "535.309.01", "disk": "535.309.01", "packages": {"nvidia-driver-cuda": "535.309.01-1"}}


@pytest.mark.parametrize(
    ("answer", "settings", "part"),
    [
        (node({**UBUNTU, "distribution_version": "20.04"}), {}, "no packages for Ubuntu 20.04; it knows Ubuntu 22.04"),
        (node({**DEBIAN, "architecture": "ppc64le"}), {}, "NVIDIA has no driver for ppc64le"),
        (node(DEBIAN), {"source": "ubuntu"}, "this is Debian 12: set it to nvidia"),
        (node(secure_boot=True), {}, "Turn Secure Boot off in the firmware."),
        (
            node(UBUNTU, secure_boot=True),
            {"source": "nvidia"},
            "in the firmware, or set nvidia_driver_source to ubuntu, whose modules are signed.",
        ),
        (
            node(loaded="535.309.01", disk="535.309.01"),
            {},
            "without packages, by NVIDIA's .run file: remove it with nvidia-uninstall, or keep it by",
        ),
        (node(engines=ENGINE, **OLD), {}, "is to be changed. nvidia_driver_stop_engines: true drains"),
        (node(engines=[*ENGINE, "vllm-e.service"], **OLD), {}, "vllm-8b, vllm-e run on"),
        (
            node(engines=ENGINE, **{**RUNS, "loaded": "580.126.09"}),
            {},
            "vllm-8b runs on the driver that is to be changed.",
        ),
        (
            node(processes=(process(), process("jupyter", pid=8)), **OLD),
            {},
            "jupyter (pid 8), python (pid 7) would lose the driver",
        ),
        (node(boards=(board("1023"),)), {}, "10de:1023: it is older than Maxwell"),
        (
            node(boards=(board("1db1"), board("15f8"))),
            {"branch": "595"},
            "10de:15f8, 10de:1db1: set nvidia_driver_branch to 580",
        ),
        (node(boards=(board("1db1"),)), {"modules": "open"}, "with open modules does not serve the GPU 10de:1db1"),
        (node(boards=HGX_B200), {"modules": "proprietary"}, "proprietary modules does not serve the GPU 10de:2901"),
        (
            node(boards=(board("2342"),)),
            {"modules": "proprietary"},
            "GPU 10de:2342: set nvidia_driver_modules to auto or open",
        ),
        (node(boards=(board("1db1"), board("2901"))), {}, "no kind of kernel modules serves all of them"),
        (node(), {"branch": "620", "modules": "proprietary"}, "The branch 620 has open modules alone"),
    ],
)
def test_it_is_refused_in_a_sentence(answer: dict[str, Any], settings: dict[str, Any], part: str) -> None:
    (finding,) = decision(answer, **settings).findings
    assert part in finding
    assert finding.endswith(".")


@pytest.mark.parametrize(
    ("answer", "settings"),
    [
        (node(secure_boot=True, **RUNS), {}),
        (node(engines=ENGINE, **RUNS), {}),
        (node(UBUNTU, secure_boot=True), {}),
        (node(engines=ENGINE, processes=(process("vllm-8b"),), **OLD), {"stop_engines": True}),
        (node(boards=(board("1db1"), board("2330"))), {}),  # proprietary modules serve both
        # An engine that waits for its driver loses nothing.
        (node(engines=ENGINE, **{**RUNS, "loaded": ""}), {}),
    ],
)
def test_it_is_not_refused_for_what_does_not_matter(answer: dict[str, Any], settings: dict[str, Any]) -> None:
    assert decision(answer, **settings).findings == ()


def test_engines_are_stopped_for_another_driver_alone() -> None:
    assert decision(node(engines=ENGINE, **OLD), stop_engines=True).stops == ("vllm-8b.service",)
    assert decision(node(engines=ENGINE, **RUNS), stop_engines=True).stops == ()
