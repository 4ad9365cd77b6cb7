# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows the progress of the module of the same name."""

from __future__ import annotations

from ..plugin_utils.actions import WatchingAction


class ActionModule(WatchingAction):
    MODULE = "gpunode.llm.image_layout"
