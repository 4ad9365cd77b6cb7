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
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.gpunode.llm.plugins.action import serving_matrix, serving_plan
from ansible_collections.gpunode.llm.plugins.module_utils.programs.gpu import parse
from ansible_collections.gpunode.llm.plugins.plugin_utils.node import one_play
from ansible_collections.gpunode.llm.tests.unit import as_ansible

CHECKOUT = Path(__file__).resolve().parents[4]
BOARDS = CHECKOUT / "tests" / "fixtures" / "nvidia_smi"
Actions = type[serving_plan.ActionModule] | type[serving_matrix.ActionModule]


def node(board: str) -> dict[str, Any]:
    return parse((BOARDS / f"{board}.xml").read_text(encoding="utf-8")).as_dict()


def action(kind: Actions, answer: dict[str, Any] | None = None, **options: Any) -> Any:
    return as_ansible.action(kind, options, answer)


def run(kind: Actions, answer: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    result: dict[str, Any] = action(kind, answer, **options).run(task_vars={"inventory_hostname": "one"})
    return result


def test_without_a_node() -> None:
    made = action(serving_plan.ActionModule, model="405b-fp8", gpus="8xH100")
    result = made.run(task_vars={})
    assert made._execute_module.calls == []
    assert result["changed"] is False
    assert result["findings"] == []
    assert len(result["gpus"]) == 8
    assert result["plan"]["instances"][0]["tensor_parallel_size"] == 8


LOCK = {"who": "ann@ctl", "play": "site.yml", "job": "", "since": "2026-01-01 00:00:00 UTC", "beat": "1"}


@pytest.fixture
def keepers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processes for which a keeper was begun."""
    begun: list[int] = []
    monkeypatch.setattr(one_play, "start_keeper", lambda main, *_others: begun.append(main))
    return begun


@pytest.mark.parametrize("new", [True, False])
def test_the_node_is_taken_in_the_same_round_trip(keepers: list[int], new: bool) -> None:
    """Also where its GPUs are given, and with one keeper for all plays of the run."""
    taken = {**node("h200x2"), "lock": {**LOCK, "mine": True, "new": new}}
    made = action(serving_plan.ActionModule, taken, model="8b", gpus="1xH100", lock_timeout_s="0")
    made._task.check_mode = False
    assert made.run(task_vars={})["plan"]["instances"]
    _module, request = made._execute_module.call
    assert request["lock"]["id"]
    assert keepers == ([os.getppid()] if new else [])


def test_a_check_takes_no_lock(keepers: list[int]) -> None:
    made = action(serving_plan.ActionModule, node("h200x2"), model="8b", lock_timeout_s=0)
    assert made.run(task_vars={})["plan"]["instances"]
    assert list(made._execute_module.call[1]) == ["nonce"]
    assert keepers == []


def test_a_node_that_another_play_has_ends_this_one(keepers: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_play.time, "sleep", lambda _seconds: None)
    held = [{"lock": {**LOCK, "mine": False, "beat": beat}} for beat in "112"]
    made = as_ansible.action(serving_plan.ActionModule, {"model": "8b", "lock_timeout_s": 0}, *held, check_mode=False)
    with pytest.raises(
        AnsibleActionFail, match="site.yml of ann@ctl, since 2026-01-01 00:00:00 UTC. Nothing was changed"
    ):
        made.run(task_vars={})
    assert keepers == []


def test_the_node_is_asked_once() -> None:
    made = action(serving_plan.ActionModule, node("h200x2"), model="8b")
    result = made.run(task_vars={})
    assert made._execute_module.call == ("gpu_info", {})
    assert [gpu["name"] for gpu in result["gpus"]] == ["NVIDIA H200"] * 2
    assert result["plan"]["instances"][0]["gpu_indices"] == (0, 1)


@pytest.mark.parametrize(
    ("kind", "options"),
    [(serving_plan.ActionModule, {"model": "8b"}), (serving_matrix.ActionModule, {"models": ["8b"]})],
)
def test_what_ansible_adds_to_a_question_is_no_question_for_the_hub(kind: Actions, options: dict[str, Any]) -> None:
    made = action(kind, node("h100x1"), **options)
    assert made.run(task_vars={})["findings"] == []
    assert made._execute_module.call == ("gpu_info", {})


def test_facts_come_with_the_gpus_or_alone() -> None:
    answer = {**node("h100x1"), "system": {"ansible_distribution": "Debian"}}
    made = action(serving_plan.ActionModule, answer, model="8b", gather_facts=True)
    assert made.run(task_vars={})["ansible_facts"] == {"ansible_distribution": "Debian"}
    described = action(serving_plan.ActionModule, answer, model="8b", gpus="8xH100", gather_facts=True).run(
        task_vars={}
    )
    assert (described["ansible_facts"], len(described["gpus"])) == ({"ansible_distribution": "Debian"}, 8)
    assert "ansible_facts" not in action(serving_plan.ActionModule, answer, model="8b").run(task_vars={})


def test_findings_fail_in_one_message() -> None:
    with pytest.raises(AnsibleActionFail) as raised:
        run(serving_plan.ActionModule, model="8b", gpus="1xH100", port="x", kv_cache_dtype="y")
    message = "2 problems with this plan:\n- vllm_kv_cache_dtype must be one of"
    assert str(raised.value.message).startswith(message)
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
    assert "In use" not in result["text"][0]
    assert any("in use" in line for line in result["text"])


def test_several_models_side_by_side_have_gpus_of_their_own() -> None:
    """Each row claimed all GPUs of the host before."""
    result = run(serving_matrix.ActionModule, gpus="4xH100", models=["8b", "70b-fp8"], together=True)
    rows, (total,) = result["rows"], result["sums"]
    plan = run(serving_plan.ActionModule, gpus="4xH100", models=["8b", "70b-fp8"])["plan"]["instances"]
    assert [row["gpu_indices"] for row in rows] == [instance["gpu_indices"] for instance in plan]
    taken = [index for row in rows for index in row["gpu_indices"]]
    assert sorted(taken) == [0, 1, 2, 3]
    assert total["download_bytes"] == sum(row["download_bytes"] for row in rows)
    assert total["image_download_bytes"] == 10_000_000_000
    assert total["image_disk_bytes"] == 30_000_000_000
    twice = run(
        serving_matrix.ActionModule,
        gpus="4xH100",
        models=[{"model": "8b", "name": name} for name in "ab"],
        together=True,
    )
    assert twice["sums"][0]["download_bytes"] == twice["rows"][0]["download_bytes"]


def test_several_models_side_by_side_on_a_node_that_serves_them_keep_their_gpus() -> None:
    answer = {**node("h100x8"), "engines": [{"name": "8b", "port": 8000, "gpus": ["7"]}]}
    result = run(serving_matrix.ActionModule, answer, models=["8b", "70b"], together=True, data_parallel_size=1)
    assert {row["model"]: row["gpu_indices"] for row in result["rows"]}["8b"] == (7,)


def test_models_that_do_not_fit_together_are_refused_with_the_reason() -> None:
    result = run(serving_matrix.ActionModule, gpus="4xH100", models=["405b-w4a16", "70b"], together=True)
    assert (result["rows"], result["sums"][0]["findings"][0].startswith("405b-w4a16 and 70b do not fit")) == ([], True)
    assert "1. 405b-w4a16 and 70b do not fit" in "\n".join(result["text"])


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
        ({"models": ["8x"]}, "Model '8x' is not in the catalogue"),
        ({"gpus": "8xH10O"}, "gpus: 'H10O' is not in the catalogue"),
        ({"gpus": 8}, "gpus: 8 is neither a text such as 8xH100 nor a dictionary"),
        ({"gpus": True}, "gpus: True is neither a text"),
        ({"gpus": "0xH100"}, "gpus: '0xH100' names no GPU; write 8xH100"),
        ({"gpus": "8xH100/"}, "gpus: '' names no GPU"),
        ({"models": ["8b", "70b"], "together": True, "gpus": ","}, "gpus: ',' names no GPU"),
    ],
)
def test_a_matrix_that_cannot_be(options: dict[str, Any], says: str) -> None:
    options = {"gpus": "1xH100", **options}
    with pytest.raises(AnsibleActionFail, match=says):
        run(serving_matrix.ActionModule, **options)
    result = run(serving_matrix.ActionModule, fail_on_findings=False, **options)
    assert (result["rows"], result["findings"][0][: len(says)]) == ([], says)


def test_gpus_without_a_name_are_called_by_their_memory() -> None:
    gpus = {"count": 2, "memory_mib": 40000, "compute_capability": "9.0"}
    assert run(serving_matrix.ActionModule, gpus=gpus, models=["8b"])["rows"][0]["host"] == "2x GPU of 40000 MiB"


def plan(folder: Path, *extra: str, rc: int = 0) -> str:
    """From the command line, as somebody who stands in a folder of his own and has no inventory."""
    env = {**os.environ, "ANSIBLE_LOCAL_TEMP": str(folder), "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg")}
    command = [sys.executable, "-m", "ansible.cli.playbook", str(CHECKOUT / "playbooks/plan.yml")]
    arguments = [word for setting in extra for word in ("-e", setting)]
    done = subprocess.run([*command, *arguments], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == rc, done.stdout + done.stderr
    return done.stdout


def test_the_playbook_needs_no_node_and_writes_where_the_user_stands(tmp_path: Path) -> None:
    result = plan(tmp_path, "gpus=4xH100", "json=plan.json", "models=70b,405b")
    assert "\nOn 4xH100 (4x NVIDIA H100 80GB HBM3), these do not fit side by side:\n\n1. 405b (meta-llama" in result
    assert f"\nAs JSON: {tmp_path}/plan.json\n" in result
    assert json.loads((tmp_path / "plan.json").read_text(encoding="utf-8")) == {"schema": 1, "nodes": {"localhost": []}}
    assert not (CHECKOUT / "playbooks/plan.json").exists()
    result = plan(tmp_path, "gpus=4xH100", f"json={tmp_path / 'one.json'}", "model=70b")
    assert "\n70b    yes   TP 4     131072      485k  141.1 GB       19\n" in result
    assert (
        json.loads((tmp_path / "one.json").read_text(encoding="utf-8"))["nodes"]["localhost"][0]["max_model_len"]
        == 131072
    )


def test_the_playbook_prints_findings_as_text(tmp_path: Path) -> None:
    """As a result it was printed as YAML, between quotation marks."""
    result = plan(tmp_path, "gpus=8xH10O", "model=8b", rc=2)
    assert "\nlocalhost: 1 problem found; nothing was changed.\n1. gpus: 'H10O' is not in the catalogue. " in result
    assert result.count("is not in the catalogue") == 1
    result = plan(tmp_path, "gpus=8xH100", "model=8b", "json=nowhere/plan.json", rc=2)
    assert "json must be a file in a folder that exists" in result
    assert "What fits" not in result
    assert "Origin: " not in result


def test_the_playbook_without_settings_names_the_missing_ones(tmp_path: Path) -> None:
    result = plan(tmp_path)
    assert "no hosts matched" not in result
    assert "There is nothing to plan for. Describe a host, or name your own:\n" in result
    assert "-e gpus=4xH100" in result


def test_settings_of_roles_reach_the_plan_playbook(tmp_path: Path) -> None:
    board = {"names": ["NVIDIA L4"], "memory_mib": 23034, "compute_capability": "8.9"}
    result = plan(tmp_path, "gpus=2xL4", json.dumps({"vllm_extra_gpus": {"l4": board}}), "model=8b")
    assert "\n8b     yes " in result
    result = plan(tmp_path, "gpus=4xH100", "model=8b", "vllm_tensor_parallel_size=4")
    assert "\n8b     yes   TP 4 " in result


def test_an_engine_over_several_nodes_needs_their_names() -> None:
    wanted = {"model": "8b", "nodes_per_engine": "2", "fail_on_findings": False}
    refused = run(serving_plan.ActionModule, node("h100x1"), **wanted)
    assert refused["plan"] is None
    assert "8b runs over 2 nodes, and their names are not given" in refused["findings"][0]
    nodes = {"nodes": ["one", "two"], "rank": 1}
    (instance,) = run(serving_plan.ActionModule, node("h100x1"), group=nodes, **wanted)["plan"]["instances"]
    assert instance["group"]["nodes"] == ("one", "two")
    assert run(serving_plan.ActionModule, gpus="1xH100", **wanted)["plan"]["instances"][0]["group"]["size"] == 2
