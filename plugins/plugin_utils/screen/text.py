# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text for a screen of 100 columns: aligned columns and wrapped sentences.

Text for people is laid out here and shown with the action ``gpunode.llm.show``:

>>> pairs([("GPUs", "8x H100"), ("context", "131072 tokens")])
['GPUs     8x H100', 'context  131072 tokens']
>>> columns([("model", "GiB"), ("8b", "15.0"), ("405b-fp8", "378.0")], right=(1,))
['model       GiB', '8b         15.0', '405b-fp8  378.0']
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Sequence

#: Columns of a screen.
WIDTH = 100
GAP = "  "


def wrapped(text: str, first: str = "", rest: str | None = None, width: int = WIDTH) -> list[str]:
    """A text as lines of at most ``width`` columns. A word that is longer, such as an address, is never broken.

    ``first`` stands before the first line, ``rest`` before the others: by default as many blanks as ``first`` is long.
    """
    below = " " * len(first) if rest is None else rest
    lines = [
        textwrap.wrap(
            paragraph,
            width,
            initial_indent=below if number else first,
            subsequent_indent=below,
            break_long_words=False,
            break_on_hyphens=False,
        )
        or [""]
        for number, paragraph in enumerate(text.splitlines() or [""])
    ]
    return [line for paragraph in lines for line in paragraph]


def columns(rows: Iterable[Sequence[str]], right: Collection[int] = (), indent: str = "") -> list[str]:
    """Rows of equal length as aligned lines; the columns ``right`` (from 0) are of numbers."""
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table)]

    def line(row: Sequence[str]) -> str:
        cells = (cell.rjust(w) if at in right else cell.ljust(w) for at, (cell, w) in enumerate(zip(row, widths)))
        return (indent + GAP.join(cells)).rstrip()

    return [line(row) for row in table]


def pairs(entries: Iterable[tuple[str, str]], indent: str = "", width: int = WIDTH) -> list[str]:
    """Labels with their wrapped values next to them. An entry with an empty value is left out."""
    shown = [(label, value) for label, value in entries if value]
    wide = max((len(label) for label, _value in shown), default=0)
    return [line for label, value in shown for line in wrapped(value, f"{indent}{label.ljust(wide)}{GAP}", width=width)]


def numbered(sentences: Iterable[str], indent: str = "", width: int = WIDTH) -> list[str]:
    """Numbered sentences, wrapped next to their numbers."""
    return [
        line
        for number, sentence in enumerate(sentences, 1)
        for line in wrapped(sentence, f"{indent}{number}. ", width=width)
    ]
