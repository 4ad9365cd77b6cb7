# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the GPUs of an engine are, and what they do while it is measured, from nvidia-smi."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from ..node import commands
from ..node.commands import Runner

#: Milliseconds between two samples.
EVERY_MS = 500
#: Seconds that nvidia-smi has: with a lost GPU it may never end.
PATIENCE_S = 30
#: How far a sample may lie from the middle of a point that is too short to have one, in seconds.
NEAR_S = 2.0
_IS = ("name", "uuid", "memory.total", "power.limit", "clocks.max.sm", "driver_version")
_DOES = ("uuid", "power.draw", "clocks.sm")


@dataclass(frozen=True)
class Sample:
    """Watts and MHz of one GPU at one time, in seconds of time.perf_counter; None for what it does not say."""

    at: float
    uuid: str
    power_w: Optional[float]
    clock_mhz: Optional[float]


def query(fields: Sequence[str], gpus: Sequence[str], *more: str) -> List[str]:
    """The command that asks nvidia-smi for these fields of these GPUs."""
    return [
        "nvidia-smi",
        f"--id={','.join(gpus)}",
        f"--query-gpu={','.join(fields)}",
        "--format=csv,noheader,nounits",
        *more,
    ]


def described(run: Runner, gpus: Sequence[str]) -> Dict[str, Any]:
    """The GPUs, their driver and how they are connected; empty values without GPUs."""
    nothing: Dict[str, Any] = {"gpus": [], "driver": "", "topology": ""}
    if not gpus:
        return nothing
    rc, out, _err = run(commands.within(PATIENCE_S, *query(_IS, gpus)))
    rows = [[cell.strip() for cell in line.split(",")] for line in out.splitlines()] if rc == 0 else []
    rows = [row for row in rows if len(row) == len(_IS)]
    if not rows:
        return nothing
    rc, topology, _err = run(commands.within(PATIENCE_S, "nvidia-smi", "topo", "-m"))
    # It underlines its head even where nobody sees that.
    plain = re.sub(r"\x1b\[[0-9;]*m", "", topology).strip()
    return {"gpus": [_gpu(row) for row in rows], "driver": rows[0][5], "topology": plain if rc == 0 else ""}


def _gpu(row: Sequence[str]) -> Dict[str, Any]:
    memory, limit, clock = (_number(cell) for cell in row[2:5])
    return {
        "name": row[0],
        "uuid": row[1],
        "memory_gib": None if memory is None else round(memory / 1024, 1),
        "power_limit_w": limit,
        "clock_sm_max_mhz": clock,
    }


def _number(cell: str) -> Optional[float]:
    try:
        return float(cell)
    except ValueError:  # [N/A]
        return None


def sample_of(line: str, at: float) -> Optional[Sample]:
    """A sample from a line of nvidia-smi; None if it is not one."""
    cells = [cell.strip() for cell in line.split(",")]
    return Sample(at, cells[0], _number(cells[1]), _number(cells[2])) if len(cells) == len(_DOES) else None


class Sampler:
    """Samples the GPUs in a thread, between ``with`` and its end."""

    def __init__(self, gpus: Sequence[str], popen: Callable[..., Any] = subprocess.Popen) -> None:
        self.gpus, self.popen = gpus, popen
        self.samples: List[Sample] = []
        self.process: Any = None
        self.thread: Optional[threading.Thread] = None

    def __enter__(self) -> Sampler:
        if self.gpus:
            command = query(_DOES, self.gpus, f"--loop-ms={EVERY_MS}")
            try:
                self.process = self.popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            except OSError:
                return self
            self.thread = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
            self.thread.start()
        return self

    def _read(self, lines: Iterable[str]) -> None:
        for line in lines:
            sample = sample_of(line, time.perf_counter())
            if sample:
                self.samples.append(sample)

    def __exit__(self, *_error: Any) -> None:
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
        if self.thread:
            self.thread.join(5)


def figures(samples: Sequence[Sample], started: float, ended: float, output_tokens: int) -> Dict[str, Any]:
    """Power of all GPUs together, energy and clocks between two times; None without samples."""
    nothing = dict.fromkeys(("power_w", "energy_j", "tokens_per_joule", "clock_sm_mhz"))
    within = _within(samples, started, ended)
    watts = _by_gpu((sample.uuid, sample.power_w) for sample in within)
    clocks = [sample.clock_mhz for sample in within if sample.clock_mhz is not None]
    if not watts:
        return nothing
    mean = sum(sum(values) / len(values) for values in watts.values())
    energy = mean * max(ended - started, 0.0)
    return {
        "power_w": {"mean": round(mean, 1), "max": round(sum(max(values) for values in watts.values()), 1)},
        "energy_j": round(energy, 1),
        "tokens_per_joule": round(output_tokens / energy, 3) if energy else None,
        "clock_sm_mhz": {"mean": round(sum(clocks) / len(clocks), 1), "min": min(clocks)} if clocks else None,
    }


def _within(samples: Sequence[Sample], started: float, ended: float) -> List[Sample]:
    """Each GPU's samples between two times; where these are too close together for one, the nearest."""
    chosen: List[Sample] = []
    for uuid in dict.fromkeys(sample.uuid for sample in samples):
        own = [sample for sample in samples if sample.uuid == uuid]
        middle = (started + ended) / 2
        nearest = min(own, key=lambda sample: abs(sample.at - middle))
        near = [nearest] if abs(nearest.at - middle) <= NEAR_S else []
        chosen += [sample for sample in own if started <= sample.at <= ended] or near
    return chosen


def _by_gpu(pairs: Iterable[Tuple[str, Optional[float]]]) -> Mapping[str, List[float]]:
    values: Dict[str, List[float]] = {}
    for uuid, value in pairs:
        if value is not None:
            values.setdefault(uuid, []).append(value)
    return values
