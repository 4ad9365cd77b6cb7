# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One node fetches, two take it from there: what crossed which line, what was open then, and what is left of it."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

import pytest
from conftest import (
    FOLDER,
    PORT,
    SECRETS,
    ask,
    begin,
    clear,
    fetch,
    held,
    left,
    manifests,
    note,
    options,
    size,
    slow,
)
from scenario import Play, hunt, nodes, on_node, processes, run_play, wait_until


@dataclass
class Handed:
    """What was seen of the first time, during and after it."""

    play: Play
    secret: str
    follower: str
    stranger: str
    sent: dict[str, int]
    left: dict[str, int]
    seconds: float
    processes: dict[str, str] = field(repr=False)


@pytest.fixture(scope="module")
def handed(server, seeder, followers) -> Handed:
    """The first time, held in the middle until all was looked at, with everything told that ansible can tell."""
    server.reset()
    clear()
    before, began = {node: left(node) for node in nodes()}, time.monotonic()

    def serves() -> bool:
        return on_node(f"cat {SECRETS}", check=False, node=seeder) != ""

    def takes() -> bool:
        return all("--password-file" in on_node("ps -eo args", node=node) for node in followers)

    with slow(seeder, "100mbit"), held(followers, 0.1 * size(server)):
        running = begin("-vvv")
        wait_until(serves)
        secret = on_node(f"cat {SECRETS}", node=seeder).partition(":")[2]
        wait_until(takes)
        seen = {node: processes(node) for node in nodes()}
        result = ask(seeder, followers[0]), ask(seeder)
    play = running.wait()
    assert play.status == 0, play.text[-3000:]
    gone = {node: left(node) - before[node] for node in nodes()}
    return Handed(play, secret, *result, server.sent(), gone, time.monotonic() - began, seen)


def test_the_hub_serves_it_once(handed, server) -> None:
    note(f"{sum(handed.sent.values())} bytes sent by the hub, the weights have {size(server)}; {handed.seconds:.0f} s")
    assert handed.sent == server.sizes("weights/tiny")


def test_the_followers_have_it_over_the_lan(handed, server, seeder, followers) -> None:
    total = size(server)
    note(f"{handed.left[seeder] / total:.3f} times the weights have left the seeder")
    assert 2 * total < handed.left[seeder] < 2.2 * total
    assert all(handed.left[node] < total / 4 for node in followers)
    for node in followers:
        assert len(manifests(node)) == 1
        # The client of the hub was not wanted there, nor was a token.
        assert on_node("ls -d /opt/huggingface-hub /etc/huggingface", check=False, node=node) == ""


def test_the_layout_is_the_hubs_own_everywhere(handed, seeder, followers) -> None:
    """And any user may read it."""

    def tree(node: str) -> str:
        return on_node(f"find {FOLDER} -printf '%P %y %m %U %l\\n' | sort", node=node)

    assert all(tree(node) == tree(seeder) for node in followers)
    assert on_node(f"find {FOLDER} ! -type l ! -perm -o=r", node=seeder) == ""


def test_only_followers_are_answered(handed) -> None:
    assert handed.follower.startswith("@RSYNCD: AUTHREQD")
    assert handed.stranger.startswith("@ERROR")


def test_the_secret_is_nowhere(handed, seeder, followers) -> None:
    assert len(handed.secret) > 30
    assert handed.secret not in handed.play.text
    assert "hf_lab_good" not in handed.play.text
    for node in followers:
        assert "--password-file" in handed.processes[node]
    assert "--daemon" in handed.processes[seeder]
    for node in nodes():
        assert handed.secret not in handed.processes[node]
        assert hunt(handed.secret, node) == []


def test_the_service_is_gone(handed, seeder, followers) -> None:
    assert ask(seeder, followers[0]) == ask(seeder) == "refused"
    assert on_node(f"ss -Hltn sport = :{PORT}; ls -d /run/gpunode/seed", check=False, node=seeder) == ""
    for node in nodes():
        assert "rsync" not in on_node("ps -eo comm", node=node)
        assert on_node("systemctl list-units --all --plain --no-legend 'gpunode-weights-*'", node=node) == ""


def test_all_three_verify(handed) -> None:
    result = run_play("playbooks/verify.yml", *options(huggingface_endpoint="http://127.0.0.1:9"))
    assert result.status == 0, result.text[-3000:]
    assert result.words.count("the hash of every file is right") == len(nodes())


def test_a_second_run_transfers_nothing(handed, hub, seeder) -> None:
    total, before = size(hub), left(seeder)
    hub.reset()
    began = time.monotonic()
    result = fetch()
    assert result.status == 0, result.text[-3000:]
    assert re.findall(r"changed=(\d+)", result.text) == ["0"] * len(nodes())
    assert hub.counters()["total_requests"] == 0
    note(f"{(left(seeder) - before) / 1e3:.0f} kB have left the seeder; {time.monotonic() - began:.0f} s")
    assert left(seeder) - before < total / 100


def test_an_address_that_it_does_not_have(handed, late) -> None:
    result = fetch(huggingface_lan_address="192.0.2.1")
    assert result.status != 0
    assert f"Port {PORT} of 192.0.2.1 cannot be bound" in result.words
    assert "Set huggingface_seed_port or huggingface_lan_address" in result.words
    assert manifests(late) == []
