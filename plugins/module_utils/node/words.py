# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes and durations for people.

>>> size(410_060_000_000), duration(200)
('410.1 GB', '3 min 20 s')
"""

from __future__ import annotations


def size(amount: float) -> str:
    """Bytes in decimal units, as the hub and disk vendors use them: 16.1 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(amount) < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.2f} TB"


def duration(seconds: float) -> str:
    """The two largest units of a duration: 45 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    whole = max(round(seconds), 0)
    counts = (whole // 86400, whole // 3600 % 24, whole // 60 % 60, whole % 60)
    parts = list(zip(counts, ("d", "h", "min", "s")))
    first = next((index for index, (count, _unit) in enumerate(parts) if count), len(parts) - 1)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count or first == 3)
