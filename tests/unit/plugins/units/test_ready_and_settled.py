# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""units_ready and units_settled: one call for units and endpoints, and what each of its answers tells."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.gpunode.llm.plugins.module_utils.instance import wait as instance_wait
from ansible_collections.gpunode.llm.plugins.module_utils.units import run as units_run, unit as units_unit
from ansible_collections.gpunode.llm.plugins.modules import units_ready, units_settled

DONE = {"changed": True, "units": [{"name": "a.service", "action": "restart", "why": "a file"}], "diff": {"after": "x"}}
ENDPOINT = {"name": "a", "unit": "a.service", "model": "m"}
UNIT = {"name": "a.service", "files": [], "started_from": "/run/a"}
READY, LOADS = (True, "it answers"), (False, "no answer yet")


class Wait(instance_wait.Wait):
    """Asks nobody: what each endpoint answers is given."""

    answer = READY

    def look(self, endpoint: dict[str, Any]) -> None:
        ready, detail = self.answer
        self.answers[endpoint["name"]] = instance_wait.vllm_wait.Answer(ready, detail)
        if ready:
            self.resume["ready"][endpoint["name"]] = detail

    def log(self, _endpoint: dict[str, Any]) -> list[str]:
        return []


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(instance_wait, "Wait", Wait)
    monkeypatch.setattr(Wait, "answer", READY)

    def call(module, **given: Any) -> dict[str, Any]:
        args = {"units": [UNIT], "endpoints": [ENDPOINT], "_ansible_remote_tmp": str(tmp_path), **given}
        with patch_module_args(args), pytest.raises(SystemExit):
            module.main()
        return json.loads(capsys.readouterr().out)

    return call


def test_unit_changes_are_reported_after_a_wait(run, monkeypatch):
    calls = []
    monkeypatch.setattr(units_run, "run", lambda module: calls.append(module) or dict(DONE))
    monkeypatch.setattr(Wait, "answer", LOADS)
    first = run(units_ready, wait_s=0)
    assert (first["done"], first["progress"].partition(" (")[0]) == (False, "a: no answer yet")
    monkeypatch.setattr(Wait, "answer", READY)
    last = run(units_ready, wait_s=0, resume=first["resume"])
    assert (last["done"], last["endpoints"][0]["ready"]) == (True, True)
    assert {key: last[key] for key in DONE} == DONE
    assert len(calls) == 1


def test_a_late_engine_is_reported_with_the_changes(run, monkeypatch):
    monkeypatch.setattr(units_run, "run", lambda module: dict(DONE))
    monkeypatch.setattr(Wait, "answer", LOADS)
    resume = {"started": 0, "ready": {}, "restarts": {}, "runs": {"a": "1"}, "before": DONE}
    late = run(units_ready, wait_s=5, resume=resume)
    assert (late["failed"], late["changed"], late["units"]) == (True, True, DONE["units"])
    assert "a did not answer within" in late["msg"]


@pytest.fixture
def node(monkeypatch):
    """What is due for the units, by what is set here."""
    due: dict[str, Any] = {"action": "none", "enable": []}

    def decided(_module):
        return None, [units_unit.Decision("a.service", due["action"], "it does not run")], due["enable"]

    monkeypatch.setattr(units_run, "due", decided)
    return due


def file(tmp_path, here: str, wanted: str) -> dict[str, Any]:
    path = tmp_path / "a.yaml"
    path.write_text(here)
    path.chmod(0o644)
    return {"src": "x", "dest": str(path), "mode": "0644", "content": wanted}


def test_settled_is_what_nobody_has_to_touch(run, node, tmp_path):
    result = run(units_settled, files=[file(tmp_path, "a", "a")])
    assert (result["changed"], result["settled"], result["due"]) == (False, True, [])
    assert result["endpoints"][0]["ready"] is True


@pytest.mark.parametrize("check", [False, True])
def test_pending_changes_are_reported_and_not_made(run, node, tmp_path, check):
    differs = file(tmp_path, "a", "b")
    result = run(units_settled, files=[differs], _ansible_check_mode=check)
    assert (result["settled"], result["due"], result["endpoints"]) == (False, [f"{differs['dest']} differs"], [])
    assert (tmp_path / "a.yaml").read_text() == "a"


@pytest.mark.parametrize(
    ("due", "line"),
    [({"action": "start"}, "a.service: start, it does not run"), ({"enable": ["a.service"]}, "a.service: enable")],
)
def test_units_that_are_not_as_they_should_be(run, node, due, line):
    node.update(due)
    result = run(units_settled, files=[])
    assert (result["settled"], result["due"], result["endpoints"]) == (False, [line], [])


def test_an_endpoint_that_does_not_answer_is_asked_once(run, node, monkeypatch):
    monkeypatch.setattr(Wait, "answer", LOADS)
    result = run(units_settled, files=[])
    assert (result["settled"], result["due"]) == (False, ["a: no answer yet"])


def test_without_instances_nothing_is_asked(run):
    assert run(units_settled, files=[], units=[], endpoints=[])["settled"] is True


def test_leftovers_of_an_interrupted_play_are_not_settled(run, node, tmp_path):
    left = tmp_path / "vllm-a-beside.service"
    args = {"files": [file(tmp_path, "a", "a")], "absent": [str(left)]}
    assert run(units_settled, **args)["settled"] is True
    left.write_text("")
    result = run(units_settled, **args)
    assert (result["settled"], result["due"]) == (False, [f"{left} must be removed"])
