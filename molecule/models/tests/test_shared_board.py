# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two engines on one board. The board is a stand-in and the engine computes on the processor: units, budgets and the
order of their starts are real."""

from __future__ import annotations

import pytest
import yaml
from conftest import EMBEDDING, LLAMA, embedded, play
from scenario import Play, on_node

SHARES = {"tiny": 0.4, "tiny-embedding": 0.3}
FIRST, SECOND = (f"vllm-{name}.service" for name in SHARES)
BOARD = {"device": "cuda"}
MODELS = [
    {"model": LLAMA["model"], "gpu_share": SHARES["tiny"], **BOARD},
    {"model": EMBEDDING, "gpu_share": SHARES["tiny-embedding"], **BOARD},
]
#: A node that is a container itself may not raise limits, and only plans for a board do.
SETTINGS = {"models": MODELS, "vllm_ulimits": {}}


@pytest.fixture(scope="module")
def shared() -> Play:
    result = play("site", **SETTINGS)
    assert result.status == 0, result.text[-3000:]
    return result


def moment(unit: str, name: str) -> int:
    """When a unit came to a state, in microseconds since the node started."""
    return int(on_node(f"systemctl show --value --property={name} {unit}"))


@pytest.mark.usefixtures("shared")
def test_each_has_its_share_of_the_memory() -> None:
    pages = {name: yaml.safe_load(on_node(f"cat /etc/vllm/{name}.yaml")) for name in SHARES}
    parts = {name: page["gpu-memory-utilization"] for name, page in pages.items()}
    whole = parts["tiny"] / SHARES["tiny"]
    assert whole == pytest.approx(0.92)
    assert parts["tiny-embedding"] == pytest.approx(whole * SHARES["tiny-embedding"])
    devices = [on_node(f"docker inspect vllm-{name} -f '{{{{json .HostConfig.DeviceRequests}}}}'") for name in SHARES]
    assert "nvidia.com/gpu=" in devices[0]
    assert devices[0] == devices[1]


@pytest.mark.usefixtures("shared")
def test_the_second_starts_when_the_first_has_answered() -> None:
    assert moment(SECOND, "ExecMainStartTimestampMonotonic") >= moment(FIRST, "ActiveEnterTimestampMonotonic") > 0


@pytest.mark.usefixtures("shared")
def test_both_answer() -> None:
    body = '{"model": "gpunode/tiny-llama", "prompt": "Hello", "max_tokens": 4}'
    request = f"curl -sf -H 'Content-Type: application/json' -d '{body}' http://127.0.0.1:8000/v1/completions"
    assert '"text"' in on_node(request)
    assert len(embedded(["Hello"])[0]) == 256


@pytest.mark.usefixtures("shared")
def test_a_further_run_changes_nothing() -> None:
    again = play("site", **SETTINGS)
    assert (again.status, again.changed) == (0, 0), again.text[-3000:]


def test_shares_of_more_than_a_board_are_refused_before_anything_changes() -> None:
    result = play("site", **{**SETTINGS, "models": [{**model, "gpu_share": 0.6} for model in MODELS]})
    assert result.status != 0
    assert result.changed == 0
    assert "Lower the shares (gpu_share), or serve fewer models on this host." in result.words
