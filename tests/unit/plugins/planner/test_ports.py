# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What serves keeps its port: a new instance goes round it, whatever its name."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.instance.serving import NodeServing, Serving
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.ports import ports
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.request import read_request
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.planning import CATALOG, findings, instances

HERE = [Serving("8b", 8000, 8000)]


def wanted(*names: str, **options: Any) -> dict[str, Any]:
    return {"models": [{"model": "8b", "name": name} for name in names], **options}


@pytest.mark.parametrize(
    ("engines", "options", "expected"),
    [
        pytest.param([], wanted("3b", "8b"), {"3b": 8000, "8b": 8001}, id="a fresh node counts by name"),
        pytest.param(HERE, wanted("3b", "8b"), {"8b": 8000, "3b": 8001}, id="who comes goes round who serves"),
        pytest.param([Serving("8b", 8000)], wanted("3b", "8b"), {"8b": 8000, "3b": 8001}, id="units of before"),
        pytest.param(HERE, wanted("8b", port=9000), {"8b": 9000}, id="vllm_port moves all"),
        pytest.param([Serving("8b", 9000, 9000)], wanted("8b"), {"8b": 8000}, id="and back"),
        pytest.param(
            [Serving("8b", 8002, 8000)], wanted("3b", "8b"), {"8b": 8002, "3b": 8000}, id="who left leaves a gap"
        ),
        pytest.param(HERE, wanted("3b"), {"3b": 8001}, id="not planned, and it stays"),
        pytest.param(HERE, wanted("3b", remove_unlisted=True), {"3b": 8000}, id="not planned, and it goes"),
        pytest.param(
            HERE,
            {"models": [{"model": "8b", "port": 8123}, {"model": "8b", "name": "a"}]},
            {"8b": 8123, "a": 8000},
            id="a port of its own wins",
        ),
        pytest.param([], wanted("a", port=65535), {"a": 65535}, id="the last port"),
    ],
)
def test_assignment_of_ports(engines: list[Serving], options: dict[str, Any], expected: dict[str, int]) -> None:
    assert ports(read_request(options, CATALOG), engines) == expected


@pytest.mark.parametrize(
    ("engines", "options", "says"),
    [
        (
            HERE,
            {"models": ["8b", {"model": "8b", "name": "a", "port": 8000}]},
            "a wants port 8000, which 8b uses: give a another, or give 8b its own `port`.",
        ),
        (
            [],
            wanted("a", "b", port=65535),
            "No port is left for b: counting up from port 65535 ends at 65535. Set a lower port (vllm_port), or give"
            " it its own `port`.",
        ),
    ],
)
def test_ports_that_cannot_be_had(engines: list[Serving], options: dict[str, Any], says: str) -> None:
    assert findings("8xH100", serving=NodeServing(tuple(engines)), **options) == says


def test_a_plan_keeps_running_engines_and_shows_the_first_port() -> None:
    serving = NodeServing((Serving("8b", 8000, 8000),))
    planned = instances("8xH100", serving=serving, models=["8b", {"model": "70b", "name": "3.3-70b"}])
    assert {name: (item.port, item.port_base) for name, item in planned.items()} == {
        "3.3-70b": (8001, 8000),
        "8b": (8000, 8000),
    }
