# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model that the catalogue does not have is asked for in the call that reads the GPUs, and in no other case."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.gpunode.llm.plugins.action import serving_matrix, serving_plan
from ansible_collections.gpunode.llm.plugins.module_utils.programs.gpu import parse
from ansible_collections.gpunode.llm.plugins.plugin_utils import hub_models
from ansible_collections.gpunode.llm.tests.unit import as_ansible
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.test_named_models import LLAMA, NAME, hub_answer

CHECKOUT = Path(__file__).resolve().parents[4]
sys.path.insert(0, str(CHECKOUT / "tests" / "lab" / "hub"))

import server

TOKEN = "hf_lab_good"
HUB = {"endpoint": "https://hub.example", "source": "", "home": "/h", "client": {"venv": "/v"}, "environment": {}}
Actions = type[serving_plan.ActionModule] | type[serving_matrix.ActionModule]


def node(**models: Any) -> dict[str, Any]:
    board = (CHECKOUT / "tests" / "fixtures" / "nvidia_smi" / "h100x1.xml").read_text(encoding="utf-8")
    return {**parse(board).as_dict(), "models": models}


def action(kind: Actions, answer: dict[str, Any], **options: Any) -> Any:
    return as_ansible.action(kind, options, answer)


def called(made: Any) -> tuple[str, dict[str, Any]]:
    """The one call on the node."""
    call: tuple[str, dict[str, Any]] = made._execute_module.call
    return call


@pytest.mark.parametrize("lock", [None, 0])
def test_the_plan_asks_in_the_call_that_it_makes_anyway(lock: float | None) -> None:
    made = action(
        serving_plan.ActionModule,
        node(**{NAME: hub_answer()}),
        model=NAME,
        hub=HUB,
        hub_token=TOKEN,
        lock_timeout_s=lock,
    )
    plan = made.run(task_vars={})["plan"]
    name, args = called(made)
    assert (name, args["models"]) == ("model_info", [{"name": NAME, "repo_id": NAME, "revision": "main"}])
    assert (args["endpoint"], args["home"], args["token"]) == (HUB["endpoint"], "/h", TOKEN)
    assert not {"source", "client", "environment"} & args.keys()
    assert plan["instances"][0]["repo_id"] == NAME


@pytest.mark.parametrize(("lock", "module"), [(None, "gpu_info"), (0, "node_info")])
def test_for_the_catalogues_models_no_hub_is_asked(lock: float | None, module: str) -> None:
    made = action(serving_plan.ActionModule, node(), model="8b", hub=HUB, hub_token=TOKEN, lock_timeout_s=lock)
    made.run(task_vars={})
    assert called(made) == (module, {} if lock is None else called(made)[1])
    assert "token" not in called(made)[1]


@pytest.mark.parametrize("kind", [serving_plan.ActionModule, serving_matrix.ActionModule])
def test_for_described_gpus_there_is_a_call_for_the_models_alone(kind: Actions) -> None:
    made = action(kind, node(**{NAME: hub_answer()}), models=[NAME], gpus="2xH100", hub=HUB)
    result = made.run(task_vars={})
    assert called(made)[0] == "model_info"
    assert result["plan"] if kind is serving_plan.ActionModule else result["rows"][0]["host"] == "2xH100"
    assert len(result.get("gpus") or [0, 1]) == 2


def test_the_table_of_the_node() -> None:
    made = action(serving_matrix.ActionModule, node(**{NAME: hub_answer()}), models=[NAME, "8b"], hub=HUB)
    rows = {row["model"]: row["fits"] for row in made.run(task_vars={"inventory_hostname": "one"})["rows"]}
    assert rows == {"8b": True, "mine-8b": True}
    assert called(made)[0] == "model_info"


def test_a_folder_of_the_node_is_no_download() -> None:
    answer = {**hub_answer(), "folder": "/srv/mine"}
    for together in (False, True):
        made = action(
            serving_matrix.ActionModule, node(**{"/srv/mine": answer}), models=["/srv/mine"], together=together
        )
        result = made.run(task_vars={"inventory_hostname": "one"})
        assert [(row["fits"], row["download_bytes"]) for row in result["rows"]] == [(True, 0)]
        assert [total["download_bytes"] for total in result["sums"]] == [0] * together


def test_what_is_refused_is_a_finding_each() -> None:
    answer = node(**{NAME: {"refused": "It is gated."}, "a/b": {"refused": "There is none."}})
    made = action(serving_plan.ActionModule, answer, models=[NAME, "a/b"], fail_on_findings=False)
    assert made.run(task_vars={})["findings"] == ["It is gated.", "There is none."]
    with pytest.raises(AnsibleActionFail, match="It is gated"):
        action(serving_plan.ActionModule, answer, models=[NAME, "a/b"]).run(task_vars={})


def test_a_node_without_a_way_out_has_the_answer_of_one_that_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the weights handed from node to node, that one alone needs it."""
    monkeypatch.setattr(hub_models.constants, "DEFAULT_LOCAL_TMP", str(tmp_path))
    cut_off = node(**{NAME: {"refused": "The hub cannot be reached.", "kind": "unreachable"}})
    gated = node(**{NAME: {"refused": "It is gated.", "kind": "gated"}})

    def plans(answer: dict[str, Any]) -> Any:
        found = action(serving_plan.ActionModule, answer, model=NAME, fail_on_findings=False).run(task_vars={})
        return found["findings"] or found["plan"]["instances"][0]["revision"]

    assert plans(cut_off) == ["The hub cannot be reached."]
    assert plans(node(**{NAME: hub_answer()})) == hub_answer()["revision"]
    assert plans(cut_off) == hub_answer()["revision"]
    assert plans(gated) == ["It is gated."]


def test_forks_that_answer_at_the_same_time_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_models.constants, "DEFAULT_LOCAL_TMP", str(tmp_path))
    forks = multiprocessing.get_context("fork")
    ready = forks.Barrier(8)

    def node_answers(number: int) -> None:
        ready.wait()
        for model in range(10):
            hub_models.shared({f"org/{number}-{model}": hub_answer()})

    at_work = [forks.Process(target=node_answers, args=(number,)) for number in range(8)]
    for worker in at_work:
        worker.start()
    for worker in at_work:
        worker.join()
    assert [one.exitcode for one in at_work] == [0] * 8
    cut_off = {f"org/{number}-{model}": {"kind": "unreachable"} for number in range(8) for model in range(10)}
    assert {name for name, answer in hub_models.shared(cut_off).items() if answer != hub_answer()} == set()


def test_a_name_that_cannot_be_asks_nobody_for_it() -> None:
    made = action(serving_plan.ActionModule, node(), model="a/b/c", fail_on_findings=False)
    (finding,) = made.run(task_vars={})["findings"]
    assert "Write ORG/NAME or ORG/NAME@REVISION" in finding
    assert called(made)[0] == "gpu_info"


# -- the playbook, with the lab's hub ---------------------------------------------------------------------------------
@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[server.Hub]:
    folder = tmp_path / "hub" / NAME
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(LLAMA))
    (folder / "model.safetensors").write_bytes(b"w" * 1000)
    monkeypatch.setattr(server.Handler, "log_message", lambda *args: None)
    made = server.Hub(("127.0.0.1", 0), tmp_path / "hub")
    threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def plan(folder: Path, *extra: str, rc: int = 0) -> str:
    env = {**os.environ, "ANSIBLE_LOCAL_TEMP": str(folder), "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg")}
    command = [sys.executable, "-m", "ansible.cli.playbook", str(CHECKOUT / "playbooks/plan.yml")]
    arguments = [word for setting in extra for word in ("-e", setting)]
    done = subprocess.run([*command, *arguments], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == rc, done.stdout + done.stderr
    return done.stdout


def test_plan_by_name_without_a_node(tmp_path: Path, hub: server.Hub) -> None:
    access = (f"huggingface_endpoint=http://127.0.0.1:{hub.server_port}", f"huggingface_home={tmp_path}/home")
    result = plan(tmp_path, "gpus=1xH100", f"model={NAME}", *access)
    assert "\nmine-8b  yes   TP 1 " in result
    assert not (tmp_path / "home").exists()
    result = plan(tmp_path, "gpus=1xH100", "model=Acme/none", *access, rc=2)
    assert "1. Acme/none does not exist on http://127.0.0.1:" in result
