# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Renders the files that units are to start from, as rendered_files does; the node only compares them."""

from __future__ import annotations

from . import rendered_files


class ActionModule(rendered_files.ActionModule):
    """units_settled"""

    MODULE = "gpunode.llm.units_settled"
