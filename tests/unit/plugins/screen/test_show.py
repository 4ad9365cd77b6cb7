# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""show: the lines as they stand, in one piece."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible.utils.display import Display
from ansible_collections.gpunode.llm.plugins.action.show import ActionModule
from ansible_collections.gpunode.llm.tests.unit import as_ansible


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(Display, "display", lambda _self, text, *_more, **_named: lines.append(text))
    return lines


def run(text: Any, no_log: bool = False) -> Any:
    return as_ansible.action(ActionModule, {"text": text}, no_log=no_log).run(task_vars={})


@pytest.mark.parametrize("text", [["a, 'b'", "  c"], "a, 'b'\n  c\n"])
def test_lines_are_shown_at_once_and_without_quotes(text: Any, shown: list[str]) -> None:
    assert run(text) == {"changed": False}
    assert shown == ["\na, 'b'\n  c"]


@pytest.mark.parametrize("text", [[], "", [""]])
def test_an_empty_text_shows_nothing(text: Any, shown: list[str]) -> None:
    run(text)
    assert not shown


def test_no_log_shows_nothing(shown: list[str]) -> None:
    run(["secret"], no_log=True)
    assert not shown


def test_a_message_that_is_no_text_is_refused(shown: list[str]) -> None:
    with pytest.raises(AnsibleActionFail, match="a text or a list of lines, not int"):
        run(5)
