# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How well the GPUs of this node are, as the driver and DCGM say. Makes no decisions."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from ..programs.gpu import look, nvidia_smi, scan_pci
from . import commands

Runner = Callable[[Sequence[str]], Tuple[int, str, str]]
Which = Callable[[str], Optional[str]]

#: DCGM's shortest diagnosis takes seconds; one that hangs is a finding too.
DIAGNOSIS_S = 300
#: What is read of each GPU, by its place in the XML of nvidia-smi. The first place that says something counts.
FIELDS = {
    "name": ("product_name",),
    "uuid": ("uuid",),
    "persistence": ("persistence_mode",),
    "recovery_action": ("gpu_recovery_action",),
    "pcie_gen": ("pci/pci_gpu_link_info/pcie_gen/current_link_gen",),
    "pcie_gen_most": ("pci/pci_gpu_link_info/pcie_gen/max_link_gen",),
    "pcie_width": ("pci/pci_gpu_link_info/link_widths/current_link_width",),
    "pcie_width_most": ("pci/pci_gpu_link_info/link_widths/max_link_width",),
    "performance_state": ("performance_state",),
    "ecc": ("ecc_mode/current_ecc",),
    "ecc_pending": ("ecc_mode/pending_ecc",),
    "sram_threshold_exceeded": ("ecc_errors/aggregate/sram_threshold_exceeded",),
    "unrepairable": ("ecc_errors/unrepairable_memory",),
    "rows_pending": ("remapped_rows/remapped_row_pending", "retired_pages/pending_retirement"),
    "rows_failed": ("remapped_rows/remapped_row_failure",),
    "temperature": ("temperature/gpu_temp",),
    "power_limit": ("gpu_power_readings/current_power_limit", "power_readings/power_limit"),
    "power_limit_default": ("gpu_power_readings/default_power_limit", "power_readings/default_power_limit"),
    "fabric_state": ("fabric/state",),
    "fabric_health": ("fabric/health/summary",),
}
#: Why the clocks are lower than they could be, where that is no matter of the load.
THROTTLES = ("hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown", "sw_thermal_slowdown")
NOTHING = ("", "n/a", "none", "not supported", "unknown error")


def _text(node: ET.Element, *places: str) -> str:
    found = ((node.findtext(place) or "").strip() for place in places)
    return next((text for text in found if text.strip("[]").casefold() not in NOTHING), "")


def _uncorrectable(node: ET.Element) -> int:
    """Errors in memory since the driver was loaded that ECC could not correct."""
    counts = [child.text for child in node.findall("ecc_errors/volatile/*") if "uncorrectable" in child.tag]
    return sum(int(text) for text in counts if text and text.strip().isdecimal())


def _throttles(node: ET.Element) -> List[str]:
    """The reasons in force. Before branch 535 they had other names."""
    groups = (("clocks_event_reasons", "clocks_event_reason"), ("clocks_throttle_reasons", "clocks_throttle_reason"))
    places = ((reason, [f"{group}/{one}_{reason}" for group, one in groups]) for reason in THROTTLES)
    return [reason for reason, options in places if _text(node, *options) == "Active"]


def gpus(xml: str) -> List[Dict[str, Any]]:
    """What `nvidia-smi -q -x` says of each GPU's health. Raises ValueError for anything that is not its XML."""
    try:
        root = ET.fromstring(xml[xml.index("<nvidia_smi_log") :])
    except (ValueError, ET.ParseError) as error:
        raise ValueError(f"nvidia-smi -q -x printed XML that cannot be read: {error}") from None
    return [
        {
            "index": index,
            **{name: _text(node, *places) for name, places in FIELDS.items()},
            "uncorrectable": _uncorrectable(node),
            "throttled": _throttles(node),
        }
        for index, node in enumerate(root.iterfind("gpu"))
    ]


def links(text: str) -> Dict[str, List[int]]:
    """The NVLinks of each GPU, by its UUID: how many carry data, and all of them, from `nvidia-smi nvlink -s`."""
    found: Dict[str, List[int]] = {}
    uuid = ""
    for line in text.splitlines():
        head = re.match(r"GPU \d+: .*\(UUID: (\S+)\)", line)
        link = re.match(r"\s+Link \d+: (.*)", line)
        if head:
            uuid = head.group(1)
        elif link and uuid:
            count = found.setdefault(uuid, [0, 0])
            count[0] += bool(re.match(r"[\d.]+ GB/s", link.group(1)))
            count[1] += 1
    return found


def failures(text: str) -> List[str]:
    """What DCGM's diagnosis says of each test that failed, from its JSON, which 3.x and 4.x nest differently."""
    start = text.find("{")
    try:
        document = json.JSONDecoder().raw_decode(text[start:])[0] if start >= 0 else None
    except ValueError:
        document = None
    if document is None:
        last = (text.strip().splitlines() or ["nothing"])[-1]
        return [f"DCGM's diagnosis gave no result: {last}"]
    return list(dict.fromkeys(_failed(document)))


def _failed(part: Any, test: str = "") -> Iterator[str]:
    if isinstance(part, list):
        for item in part:
            yield from _failed(item, test)
    elif isinstance(part, dict):
        test = str(part.get("name") or test)
        said = [str(one.get("warning", one)) if isinstance(one, dict) else str(one) for one in _warnings(part)]
        if str(part.get("status", "")).casefold() == "fail" and (said or "results" not in part):
            where = f" of GPU {part['entity_id']}" if "entity_id" in part else ""
            yield f"{test}{where}: {'; '.join(said) or 'failed'}"
        # The summary repeats what the results say.
        for name, value in part.items():
            if name not in ("warnings", "test_summary"):
                yield from _failed(value, test)


def _warnings(part: Dict[str, Any]) -> List[Any]:
    found = part.get("warnings") or []
    return list(found) if isinstance(found, list) else [found]


def answer(run: Runner, which: Which, diagnose: bool) -> Dict[str, Any]:
    """Everything about the health of the node's GPUs."""
    tool, dcgm = which("nvidia-smi"), which("dcgmi") if diagnose else None
    ask = nvidia_smi(run, tool)
    replies: List[Tuple[int, str, str]] = [ask()] if ask else []
    seen = look((lambda: replies[0]) if ask else None, scan_pci())
    known = {"state": seen.state, "message": seen.message, "driver_version": seen.driver_version}
    boards = gpus(replies[0][1]) if seen.gpus else []
    lanes = links(run([tool, "nvlink", "-s"])[1]) if tool and len(boards) > 1 else {}
    for board in boards:
        board["links"] = lanes.get(board["uuid"], [0, 0])
    diagnosis: Optional[List[str]] = None
    if dcgm and boards:
        _rc, out, err = run(commands.within(DIAGNOSIS_S, dcgm, "diag", "-r", "1", "-j"))
        diagnosis = failures(out or err)
    return {**known, "gpus": boards, "diagnosis": diagnosis}
