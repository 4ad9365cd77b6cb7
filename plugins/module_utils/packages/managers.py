# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The package managers, by the names that options use for them; each has the same functions."""

from __future__ import annotations

from typing import Any, Mapping

from . import apt as packages_apt, rpm as packages_rpm

MANAGERS: Mapping[str, Any] = {"apt": packages_apt, "dnf": packages_rpm}
