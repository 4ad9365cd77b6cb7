# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The end: a node leaves before it is torn down, and of a router nothing is left."""

from __future__ import annotations

from clients import Front, steady_load
from conftest import CHANGE, HOST, KEY, THIRD, UNITS, engine_url, note, play, workers
from scenario import on_node

LEFT = "/etc/gpunode/router /opt/gpunode-router /var/lib/gpunode/router /run/gpunode-router*"
LEFT += " /etc/systemd/system/gpunode-router*"


def test_a_node_that_is_torn_down_leaves_first(front: Front) -> None:
    with steady_load(front, KEY) as load:
        result = play("playbooks/teardown.yml", f"--limit={THIRD}", **CHANGE)
    assert result.status == 0, result.text[-3000:]
    note(load.figures())
    assert load.failed == []
    for unit in UNITS:
        assert not {engine_url(THIRD), engine_url(THIRD, 8001)} & set(workers(unit))


def test_the_teardown_leaves_nothing_of_the_router() -> None:
    result = play("playbooks/teardown.yml", f"--limit={HOST}", **CHANGE)
    assert result.status == 0, result.text[-3000:]
    assert on_node(f"ls -d {LEFT} 2>/dev/null; getent passwd gpunode-router", check=False, node=HOST) == ""
    assert on_node("ss -Hltn 'sport >= :29000 and sport <= :30001'", node=HOST) == ""
