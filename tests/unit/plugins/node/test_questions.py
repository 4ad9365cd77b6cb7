# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an answer that came along is the answer to what is asked now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible import constants
from ansible_collections.gpunode.llm.plugins.action import units_settled
from ansible_collections.gpunode.llm.plugins.plugin_utils.node import questions
from ansible_collections.gpunode.llm.tests.unit import as_ansible

ARGS = {"files": [{"dest": "/etc/vllm/8b.yaml", "content": "model: a/b\n"}], "secrets": {}}
ANSWER = {"settled": True, "due": []}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path))
    return tmp_path


def ask(args: dict[str, Any] | None = None, host: str = "gpu-1", **more: Any) -> tuple[bool, list[dict[str, Any]]]:
    """What is told, and the options of each call of the node, which has changed meanwhile."""
    action = as_ansible.action(units_settled.ActionModule, {}, {"changed": False, "settled": False})
    result = questions.ask(action, "gpunode.llm.units_settled", args or ARGS, {"inventory_hostname": host}, **more)
    return result["settled"], [called for _module, called in action._execute_module.calls]


def bring(host: str = "gpu-1", args: dict[str, Any] | None = None) -> None:
    kept = {"digest": questions.sealed(questions.digest(args or ARGS), "a1"), "answer": ANSWER}
    questions.bring(host, {"units_settled": kept}, "a1")


def test_the_same_question_is_not_asked_again(folder: Path) -> None:
    bring()
    (kept,) = folder.iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert ask() == (True, [])


def test_a_call_carries_the_digest_of_its_arguments() -> None:
    settled, (called,) = ask()
    assert not settled
    assert called == {**ARGS, "digest": questions.digest(ARGS)}


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"unchanged": False}, id="the play has changed the node"),
        pytest.param({"args": {**ARGS, "secrets": {"/etc/vllm/8b.env": "KEY=b"}}}, id="another secret"),
        pytest.param({"args": {**ARGS, "files": []}}, id="another file"),
        pytest.param({"host": "gpu-2"}, id="another node"),
    ],
)
def test_anything_else_is_asked(more: dict[str, Any]) -> None:
    bring()
    settled, called = ask(**more)
    assert (settled, len(called)) == (False, 1)


def test_whoever_asks_again_asks_the_node() -> None:
    bring()
    assert ask() == (True, [])
    settled, called = ask()
    assert (settled, len(called)) == (False, 1)


def test_an_answer_from_before_a_change_is_gone_for_good() -> None:
    bring()
    ask(unchanged=False)
    assert len(ask()[1]) == 1
