# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The loop of the action plugins that show progress."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible_collections.gpunode.llm.plugins.plugin_utils import actions, refusal
from ansible_collections.gpunode.llm.plugins.plugin_utils.actions import watch
from ansible_collections.gpunode.llm.tests.unit import as_ansible


class Node:
    def __init__(self, *answers):
        self.answers = list(answers)
        self.resumed_with = []

    def __call__(self, resume):
        self.resumed_with.append(resume)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def run(node):
    shown = []
    looks = count(step=actions.STANDS_S)
    return watch(node, shown.append, sleep=lambda s: None, clock=lambda: float(next(looks))), shown


def test_progress_is_shown_once_and_memory_is_handed_on():
    node = Node(
        {"done": False, "progress": "1 of 3", "resume": {"job": "a"}, "changed": True},
        {"done": False, "progress": "1 of 3", "resume": {"job": "b"}},
        {"done": False, "progress": "2 of 3", "resume": {"job": "c"}},
        {"done": True, "progress": "3 of 3", "resume": {}, "id": 7},
    )
    result, shown = run(node)
    assert result == {"done": True, "progress": "3 of 3", "id": 7, "changed": True}
    assert shown == ["1 of 3", "2 of 3"]
    assert node.resumed_with == [None, {"job": "a"}, {"job": "b"}, {"job": "c"}]


@pytest.mark.parametrize(
    "final",
    [{"failed": True, "done": False}, {"skipped": True}, {"unreachable": True}, {"msg": "died", "rc": 1}, {}],
)
def test_anything_but_not_yet_ends_the_loop(final):
    result, _shown = run(Node({"done": False}, final))
    assert result == {**final, "changed": False}


def test_one_lost_connection_costs_one_call():
    node = Node({"done": False, "resume": 1}, AnsibleConnectionFailure("gone"), {"done": True})
    result, shown = run(node)
    assert result["done"]
    assert len(shown) == 1
    assert node.resumed_with == [None, 1, 1]


def test_a_worker_whose_play_was_killed_takes_no_result():
    """Nobody would see it, and it would be gone from the node."""
    node = Node({"done": False, "resume": 1}, {"done": False, "resume": 2}, {"done": True, "id": 7})
    parents = iter([100, 100, 1])
    with pytest.raises(AnsibleActionFail, match="killed"):
        watch(node, lambda line: None, sleep=lambda s: None, parent=lambda: next(parents))
    assert node.resumed_with == [None, 1]


def test_two_in_a_row_are_unreachable():
    with pytest.raises(AnsibleConnectionFailure):
        run(Node(AnsibleConnectionFailure("a"), AnsibleConnectionFailure("b")))


def test_other_numbers_are_shown_ever_more_rarely_and_other_words_at_once():
    shown, now = [], [0.0]
    lines = actions.Lines(shown.append, lambda: now[0])
    for at in range(0, 3600, 10):
        now[0] = float(at)
        lines.take(f"8b: loading weights ({at // 36} %) ({at} s); shard {'a' if at % 20 else 'b'}")
    times = [int(line.partition(" s)")[0].rpartition("(")[2]) for line in shown]
    assert times[:6] == [0, 10, 30, 70, 150, 270]
    assert len(shown) < 36
    lines.take("8b: compiling (3600 s)")
    assert shown[-1] == "8b: compiling (3600 s)"


class Waiting(actions.WatchingAction):
    """An action whose module answers as it is told."""

    def _call(self, resume: Any, task_vars: dict[str, Any] | None) -> dict[str, Any]:
        return dict(self.answer)


def act(answer: dict[str, Any]) -> dict[str, Any]:
    made = as_ansible.action(Waiting, {}, check_mode=False)
    made.answer = answer
    return made.run(task_vars={})


def test_a_failure_in_words_comes_without_what_ansible_puts_around_it() -> None:
    result = {
        "failed": True,
        "done": True,
        "progress": "",
        "msg": "it ended.",
        "exception": "a traceback",
        "log": ["a"],
    }
    with pytest.raises(refusal.Refusal, match=r"^it ended\.$") as refused:
        act(result)
    assert refused.value.omit_exception_key
    assert "exception" not in refused.value.result
    assert refused.value.result["log"] == ["a"]


def test_an_interrupted_task_is_reported_with_all_that_is_known() -> None:
    result = {"failed": True, "msg": "MODULE FAILURE", "exception": "a traceback", "module_stdout": "..."}
    assert act(result)["exception"] == "a traceback"
