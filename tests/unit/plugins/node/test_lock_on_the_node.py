# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's side of the lock: who gets it, when it is void, and what the holder runs to renew and to release it."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.node import lock as node_lock

ONE, TWO = ({"id": name, "who": f"{name}@ctl", "play": "site.yml", "job": ""} for name in ("one", "two"))


class Node:
    """A folder for the lock, and an uptime that the test sets."""

    def __init__(self, root: Path) -> None:
        self.folder, self.uptime = root / "run" / "play", root / "uptime"
        self.at(1000)

    def at(self, seconds: float) -> None:
        self.uptime.write_text(f"{seconds:.2f} 7.00\n")

    def take(self, me: dict[str, str]) -> dict[str, object]:
        return node_lock.take(me, "2026-01-01 00:00:00 UTC", self.folder, self.uptime)

    def run(self, text: str, name: str) -> int:
        line = text.format(folder=self.folder, id=name, uptime=self.uptime)
        return subprocess.run(["sh", "-c", line], check=False).returncode


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_the_first_has_it_and_the_second_reads_whose_it_is(node: Node) -> None:
    lease = node.take(ONE)
    assert (lease["mine"], lease["new"], lease["beat"]) == (True, True, "1000.00")
    lease = node.take(TWO)
    assert (lease["mine"], lease["new"]) == (False, False)
    assert (lease["who"], lease["since"], lease["beat"]) == ("one@ctl", "2026-01-01 00:00:00 UTC", "1000.00")
    assert (node.folder.stat().st_mode & 0o777) == 0o700


def test_all_plays_of_one_run_share_it(node: Node) -> None:
    node.take(ONE)
    node.at(1020)
    lease = node.take(ONE)
    assert (lease["mine"], lease["new"], lease["beat"]) == (True, False, "1020.00")


@pytest.mark.parametrize(("uptime", "free"), [(1060, False), (1060.5, True), (3.0, True)])
def test_without_a_sign_of_life_it_is_void(node: Node, uptime: float, free: bool) -> None:
    """The last: the folder outlived a restart of the node."""
    node.take(ONE)
    node.at(uptime)
    assert node.take(TWO)["mine"] is free


def test_it_is_renewed_and_released_by_its_holder_alone(node: Node) -> None:
    node.take(ONE)
    node.at(1050)
    assert node.run(node_lock.RENEW, "two") != 0
    assert node.run(node_lock.RENEW, "one") == 0
    node.at(1100)
    assert node.take(TWO)["beat"] == "1050.00"
    assert node.run(node_lock.RELEASE, "two") != 0
    assert node.take(TWO)["mine"] is False
    assert node.run(node_lock.RELEASE, "one") == 0
    assert list(node.folder.iterdir()) == []
    assert node.take(TWO)["new"] is True
    assert node.run(node_lock.RENEW, "one") != 0


@pytest.mark.parametrize("name", ["held", "beat"])
@pytest.mark.parametrize("text", ["", "{", "[1]"])
def test_what_was_not_written_to_its_end_holds_nothing(node: Node, name: str, text: str) -> None:
    node.take(ONE)
    (node.folder / name).write_text(text)
    assert node.take(TWO)["new"] is True


def test_one_of_many_concurrent_plays_gets_the_lock(node: Node) -> None:
    many = [{**ONE, "id": f"run-{number}"} for number in range(16)]
    with ThreadPoolExecutor(len(many)) as pool:
        leases = list(pool.map(node.take, many))
    assert sum(bool(lease["new"]) for lease in leases) == 1
    assert len({str(lease["id"]) for lease in leases}) == 1
