# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which widths a model can be split into: whole heads, whole groups and blocks of the quantised parts."""

from __future__ import annotations

from collections.abc import Sequence

from .architecture import EVEN, EXPERTS, KV, Architecture, Part
from .quantization import Stored, WeightFormat

#: Widths that a sentence offers.
OFFERED = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16)
#: Experts in INT4 fall back to groups as small as this (moe_wna16).
SMALLEST_GROUP = 32


def _width(part: Part, tp: int, experts: int) -> int:
    """Into how many shares a part is cut."""
    if part.split == EXPERTS:
        return experts
    return tp if part.split in (EVEN, KV) else 1


def _group(stored: WeightFormat, part: Part) -> int:
    """How many inputs must stay together."""
    if stored.pad_to > 1:
        return 0
    if part.split == EXPERTS and stored.key in ("w4a16", "awq", "gptq"):
        return min(stored.group_size, SMALLEST_GROUP)
    return stored.group_size


def _share_problem(weight: Stored, tp: int, experts: int) -> str | None:
    """What a width would cut through in one quantised part."""
    part, stored = weight.part, weight.stored
    width = _width(part, tp, experts)
    if stored is None or width == 1:
        return None
    if part.along == "columns":
        group, whole = _group(stored, part), part.columns
    else:
        group, whole = stored.block_size, part.rows
    if part.split == KV:
        width = min(width, part.heads)
    if not group or (whole % width == 0 and whole // width % group == 0):
        return None
    share = f"{whole / width:g}"
    kind = "groups" if part.along == "columns" and not stored.block_size else "blocks"
    return f"{whole} {_side(part)} of {part.name}, {share} for each of {width} GPUs, are no whole {kind} of {group}"


def _side(part: Part) -> str:
    return "inputs" if part.along == "columns" else "outputs"


def problem(architecture: Architecture, stored: Sequence[Stored], tp: int, experts: int) -> str | None:
    """Why this width cannot be, in the words of the numbers; None where it can.

    ``experts``: into how many shares an expert is cut; 1 where experts stay whole.
    """
    for whole in architecture.wholes:
        width = experts if whole.experts else tp
        if not whole.allows(width):
            verb = "does" if whole.what.startswith(("the ", "intermediate")) else "do"
            cut = f"TP {tp}" if width == tp else f"{width} shares"
            return f"{_counted(whole.what, whole.number)} {verb} not divide by {cut}"
    for weight in stored:
        reason = _share_problem(weight, tp, experts)
        if reason:
            return reason
    return None


def _counted(what: str, number: int) -> str:
    """8 KV heads; but: intermediate_size (13824)."""
    if what.startswith(("the ", "intermediate")):
        return f"{what.rstrip(',')} ({number})"
    return f"{number} {what}"


def cuts_experts(architecture: Architecture, stored: Sequence[Stored], tp: int) -> bool:
    """Whether a width works with whole experts on each GPU, and not with shares of each."""
    return problem(architecture, stored, tp, tp) is not None and problem(architecture, stored, tp, 1) is None
