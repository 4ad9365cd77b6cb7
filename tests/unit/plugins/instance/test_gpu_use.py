# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of GPUs as drivers print them, and the many ways in which they print that there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.instance.gpu_use import Use, parse, together

BOARDS = Path(__file__).resolve().parents[3] / "fixtures" / "nvidia_smi"


def test_a_recorded_board() -> None:
    recorded = (BOARDS / "h100x1.xml").read_text(encoding="utf-8")
    assert parse(recorded) == {0: Use(0.0, 123.81, 700.0, 37.0)}
    two = parse((BOARDS / "h200x2-busy.xml").read_text(encoding="utf-8"))
    assert (two[0].utilization_percent, len(two)) == (2.0, 2)


@pytest.mark.parametrize("board", sorted(path.name for path in BOARDS.glob("*.xml")))
def test_every_board_has_an_answer_for_each_gpu(board: str) -> None:
    text = (BOARDS / board).read_text(encoding="utf-8")
    assert len(parse(text)) == text.count("<gpu id=")


@pytest.mark.parametrize(
    "none", ["N/A", "[N/A]", "[Not Supported]", "Not Supported", "Unknown Error", "", "GPU is lost"]
)
def test_what_is_no_figure_is_none(none: str) -> None:
    fields = (
        f"<utilization><gpu_util>{none}</gpu_util></utilization><temperature><gpu_temp>{none}</gpu_temp></temperature>"
    )
    power = f"<gpu_power_readings><power_draw>{none}</power_draw></gpu_power_readings>"
    assert parse(f"<nvidia_smi_log><gpu>{fields}{power}</gpu></nvidia_smi_log>") == {0: Use()}


def test_older_drivers_have_the_figures_elsewhere() -> None:
    older = "<power_readings><power_draw>61.2 W</power_draw><enforced_power_limit>250.00 W</enforced_power_limit>"
    assert parse(f"<nvidia_smi_log><gpu>{older}</power_readings></gpu></nvidia_smi_log>") == {0: Use(None, 61.2, 250.0)}


@pytest.mark.parametrize("text", ["", "No devices were found", "<nvidia_smi_log><gpu>"])
def test_what_is_not_nvidia_smis_has_none(text: str) -> None:
    assert parse(text) == {}


def test_gpus_that_serve_together() -> None:
    assert together([Use(80, 400.1, 700, 60), Use(91, 410, 700, 65)]) == Use(85.5, 810.1, 1400, 65)
    # A sum of what only some tell would be wrong.
    assert together([Use(80, 400, 700, 60), Use(91, None, 700, 65)]) == Use(85.5, None, 1400, 65)
    assert together([]) == Use()
