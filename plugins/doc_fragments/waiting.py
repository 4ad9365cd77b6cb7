# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What looks again and again takes, with the action plugin that calls it."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  wait_s:
    description: How long one call looks before it reports progress, in seconds.
    type: int
    default: 10
  resume:
    description: What an earlier call returned as RV(ignore:resume). The action plugin fills it in.
    type: dict
"""
