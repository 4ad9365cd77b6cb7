# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How busy, how thirsty and how hot GPUs are just now, from what `nvidia-smi -q -x` printed.

Boards without a sensor, MIG mode and virtual GPUs have `N/A`, `[N/A]` or `[Not Supported]` there: that is None.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence

#: Where drivers have a figure, the newest first. The draw is the average of a second, as in nvidia-smi's own table.
DRAW = (
    "gpu_power_readings/average_power_draw",
    "gpu_power_readings/power_draw",
    "gpu_power_readings/instant_power_draw",
    "power_readings/power_draw",
)
LIMIT = (
    "gpu_power_readings/current_power_limit",
    "gpu_power_readings/power_limit",
    "power_readings/enforced_power_limit",
    "power_readings/power_limit",
)
_FIGURE = re.compile(r"(\d+(?:\.\d+)?) ?(?:%|W|C)")


@dataclass(frozen=True)
class Use:
    """One GPU, or several that serve together; None where the driver does not tell."""

    utilization_percent: Optional[float] = None
    power_w: Optional[float] = None
    power_limit_w: Optional[float] = None
    temperature_c: Optional[float] = None


def _figure(node: ET.Element, *paths: str) -> Optional[float]:
    """The first figure that is one."""
    found = (_FIGURE.fullmatch((node.findtext(path) or "").strip()) for path in paths)
    return next((float(match.group(1)) for match in found if match), None)


def parse(xml: str) -> Dict[int, Use]:
    """By the GPU's index; nothing for what is not nvidia-smi's."""
    try:
        root = ET.fromstring(xml[xml.find("<nvidia_smi_log") :].strip())
    except ET.ParseError:
        return {}
    return {
        index: Use(
            utilization_percent=_figure(node, "utilization/gpu_util"),
            power_w=_figure(node, *DRAW),
            power_limit_w=_figure(node, *LIMIT),
            temperature_c=_figure(node, "temperature/gpu_temp"),
        )
        for index, node in enumerate(root.iterfind("gpu"))
    }


def together(uses: Sequence[Use]) -> Use:
    """Of GPUs that serve together: how busy they are on average, all that they draw, and the hottest of them."""

    def known(values: Sequence[Optional[float]]) -> List[float]:
        told = [value for value in values if value is not None]
        return told if len(told) == len(uses) else []

    busy = known([use.utilization_percent for use in uses])
    draw, limit = known([use.power_w for use in uses]), known([use.power_limit_w for use in uses])
    heat = known([use.temperature_c for use in uses])
    return Use(
        utilization_percent=round(sum(busy) / len(busy), 1) if busy else None,
        power_w=round(sum(draw), 1) if draw else None,
        power_limit_w=round(sum(limit), 1) if limit else None,
        temperature_c=max(heat) if heat else None,
    )
