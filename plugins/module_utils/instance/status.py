# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of an instance, from systemd's view of its unit, the answer of its endpoint, and its journal.

Each state is one word, for people and monitors:
serving, busy     it answered a request; or the answer is late, but the engine makes progress
starting          its unit has started, and it has not answered yet
restarting        it ended by itself, and systemd restarts it or is about to
stopping          it finishes its last requests
hung              its unit runs without progress, or nobody can tell whether it makes progress
refused           something answers at its address, but not as this instance would
failed, stopped   it does not run: it ended with an error, or a user stopped it
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from ..node import commands
from ..programs import diagnosis
from ..programs.gpu import Gpu, NodeGpus, named
from ..programs.vllm_wait import Answer

PROPERTIES = (
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "ExecMainStatus",
    "NRestarts",
    "InvocationID",
    "UnitFileState",
    "ActiveEnterTimestampMonotonic",
    "InactiveExitTimestampMonotonic",
    "AssertResult",
    "AssertTimestampMonotonic",
)
HEALTHY = ("serving", "busy")
_SAMPLE = re.compile(r"^(vllm:[a-z_]+)(?:\{[^}]*\})? +([0-9.eE+-]+)")


@dataclass(frozen=True)
class Load:
    """The load of an instance, summed over its engines. Requests and tokens are counted since its start."""

    running: int = 0
    waiting: int = 0
    kv_cache_usage: float = 0.0
    requests: float = 0.0
    prompt_tokens: float = 0.0
    generation_tokens: float = 0.0


@dataclass(frozen=True)
class Rates:
    """Progress per second between two samples: completed requests, prompt tokens and generated tokens."""

    requests: float
    prompt_tokens: float
    generation_tokens: float


@dataclass(frozen=True)
class Verdict:
    """``detail``: the reason for the state; ``remedy``: what to do."""

    state: str
    detail: str
    remedy: str = ""

    @property
    def healthy(self) -> bool:
        return self.state in HEALTHY


@dataclass(frozen=True)
class Unit:
    """The properties of an instance's unit that show its state."""

    active: str = "inactive"
    sub: str = "dead"
    result: str = "success"
    exit_status: int = 0
    restarts: int = 0
    invocation: str = ""
    enabled: bool = False
    since_s: Optional[int] = None
    loaded: bool = False
    #: Whether a condition of the unit (Assert…=) failed at its last start.
    refused: bool = False
    name: str = field(default="", compare=False)

    @property
    def waits_to_restart(self) -> bool:
        return "auto-restart" in self.sub


def parse_metrics(text: str) -> Optional[Load]:
    """The load from a page in Prometheus' text format; None if the page is not vLLM's."""
    samples: Dict[str, List[float]] = {}
    for match in map(_SAMPLE.match, text.splitlines()):
        if match:
            samples.setdefault(match.group(1), []).append(float(match.group(2)))
    if "vllm:num_requests_running" not in samples:
        return None

    def total(name: str) -> float:
        return sum(samples.get(name, []))

    return Load(
        running=int(total("vllm:num_requests_running")),
        waiting=int(total("vllm:num_requests_waiting")),
        # Each engine has its own cache. Requests start to wait at the fullest one, so report that one.
        kv_cache_usage=max(samples.get("vllm:kv_cache_usage_perc", [0.0])),
        requests=total("vllm:request_success_total"),
        prompt_tokens=total("vllm:prompt_tokens_total"),
        generation_tokens=total("vllm:generation_tokens_total"),
    )


def rates(first: Optional[Load], second: Optional[Load], seconds: float) -> Optional[Rates]:
    """The rates between two samples; None if one sample is missing, or if the engine restarted in between."""
    if first is None or second is None or seconds <= 0:
        return None
    names = ("requests", "prompt_tokens", "generation_tokens")
    grown = [getattr(second, name) - getattr(first, name) for name in names]
    return Rates(*(round(more / seconds, 1) for more in grown)) if min(grown) >= 0 else None


def parse_units(shown: str, uptime_s: float) -> Dict[str, Unit]:
    """Parse the output of systemctl show. ``uptime_s``: the monotonic clock now."""
    units = {}
    for value in commands.shown(shown):
        if "Id" in value:
            units[value["Id"]] = Unit(
                active=value.get("ActiveState", "inactive"),
                sub=value.get("SubState", "dead"),
                result=value.get("Result", "success"),
                exit_status=_number(value, "ExecMainStatus"),
                restarts=_number(value, "NRestarts"),
                invocation=value.get("InvocationID", ""),
                enabled=value.get("UnitFileState") in ("enabled", "enabled-runtime"),
                since_s=_since(value, uptime_s),
                loaded=value.get("LoadState") == "loaded",
                refused=value.get("AssertResult") == "no" and _number(value, "AssertTimestampMonotonic") > 0,
                name=value["Id"],
            )
    return units


def _number(value: Mapping[str, str], name: str) -> int:
    text = value.get(name, "")
    return int(text) if text.isdigit() else 0


def _since(value: Mapping[str, str], uptime_s: float) -> Optional[int]:
    """Seconds since it started, or since its start began."""
    if value.get("ActiveState") not in ("active", "activating"):
        return None
    name = "ActiveEnterTimestampMonotonic" if value["ActiveState"] == "active" else "InactiveExitTimestampMonotonic"
    began = _number(value, name)
    return max(0, int(uptime_s - began / 1e6)) if began else None


def parse_journal(text: str) -> List[Tuple[str, List[str]]]:
    """The runs in ``journalctl --output=json`` of one unit, the newest last: ID and lines, including systemd's."""
    runs: Dict[str, List[str]] = {}
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        run = entry.get("INVOCATION_ID") or entry.get("_SYSTEMD_INVOCATION_ID") or ""
        message = entry.get("MESSAGE") or ""
        if isinstance(message, list):  # the journal has binary data as a list of numbers
            message = bytes(message).decode("utf-8", "replace")
        runs.setdefault(run, []).extend(part.strip() for part in re.split(r"[\r\n]+", message) if part.strip())
    return list(runs.items())


def cause(runs: Sequence[Tuple[str, Sequence[str]]], ended: bool = True) -> Tuple[str, str]:
    """Why the newest run with a known cause ended, and the remedy; its last line if no cause is known."""
    given_up = None
    for _run, lines in reversed(runs):
        diagnosed = diagnosis.diagnose(lines, ended)
        if diagnosed and diagnosed.key != "start_limit":
            return diagnosed.cause, diagnosed.remedy
        given_up = given_up or diagnosed
    if given_up:
        return given_up.cause, given_up.remedy
    last = diagnosis.telling_lines(runs[-1][1], 1) if runs else []
    return (f"Its last line: {diagnosis.shortened(last[0])}" if last else "Its journal is empty."), ""


def judge(
    unit: Unit,
    answer: Optional[Answer],
    works: Optional[bool],
    runs: Sequence[Tuple[str, Sequence[str]]],
    docker_runs: bool,
) -> Verdict:
    """The state of an instance, with a reason and a remedy in whole sentences.

    ``works``: whether it made progress while its answer was awaited; None if that is unknown.
    """
    verdict = _judged(unit, answer, works, runs, docker_runs)
    return replace(verdict, detail=diagnosis.sentences(verdict.detail), remedy=diagnosis.sentences(verdict.remedy))


def _judged(
    unit: Unit,
    answer: Optional[Answer],
    works: Optional[bool],
    runs: Sequence[Tuple[str, Sequence[str]]],
    docker_runs: bool,
) -> Verdict:
    if unit.active == "active":
        return _of_active(unit, answer or Answer(False, "it was not asked"), works, runs)
    if unit.active == "deactivating":
        return Verdict("stopping", "it finishes its last requests")
    if unit.active in ("activating", "reloading"):
        return _of_starting(unit, runs)
    if not docker_runs:
        return Verdict(
            "failed" if unit.active == "failed" else "stopped",
            "Docker does not run.",
            "Find the reason with systemctl status docker. The unit starts with Docker, unless someone stopped it.",
        )
    if unit.active == "failed":
        why, remedy = cause(runs)
        status = f", status {unit.exit_status}" if unit.exit_status else ""
        return Verdict("failed", f"it ended ({unit.result}{status}). {why}", remedy or diagnosis.journal_of(unit.name))
    if unit.refused:
        return Verdict(
            "failed",
            "Its weights are missing at their configured path, so it was not started.",
            "Mount their disk, and it starts by itself; or run the playbook: it downloads what is missing.",
        )
    return Verdict(
        "stopped", "it was stopped, or never started", f"Start it with systemctl start {unit.name or 'its unit'}"
    )


def _of_active(unit: Unit, answer: Answer, works: Optional[bool], runs: Sequence[Tuple[str, Sequence[str]]]) -> Verdict:
    if answer.ready:
        return Verdict("serving", answer.detail)
    if answer.refused:
        return Verdict("refused", answer.detail)
    if works:
        return Verdict("busy", "an answer is late, but the engine makes progress")
    name = unit.name or "its unit"
    detail = f"its unit runs and {answer.detail.replace(' yet', '')}"
    if works is None:
        # A saturated server looks the same. The watchdog observes for longer than this.
        detail = f"{detail}. It is too busy to report its load, or it hangs"
        return Verdict("hung", detail, f"Check its progress with journalctl -eu {name}. The unit ends a hang by itself")
    why, remedy = cause(runs[-1:], ended=False)
    restart = f"Restart it with systemctl restart {name}. The reason is in journalctl -eu {name}"
    return Verdict("hung", f"{detail}. {why}", remedy or restart)


def _of_starting(unit: Unit, runs: Sequence[Tuple[str, Sequence[str]]]) -> Verdict:
    before = [run for run in runs if run[0] != unit.invocation]
    journal = diagnosis.journal_of(unit.name)
    if unit.waits_to_restart:
        why, remedy = cause(runs)
        return Verdict(
            "restarting", f"it ended ({unit.result}) and is about to be started again. {why}", remedy or journal
        )
    now = [line for run, lines in runs if run == unit.invocation for line in lines]
    busy = diagnosis.phase(now) or "its container is starting"
    if unit.restarts:
        why, remedy = cause(before)
        times = "once" if unit.restarts == 1 else f"{unit.restarts} times"
        return Verdict("restarting", f"{busy}; it has ended {times} before. {why}", remedy or journal)
    return Verdict("starting", busy)


def gpu_indices(names: Sequence[str], seen: NodeGpus) -> List[int]:
    """The current indices of an instance's GPUs; the names in its record if the driver reports nothing."""
    if seen.gpus:
        return [gpu.index for gpu in own_gpus(names, seen)[0]]
    return sorted(int(name) for name in names if name.isdigit())


def own_gpus(names: Sequence[str], seen: NodeGpus) -> Tuple[List[Gpu], List[str]]:
    """An instance's GPUs, by index; and the names of those that the node has lost."""
    gpus = {name: named(seen, name) for name in names}
    there = sorted((gpu for gpu in gpus.values() if gpu), key=lambda gpu: gpu.index)
    return there, [name for name, gpu in gpus.items() if gpu is None] if seen.gpus else []


def lost_text(unit: str, lost: Sequence[str]) -> str:
    """A sentence on GPUs of a unit that are missing; empty if none is."""
    if not lost:
        return ""
    return (
        f"{unit} needs GPU {', '.join(lost)}, which this node has lost (`nvidia-smi -L` lists the others). Run the"
        " playbook to plan it again, or bring the board back."
    )


def gpu_memory(mine: Sequence[Gpu]) -> Tuple[Optional[int], Optional[int]]:
    """The used memory of these GPUs, by any process, and their total; None if the driver does not report it."""
    if not mine or any(gpu.used_mib is None or gpu.memory_mib is None for gpu in mine):
        return None, None
    return sum(gpu.used_mib or 0 for gpu in mine), sum(gpu.memory_mib or 0 for gpu in mine)
