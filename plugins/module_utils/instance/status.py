# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How an instance is, from what systemd shows of its unit, what its endpoint answers and what its journal says.

A state is one word that a person and a monitor can act on:

serving, busy     a completion is answered; or it is late, and the engine works meanwhile
starting          its unit is on its way to the first answer
restarting        it ended by itself, and systemd waits to start it again or does so
stopping          its last requests are being finished
hung              its unit runs, and nothing comes from it: nothing is worked off, or nobody can see whether it is
refused           something answers at its address, and not as this instance would
failed, stopped   it does not run: it ended with an error, or somebody stopped it
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
    """What an instance is busy with, over all of its engines; requests and tokens are all since its start."""

    running: int = 0
    waiting: int = 0
    kv_cache_usage: float = 0.0
    requests: float = 0.0
    prompt_tokens: float = 0.0
    generation_tokens: float = 0.0


@dataclass(frozen=True)
class Rates:
    """What was worked off per second between two looks: requests that ended, tokens that were read and made."""

    requests: float
    prompt_tokens: float
    generation_tokens: float


@dataclass(frozen=True)
class Verdict:
    """``detail`` says why it is so, ``remedy`` what to do about it."""

    state: str
    detail: str
    remedy: str = ""

    @property
    def healthy(self) -> bool:
        return self.state in HEALTHY


@dataclass(frozen=True)
class Unit:
    """What systemd shows of an instance's unit, as far as it tells how the instance is."""

    active: str = "inactive"
    sub: str = "dead"
    result: str = "success"
    exit_status: int = 0
    restarts: int = 0
    invocation: str = ""
    enabled: bool = False
    since_s: Optional[int] = None
    loaded: bool = False
    #: What it asserts before a start was not so at the last one.
    refused: bool = False
    name: str = field(default="", compare=False)

    @property
    def waits_to_restart(self) -> bool:
        return "auto-restart" in self.sub


def parse_metrics(text: str) -> Optional[Load]:
    """The load in a page of Prometheus' text format; None for a page that is not vLLM's."""
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
        # Each engine has a cache of its own, and the fullest is the one where requests begin to wait.
        kv_cache_usage=max(samples.get("vllm:kv_cache_usage_perc", [0.0])),
        requests=total("vllm:request_success_total"),
        prompt_tokens=total("vllm:prompt_tokens_total"),
        generation_tokens=total("vllm:generation_tokens_total"),
    )


def rates(first: Optional[Load], second: Optional[Load], seconds: float) -> Optional[Rates]:
    """Between two looks so many seconds apart; None where one saw nothing, or the engine began anew between them."""
    if first is None or second is None or seconds <= 0:
        return None
    names = ("requests", "prompt_tokens", "generation_tokens")
    grown = [getattr(second, name) - getattr(first, name) for name in names]
    return Rates(*(round(more / seconds, 1) for more in grown)) if min(grown) >= 0 else None


def parse_units(shown: str, uptime_s: float) -> Dict[str, Unit]:
    """What systemd said of units. ``uptime_s``: the monotonic clock now."""
    found = {}
    for value in commands.shown(shown):
        if "Id" in value:
            found[value["Id"]] = Unit(
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
    return found


def _number(value: Mapping[str, str], name: str) -> int:
    text = value.get(name, "")
    return int(text) if text.isdigit() else 0


def _since(value: Mapping[str, str], uptime_s: float) -> Optional[int]:
    """For how long it has run, or has been starting."""
    if value.get("ActiveState") not in ("active", "activating"):
        return None
    name = "ActiveEnterTimestampMonotonic" if value["ActiveState"] == "active" else "InactiveExitTimestampMonotonic"
    began = _number(value, name)
    return max(0, int(uptime_s - began / 1e6)) if began else None


def parse_journal(text: str) -> List[Tuple[str, List[str]]]:
    """The runs in ``journalctl --output=json`` of one unit, the newest last: its ID and lines, systemd's too."""
    runs: Dict[str, List[str]] = {}
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        run = entry.get("INVOCATION_ID") or entry.get("_SYSTEMD_INVOCATION_ID") or ""
        said = entry.get("MESSAGE") or ""
        if isinstance(said, list):  # what is not text, the journal gives as numbers
            said = bytes(said).decode("utf-8", "replace")
        runs.setdefault(run, []).extend(part.strip() for part in re.split(r"[\r\n]+", said) if part.strip())
    return list(runs.items())


def cause(runs: Sequence[Tuple[str, Sequence[str]]], ended: bool = True) -> Tuple[str, str]:
    """Why the newest of the runs that tells ended, and the remedy; its last words where nothing tells it."""
    given_up = None
    for _run, lines in reversed(runs):
        found = diagnosis.diagnose(lines, ended)
        if found and found.key != "start_limit":
            return found.cause, found.remedy
        given_up = given_up or found
    if given_up:
        return given_up.cause, given_up.remedy
    said = diagnosis.telling_lines(runs[-1][1], 1) if runs else []
    return (f"Its last words: {diagnosis.shortened(said[0])}" if said else "Its journal says nothing."), ""


def judge(
    unit: Unit,
    answer: Optional[Answer],
    works: Optional[bool],
    runs: Sequence[Tuple[str, Sequence[str]]],
    docker_runs: bool,
) -> Verdict:
    """How an instance is, in whole sentences.

    ``works``: whether it worked anything off while its answer was waited for; None where that could not be seen.
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
            "systemctl status docker says why; with Docker the unit starts again, unless somebody stopped it by hand.",
        )
    if unit.active == "failed":
        why, remedy = cause(runs)
        status = f", status {unit.exit_status}" if unit.exit_status else ""
        return Verdict("failed", f"it ended ({unit.result}{status}). {why}", remedy or diagnosis.journal_of(unit.name))
    if unit.refused:
        return Verdict(
            "failed",
            "Its weights are not where its configuration has them, so it was not started.",
            "Mount what they lie on, and it starts by itself; or run the playbook: it fetches what is missing.",
        )
    return Verdict(
        "stopped", "it was stopped, or never started", f"systemctl start {unit.name or 'its unit'} starts it"
    )


def _of_active(unit: Unit, answer: Answer, works: Optional[bool], runs: Sequence[Tuple[str, Sequence[str]]]) -> Verdict:
    if answer.ready:
        return Verdict("serving", answer.detail)
    if answer.refused:
        return Verdict("refused", answer.detail)
    if works:
        return Verdict("busy", "a completion is late, and the engine works meanwhile")
    name = unit.name or "its unit"
    detail = f"its unit runs and {answer.detail.replace(' yet', '')}"
    if works is None:
        # A server that is saturated looks just so. The watchdog sees for longer than this.
        detail = f"{detail}. It is too busy to say what it does, or it hangs"
        return Verdict("hung", detail, f"journalctl -eu {name} shows whether it works; the unit ends a hang by itself")
    why, remedy = cause(runs[-1:], ended=False)
    restart = f"systemctl restart {name} starts it anew; journalctl -eu {name} tells what came before"
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
    busy = diagnosis.phase(now) or "its container is being started"
    if unit.restarts:
        why, remedy = cause(before)
        times = "once" if unit.restarts == 1 else f"{unit.restarts} times"
        return Verdict("restarting", f"{busy}; it has ended {times} before. {why}", remedy or journal)
    return Verdict("starting", busy)


def gpu_indices(names: Sequence[str], seen: NodeGpus) -> List[int]:
    """The present indices of an instance's GPUs; as its record names them where the driver is silent."""
    if seen.gpus:
        return [gpu.index for gpu in own_gpus(names, seen)[0]]
    return sorted(int(name) for name in names if name.isdigit())


def own_gpus(names: Sequence[str], seen: NodeGpus) -> Tuple[List[Gpu], List[str]]:
    """An instance's GPUs, by index; and the names of those that the node has lost."""
    found = {name: named(seen, name) for name in names}
    there = sorted((gpu for gpu in found.values() if gpu), key=lambda gpu: gpu.index)
    return there, [name for name, gpu in found.items() if gpu is None] if seen.gpus else []


def lost_text(unit: str, lost: Sequence[str]) -> str:
    """A sentence on GPUs that a unit was made for and that are gone; empty where none is."""
    if not lost:
        return ""
    return (
        f"{unit} was made for GPU {', '.join(lost)}, which this node has lost (`nvidia-smi -L` lists the rest): run the"
        " playbook to plan it anew, or bring the board back."
    )


def gpu_memory(mine: Sequence[Gpu]) -> Tuple[Optional[int], Optional[int]]:
    """What is in use on these GPUs, by whomever, and what they have; None where the driver does not tell."""
    if not mine or any(gpu.used_mib is None or gpu.memory_mib is None for gpu in mine):
        return None, None
    return sum(gpu.used_mib or 0 for gpu in mine), sum(gpu.memory_mib or 0 for gpu in mine)
