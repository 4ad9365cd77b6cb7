# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The facts of a node's system have the names and the values that setup gives them."""

from __future__ import annotations

import pytest
from ansible.module_utils.distro import LinuxDistribution
from ansible_collections.gpunode.llm.plugins.module_utils.node import system as node_system

SAYS = "systemd 252 (252.38-1~deb12u1)\n+PAM +AUDIT\n"


def system(monkeypatch, tmp_path, release: str, booted: bool = True):
    """The facts of a node with this os-release."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "os-release").write_text(release)
    here = LinuxDistribution(include_lsb=False, include_uname=False, root_dir=str(tmp_path))
    for name in ("id", "like", "version", "codename", "os_release_info"):
        monkeypatch.setattr(node_system.distro, name, getattr(here, name))
    monkeypatch.setattr(node_system, "SYSTEMD", str(tmp_path if booted else tmp_path / "none"))
    return node_system.facts(lambda _command: (0, SAYS, ""))


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ('ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n', ("Debian", "12", "bookworm", "Debian")),
        (
            'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\nVERSION_CODENAME=noble\n',
            ("Ubuntu", "24", "noble", "Debian"),
        ),
        ('ID="rhel"\nID_LIKE="fedora"\nVERSION_ID="9.4"\n', ("RedHat", "9", "", "RedHat")),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.5"\n', ("Rocky", "9", "", "RedHat")),
        ('ID="almalinux"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.5"\n', ("AlmaLinux", "9", "", "RedHat")),
        ('ID="arch"\n', ("Arch", "", "", "Arch")),
    ],
)
def test_distributions(monkeypatch, tmp_path, release, expected):
    facts = system(monkeypatch, tmp_path, release)
    names = ("distribution", "distribution_major_version", "distribution_release", "os_family")
    assert tuple(facts[f"ansible_{name}"] for name in names) == expected
    assert facts["ansible_systemd"] == {"version": 252}


HEAD = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
LAN = "eth0 0000A8C0 00000000 0001 0 0 100 00FFFFFF 0 0 0\n"
DEFAULT = "{} 00000000 0100A8C0 0003 0 0 {} 00000000 0 0 0\n"


@pytest.mark.parametrize(
    ("routes", "interface"),
    [
        (HEAD + DEFAULT.format("eth1", 200) + DEFAULT.format("eth0", 100) + LAN, "eth0"),
        (HEAD + LAN, None),
        ("", None),
    ],
)
def test_the_default_route(monkeypatch, tmp_path, routes, interface):
    (tmp_path / "route").write_text(routes)
    monkeypatch.setattr(node_system, "ROUTES", str(tmp_path / "route"))
    # Every machine has a route to it.
    monkeypatch.setattr(node_system, "NOWHERE", "127.0.0.1")
    found = node_system.facts(lambda _command: (0, SAYS, ""))["ansible_default_ipv4"]
    assert found == ({"interface": interface, "address": "127.0.0.1"} if interface else {})


def test_a_default_route_that_is_forbidden(monkeypatch, tmp_path):
    (tmp_path / "route").write_text(HEAD + DEFAULT.format("eth0", 100))
    monkeypatch.setattr(node_system, "ROUTES", str(tmp_path / "route"))
    # No socket that is not for it may connect to a broadcast address.
    monkeypatch.setattr(node_system, "NOWHERE", "255.255.255.255")
    assert node_system.facts(lambda _command: (0, SAYS, ""))["ansible_default_ipv4"] == {}


def test_a_node_without_systemd(monkeypatch, tmp_path):
    facts = system(monkeypatch, tmp_path, "ID=debian\n", booted=False)
    assert facts["ansible_service_mgr"] != "systemd"
    assert "ansible_systemd" not in facts
