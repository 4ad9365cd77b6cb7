# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVIDIA's repository and its key as each system gets them, and the files that keep a driver at its version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.gpunode.llm.plugins.module_utils.packages import apt as packages_apt, rpm as packages_rpm
from ansible_collections.gpunode.llm.tests.unit.roles.test_runtime_roles import variables_of

ROLE = Path(__file__).resolve().parents[3] / "roles/nvidia_driver"
NVIDIA = "https://developer.download.nvidia.com/compute/cuda/repos"
FIRST = "EB69 3B30 35CD 5710 E231 E123 A4B4 6996 3BF8 63CC"


def facts(distribution: str, version: str, architecture: str = "x86_64") -> dict[str, Any]:
    family = "Debian" if distribution in ("Debian", "Ubuntu") else "RedHat"
    return {
        "distribution": distribution,
        "distribution_version": version,
        "distribution_major_version": version.partition(".")[0],
        "os_family": family,
        "architecture": architecture,
    }


def templar(system: dict[str, Any], **settings: Any) -> Templar:
    variables = variables_of("nvidia_driver", system, **settings)
    return Templar(loader=DataLoader(), variables=variables)


# NVIDIA's addresses and keys, as several public projects pin them.
REPOSITORIES = [
    (facts("Debian", "12.11"), "debian12/x86_64", "3bf863cc.pub", FIRST),
    (facts("Debian", "13.1"), "debian13/x86_64", "8793F200.pub", "0218 2E60 104F CDC2 6EAE 1B85 97A5 D4CB 8793 F200"),
    (facts("Ubuntu", "22.04"), "ubuntu2204/x86_64", "3bf863cc.pub", FIRST),
    (facts("Ubuntu", "24.04", "aarch64"), "ubuntu2404/sbsa", "3bf863cc.pub", FIRST),
    (
        facts("Ubuntu", "26.04"),
        "ubuntu2604/x86_64",
        "60DF8A40.pub",
        "14BA FBC7 562A D710 CA04 E699 05FB B6DA 60DF 8A40",
    ),
    *(
        (facts(name, "9.6"), "rhel9/x86_64", "D42D0685.pub", "610C 7B14 E068 A878 070D A4E9 9CD0 A493 D42D 0685")
        for name in ("RedHat", "Rocky", "AlmaLinux")
    ),
]


@pytest.mark.parametrize(("system", "folder", "key", "fingerprint"), REPOSITORIES)
def test_each_system_has_its_repository_and_key(
    system: dict[str, Any], folder: str, key: str, fingerprint: str
) -> None:
    found = templar(system).template(trust_as_template("{{ nvidia_driver_repository }}"))
    options = found["options"]
    assert found["manager"] == ("apt" if system["os_family"] == "Debian" else "dnf")
    assert (options["uri"], options["key_url"]) == (f"{NVIDIA}/{folder}", f"{NVIDIA}/{folder}/{key}")
    assert options["fingerprint"] == fingerprint


def test_an_apt_source_is_flat() -> None:
    options = templar(facts("Ubuntu", "24.04", "aarch64")).template(
        trust_as_template("{{ nvidia_driver_repository.options }}")
    )
    text = packages_apt.source(options, "/etc/apt/keyrings/nvidia-driver.asc").render()
    assert text.splitlines()[2:] == [
        "Types: deb",
        f"URIs: {NVIDIA}/ubuntu2404/sbsa",
        "Suites: /",
        "Architectures: arm64",
        "Signed-By: /etc/apt/keyrings/nvidia-driver.asc",
    ]


@pytest.mark.parametrize(("held", "excluded"), [(True, "excludepkgs=nvidia-* libnvidia-* kmod-nvidia-*"), (False, "")])
def test_dnf_leaves_what_is_held(held: bool, excluded: str) -> None:
    options = templar(facts("Rocky", "9.6"), nvidia_driver_hold=held).template(
        trust_as_template("{{ nvidia_driver_repository.options }}")
    )
    text = packages_rpm.source(options, "/key").render()
    assert ("gpgcheck=1" in text, "repo_gpgcheck=0" in text) == (True, True)
    assert (excluded in text) if excluded else ("excludepkgs" not in text)


def test_a_mirror_has_its_own_key() -> None:
    mirror = {
        "nvidia_driver_url": "https://mirror.example.com/cuda",
        "nvidia_driver_key_url": "https://mirror.example.com/key",
        "nvidia_driver_key_fingerprint": "AB CD",
    }
    options = templar(facts("Debian", "12.11"), **mirror).template(
        trust_as_template("{{ nvidia_driver_repository.options }}")
    )
    assert options["uri"] == "https://mirror.example.com/cuda/debian12/x86_64"
    assert (options["key_url"], options["fingerprint"]) == ("https://mirror.example.com/key", "AB CD")


def rendered(name: str, **settings: Any) -> list[str]:
    """The lines of a template that are no comments."""
    chosen = {"__nvidia_driver_choice": {"version": "580.178.04"}, "nvidia_driver_plan": {"modules": "open"}}
    template = trust_as_template((ROLE / "templates" / name).read_text())
    overrides = {"trim_blocks": True, "lstrip_blocks": True}
    text = templar(facts("Debian", "12.11"), **chosen, **settings).template(template, overrides=overrides)
    return [line for line in text.splitlines() if line.strip() and not line.startswith(("#", "//"))]


def test_all_parts_are_pinned_at_one_version() -> None:
    names, pin, priority = rendered("preferences.j2")
    assert {"nvidia-*", "libnvidia-*", "libcuda1"} <= set(names.split())
    assert (pin, priority) == ("Pin: version 580.178.04*", "Pin-Priority: 1001")
    assert rendered("preferences.j2", nvidia_driver_hold=False)[1] == "Pin: version 580.*"


def test_unattended_upgrades_leave_it() -> None:
    assert '  "linux-modules-nvidia-";' in rendered("unattended.j2")
    assert rendered("unattended.j2", nvidia_driver_hold=False) == ["Unattended-Upgrade::Package-Blacklist {", "};"]


def test_dnf_follows_the_stream_of_the_branch() -> None:
    assert "stream=580-open" in rendered("stream.module.j2")
    assert "stream=595-dkms" in rendered(
        "stream.module.j2", nvidia_driver_branch="595", **{"__nvidia_driver_stream": trust_as_template(STREAM)}
    )


STREAM = "{{ __nvidia_driver_settings.branch }}-dkms"


def test_nouveau_does_not_come_back() -> None:
    assert rendered("nouveau.conf.j2") == ["blacklist nouveau", "options nouveau modeset=0"]


def test_an_engine_is_stopped_only_when_the_versions_are_known_to_be_equal() -> None:
    names = [task["name"] for task in yaml.safe_load((ROLE / "tasks/packages.yml").read_text())]
    order = ["Refuse parts of unequal versions", "Stop the engines that the change would end", "Install the driver"]
    assert sorted(order, key=names.index) == order
