# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The loop of the action plugins that show progress."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible_collections.gpunode.llm.plugins.plugin_utils._watch import watch


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
    return watch(node, shown.append, sleep=lambda s: None), shown


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


def test_two_in_a_row_are_unreachable():
    with pytest.raises(AnsibleConnectionFailure):
        run(Node(AnsibleConnectionFailure("a"), AnsibleConnectionFailure("b")))
