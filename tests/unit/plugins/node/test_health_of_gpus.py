# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with GPUs, from what nvidia-smi and DCGM print, and what to do about it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.node import health
from ansible_collections.gpunode.llm.plugins.plugin_utils.node.health import findings, lines

RECORDED = Path(__file__).resolve().parents[3] / "fixtures" / "nvidia_smi"
UUIDS = [f"GPU-0000000{number}-0000-0000-0000-00000000000{number}" for number in (1, 2)]


def xml(name: str = "h100x1", **changes: str) -> str:
    """A recording, with the text of these tags changed on the first GPU."""
    text = (RECORDED / f"{name}.xml").read_text("utf-8")
    for tag, value in changes.items():
        assert f"<{tag}>" in text, tag
        text = re.sub(rf"<{tag}>[^<]*</{tag}>", f"<{tag}>{value}</{tag}>", text, count=1)
    return text


def answer(text: str, nvlink: str = "", dcgm: str | None = None, status: int = 0) -> dict[str, Any]:
    """What the module returns on a node whose programs print this."""

    def run(argv: Sequence[str]) -> tuple[int, str, str]:
        if "dcgmi" in argv:
            return 0, dcgm or "", ""
        return (0, nvlink, "") if "nvlink" in argv else (status, text, "")

    tools = {"nvidia-smi": "nvidia-smi", "dcgmi": "dcgmi" if dcgm is not None else None}
    return health.answer(run, tools.get, diagnose=True)


@pytest.mark.parametrize("name", ["h100x1", "h200x2", "h100x8", "a100-80x8", "b200x8", "gh200x1", "l40sx4", "v100x4"])
def test_boards_that_are_well_have_no_finding(name: str) -> None:
    assert findings(answer(xml(name))) == []


PENDING = {"pending_ecc": "Disabled"}


@pytest.mark.parametrize(
    ("changes", "what", "remedy"),
    [
        ({"gpu_recovery_action": "GPU Reset"}, "the driver asks for 'GPU Reset'", "nvidia-smi --gpu-reset -i 0"),
        ({"gpu_recovery_action": "Node Reboot"}, "the driver asks for 'Node Reboot'", "restart the node"),
        ({"gpu_recovery_action": "Drain P2P"}, "the driver asks for", "then reset all of them"),
        ({"gpu_recovery_action": "Dance"}, "the driver asks for 'Dance'", "page on the recovery action 'Dance'"),
        ({"remapped_row_pending": "Yes"}, "rows of its memory wait", "reset it alone"),
        (
            {"remapped_row_failure": "Yes", "remapped_row_pending": "Yes"},
            "cannot be repaired",
            "have the board replaced",
        ),
        ({"unrepairable_memory": "Yes"}, "cannot be repaired", "have the board replaced"),
        ({"sram_threshold_exceeded": "Yes"}, "its SRAM has had more errors", "have the board replaced"),
        (
            {"dram_uncorrectable": "1"},
            "1 uncorrectable memory error since",
            "if they come again, have the board replaced",
        ),
        ({"dram_uncorrectable": "3", "sram_uncorrectable_parity": "1"}, "4 uncorrectable memory errors since", "reset"),
        (PENDING, "ECC is enabled and will be disabled after a reset", "nvidia-smi --gpu-reset -i 0"),
        ({**PENDING, "current_ecc": "Disabled"}, "ECC is off", "nvidia-smi -e 1 -i 0"),
        ({"current_link_width": "8x"}, "its PCIe link has 8x lanes of 16x", "put it back"),
        ({"current_link_gen": "3"}, "runs at generation 3 of 5", "check the slot"),
        ({"clocks_event_reason_hw_thermal_slowdown": "Active"}, "it is too hot (37 C)", "check fans"),
        ({"clocks_event_reason_hw_power_brake_slowdown": "Active"}, "its power supply asks for less", "power supplies"),
        ({"clocks_event_reason_hw_slowdown": "Active"}, "the hardware slows it down", "cooling"),
        ({"current_power_limit": "350.00 W"}, "its power limit is 350.00 W, not 700.00 W", "nvidia-smi -pl 700 -i 0"),
        ({"state": "In Progress"}, "the NVSwitch fabric is 'In Progress'", "nvidia-fabricmanager"),
        ({"summary": "Unhealthy"}, "the NVSwitch fabric is 'Unhealthy'", "nvidia-fabricmanager"),
        ({"persistence_mode": "Disabled"}, "the driver unloads its state", "enable --now nvidia-persistenced"),
    ],
)
def test_each_problem_has_its_remedy(changes: dict[str, str], what: str, remedy: str) -> None:
    (finding,) = findings(answer(xml(**changes)))
    assert finding.startswith("GPU 0 (NVIDIA H100 80GB HBM3): ")
    assert what in finding
    assert remedy in finding
    assert "{" not in finding


def test_a_slow_link_of_a_gpu_that_saves_power_is_no_finding() -> None:
    assert findings(answer(xml(current_link_gen="1", performance_state="P8"))) == []


def test_a_gpu_with_several_problems_has_several_findings() -> None:
    assert len(findings(answer(xml(current_link_width="8x", persistence_mode="Disabled")))) == 2


def nvlink(*up: int) -> str:
    """`nvidia-smi nvlink -s` of H200s, each with so many of 18 links up."""
    parts = []
    for at, count in enumerate(up):
        parts.append(f"GPU {at}: NVIDIA H200 (UUID: {UUIDS[at]})")
        parts += [f"\t Link {link}: {'26.562 GB/s' if link < count else '<inactive>'}" for link in range(18)]
    return "\n".join(parts) + "\n"


def test_lanes_that_are_lost_are_found_by_the_other_gpus() -> None:
    assert findings(answer(xml("h200x2"), nvlink(18, 18))) == []
    (finding,) = findings(answer(xml("h200x2"), nvlink(18, 17)))
    assert finding.startswith(
        "GPU 1 (NVIDIA H200): 17 of its NVLinks carry data, and 18 of other GPUs: stop what uses it"
    )


def test_boards_without_nvlink_or_without_a_bridge_are_well() -> None:
    assert findings(answer(xml("h200x2"), nvlink(0, 0))) == []
    assert (
        health.links(
            "GPU 0: NVIDIA L4 (UUID: GPU-a)\nUnable to retrieve NVLink information as all links are inActive\n"
        )
        == {}
    )


def test_a_driver_that_does_not_answer_is_the_finding() -> None:
    said = (RECORDED / "driver-mismatch.txt").read_text()
    (finding,) = findings(answer(said, status=18))
    assert "driver/library version mismatch" in finding


def test_a_node_without_nvidia_smi() -> None:
    found = health.answer(lambda _argv: (127, "", ""), lambda _name: None, diagnose=True)
    assert found["gpus"] == []
    assert found["diagnosis"] is None
    assert len(findings(found)) == 1
    assert lines(found) == []


#: As dcgmi 4.2.3 printed it on a real node (GB10), shortened.
DCGM_4 = {
    "DCGM Diagnostic": {
        "test_categories": [
            {
                "category": "Deployment",
                "tests": [
                    {
                        "name": "software",
                        "results": [
                            {
                                "entity_group": "GPU",
                                "entity_id": 0,
                                "status": "Fail",
                                "warnings": [{"error_id": 29, "warning": "Persistence mode for GPU 0 is disabled."}],
                            }
                        ],
                        "test_summary": {"info": ["SRAM Threshold checking was skipped."], "status": "Fail"},
                    }
                ],
            }
        ]
    },
    "metadata": {"version": "4.2.3"},
}
DCGM_3 = {
    "DCGM GPU Diagnostic": {
        "test_categories": [
            {
                "category": "Deployment",
                "tests": [{"name": "NVML Library", "results": [{"gpu_ids": "0", "status": "Pass"}]}],
            },
            {
                "category": "Integration",
                "tests": [
                    {
                        "name": "PCIe",
                        "results": [{"gpu_ids": "0", "status": "Fail", "warnings": "Replay count is high"}],
                    }
                ],
            },
        ]
    }
}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (json.dumps(DCGM_4), ["software of GPU 0: Persistence mode for GPU 0 is disabled."]),
        ("Successfully ran diagnostic for group.\n" + json.dumps(DCGM_3), ["PCIe: Replay count is high"]),
        (
            json.dumps({"tests": [{"name": "memory", "results": [{"entity_id": 1, "status": "fail"}]}]}),
            ["memory of GPU 1: failed"],
        ),
        (json.dumps({"tests": []}), []),
        ("Error: unable to connect\n", ["DCGM's diagnosis gave no result: Error: unable to connect"]),
        ("{broken", ["DCGM's diagnosis gave no result: {broken"]),
        ("", ["DCGM's diagnosis gave no result: nothing"]),
    ],
)
def test_dcgms_own_words(text: str, said: list[str]) -> None:
    assert health.failures(text) == said


def test_dcgms_diagnosis_is_a_finding() -> None:
    assert findings(answer(xml(), dcgm=json.dumps(DCGM_4))) == [
        "DCGM's diagnosis: software of GPU 0: Persistence mode for GPU 0 is disabled."
    ]


def test_a_line_for_each_gpu() -> None:
    assert lines(answer(xml("h200x2"), nvlink(18, 18), dcgm="{}"))[0].startswith(
        "GPU 0  NVIDIA H200: PCIe 5 16x, NVLink 18 of 18, ECC on, "
    )
    assert lines(answer(xml()))[1] == "DCGM is not installed, so its diagnosis was not run."


@pytest.mark.parametrize("text", ["nothing of the kind", "<nvidia_smi_log><gpu>"])
def test_text_of_another_program_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        health.gpus(text)
