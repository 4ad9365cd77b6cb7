# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two plays at once on one node: the first has it for itself, and it is free again however the first one ended."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from conftest import CONVERGE, HOLD, Pull
from scenario import Hub, Running, begin_play, on_node, run_play, wait_until

LOCK = "/run/gpunode/play"


def holder() -> str:
    """The play that has the node, "" where it is free."""
    held = on_node(f"cat {LOCK}/held", check=False)
    return json.loads(held)["id"] if held else ""


def free() -> bool:
    return holder() == ""


@pytest.fixture
def first(pull: Pull, hub: Hub) -> Iterator[Running]:
    """site.yml, which has the node and asks the hub a question whose answer is held back until the test is over."""
    wait_until(free)
    hub.faults({"kind": "hold", "path": "^/api/models/gpunode/", "at": 0})
    running = begin_play("site.yml", *pull.variables(model="tiny"))
    try:
        wait_until(holder)
        yield running
    finally:
        if running.process.poll() is None:
            running.kill()
        hub.let_go()
        wait_until(free)


def test_the_second_play_names_the_locks_holder_and_age(first) -> None:
    since = json.loads(on_node(f"cat {LOCK}/held"))["since"]
    result = run_play("site.yml", "-e", "model=tiny")
    assert result.status != 0
    assert "Another play has this node: site.yml of " in result.words
    assert f", since {since}. Nothing was changed." in result.words
    assert "wait for it with -e node_lock_timeout_s=600" in result.words
    assert result.changed == 0
    assert first.process.poll() is None


@pytest.mark.parametrize("name", ["teardown", "prune"])
def test_no_other_play_changes_it_either(first, name: str) -> None:
    result = run_play(f"playbooks/{name}.yml")
    assert result.status != 0
    assert "Another play has this node: site.yml of " in result.words
    assert result.changed == 0


def test_a_read_only_play_does_not_wait(first) -> None:
    assert run_play("playbooks/status.yml").status == 0
    assert run_play("playbooks/prune.yml", "--check").status == 0
    assert first.process.poll() is None


def test_a_waiting_play_continues_when_the_first_is_killed(first, pull) -> None:
    """With no chance to clean up: what releases the node is not part of what dies."""
    before = holder()
    second = pull.begin(CONVERGE, node_lock_timeout_s=600)
    wait_until(lambda: "waiting for it" in second.output())
    assert holder() == before
    first.kill()
    result = second.wait()
    assert result.status == 0, result.text[-3000:]
    assert len(pull.manifests()) > 0


def test_it_is_renewed_while_the_play_runs_and_gone_at_its_end(first, pull, hub) -> None:
    """The next play has it for as long as the hub holds back the weights."""
    first.kill()
    hub.faults({**HOLD, "at": 0.5})
    second = pull.begin(CONVERGE)
    pull.wait_for(0.5)
    beat = on_node(f"cat {LOCK}/beat")
    wait_until(lambda: on_node(f"cat {LOCK}/beat") != beat)
    hub.let_go()
    assert second.wait().status == 0
    wait_until(free)
