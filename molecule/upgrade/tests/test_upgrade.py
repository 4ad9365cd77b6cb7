# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node that the release before records has converged, and then this one. The tests go in their order, on one node."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from scenario import Play, on_node, run_play

HERE = Path(__file__).resolve().parents[1]
VARS = f"@{HERE / 'vars' / 'served.yml'}"
RECORD, KEPT = "/etc/vllm/tiny.json", "/var/lib/gpunode/vllm/tiny"
GATEWAY_RECORD = "/etc/gpunode/gateway.json"


@pytest.fixture(scope="module")
def before() -> dict:
    """What this release saw on the node before it wrote anything."""
    return json.loads(Path(os.environ["UPGRADE_BEFORE"]).read_text())


def deploy(*args: str) -> Play:
    return run_play("site.yml", "-e", VARS, *args)


def processes() -> list[str]:
    return on_node((HERE / "files" / "processes.sh").read_text()).splitlines()


def test_nothing_that_ran_was_restarted(before) -> None:
    assert len(before["processes"]) == 6, before["processes"]
    assert processes() == before["processes"]


def test_units_of_an_earlier_release_are_read_without_a_record(before) -> None:
    (instance,) = before["status"]["instances"]
    assert (instance["name"], instance["state"], instance["restart_due"]) == ("tiny", "serving", "")
    assert re.fullmatch("[0-9a-f]{40}", instance["revision"])
    assert before["status"]["front_listens"] == ["0.0.0.0 8443"]
    assert before["status"]["leftovers"] == []


def test_the_record_matches_and_holds_no_secret(before) -> None:
    text = on_node(f"cat {RECORD}")
    (instance,), record = before["status"]["instances"], json.loads(text)
    assert (record["schema"], record["name"], record["port"]) == (1, "tiny", 8000)
    assert [record[key] for key in ("unit", "image", "model", "revision", "served")] == [
        instance[key] for key in ("unit", "image", "model", "revision", "served")
    ]
    assert "sk-" not in text
    assert on_node(f"stat -c '%a %U' {RECORD} {GATEWAY_RECORD}").splitlines() == ["644 root"] * 2
    assert json.loads(on_node(f"cat {GATEWAY_RECORD}"))["listens"] == [{"host": "0.0.0.0", "port": 8443}]


def test_a_run_with_nothing_to_do_prints_so() -> None:
    play = deploy()
    assert (play.status, play.changed) == (0, 0), play.text[-3000:]
    assert "nothing to do" in play.words


def test_a_change_that_does_not_answer_returns_to_what_the_earlier_release_ran() -> None:
    """What the engine was started from, the earlier release put aside: there is no record among it."""
    assert on_node(f"ls {KEPT}{RECORD}", check=False) == ""
    record = json.loads(on_node(f"cat {RECORD}"))
    wrong = json.dumps({"vllm_extra_args": {"load-format": "sharded_state"}, "vllm_port": 8001, "vllm_beside": False})
    play = deploy("-e", wrong)
    assert play.status != 0
    assert "runs its last working configuration again, and answers" in play.words, play.text[-3000:]
    assert json.loads(on_node(f"cat {RECORD}")) == record
    # From now on a record goes along.
    assert on_node(f"cmp {RECORD} {KEPT}{RECORD}") == ""
    assert on_node(f"cmp {RECORD} /run/vllm-tiny/started-from{RECORD}") == ""
    run = processes()
    assert deploy().status == 0
    assert processes() == run


def test_a_removed_instance_leaves_no_record() -> None:
    result = run_play("playbooks/teardown.yml", "-e", VARS, "-e", "level=unit")
    assert result.status == 0, result.text[-3000:]
    gone = f"{RECORD} {GATEWAY_RECORD} {KEPT} /etc/vllm/tiny.yaml /etc/systemd/system/vllm-tiny.service"
    assert on_node(f"ls -d {gone} 2>/dev/null", check=False) == ""
