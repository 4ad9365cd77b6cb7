# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the GPUs of a node, each with its remedy, and a line for each GPU."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Gpu = Mapping[str, Any]

RESET = (
    "stop what uses it, and reset it alone: `nvidia-smi --gpu-reset -i {index}`. Only if it is the same afterwards,"
    " restart the node"
)
REPLACE = "have the board replaced"
#: What the driver may ask for (gpu_recovery_action), and what to do.
RECOVERIES = {
    "gpu reset": RESET,
    "node reboot": "restart the node",
    "drain p2p": "stop what uses it together with other GPUs, then reset all of them: `nvidia-smi --gpu-reset`",
    "drain and reset": RESET,
}
THROTTLES = {
    "hw_thermal_slowdown": ("it is too hot", "check fans, air flow and the cooling of the room"),
    "sw_thermal_slowdown": ("it is too hot", "check fans, air flow and the cooling of the room"),
    "hw_power_brake_slowdown": (
        "its power supply asks for less",
        "check the power supplies and the power limit of the host",
    ),
    "hw_slowdown": ("the hardware slows it down", "check cooling and power supplies"),
}


def _number(text: str) -> float:
    match = re.match(r"[\d.]+", text)
    return float(match.group()) if match else 0


def _recovery(gpu: Gpu) -> tuple[str, str]:
    action = str(gpu["recovery_action"])
    remedy = RECOVERIES.get(action.casefold(), f"see NVIDIA's page on the recovery action {action!r}")
    return (f"the driver asks for {action!r}", remedy) if action else ("", "")


def _memory(gpu: Gpu) -> tuple[str, str]:
    if "Yes" in (gpu["rows_failed"], gpu["unrepairable"]):
        return "its memory has errors that cannot be repaired any more", REPLACE
    if gpu["sram_threshold_exceeded"] == "Yes":
        return "its SRAM has had more errors than the driver tolerates", REPLACE
    if gpu["rows_pending"] == "Yes":
        return "rows of its memory wait to be replaced by spare ones", RESET
    if gpu["uncorrectable"]:
        errors = gpu["uncorrectable"]
        what = f"{errors} uncorrectable memory error{'' if errors == 1 else 's'} since the driver was loaded"
        return what, RESET + ", and if they come again, " + REPLACE
    return "", ""


def _ecc(gpu: Gpu) -> tuple[str, str]:
    if gpu["ecc"] != gpu["ecc_pending"]:
        return f"ECC is {gpu['ecc'].lower()} and will be {gpu['ecc_pending'].lower()} after a reset", RESET
    if gpu["ecc"] == "Disabled":
        return (
            "ECC is off, so errors in its memory go unseen",
            "turn it on: `nvidia-smi -e 1 -i {index}`, then " + RESET,
        )
    return "", ""


def _width(gpu: Gpu) -> tuple[str, str]:
    now, most = gpu["pcie_width"], gpu["pcie_width_most"]
    if now and most and _number(now) < _number(most):
        return (
            f"its PCIe link has {now} lanes of {most}",
            "take the board out and put it back, and check its riser and cable",
        )
    return "", ""


def _speed(gpu: Gpu) -> tuple[str, str]:
    """A GPU without a load may lower it to save power; one in its highest state does not."""
    now, most = gpu["pcie_gen"], gpu["pcie_gen_most"]
    if gpu["performance_state"] == "P0" and now and most and _number(now) < _number(most):
        return (
            f"its PCIe link runs at generation {now} of {most}",
            "check the slot, its riser, and the host's firmware settings",
        )
    return "", ""


def _throttle(gpu: Gpu) -> tuple[str, str]:
    for reason, (why, remedy) in THROTTLES.items():
        if reason in gpu["throttled"]:
            return f"its clocks are lowered, since {why} ({gpu['temperature'] or 'temperature not known'})", remedy
    return "", ""


def _power(gpu: Gpu) -> tuple[str, str]:
    now, usual = gpu["power_limit"], gpu["power_limit_default"]
    if now and usual and _number(now) < _number(usual):
        return (
            f"its power limit is {now}, not {usual}",
            f"if nobody wants that, `nvidia-smi -pl {_number(usual):.0f} -i {{index}}`",
        )
    return "", ""


def _fabric(gpu: Gpu) -> tuple[str, str]:
    remedy = "`journalctl -u nvidia-fabricmanager` says why; its version must equal the driver's"
    if gpu["fabric_state"] not in ("", "Completed"):
        return f"the NVSwitch fabric is {gpu['fabric_state']!r}, not 'Completed'", remedy
    if gpu["fabric_health"] not in ("", "Healthy"):
        return f"the NVSwitch fabric is {gpu['fabric_health']!r}", remedy
    return "", ""


def _persistence(gpu: Gpu) -> tuple[str, str]:
    if gpu["persistence"] == "Disabled":
        return (
            "the driver unloads its state whenever no program uses it",
            "`systemctl enable --now nvidia-persistenced`",
        )
    return "", ""


CHECKS: tuple[Callable[[Gpu], tuple[str, str]], ...] = (
    *(_recovery, _memory, _ecc, _width, _speed, _throttle, _power, _fabric, _persistence),
)


def findings(answer: Mapping[str, Any]) -> list[str]:
    """A sentence for each problem. A GPU that is ill alone is reset before the node is restarted."""
    if answer["state"] != "ok":
        return [str(answer["message"])]
    gpus = answer["gpus"]
    most = max((gpu["links"][0] for gpu in gpus), default=0)
    found = [str(answer["message"])] if answer["message"] else []
    for gpu in gpus:
        told = [check(gpu) for check in CHECKS]
        if gpu["links"][0] < most:
            told.append((f"{gpu['links'][0]} of its NVLinks carry data, and {most} of other GPUs", RESET))
        found += [f"GPU {gpu['index']} ({gpu['name']}): {what}: {how.format(**gpu)}." for what, how in told if what]
    return found + [f"DCGM's diagnosis: {failure}" for failure in answer["diagnosis"] or []]


def lines(answer: Mapping[str, Any]) -> list[str]:
    """One line for each GPU, and one for what was not looked at."""
    shown = [_line(gpu) for gpu in answer["gpus"]]
    if answer["gpus"] and answer["diagnosis"] is None:
        shown.append("DCGM is not installed, so its diagnosis was not run.")
    return shown


def _line(gpu: Gpu) -> str:
    up, all_links = gpu["links"]
    parts = (
        f"PCIe {gpu['pcie_gen'] or '?'} {gpu['pcie_width'] or '?'}",
        f"NVLink {up} of {all_links}" if up else "",
        f"ECC {'on' if gpu['ecc'] == 'Enabled' else 'off' if gpu['ecc'] else 'none'}",
        gpu["temperature"],
    )
    return f"GPU {gpu['index']}  {gpu['name']}: {', '.join(part for part in parts if part)}"
