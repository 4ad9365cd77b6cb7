# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages that are made from data say what the data say."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[3] / "docs"


@pytest.mark.parametrize("maker", ["models_and_gpus.py", "troubleshooting.py"])
def test_the_page_is_in_step(maker: str) -> None:
    made = runpy.run_path(str(DOCS / maker))
    assert made["PAGE"].read_text(encoding="utf-8") == made["page"](), "run make docs"
