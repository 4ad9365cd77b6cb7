# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is changed while clients have some twenty streams at any time: none of them is lost, cut or wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from clients import Front, Load, steady_load
from conftest import (
    CHANGE,
    FLEET,
    HOST,
    KEY,
    SECOND,
    THIRD,
    UNITS,
    counter,
    engine_url,
    inventory_of,
    note,
    ready,
    site,
    started,
    workers,
)
from scenario import on_node, wait_until

IMAGE = "registry.gpunode.test:5000/vllm/vllm-openai-cpu:v0.32.0"


@pytest.fixture
def load(front: Front, slow_engines: None) -> Iterator[Load]:
    """Streams before, during and after what the test does. Nothing of it may be missing."""
    with steady_load(front, KEY) as load:
        yield load
    note(load.figures())
    assert load.failed == []
    assert len(load.streams) > 2 * load.lines


def answered(load: Load, node: str) -> None:
    """Wait until a stream has come from a node that began after now."""
    now = time.monotonic()
    wait_until(lambda: load.after(now, engine_url(node)) != [], 60)


def test_a_node_that_leaves_the_inventory_gets_nothing_more(load: Load) -> None:
    answered(load, SECOND)
    run = started(SECOND)
    with inventory_of(HOST, THIRD):
        result = site()
    assert result.status == 0, result.text[-3000:]
    assert [engine_url(SECOND) in workers(unit) for unit in UNITS] == [False, False]
    left = time.monotonic()
    answered(load, HOST)
    answered(load, THIRD)
    assert load.after(left, engine_url(SECOND)) == []
    # It is left alone otherwise.
    assert started(SECOND) == run


def test_a_node_that_comes_into_the_inventory_serves(load: Load) -> None:
    runs = [started(node) for node in FLEET]
    result = site()
    assert result.status == 0, result.text[-3000:]
    assert ready(SECOND)
    answered(load, SECOND)
    assert [started(node) for node in FLEET] == runs


def test_the_router_restarts(load: Load) -> None:
    for unit in UNITS:
        before = started(HOST, unit)
        on_node(f"systemctl restart {unit}", node=HOST)
        assert started(HOST, unit) != before
        wait_until(lambda: all(ready(node) for node in FLEET))
        answered(load, HOST)


def test_the_front_reloads(load: Load) -> None:
    for _time in range(3):
        on_node("systemctl reload gpunode-gateway", node=HOST)
        answered(load, HOST)


def test_a_change_that_fails_stops_at_the_first_node(load: Load) -> None:
    """The image dies at once on the first node, which comes back with the old one; the others are not touched."""
    dies = 'ENTRYPOINT ["sh", "-c", "echo no luck today >&2; exit 1"]'
    on_node(f"printf 'FROM {IMAGE}\\n%s\\n' '{dies}' | docker build -q -t gpunode.test/vllm:dies -", node=HOST)
    runs = [started(node) for node in (SECOND, THIRD)]
    result = site(vllm_image="gpunode.test/vllm:dies")
    assert result.status != 0
    assert "no luck today" in result.words
    assert [started(node) for node in (SECOND, THIRD)] == runs
    wait_until(lambda: ready(HOST))
    answered(load, HOST)


def test_every_node_changes_one_after_the_other(load: Load) -> None:
    runs = [started(node) for node in FLEET]
    began = time.monotonic()
    result = site(**CHANGE)
    assert result.status == 0, result.text[-3000:]
    note(f"three nodes, four engines: {time.monotonic() - began:.0f} s")
    assert all(started(node) != run for node, run in zip(FLEET, runs, strict=True))
    for node in FLEET:
        assert "max-num-seqs: 48" in on_node("cat /etc/vllm/tiny.yaml", node=node)
        assert ready(node)
        answered(load, node)
    assert all(counter(node, "request_success_total") > 0 for node in FLEET)


def test_a_further_run_changes_nothing() -> None:
    result = site(**CHANGE)
    assert result.status == 0, result.text[-3000:]
    assert result.text.count("changed=0 ") == len(FLEET), result.text[-1000:]
