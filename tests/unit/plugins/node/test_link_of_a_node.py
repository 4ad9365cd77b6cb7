# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network of a node as other nodes see it."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.image import link_proof
from ansible_collections.gpunode.llm.plugins.module_utils.node import link
from ansible_collections.gpunode.llm.plugins.modules import node_link_info

ADDRESSES = json.dumps(
    [
        {"ifname": "lo", "addr_info": [{"local": "127.0.0.1", "scope": "host"}]},
        {
            "ifname": "eth0",
            "addr_info": [
                {"local": "2001:db8::5", "scope": "global"},
                {"local": "fe80::1", "scope": "link"},
                {"local": "10.0.0.5", "scope": "global"},
            ],
        },
        {"ifname": "ib0", "addr_info": [{"local": "192.168.7.5", "scope": "global"}]},
        {"ifname": "down0"},
    ]
)
KNOWN = link.addresses(ADDRESSES)


def test_addresses_that_others_reach():
    assert KNOWN == {"lo": [], "eth0": ["2001:db8::5", "10.0.0.5"], "ib0": ["192.168.7.5"], "down0": []}
    assert link.addresses("") == {}


@pytest.mark.parametrize(("shown", "name"), [('[{"dst":"default","dev":"eth0"}]', "eth0"), ("[]", ""), ("", "")])
def test_the_interface_of_the_default_route(shown, name):
    assert link.default_interface(shown) == name


@pytest.mark.parametrize(
    ("address", "interface", "chosen"),
    [
        ("", "", ("10.0.0.5", "eth0")),
        ("192.168.7.5", "", ("192.168.7.5", "ib0")),
        ("", "ib0", ("192.168.7.5", "ib0")),
        ("10.0.0.5", "ib0", ("10.0.0.5", "ib0")),
    ],
)
def test_what_is_set_wins(address, interface, chosen):
    assert link.chosen(KNOWN, "eth0", address, interface) == chosen


@pytest.mark.parametrize(
    ("default", "address", "interface", "words"),
    [
        (
            "eth0",
            "10.0.0.9",
            "",
            "10.0.0.9 is no address of this node, which has eth0 2001:db8::5 10.0.0.5, ib0 192.168.7.5",
        ),
        ("eth0", "node-5", "", "node-5"),
        ("", "", "", "no default route"),
        ("eth0", "", "down0", "down0 of this node has no address"),
        ("eth0", "", "eth9", "eth9 of this node has no address"),
    ],
)
def test_a_node_without_such_an_address_is_refused(default, address, interface, words):
    with pytest.raises(ValueError, match=words):
        link.chosen(KNOWN, default, address, interface)


def test_adapters_count_with_an_active_port(tmp_path):
    for adapter, state in (("mlx5_1", "4: ACTIVE"), ("mlx5_0", "4: ACTIVE"), ("mlx5_2", "1: DOWN")):
        port = tmp_path / "infiniband" / adapter / "ports" / "1"
        port.mkdir(parents=True)
        (port / "state").write_text(f"{state}\n")
    assert link.adapters(str(tmp_path)) == ["mlx5_0", "mlx5_1"]
    assert link.adapters(str(tmp_path / "none")) == []


@pytest.mark.parametrize(("text", "speed"), [("25000\n", 25000), ("-1\n", None), (None, None)])
def test_the_speed_that_the_driver_tells(tmp_path, text, speed):
    folder = tmp_path / "net" / "eth0"
    folder.mkdir(parents=True)
    if text:
        (folder / "speed").write_text(text)
    assert link.speed_mbit_s("eth0", str(tmp_path)) == speed


class Module:
    """Stands in for AnsibleModule on a node with those addresses."""

    given = {"address": "", "interface": "", "adapters": None}

    def __init__(self, argument_spec, supports_check_mode):
        assert supports_check_mode
        self.params = {name: self.given[name] for name in argument_spec}

    def run_command(self, argv):
        return 0, ADDRESSES if "address" in argv else '[{"dev": "eth0"}]', ""

    def fail_json(self, **result):
        raise SystemExit(result["msg"])

    def exit_json(self, **result):
        raise SystemExit(SimpleNamespace(**result))


@pytest.fixture
def asked(monkeypatch):
    def ask(**given):
        kind = type("Given", (Module,), {"given": {**Module.given, **given}})
        monkeypatch.setattr(node_link_info, "AnsibleModule", kind)
        monkeypatch.setattr(link_proof, "last", lambda: {"key": "k"})
        with pytest.raises(SystemExit) as ended:
            node_link_info.main()
        return ended.value.code

    return ask


def test_a_node_describes_its_network(asked):
    answer = asked()
    assert (answer.address, answer.interface, answer.proved, answer.changed) == ("10.0.0.5", "eth0", "k", False)
    assert asked(adapters=[]).hcas == []
    assert asked(adapters=["mlx5_3"]).hcas == ["mlx5_3"]
    assert "is no address of this node" in asked(address="10.9.9.9")
