# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waits for the module of the same name, and for each other one that meta/runtime.yml hands to this plugin."""

from __future__ import annotations

from ..plugin_utils.actions import WatchingAction


class ActionModule(WatchingAction):
    """Calls whatever module the task names."""
