# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of modules that an action plugin calls again and again until the work is done."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  wait_s:
    description: How long one call waits before it reports progress, in seconds.
    type: int
    default: 10
  resume:
    description: The value of RV(ignore:resume) from the previous call. The action plugin sets it.
    type: dict
"""
