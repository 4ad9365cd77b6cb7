# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""serving_plan and serving_matrix: what they return, what they ask of a node, how they fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.gpunode.llm.plugins.action import serving_matrix, serving_plan
from ansible_collections.gpunode.llm.plugins.module_utils._gpu import parse
from ansible_collections.gpunode.llm.plugins.plugin_utils import _one_play

CHECKOUT = Path(__file__).resolve().parents[4]
BOARDS = CHECKOUT / "tests" / "fixtures" / "nvidia_smi"
Actions = type[serving_plan.ActionModule] | type[serving_matrix.ActionModule]


def node(board: str) -> dict[str, Any]:
    return parse((BOARDS / f"{board}.xml").read_text(encoding="utf-8")).as_dict()


def action(kind: Actions, said: dict[str, Any] | None = None, **options: Any) -> Any:
    task = SimpleNamespace(args=options, async_val=0, check_mode=True, diff=False, environment=[], action=kind.__doc__)
    made = kind(task, MagicMock(), MagicMock(), MagicMock(), MagicMock(), MagicMock())
    made._execute_module = MagicMock(return_value=said)
    return made


def run(kind: Actions, said: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    result: dict[str, Any] = action(kind, said, **options).run(task_vars={"inventory_hostname": "one"})
    return result


def test_without_a_node() -> None:
    made = action(serving_plan.ActionModule, model="405b-fp8", gpus="8xH100")
    result = made.run(task_vars={})
    made._execute_module.assert_not_called()
    assert result["changed"] is False
    assert result["findings"] == []
    assert len(result["gpus"]) == 8
    assert result["plan"]["instances"][0]["tensor_parallel_size"] == 8


LOCK = {"who": "ann@ctl", "play": "site.yml", "job": "", "since": "2026-01-01 00:00:00 UTC", "beat": "1"}


@pytest.fixture
def keepers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processes for which a keeper was begun."""
    begun: list[int] = []
    monkeypatch.setattr(_one_play, "start_keeper", lambda main, *_others: begun.append(main))
    return begun


@pytest.mark.parametrize("new", [True, False])
def test_the_node_is_taken_in_the_same_round_trip(keepers: list[int], new: bool) -> None:
    """Also where its GPUs are given, and with one keeper for all plays of the run."""
    taken = {**node("h200x2"), "lock": {**LOCK, "mine": True, "new": new}}
    made = action(serving_plan.ActionModule, taken, model="8b", gpus="1xH100", lock_timeout_s="0")
    made._task.check_mode = False
    assert made.run(task_vars={})["plan"]["instances"]
    (call,) = made._execute_module.call_args_list
    assert call.kwargs["module_args"]["lock"]["id"]
    assert keepers == ([os.getppid()] if new else [])


def test_a_check_takes_no_lock(keepers: list[int]) -> None:
    made = action(serving_plan.ActionModule, node("h200x2"), model="8b", lock_timeout_s=0)
    assert made.run(task_vars={})["plan"]["instances"]
    assert made._execute_module.call_args.kwargs["module_args"] == {}
    assert keepers == []


def test_a_node_that_another_play_has_ends_this_one(keepers: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_one_play.time, "sleep", lambda _seconds: None)
    made = action(serving_plan.ActionModule, model="8b", lock_timeout_s=0)
    made._task.check_mode = False
    made._execute_module.side_effect = [{"lock": {**LOCK, "mine": False, "beat": beat}} for beat in "112"]
    with pytest.raises(
        AnsibleActionFail, match="site.yml of ann@ctl, since 2026-01-01 00:00:00 UTC. Nothing was changed"
    ):
        made.run(task_vars={})
    assert keepers == []


def test_the_node_is_asked_once() -> None:
    made = action(serving_plan.ActionModule, node("h200x2"), model="8b")
    result = made.run(task_vars={})
    made._execute_module.assert_called_once()
    assert [gpu["name"] for gpu in result["gpus"]] == ["NVIDIA H200"] * 2
    assert result["plan"]["instances"][0]["gpu_indices"] == (0, 1)


def test_facts_come_with_the_gpus_or_alone() -> None:
    said = {**node("h100x1"), "system": {"ansible_distribution": "Debian"}}
    made = action(serving_plan.ActionModule, said, model="8b", gather_facts=True)
    assert made.run(task_vars={})["ansible_facts"] == {"ansible_distribution": "Debian"}
    described = action(serving_plan.ActionModule, said, model="8b", gpus="8xH100", gather_facts=True).run(task_vars={})
    assert (described["ansible_facts"], len(described["gpus"])) == ({"ansible_distribution": "Debian"}, 8)
    assert "ansible_facts" not in action(serving_plan.ActionModule, said, model="8b").run(task_vars={})


def test_findings_fail_in_one_message() -> None:
    with pytest.raises(AnsibleActionFail) as raised:
        run(serving_plan.ActionModule, model="8b", gpus="1xH100", port="x", kv_cache_dtype="y")
    assert str(raised.value.message).startswith("2 things stand against this plan:\n- kv_cache_dtype must be one of")
    with pytest.raises(AnsibleActionFail, match=r"^Model '8x' is not in the catalogue"):
        run(serving_plan.ActionModule, model="8x", gpus="1xH100")


def test_findings_are_returned_where_they_are_wanted() -> None:
    result = run(serving_plan.ActionModule, node("h100x1"), model="70b", fail_on_findings=False)
    assert result["plan"] is None
    assert len(result["gpus"]) == 1
    assert "does not fit" in result["findings"][0]
    broken = run(serving_plan.ActionModule, gpus="1xH100", fail_on_findings=False)
    assert "No model was named" in broken["findings"][0]


@pytest.mark.parametrize("kind", [serving_plan.ActionModule, serving_matrix.ActionModule])
def test_a_node_that_does_not_answer(kind: Actions) -> None:
    options = {"model": "8b"} if kind is serving_plan.ActionModule else {}
    with pytest.raises(AnsibleActionFail, match="gpu_info failed on the node: no python"):
        run(kind, {"failed": True, "msg": "no python"}, **options)


def test_a_matrix_of_the_node() -> None:
    result = run(serving_matrix.ActionModule, node("h200x2-busy"), models=["70b", "8b"], link_mbit_s=100)
    assert [(row["host"], row["model"], row["fits"]) for row in result["rows"]] == [
        ("one", "8b", True),
        ("one", "70b", False),
    ]
    assert "in use" in result["notes"][0]
    assert len(result["table"]) == 3


def test_a_matrix_of_hosts_by_description() -> None:
    assert len({row["host"] for row in run(serving_matrix.ActionModule, gpus="all")["rows"]}) > 20
    two = run(serving_matrix.ActionModule, gpus="4xH100/8xL40S", models=["70b"])
    assert [row["host"] for row in two["rows"]] == ["4xH100", "8xL40S"]
    listed = run(serving_matrix.ActionModule, gpus=[{"name": "h100", "count": 2}], models=["70b"])
    assert listed["rows"][0]["host"] == "2x NVIDIA H100 80GB HBM3"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"link_mbit_s": 0}, "link_mbit_s must be above 0"),
        ({"models": ["8x"]}, "'8x' is not in the catalogue"),
        ({"gpus": "8xH10O"}, "'H10O' is not in the catalogue"),
    ],
)
def test_a_matrix_that_cannot_be(options: dict[str, Any], says: str) -> None:
    with pytest.raises(AnsibleActionFail, match=says):
        run(serving_matrix.ActionModule, **{"gpus": "1xH100", **options})


def test_the_playbook_needs_no_node(tmp_path: Path) -> None:
    """From the command line to a table and a file."""
    file = tmp_path / "plan.json"
    command = [
        sys.executable,
        "-m",
        "ansible.cli.playbook",
        "playbooks/plan.yml",
        "-e",
        "gpus=4xH100",
        "-e",
        f"json={file}",
    ]
    env = {**os.environ, "ANSIBLE_LOCAL_TEMP": str(tmp_path), "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg")}
    done = subprocess.run(
        [*command, "-e", "model=70b"], cwd=CHECKOUT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "70b    4xH100  yes   TP 4     131072      507k  141.1 GB       19" in done.stdout
    assert json.loads(file.read_text(encoding="utf-8"))["localhost"][0]["max_model_len"] == 131072
