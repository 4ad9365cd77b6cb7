# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which deaths are tried: one for each state that a node goes through, or some of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "kill_anywhere"))
import kill_anywhere

TASKS = [
    {"number": 1, "name": "look"},
    {"number": 2, "name": "write"},
    {"number": 2, "changed": True},
    {"number": 3, "name": "look"},
    {"number": 4, "name": "write twice"},
    {"number": 4, "changed": True},
    {"number": 4, "changed": True},
    {"number": 5, "name": "look"},
    {"number": 6, "name": "write last"},
    {"number": 6, "changed": True},
]


def test_after_each_change_and_at_the_start() -> None:
    assert kill_anywhere.deaths(TASKS) == [1, 3, 5]


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [("all", list(range(20))), ("99", list(range(20))), ("2", [0, 19]), ("3", [0, 10, 19]), ("1", [0]), ("0", [])],
)
def test_some_of_them_spread_over_the_play(wanted: str, chosen: list[int]) -> None:
    assert kill_anywhere.sample(list(range(20)), wanted) == chosen


def test_what_differs_is_shown() -> None:
    assert kill_anywhere.differs(["a", "b"], ["a", "b"]) == []
    assert kill_anywhere.differs(["a", "b"], ["a", "c"])[2:] == ["-b", "+c"]
