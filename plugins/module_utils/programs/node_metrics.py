# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of a node for node-exporter's textfile collector: GPUs, their faults, and the starts of engines.

A timer runs it. Each run asks `nvidia-smi`, the journal and systemd once, each with a time limit, and replaces the file
whole. What does not answer has no figures in the file: old figures would look like good ones.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple

#: Seconds that one question may take. A GPU that is lost can make nvidia-smi wait forever.
PATIENCE_S = 8
#: How far back faults are counted, in seconds. They are read anew each time, so there is no state to lose.
WINDOW_S = 3600
#: What systemd logs when a unit ends by itself, with its result: never for a stop that somebody asked for.
UNIT_FAILED = "d9b373ed55a64feb8242e02dbe79a49c"
PREFIX = "gpunode"
#: One sample: its labels and its value.
Sample = Tuple[Mapping[str, str], float]
#: The output of a command, None if it failed, hung or is not there.
Ask = Callable[[Sequence[str]], Optional[str]]

#: What to do about an Xid, by NVIDIA's catalogue. Faults of an application have no entry.
XID_ACTIONS = {
    **dict.fromkeys((63, 92, 94), "drain"),
    **dict.fromkeys((48, 62, 74, 95, 119, 120, 140, 143), "reset"),
    **dict.fromkeys((79,), "reboot"),
    **dict.fromkeys((64, 46), "replace"),
}
XID = re.compile(r"NVRM: Xid \(PCI:([0-9a-fA-F:.]+)\): (\d+)")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
#: Why a GPU is slower than it could be, by the last words of nvidia-smi's tags.
SLOWED = ("sw_power_cap", "hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown", "sw_thermal_slowdown")
MEBI, MEGA = 1 << 20, 1_000_000

#: Of every GPU: the series, what it is, where nvidia-smi has it (drivers differ), and its unit as a factor.
FIELDS: Sequence[Tuple[str, str, Sequence[str], float]] = (
    ("utilization_ratio", "Share of the time in which a kernel ran.", ("utilization/gpu_util",), 0.01),
    ("memory_busy_ratio", "Share of the time in which memory was read or written.", ("utilization/memory_util",), 0.01),
    ("memory_total_bytes", "Memory of the GPU.", ("fb_memory_usage/total",), MEBI),
    ("memory_used_bytes", "Memory in use.", ("fb_memory_usage/used",), MEBI),
    ("temperature_celsius", "Temperature of the GPU.", ("temperature/gpu_temp",), 1),
    ("memory_temperature_celsius", "Temperature of its memory.", ("temperature/memory_temp",), 1),
    (
        "power_watts",
        "Power that it draws.",
        ("gpu_power_readings/average_power_draw", "gpu_power_readings/power_draw", "power_readings/power_draw"),
        1,
    ),
    (
        "power_limit_watts",
        "Power that it may draw.",
        ("gpu_power_readings/current_power_limit", "power_readings/enforced_power_limit"),
        1,
    ),
    ("sm_clock_hertz", "Clock of its processors.", ("clocks/sm_clock",), MEGA),
    ("sm_clock_max_hertz", "Fastest clock of its processors.", ("max_clocks/sm_clock",), MEGA),
    ("memory_clock_hertz", "Clock of its memory.", ("clocks/mem_clock",), MEGA),
    ("pcie_replays_total", "PCIe packets that were sent again.", ("pci/replay_counter",), 1),
)


def ask(argv: Sequence[str], lock: str = "") -> Optional[str]:
    """What a command prints. With a lock, it is not started again while an earlier one hangs.

    A process that waits for a lost GPU cannot be killed, and it holds the lock for as long.
    """
    with open(lock or os.devnull, "a", encoding="ascii") as held:
        try:
            if lock:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=[held.fileno()],
                env={**os.environ, "LC_ALL": "C"},
            )
        except OSError:
            return None
    try:
        out, _err = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return None
    return out.decode("utf-8", "replace") if process.returncode == 0 else None


def number(text: Optional[str]) -> Optional[float]:
    """The number in a value such as `81559 MiB`; None for N/A and errors.

    >>> number("81559 MiB"), number("N/A"), number(None)
    (81559.0, None, None)
    """
    found = NUMBER.match((text or "").strip())
    return float(found[0]) if found else None


def flag(text: Optional[str]) -> Optional[float]:
    """Whether a value says yes; None if it says neither yes nor no."""
    return {"yes": 1.0, "active": 1.0, "no": 0.0, "not active": 0.0}.get((text or "").strip().lower())


def first(gpu: ET.Element, paths: Iterable[str]) -> Optional[float]:
    """The first of these values that is a number."""
    return next((value for value in (number(gpu.findtext(path)) for path in paths) if value is not None), None)


def margin(gpu: ET.Element) -> Optional[float]:
    """Degrees below the temperature at which it slows down. Newer boards count towards it, older ones name it."""
    left, slow = number(gpu.findtext("temperature/gpu_temp_tlimit")), "temperature/gpu_temp_slow"
    if left is not None:
        return left - (number(gpu.findtext(f"{slow}_tlimit_threshold")) or 0)
    limit, now = number(gpu.findtext(f"{slow}_threshold")), number(gpu.findtext("temperature/gpu_temp"))
    return limit - now if limit is not None and now is not None else None


def ecc_errors(gpu: ET.Element, kind: str) -> Optional[float]:
    """Memory errors since the driver was loaded; kind is correctable or uncorrectable."""
    counts = [number(tag.text) for tag in gpu.iterfind("ecc_errors/volatile/*") if f"_{kind}" in tag.tag]
    return sum(count or 0 for count in counts) if any(count is not None for count in counts) else None


def fabric(gpu: ET.Element) -> Optional[float]:
    """Whether it takes part in its NVSwitches' fabric; None without one."""
    state, status = (gpu.findtext(f"fabric/{name}") or "N/A" for name in ("state", "status"))
    return None if state == "N/A" else float(state == "Completed" and status in ("Success", "N/A"))


def bus(text: str) -> str:
    """A PCI address without what the kernel and nvidia-smi write differently.

    >>> bus("00000000:4A:00.0"), bus("0000:4a:00")
    ('0:4a:00', '0:4a:00')
    """
    domain, _colon, rest = text.lower().split(".")[0].partition(":")
    return f"{int(domain, 16):x}:{rest}"


class Page:
    """The text of the file. The samples of a series stand together."""

    def __init__(self) -> None:
        self.series: Dict[str, Tuple[str, List[Sample]]] = {}

    def add(self, series: str, what: str, value: Optional[float], /, **labels: str) -> None:
        """A sample, unless its value is not known."""
        samples = self.series.setdefault(series, (what, []))[1]
        if value is not None:
            samples.append((labels, value))

    def text(self) -> str:
        return "".join(
            line
            for name, (what, samples) in self.series.items()
            if samples
            for line in self._lines(name, what, samples)
        )

    @staticmethod
    def _lines(name: str, what: str, samples: Iterable[Sample]) -> Iterator[str]:
        full = f"{PREFIX}_{name}"
        yield f"# HELP {full} {what}\n# TYPE {full} {'counter' if name.endswith('_total') else 'gauge'}\n"
        for labels, value in samples:
            inner = ",".join(f"{key}={json.dumps(text, ensure_ascii=False)}" for key, text in labels.items())
            yield f"{full}{{{inner}}} {value:.17g}\n" if inner else f"{full} {value:.17g}\n"


def add_gpus(page: Page, text: Optional[str], expected: int) -> Dict[str, str]:
    """The GPUs of `nvidia-smi -q -x`. Returns the index of each by its PCI address."""
    try:
        gpus = ET.fromstring(text).findall("gpu") if text else []
    except ET.ParseError:
        gpus = []
    # One that is lost is still listed, and says so in place of figures.
    alive = {str(index): gpu for index, gpu in enumerate(gpus) if "lost" not in "".join(gpu.itertext()).casefold()}
    page.add("gpus_expected", "GPUs that the node had when it was deployed.", expected)
    page.add("gpus", "GPUs that answer.", len(alive))
    for index, gpu in alive.items():
        labels = {"gpu": index, "uuid": gpu.findtext("uuid") or ""}
        page.add("gpu_info", "Its name.", 1, **labels, board=gpu.findtext("product_name") or "")
        for name, what, paths, factor in FIELDS:
            value = first(gpu, paths)
            page.add(f"gpu_{name}", what, None if value is None else value * factor, **labels)
        add_health(page, gpu, labels)
    return {bus(gpu.findtext("pci/pci_bus_id") or str(gpu.get("id"))): str(at) for at, gpu in enumerate(gpus)}


def add_health(page: Page, gpu: ET.Element, labels: Mapping[str, str]) -> None:
    """Of one GPU what says how it is."""
    degrees = "Degrees below the temperature at which it slows down."
    page.add("gpu_temperature_margin_celsius", degrees, margin(gpu), **labels)
    for kind in ("correctable", "uncorrectable"):
        what = "Memory errors since the driver was loaded."
        page.add("gpu_ecc_errors_total", what, ecc_errors(gpu, kind), **labels, kind=kind)
    for kind, what in (
        ("pending", "Whether a row of its memory waits for a reset to be replaced."),
        ("failure", "Whether a row of its memory could not be replaced."),
    ):
        page.add(f"gpu_row_remap_{kind}", what, flag(gpu.findtext(f"remapped_rows/remapped_row_{kind}")), **labels)
    for reason in SLOWED:
        tags = (
            f"clocks_{kind}_reasons/clocks_{kind}_reason{s}_{reason}"
            for kind in ("event", "throttle")
            for s in ("", "s")
        )
        found = next((value for value in map(flag, map(gpu.findtext, tags)) if value is not None), None)
        page.add("gpu_slowed", "Whether it runs slower than it could, and why.", found, **labels, reason=reason)
    page.add("gpu_fabric_up", "Whether it takes part in the fabric of its NVSwitches.", fabric(gpu), **labels)
    action = gpu.findtext("gpu_recovery_action") or "N/A"
    wanted = None if action == "N/A" else float(action != "None")
    page.add("gpu_recovery_needed", "Whether the driver asks for an action.", wanted, **labels, action=action)


def add_events(page: Page, text: Optional[str], indices: Mapping[str, str]) -> None:
    """What the journal has of the last hour: Xids of the kernel, and units of engines that failed."""
    xids: Dict[Tuple[str, str], int] = {}
    failures: Dict[Tuple[str, str], int] = {}
    for line in (text or "").splitlines():
        event: Dict[str, Any] = json.loads(line)
        message = event.get("MESSAGE")
        found = XID.search(message) if isinstance(message, str) else None
        if found and event.get("_TRANSPORT") == "kernel":
            key = (indices.get(bus(found[1]), ""), found[2])
            xids[key] = xids.get(key, 0) + 1
        elif event.get("MESSAGE_ID") == UNIT_FAILED and str(event.get("UNIT", "")).startswith("vllm-"):
            failed = (str(event["UNIT"]), str(event.get("UNIT_RESULT", "")))
            failures[failed] = failures.get(failed, 0) + 1
    for (gpu, xid), count in sorted(xids.items()):
        action = XID_ACTIONS.get(int(xid), "none")
        page.add("gpu_xids_last_hour", "Faults that the kernel reported.", count, gpu=gpu, xid=xid, action=action)
    for (unit, result), count in sorted(failures.items()):
        what = "Ends of an engine that nobody asked for."
        page.add("engine_failures_last_hour", what, count, name=unit, result=result)


def add_starts(page: Page, text: Optional[str]) -> None:
    """How long the last start of each engine took, until it answered."""
    for block in (text or "").split("\n\n"):
        unit = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        began, answered = (
            number(unit.get(f"{name}TimestampMonotonic")) or 0 for name in ("InactiveExit", "ActiveEnter")
        )
        if unit.get("Id") and answered > began > 0:
            what = "Seconds from the start of an engine until it answered."
            page.add("engine_start_seconds", what, (answered - began) / 1e6, name=unit["Id"])


def write(path: str, text: str) -> None:
    """Replace the file. If that fails, there is none: node-exporter would go on serving the old figures."""
    temporary = f"{path}.new"
    try:
        with open(temporary, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError:
        for leftover in (temporary, path):
            Path(leftover).unlink(missing_ok=True)
        raise


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="the file to write")
    parser.add_argument("--gpus", type=int, default=0, help="how many GPUs the node should have")
    args = parser.parse_args(argv)
    properties = "Id,InactiveExitTimestampMonotonic,ActiveEnterTimestampMonotonic"
    journal = ("journalctl", "--output=json", f"--since=-{WINDOW_S}s", "--no-pager")
    page = Page()
    gpus = ask(("nvidia-smi", "-q", "-x"), f"{args.out}.lock") if args.gpus else None
    indices = add_gpus(page, gpus, args.gpus)
    add_events(page, ask((*journal, "_TRANSPORT=kernel", "+", f"MESSAGE_ID={UNIT_FAILED}")), indices)
    add_starts(page, ask(("systemctl", "show", "vllm-*.service", f"--property={properties}")))
    write(args.out, page.text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
