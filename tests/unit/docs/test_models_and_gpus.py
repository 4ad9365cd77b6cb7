# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of models and GPUs says what the catalogue says."""

from __future__ import annotations

import runpy
from pathlib import Path

DOCS = Path(__file__).resolve().parents[3] / "docs"


def test_the_page_is_in_step() -> None:
    page = runpy.run_path(str(DOCS / "models_and_gpus.py"))["page"]
    assert (DOCS / "models-and-gpus.md").read_text(encoding="utf-8") == page(), "run python docs/models_and_gpus.py"
