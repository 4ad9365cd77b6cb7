# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Utilization, power draw and temperature of GPUs, from the output of `nvidia-smi -q -x`.

Boards without a sensor, MIG mode and virtual GPUs print `N/A`, `[N/A]` or `[Not Supported]`: that becomes None.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence

#: Where drivers print each figure, the newest format first. The draw is the average of one second, as in nvidia-smi.
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
    """The use of one GPU, or of several that serve together; None if the driver does not report it."""

    utilization_percent: Optional[float] = None
    power_w: Optional[float] = None
    power_limit_w: Optional[float] = None
    temperature_c: Optional[float] = None


def _figure(node: ET.Element, *paths: str) -> Optional[float]:
    """The value at the first of these paths that is a number."""
    matches = (_FIGURE.fullmatch((node.findtext(path) or "").strip()) for path in paths)
    return next((float(match.group(1)) for match in matches if match), None)


def parse(xml: str) -> Dict[int, Use]:
    """The use of each GPU, by index; empty if the text is not from nvidia-smi."""
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
    """The use of several GPUs that serve together: average utilization, total draw, highest temperature."""

    def known(values: Sequence[Optional[float]]) -> List[float]:
        measured = [value for value in values if value is not None]
        return measured if len(measured) == len(uses) else []

    busy = known([use.utilization_percent for use in uses])
    draw, limit = known([use.power_w for use in uses]), known([use.power_limit_w for use in uses])
    heat = known([use.temperature_c for use in uses])
    return Use(
        utilization_percent=round(sum(busy) / len(busy), 1) if busy else None,
        power_w=round(sum(draw), 1) if draw else None,
        power_limit_w=round(sum(limit), 1) if limit else None,
        temperature_c=max(heat) if heat else None,
    )
