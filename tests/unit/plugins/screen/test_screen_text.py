# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text for a screen: nothing is wider than it, nothing is cut."""

from __future__ import annotations

import doctest

from ansible_collections.gpunode.llm.plugins.plugin_utils.screen import text as screen_text


def test_the_examples_hold() -> None:
    assert doctest.testmod(screen_text).failed == 0


def test_a_sentence_is_wrapped_beside_its_label_and_a_long_word_stays_whole() -> None:
    long = "https://" + "a" * 120
    lines = screen_text.pairs(
        [("port", "8000"), ("nothing", ""), ("warning", f"{'word ' * 30}{long} end")], indent="  "
    )
    assert lines[0] == "  port     8000"
    assert lines[1].startswith("  warning  word word")
    assert all(line.startswith(" " * 11) for line in lines[2:])
    assert [line for line in lines if len(line) > screen_text.WIDTH] == [" " * 11 + long]


def test_sentences_are_numbered_and_hang() -> None:
    assert screen_text.numbered(["One two", "three four"], width=9) == ["1. One", "   two", "2. three", "   four"]


def test_columns_take_an_indent_and_leave_no_blanks_behind() -> None:
    rows = [("a", "b", "c"), ("long", "1", "")]
    assert screen_text.columns(rows, right=(1,), indent=" ") == [" a     b  c", " long  1"]
    assert screen_text.columns([]) == []


def test_lines_of_a_text_stay_lines() -> None:
    assert screen_text.wrapped("one\n\ntwo", "- ") == ["- one", "", "  two"]
