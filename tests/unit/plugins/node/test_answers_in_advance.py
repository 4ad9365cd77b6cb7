# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node was asked last is answered with the next first question: as it would be in a call of its own, or not."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.gpunode.llm.plugins.module_utils.docker import container_gpus, engine as docker_engine
from ansible_collections.gpunode.llm.plugins.module_utils.instance import wait as instance_wait
from ansible_collections.gpunode.llm.plugins.module_utils.node import first as node_first, questions as node_questions
from ansible_collections.gpunode.llm.plugins.module_utils.preflight import checks as preflight_checks
from ansible_collections.gpunode.llm.plugins.module_utils.units import run as units_run, unit as units_unit
from ansible_collections.gpunode.llm.plugins.modules import preflight_check, units_settled

SECRET = "hf_never_in_a_file_but_its_own"
DOCKER = {"works": True, "ours": True, "obstacle": "", "server_version": "28.5.1", "toolkit_version": "1.20.0"}


class Module:
    """What a core wants of a module on this machine."""

    check_mode = False
    params = {"nonce": "a1"}
    get_bin_path = staticmethod(shutil.which)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(node_questions, "FOLDER", tmp_path / "run" / "asked")
    return tmp_path / "run" / "asked"


SEALED = node_questions.sealed("d", "a1")


def answers() -> dict[str, Any]:
    return node_questions.answers(Module, node_first.ANSWERS, lambda: None)[0]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def run(module: Any, **given: Any) -> dict[str, Any]:
        with patch_module_args({"_ansible_remote_tmp": str(tmp_path), **given}), pytest.raises(SystemExit):
            module.main()
        message: dict[str, Any] = json.loads(capsys.readouterr().out)
        return {key: value for key, value in message.items() if key not in ("changed", "invocation")}

    return run


# -- services ---------------------------------------------------------------------------------------------------------
class Service:
    """An engine that runs from what is wanted, and answers."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.config, self.env, self.left = folder / "8b.yaml", folder / "8b.env", folder / "left-over"
        self.config.write_text("model: a/b\n")
        self.env.write_text(f"VLLM_API_KEY={SECRET}\n")
        self.config.chmod(0o644)
        self.env.chmod(0o600)
        self.action, self.enable, self.answers = "none", [], True
        monkeypatch.setattr(units_run, "due", lambda _module: (None, [self.decision()], self.enable))
        service = self

        class Wait(instance_wait.Wait):
            def look(self, endpoint: Any) -> None:
                self.answers[endpoint["name"]] = instance_wait.vllm_wait.Answer(service.answers, "it answers")
                if service.answers:
                    self.resume["ready"][endpoint["name"]] = "it answers"

        monkeypatch.setattr(instance_wait, "Wait", Wait)

    def decision(self) -> units_unit.Decision:
        return units_unit.Decision("vllm-8b.service", self.action, "it was not running")

    def question(self, **more: Any) -> dict[str, Any]:
        env = {"src": "x", "dest": str(self.env), "mode": "0600", "secret": True}
        return {
            "files": [{"src": "x", "dest": str(self.config), "content": "model: a/b\n"}, env],
            "secrets": {str(self.env): f"VLLM_API_KEY={SECRET}\n"},
            "units": [{"name": "vllm-8b.service", "files": [str(self.config)], "started_from": "/run/vllm-8b"}],
            "endpoints": [{"name": "8b", "unit": "vllm-8b.service", "model": "a/b"}],
            "absent": [str(self.left)],
            **more,
        }


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    return Service(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("change", "settled"),
    [
        pytest.param(lambda _s: None, True, id="nothing"),
        pytest.param(lambda s: s.config.write_text("model: a/c\n"), False, id="a file was edited"),
        pytest.param(lambda s: s.config.chmod(0o600), False, id="a file has another mode"),
        pytest.param(lambda s: s.env.write_text("VLLM_API_KEY=other\n"), False, id="a secret file was edited"),
        pytest.param(lambda s: s.env.chmod(0o644), False, id="a secret file can be read by others"),
        pytest.param(lambda s: s.config.unlink(), False, id="a file is gone"),
        pytest.param(lambda s: s.left.touch(), False, id="a stopped play left something"),
        pytest.param(lambda s: setattr(s, "action", "start"), False, id="the unit does not run"),
        pytest.param(lambda s: s.enable.append("vllm-8b.service"), False, id="the unit does not start with the node"),
        pytest.param(lambda s: setattr(s, "answers", False), False, id="it does not answer"),
    ],
)
def test_services_are_reported_as_in_a_separate_call(
    service: Service, call: Callable[..., dict[str, Any]], change: Callable[[Service], object], settled: bool
) -> None:
    assert call(units_settled, **service.question(digest="d"))["settled"] is True
    change(service)
    (name, again) = answers().popitem()
    assert (name, again["digest"], again["answer"]["settled"]) == ("units_settled", SEALED, settled)
    assert again["answer"] == call(units_settled, **service.question())


def test_a_file_that_is_to_be_absent(service: Service, call: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    keys = {"src": "x", "dest": str(tmp_path / "8b.keys.yaml"), "present": False}
    call(units_settled, **service.question(files=[keys], digest="d"))
    assert answers()["units_settled"]["answer"]["settled"] is True
    (tmp_path / "8b.keys.yaml").touch()
    assert answers()["units_settled"]["answer"]["due"] == [f"{keys['dest']} differs"]


# -- preflight --------------------------------------------------------------------------------------------------------
@pytest.fixture
def preflight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A question to which the node has the whole answer."""
    state = {"docker": dict(DOCKER), "toolkit": True}
    monkeypatch.setattr(docker_engine, "describe", lambda *_given: dict(state["docker"]))
    monkeypatch.setattr(container_gpus, "settled", lambda *_given: state["toolkit"])
    monkeypatch.setattr(preflight_checks, "data_root", lambda: str(tmp_path))
    (tmp_path / "token").write_text(SECRET)
    (tmp_path / "token").chmod(0o600)
    question = {
        "instances": [],
        "home": str(tmp_path / "hub"),
        "token": SECRET,
        "token_path": str(tmp_path / "token"),
        "docker": {},
        "toolkit": {"repository": {"manager": "apt", "options": {}}},
        "registry": {"proxy": {"https": f"http://ada:{SECRET}@proxy.test:3128"}},
        "client": {"venv": "/opt/hub", "index_url": f"https://ada:{SECRET}@pypi.test/simple"},
    }
    return {"question": question, **state, "state": state, "token": tmp_path / "token"}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda _n: None, id="nothing"),
        pytest.param(lambda n: n["state"].update(toolkit=False), id="containers have no GPUs any more"),
        pytest.param(lambda n: n["state"]["docker"].update(works=False, server_version=""), id="Docker is down"),
        pytest.param(lambda n: n["state"]["docker"].update(obstacle="Docker comes from snap."), id="another Docker"),
        pytest.param(lambda n: n["token"].chmod(0o644), id="the token can be read by others"),
    ],
)
def test_preflight_is_reported_as_in_a_separate_call(
    preflight: dict[str, Any], call: Callable[..., dict[str, Any]], change: Callable[[dict[str, Any]], object]
) -> None:
    call(preflight_check, **preflight["question"], digest="d")
    change(preflight)
    again = answers()["preflight_check"]
    alone = call(preflight_check, **preflight["question"])
    # What is free on a disk is another number at every look.
    assert [disk["paths"] for disk in again["answer"].pop("disks")] == [disk["paths"] for disk in alone.pop("disks")]
    assert again == {"digest": SEALED, "answer": alone}


IMAGE = {"name": "8b", "repo_id": "a/b", "image": "vllm/vllm-openai:v0.33.0", "device": "cuda"}
APT = {
    "manager": "apt",
    "options": {"name": "docker", "uri": "file:///nothing", "suite": "./", "fingerprint": "0" * 40},
}


@pytest.mark.parametrize(
    "asks",
    [
        pytest.param({"instances": [IMAGE], "skip": ["registry"]}, id="weights"),
        pytest.param({"instances": [IMAGE], "skip": ["hub"]}, id="an image"),
        pytest.param({"repositories": [APT]}, id="a repository"),
        pytest.param({"token": "hf_new"}, id="a new token"),
    ],
)
def test_what_others_must_be_asked_for_is_asked_in_a_call_of_its_own(
    preflight: dict[str, Any],
    call: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    asks: dict[str, Any],
) -> None:
    monkeypatch.setattr(
        preflight_check.Elsewhere, "__call__", lambda _self, _asks: preflight_check.preflight_answer.Found()
    )
    call(preflight_check, **{**preflight["question"], **asks}, digest="d")
    assert answers() == {}


def test_a_token_that_is_another_by_now_is_asked_for(
    preflight: dict[str, Any], call: Callable[..., dict[str, Any]]
) -> None:
    call(preflight_check, **preflight["question"], digest="d")
    assert "preflight_check" in answers()
    preflight["token"].write_text("hf_other")
    assert answers() == {}


# -- what is kept -----------------------------------------------------------------------------------------------------
def test_nothing_secret_is_kept_and_root_alone_reads_it(
    preflight: dict[str, Any], service: Service, call: Callable[..., dict[str, Any]], folder: Path
) -> None:
    call(preflight_check, **preflight["question"], digest="d")
    call(units_settled, **service.question(digest="d"))
    assert sorted(path.name for path in folder.iterdir()) == ["preflight_check", "units_settled"]
    for path in folder.iterdir():
        assert SECRET not in path.read_text()
        assert path.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_digest_of_a_question_does_not_leave_the_node(
    service: Service, call: Callable[..., dict[str, Any]]
) -> None:
    """With -vvv all that a node says is shown, and secrets could be tried against a digest of them."""
    call(units_settled, **service.question(digest="d" * 64))
    assert "d" * 64 not in json.dumps(answers())
    assert node_questions.sealed("d", "a1") != node_questions.sealed("d", "a2")


def test_a_check_keeps_nothing(service: Service, call: Callable[..., dict[str, Any]], folder: Path) -> None:
    call(units_settled, **service.question(digest="d"), _ansible_check_mode=True)
    assert not folder.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"digest": "d"}', '{"digest": "d", "question": {}}'])
def test_unreadable_questions_are_ignored(folder: Path, text: str) -> None:
    folder.mkdir(parents=True)
    (folder / "units_settled").write_text(text)
    assert answers() == {}


def test_a_node_on_which_nothing_can_be_kept(
    service: Service, call: Callable[..., dict[str, Any]], folder: Path
) -> None:
    folder.parent.mkdir()
    folder.write_text("a file in the way")
    assert call(units_settled, **service.question(digest="d"))["settled"] is True
    assert answers() == {}
    assert os.listdir(folder.parent) == ["asked"]
