# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two nodes of one engine: how their ranks are, plays with their settings, the wait until the engine is back."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import yaml
from scenario import Play, nodes, on_node, run_play, wait_until, wrong_answers

SETTINGS = yaml.safe_load((Path(__file__).parents[1] / "converge.yml").read_text())[0]["vars"]
UNIT = "vllm-tiny.service"
MODEL = "gpunode/tiny-llama"
#: Seconds in which the engine is back whatever ended it: the pause after a crash, and a start on a busy machine.
BACK_S = 560


def play(name: str, **more: Any) -> Play:
    """Run a playbook with the settings of the nodes."""
    return run_play(f"{name}.yml", "-e", json.dumps({**SETTINGS, **more}))


def head() -> str:
    return nodes()[0]


def other() -> str:
    return nodes()[1]


def runs() -> dict[str, str]:
    """The run of each rank that serves, by node; a rank that does not has none."""
    found = {}
    for node in nodes():
        shown = on_node(f"systemctl show --value --property=ActiveState,InvocationID {UNIT}", check=False, node=node)
        state = dict(zip(("active", "run"), shown.split("\n"), strict=False))
        found[node] = state.get("run", "") if state.get("active") == "active" else ""
    return found


def serves() -> bool:
    """Whether both ranks count as started, and the engine gives the answers that the model was trained to."""
    return all(runs().values()) and wrong_answers(node=head(), model=MODEL) == {}


def back(before: dict[str, str]) -> float:
    """Wait until the engine serves with new runs on all nodes; the seconds that it took."""
    began = time.monotonic()

    def engine_is_back() -> bool:
        now = runs()
        return all(now.values()) and not set(now.values()) & set(before.values())

    wait_until(engine_is_back, BACK_S)
    assert wrong_answers(node=head(), model=MODEL) == {}
    return time.monotonic() - began


def peer_log(node: str) -> str:
    """What the unit that keeps the ranks together has said on a node."""
    return on_node("journalctl --no-pager -q -o cat -u gpunode-peer@tiny.service", node=node)


def kill(node: str, process: str) -> None:
    """End a process of the engine with no chance to say so."""
    on_node(f"pkill -9 -f '^{process}'", node=node)
