# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine's own figures beside the plan's, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..planner.exact import Compared
from ..planner.memory import GIB
from .text import columns, wrapped

HEAD = ("model", "host", "weights", "planned", "apart", "a request", "planned", "apart")
TITLE = (
    "What the engine's own image counts on one GPU or the CPU, in GiB: the weights, and the KV cache of one request of"
    " the longest context. Beside it what is planned, and how far that is from it:"
)


def lines(compared: Sequence[Compared]) -> list[str]:
    """The figures as a table, and a sentence for each reason why an engine could not be asked."""
    rows = [_cells(one) for one in compared if not one.cannot]
    table = columns([HEAD, *rows], right=range(2, len(HEAD)))
    return ["", *([*wrapped(TITLE), "", *table, ""] if rows else []), *_sentences(compared)]


def _apart(plan: float, engine: float) -> str:
    return f"{(plan / engine - 1) * 100:+.1f} %" if engine else ""


def _cells(one: Compared) -> tuple[str, ...]:
    instance = one.planned.instance
    weights, wanted = round(one.weights_gib, 2), instance.weights_gib_per_gpu
    cells = (instance.name, one.planned.host, f"{weights:.2f}", f"{wanted:.2f}", _apart(wanted, weights))
    if one.request_bytes is None:  # the engine chooses the context
        return (*cells, "", "", "")
    request, wanted = one.request_bytes / GIB, instance.kv_request_bytes / GIB
    return (*cells, f"{request:.3f}", f"{wanted:.3f}", _apart(wanted, request))


def _sentences(compared: Sequence[Compared]) -> Iterator[str]:
    """Why which engines have no figures; those with the same reason together."""
    names: dict[str, list[str]] = {}
    for one in compared:
        if one.cannot:
            names.setdefault(one.cannot, []).append(one.planned.instance.name)
    for cannot, those in names.items():
        yield from wrapped(f"The engine has no figures for {', '.join(dict.fromkeys(those))}: {cannot}.", "- ")
