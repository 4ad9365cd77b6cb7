# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages, and AWX's surveys, that are made from data say what the data say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    "maker", ["docs/models_and_gpus.py", "docs/settings.py", "docs/troubleshooting.py", "awx/make_surveys.py"]
)
def test_the_page_is_in_step(maker: str) -> None:
    spec = importlib.util.spec_from_file_location("maker", CHECKOUT / maker)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert made.PAGE.read_text(encoding="utf-8") == made.page(), "run make docs surveys"
