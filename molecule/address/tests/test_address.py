# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the shared address is when something dies, what clients see of that, and what is left of it in the end."""

from __future__ import annotations

import time

from conftest import BOTH, PASSWORD, UNIT, Client, holders, moved, play, shared_address
from scenario import docker, hunt, on_node, processes, wait_until


def test_one_node_has_the_address_and_answers_there(client: Client) -> None:
    assert len(holders()) == 1
    now = time.monotonic()
    wait_until(lambda: bool(client.answers) and client.answers[-1] > now, 10)


def stays(client: Client, holder: list[str]) -> None:
    """It comes back to no node that is well again: each move ends open connections."""
    looks = len(client.answers)
    wait_until(lambda: len(client.answers) > looks + 40, 60)
    assert holders() == holder


def test_nginx_dies(client: Client) -> None:
    (first,) = holders()
    on_node("systemctl stop gpunode-gateway", node=first)
    wait_until(lambda: moved(first), 30)
    now = holders()
    on_node("systemctl start gpunode-gateway", node=first)
    stays(client, now)


def test_the_router_dies(client: Client) -> None:
    """nginx there answers still, but nobody stands behind it."""
    (first,) = holders()
    on_node("systemctl stop gpunode-router gpunode-router-second", node=first)
    wait_until(lambda: moved(first), 30)
    now = holders()
    on_node("systemctl start gpunode-router gpunode-router-second", node=first)
    stays(client, now)


def test_a_process_of_the_router_restarts_and_nothing_moves(client: Client) -> None:
    before = holders()
    on_node("systemctl restart gpunode-router", node=before[0])
    stays(client, before)


def test_a_node_loses_its_power_and_comes_back(client: Client) -> None:
    (first,) = holders()
    box = f"gpunode-lab-node-{first}"
    docker("kill", box)
    wait_until(lambda: moved(first), 60)
    now = holders()
    docker("start", box)
    wait_until(lambda: on_node(f"systemctl is-active {UNIT}", check=False, node=first) == "active", 120)
    stays(client, now)


def test_its_own_end_gives_the_address_to_the_other_node(client: Client) -> None:
    (first,) = holders()
    on_node(f"systemctl stop {UNIT}", node=first)
    wait_until(lambda: moved(first), 30)
    on_node(f"systemctl start {UNIT}", node=first)


def test_the_password_is_for_root_alone() -> None:
    for node in BOTH:
        assert PASSWORD not in processes(node)
        kept = "/etc/gpunode/gateway/keepalived-password.conf"
        assert {place for place in hunt(PASSWORD, node) if not place.startswith("/run/")} == {kept}
        assert on_node(f"stat -c '%a %U' {kept}", node=node) == "600 root"


def test_another_password_is_in_no_diff_and_moves_nothing() -> None:
    """keepalived reads it anew; both have it at nearly the same time."""
    before = holders()
    result = play("site.yml", "--diff", "-vvv", gateway_shared_password="0therPW1")
    assert result.status == 0, result.text[-3000:]
    assert PASSWORD not in result.text
    # In what this test says itself, and nowhere else.
    assert "0therPW1" not in result.text
    assert all("0therPW1" in on_node("cat /etc/gpunode/gateway/keepalived-password.conf", node=node) for node in BOTH)
    wait_until(lambda: len(holders()) == 1, 30)
    assert holders() == before


def test_what_cannot_be_shared_is_refused_before_anything_changes() -> None:
    result = play("site.yml", "--check", gateway_shared_interface="eth0;", gateway_host=shared_address())
    assert result.status != 0
    for sentence in ("gateway_shared_interface must be the name of an interface", "leave gateway_host at 0.0.0.0"):
        assert sentence in result.words


def test_an_address_that_is_shared_no_longer_is_given_up() -> None:
    shared = shared_address()
    result = play("site.yml", gateway_shared_address="")
    assert result.status == 0, result.text[-3000:]
    for node in BOTH:
        assert shared not in on_node("ip -br address", node=node)
        assert on_node(f"ls /etc/systemd/system/{UNIT}.service", check=False, node=node) == ""
        assert on_node("systemctl is-active gpunode-gateway", node=node) == "active"


def test_the_teardown_leaves_nothing_of_it() -> None:
    assert play("site.yml").status == 0
    wait_until(lambda: len(holders()) == 1, 30)
    shared = shared_address()
    result = play("playbooks/teardown.yml", "-e", "level=packages")
    assert result.status == 0, result.text[-3000:]
    for node in BOTH:
        assert shared not in on_node("ip -br address", node=node)
        assert (
            on_node(f"ls -d /etc/systemd/system/{UNIT}* /etc/gpunode/gateway 2>/dev/null", check=False, node=node) == ""
        )
        assert on_node("dpkg -l keepalived | grep ^ii", check=False, node=node) == ""
