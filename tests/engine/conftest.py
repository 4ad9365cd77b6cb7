# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection as the unit tests import it, and their short ways to a plan."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
UNIT = HERE.parent / "unit"

runpy.run_path(str(UNIT / "conftest.py"))
sys.path.insert(0, str(HERE))
