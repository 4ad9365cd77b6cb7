# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Models x hosts for people: a table of at most 100 columns, below each row why it does not fit, and the sum."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...module_utils.node.words import size
from ..planner.host import numbered as gpus_of
from ..planner.matrix import HEAD, Row, Together, cells
from ..planner.messages import sentence
from .text import columns, numbered, pairs, wrapped

#: Longer names are cut, since the other columns would not fit the screen; the JSON has the full names.
LONGEST_NAME = 28
#: The last columns are numbers: context, KV cache, download, minutes.
NUMBERS = 4


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _below(row: Row) -> str:
    """The text below a row: why it does not fit, or the part of its layout after the first comma."""
    if not row.fits:
        return sentence(row.reason)
    more = row.layout.partition(", ")[2]
    return f"With {more}." if more else ""


def _lines(head: Sequence[str], rows: Sequence[tuple[Row, Sequence[str]]]) -> list[str]:
    """The table, with the text below each row."""
    first, *others = columns([head, *(cells_ for _row, cells_ in rows)], range(len(head) - NUMBERS, len(head)))
    lines = [first]
    for line, (row, _cells) in zip(others, rows):
        lines += [line, *(wrapped(_below(row), "    ") if _below(row) else ())]
    return lines


def table(rows: Sequence[Row]) -> list[str]:
    """The table of models that are planned alone. A model or host that is the same in all rows has no column."""
    one_host = len({row.host for row in rows}) == 1
    one_model = not one_host and len({row.model for row in rows}) == 1

    def kept(line: Sequence[str]) -> list[str]:
        name, host, fits, layout, *numbers = line
        head = [*([] if one_model else [_short(name)]), *([] if one_host else [host])]
        return [*head, fits, layout.partition(", ")[0], *numbers]

    return _lines(kept(HEAD), [(row, kept(_without_reason(row))) for row in rows])


def _without_reason(row: Row) -> tuple[str, ...]:
    texts = cells(row)
    return texts if row.fits else (*texts[:3], "", *texts[4:])


def _blocks(rows: Sequence[Row]) -> Iterator[tuple[str, Sequence[Row]]]:
    """One table for one model on many hosts; for many models, one for each host."""
    hosts = list(dict.fromkeys(row.host for row in rows))
    if len({row.model for row in rows}) == 1 and len(hosts) > 1:
        yield f"Where {rows[0].model} fits, alone:", rows
        return
    for host in hosts:
        yield f"What fits {host}, each model alone:", [row for row in rows if row.host == host]


def _units(mbit_per_s: float) -> list[str]:
    return wrapped(
        "TP: GPUs that share each layer; PP: stages one after the other. The KV cache is counted in tokens, over all "
        f"replicas; the minutes are those of the download at {mbit_per_s:g} Mbit/s (link_mbit_s)."
    )


def _noted(notes: Sequence[str]) -> list[str]:
    return ["", *(line for note in notes for line in wrapped(note, "- "))] if notes else []


def alone(rows: Sequence[Row], notes: Sequence[str], mbit_per_s: float) -> list[str]:
    """The tables and notes of models that are planned one by one."""
    lines = [line for title, part in _blocks(rows) for line in (title, "", *table(part), "")]
    return [*lines, *_units(mbit_per_s), *_drafts(rows), *_noted([*_faster(rows), *notes])]


def _faster(rows: Sequence[Row]) -> list[str]:
    """The presets that are taken, notes about them, and the weights that are faster by measurement and not served."""
    one_host = len({row.host for row in rows}) == 1
    taken = [(row, row.preset, row.preset_gain) for row in rows if row.preset]
    return [
        *(f"{row.model} on {row.host} has the preset {preset}: {gain}." for row, preset, gain in taken),
        *(
            f"For {row.model} on {row.host} vllm_weights: fastest takes {row.faster_weights}."
            for row in rows
            if row.faster_weights
        ),
        # Over many hosts they would be longer than the table.
        *(note for row in rows if one_host for note in row.notes),
    ]


def _drafts(rows: Sequence[Row]) -> list[str]:
    """Which models the catalogue has something for that proposes tokens."""
    found = {row.model: row.auto_draft for row in rows if row.auto_draft}
    if not found:
        return []
    name, draft = next(iter(found.items()))
    drafts = f"{name}: {draft}" if len(found) == 1 else ", ".join(found)
    return wrapped(f"The catalogue supports vllm_speculative: auto for {drafts}.")


def packed(host: Together, mbit_per_s: float) -> list[str]:
    """The models of one host side by side, and the sum; or why they do not fit together."""
    where = host.host if host.title in ("", host.host) else f"{host.host} ({host.title})"
    if host.findings:
        return [f"On {where}, these do not fit side by side:", "", *numbered(host.findings)]
    head = ("model", "GPUs", "layout", *HEAD[-NUMBERS:])
    rows = []
    for row in host.rows:
        name, _host, _fits, layout, *counted = cells(row)
        rows.append((row, (_short(name), _gpus(row), layout, *counted)))
    return [
        f"On {where}, side by side:",
        "",
        *_lines(head, rows),
        "",
        *_sum(host, mbit_per_s),
        *_noted([*_faster(host.rows), *host.notes]),
    ]


def _gpus(row: Row) -> str:
    return gpus_of(row.gpu_indices).split(" ", 1)[1] if row.gpu_indices else "none"


def _sum(host: Together, mbit_per_s: float) -> list[str]:
    used = len({index for row in host.rows for index in row.gpu_indices})  # some may be shared
    images = " and ".join(host.images)
    weights, sent, disk = host.download_bytes, host.image_download_bytes, host.image_disk_bytes
    return pairs(
        [
            ("GPUs", f"{used} of {host.gpus}"),
            ("image", f"{images}: about {size(sent)} to download, {size(disk)} on the disk"),
            ("download", f"{size(weights + sent)} in all, {host.download_minutes:.0f} min at {mbit_per_s:g} Mbit/s"),
            ("disk", f"{size(weights + disk)} in all, {size(weights)} of it weights"),
        ]
    )
