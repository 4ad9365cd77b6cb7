# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the GPUs are and do: nvidia-smi's lines, and which of them count for a point."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Sequence
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.benchmark import gpus
from ansible_collections.gpunode.llm.plugins.module_utils.benchmark.gpus import Sample, Sampler

FIRST, SECOND = "GPU-1", "GPU-2"
ROW = "NVIDIA H100 80GB HBM3, GPU-1, 81559, 700.00, 1980, 580.159.04\n"
NOTHING = {"power_w": None, "energy_j": None, "tokens_per_joule": None, "clock_sm_mhz": None}


#: It underlines its head.
TOPOLOGY = "\x1b[4m\tGPU0\x1b[0m\nGPU0\tX\n"


class Smi:
    """Stands for nvidia-smi, and keeps each command."""

    def __init__(self, listing: str = ROW, rc: int = 0, topology: tuple[int, str] = (0, TOPOLOGY)) -> None:
        self.listing, self.rc, self.topology = listing, rc, topology
        self.commands: list[list[str]] = []

    def __call__(self, argv: Sequence[str]) -> tuple[int, str, str]:
        self.commands.append(list(argv))
        return (*self.topology, "") if "topo" in argv else (self.rc, self.listing, "")


def test_described_says_what_a_record_needs() -> None:
    smi = Smi()
    assert gpus.described(smi, [FIRST]) == {
        "gpus": [
            {
                **{"name": "NVIDIA H100 80GB HBM3", "uuid": "GPU-1", "memory_gib": 79.6},
                **{"power_limit_w": 700.0, "clock_sm_max_mhz": 1980.0},
            }
        ],
        **{"driver": "580.159.04", "topology": "GPU0\nGPU0\tX"},
    }
    # With a lost GPU nvidia-smi may never end.
    assert all(command[:3] == ["timeout", "--kill-after=5", "30"] for command in smi.commands)
    assert "--id=GPU-1" in smi.commands[0]


def test_described_asks_for_the_gpus_of_the_engine_alone() -> None:
    assert "--id=GPU-1,GPU-2" in gpus.query(("uuid",), [FIRST, SECOND])


@pytest.mark.parametrize("smi", [Smi(rc=9), Smi(""), Smi("No devices were found\n")])
def test_described_has_empty_values_where_nvidia_smi_says_nothing(smi: Smi) -> None:
    assert gpus.described(smi, [FIRST]) == {"gpus": [], "driver": "", "topology": ""}


def test_described_asks_nothing_without_gpus() -> None:
    smi = Smi()
    assert gpus.described(smi, [])["gpus"] == []
    assert smi.commands == []


def test_what_is_not_available_is_none() -> None:
    row = "NVIDIA GH200, GPU-1, [N/A], [N/A], [Not Supported], 580.1\n"
    found = gpus.described(Smi(row, topology=(1, "unknown")), [FIRST])
    assert found["gpus"] == [
        {"name": "NVIDIA GH200", "uuid": FIRST, "memory_gib": None, "power_limit_w": None, "clock_sm_max_mhz": None}
    ]
    assert found["topology"] == ""
    assert gpus.sample_of("GPU-1, [N/A], 1980", 5.0) == Sample(5.0, FIRST, None, 1980.0)


def test_line_that_is_no_sample() -> None:
    assert gpus.sample_of("Unable to determine the device handle", 5.0) is None


class Process:
    """Stands for nvidia-smi that samples."""

    def __init__(self, lines: str, hangs: bool = False) -> None:
        self.stdout, self.hangs, self.did = io.StringIO(lines), hangs, []

    def __call__(self, command: Sequence[str], **_pipes: Any) -> Process:
        self.command = list(command)
        return self

    def terminate(self) -> None:
        self.did.append("terminate")

    def kill(self) -> None:
        self.did.append("kill")

    def wait(self, timeout: float) -> None:
        if self.hangs:
            raise subprocess.TimeoutExpired("nvidia-smi", timeout)


def test_sampler_reads_until_it_is_left() -> None:
    process = Process("GPU-1, 650.12, 1755\nnonsense\nGPU-2, [N/A], 1980\n")
    with Sampler([FIRST, SECOND], process) as sampler:
        assert sampler.thread is not None
        sampler.thread.join()
    assert [(one.uuid, one.power_w, one.clock_mhz) for one in sampler.samples] == [
        (FIRST, 650.12, 1755.0),
        (SECOND, None, 1980.0),
    ]
    assert process.did == ["terminate"]
    assert "--loop-ms=500" in process.command


def test_sampler_that_does_not_end_is_killed() -> None:
    process = Process("", hangs=True)
    with Sampler([FIRST], process):
        pass
    assert process.did == ["terminate", "kill"]


def test_no_gpu_no_program() -> None:
    def popen(*_args: Any, **_pipes: Any) -> Any:
        raise FileNotFoundError("nvidia-smi")

    with Sampler([], popen) as without, Sampler([FIRST], popen) as missing:
        pass
    assert without.samples == missing.samples == []


def at(time: float, uuid: str = FIRST, watts: float | None = 500.0, clock: float | None = 1900.0) -> Sample:
    return Sample(time, uuid, watts, clock)


def test_samples_outside_of_a_point_do_not_count() -> None:
    samples = [at(9.9, watts=100.0, clock=200.0), at(10.0), at(12.0, watts=700.0, clock=1700.0), at(20.1, watts=9000.0)]
    assert gpus.figures(samples, 10.0, 20.0, 60_000) == {
        "power_w": {"mean": 600.0, "max": 700.0},
        "energy_j": 6000.0,
        "tokens_per_joule": 10.0,
        "clock_sm_mhz": {"mean": 1800.0, "min": 1700.0},
    }


def test_power_is_that_of_all_gpus_together() -> None:
    samples = [at(1.0), at(1.0, SECOND, 300.0), at(2.0), at(2.0, SECOND, 400.0)]
    found = gpus.figures(samples, 0.0, 10.0, 0)
    assert found["power_w"] == {"mean": 850.0, "max": 900.0}
    assert found["energy_j"] == 8500.0


def test_short_point_takes_the_nearest_sample_of_each_gpu() -> None:
    samples = [at(1.0, watts=100.0), at(1.5, watts=600.0), at(2.0, watts=200.0), at(1.0, SECOND, 50.0)]
    assert gpus.figures(samples, 1.55, 1.65, 5)["power_w"] == {"mean": 650.0, "max": 650.0}


def test_gpu_whose_sample_is_just_outside_of_a_short_point_is_not_left_out() -> None:
    """Both are sampled every half second; between their lines the point begins."""
    samples = [at(1.000, watts=600.0), at(1.001, SECOND, 600.0)]
    assert gpus.figures(samples, 1.0005, 1.3, 5)["power_w"] == {"mean": 1200.0, "max": 1200.0}


def test_samples_long_before_a_point_are_none_of_it() -> None:
    assert gpus.figures([at(1.0)], 60.0, 90.0, 5) == NOTHING
    assert gpus.figures([], 60.0, 90.0, 5) == NOTHING


def test_gpu_that_does_not_say_its_power_or_clock() -> None:
    assert gpus.figures([at(1.0, watts=None)], 0.0, 2.0, 5) == NOTHING
    assert gpus.figures([at(1.0, clock=None)], 0.0, 2.0, 5)["clock_sm_mhz"] is None


def test_no_energy_in_no_time() -> None:
    found = gpus.figures([at(1.0)], 1.0, 1.0, 5)
    assert (found["energy_j"], found["tokens_per_joule"]) == (0.0, None)
