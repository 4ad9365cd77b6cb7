# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait for endpoints; if a unit fails, report why."""

from __future__ import annotations

import re
import time
from typing import Any, Dict, List, Mapping, Sequence

from ..node import clock, commands
from ..programs import diagnosis, vllm_wait
from ..units import job as units_job
from .record import START_S

Endpoint = Mapping[str, Any]

OPTIONS: Dict[str, Any] = {
    "endpoints": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "unit": {"type": "str"},
            "host": {"type": "str", "default": "127.0.0.1"},
            "port": {"type": "int", "default": 8000},
            "model": {"type": "str", "required": True},
            "env_file": {"type": "path"},
            "timeout_s": {"type": "int", "default": START_S},
            "task": {"type": "str", "default": vllm_wait.GENERATE, "choices": sorted(vllm_wait.QUESTIONS)},
            "rank": {"type": "int"},
            "head": {"type": "str"},
        },
    },
}
#: For modules that are called again until the endpoints answer.
WAITING = {**OPTIONS, "wait_s": {"type": "int", "default": 10}, "resume": {"type": "dict"}}

PAUSE_S = 1
#: How often a rank of an engine over several nodes may start within one wait: the play's restart, and one that another
#: rank of the same play caused.
STARTS = 2
#: Log lines to read: the first exception counts, and each of eight workers prints its own in fifty lines.
LOG_LINES = 2000
UNIT_PROPERTIES = (
    "ActiveState",
    "SubState",
    "Result",
    "NRestarts",
    "InvocationID",
    "LoadState",
    "ExecMainStatus",
    "Job",
)


#: Log lines with the durations of a start's phases. Of several processes the slowest counts.
_PARTS = {
    "load": re.compile(r"(?:Model loading|Loading weights) took .{0,60}?([\d.]+) seconds"),
    "compile": re.compile(r"init engine \(.{0,80}?\) took ([\d.]+) s"),
}


def parts_of(lines: Sequence[str]) -> Dict[str, float]:
    """The seconds for loading the weights, and for compiling and warm-up."""
    seconds: Dict[str, float] = {}
    for line in lines:
        for part, pattern in _PARTS.items():
            match = pattern.search(line)
            if match:
                seconds[part] = max(seconds.get(part, 0.0), float(match[1]))
    return seconds


def url_of(endpoint: Endpoint) -> str:
    return vllm_wait.base_url(endpoint["host"], endpoint["port"])


class Wait:
    """One call of the wait.

    ``before``: what the first call did before it waited; every answer repeats it. ``once``: do not wait, and do not
    fail if a unit ends.
    """

    def __init__(self, module: Any, before: Dict[str, Any], once: bool = False) -> None:
        self.module = module
        self.once = once or module.check_mode
        begun: Dict[str, Any] = {**clock.begin(), "ready": {}, "restarts": {}, "runs": {}, "before": before}
        self.resume: Dict[str, Any] = module.params.get("resume") or begun
        self.answers: Dict[str, vllm_wait.Answer] = {}

    def unit_state(self, unit: str) -> Dict[str, str]:
        rc, out, err = self.module.run_command(commands.show(UNIT_PROPERTIES, unit))
        if rc != 0:
            self.end_in_failure(msg=f"systemctl show {unit} failed: {(err or out).strip()}")
        (shown,) = commands.shown(out) or [{}]
        return {**shown, "Job": shown.get("Job", "").lstrip("0")}

    def log(self, endpoint: Endpoint) -> Sequence[str]:
        """The log of this run of the unit only: lines of an earlier run would give a wrong cause."""
        run = self.resume["runs"].get(endpoint["name"])
        unit = endpoint["unit"]
        return units_job.log_tail(self.module.run_command, unit, run, LOG_LINES, manager=True) if run else []

    def look(self, endpoint: Endpoint) -> None:
        """Check the unit before its endpoint: another server, or the old one, may answer on its port."""
        name = endpoint["name"]
        state = self.unit_state(endpoint["unit"]) if endpoint["unit"] else {"ActiveState": "active"}
        ended, took = self.has_ended(name, state), 0.0
        # If systemd has restarted it already, keep the run that ended: its log has the cause.
        begun_anew = ended and self.is_up(state)
        if state.get("InvocationID") and not (begun_anew and name in self.resume["runs"]):
            self.resume["runs"][name] = state["InvocationID"]
        self.count_starts(endpoint, state)
        if ended:
            self.dead(endpoint, state)
            answer = vllm_wait.Answer(False, "its unit does not run")
        elif state["ActiveState"] == "deactivating" or (state["ActiveState"] == "active" and state.get("Job")):
            answer = vllm_wait.Answer(False, "the previous run is being stopped")
        else:
            began = time.monotonic()
            answer = self.ask(endpoint)
            took = time.monotonic() - began
            # A starting unit checks its endpoint itself, and knows whether another server has its port.
            if answer.refused and state["ActiveState"] != "active":
                answer = vllm_wait.Answer(False, answer.detail)
        self.answers[name] = answer
        # The unit counts as started only after the same answer, so the play must wait for the unit too.
        if answer.ready and state["ActiveState"] == "active":
            self.resume["ready"][name] = answer.detail
            if not self.once:
                self.resume.setdefault("parts", {})[name] = {**parts_of(self.log(endpoint)), "token": round(took, 2)}

    def count_starts(self, endpoint: Endpoint, state: Mapping[str, str]) -> None:
        """A rank whose engine cannot start is started anew with the rank that ends, and its own unit never ends."""
        if endpoint.get("rank") is None or state["ActiveState"] != "activating" or not state.get("InvocationID"):
            return
        starts = self.resume.setdefault("starts", {}).setdefault(endpoint["name"], [])
        starts += [state["InvocationID"]] if state["InvocationID"] not in starts else []
        if len(starts) > STARTS and not self.once:
            self.fail(f"{endpoint['unit']} starts again and again, since another rank of its engine ends.", endpoint)

    @staticmethod
    def is_up(state: Mapping[str, str]) -> bool:
        return state["ActiveState"] in ("active", "activating") and "auto-restart" not in state.get("SubState", "")

    def has_ended(self, name: str, state: Mapping[str, str]) -> bool:
        # systemd restarts it by itself; but the first end shows the cause, so stop waiting here.
        restarts = int(state.get("NRestarts") or 0)
        again = restarts > self.resume["restarts"].setdefault(name, restarts)
        gone = state["ActiveState"] in ("failed", "inactive") and not state.get("Job")
        return again or gone or "auto-restart" in state.get("SubState", "")

    def ask(self, endpoint: Endpoint) -> vllm_wait.Answer:
        if endpoint.get("rank"):
            # Its unit counts as started when the head answers.
            return vllm_wait.Answer(True, f"it is rank {endpoint['rank']} of the engine on {endpoint.get('head')}")
        try:
            key = vllm_wait.read_key(endpoint["env_file"])
        except OSError as error:
            return vllm_wait.Answer(False, f"its env file cannot be read: {error}", refused=True)
        ask = vllm_wait.asker(endpoint["host"], endpoint["port"])
        return vllm_wait.probe(ask, endpoint["model"], key, endpoint.get("task") or vllm_wait.GENERATE)

    def fail(self, sentence: str, endpoint: Endpoint) -> None:
        """Fail with this sentence, the cause from the journal, and the command that shows the journal."""
        lines = self.log(endpoint)
        cause = diagnosis.diagnose(lines)
        log = diagnosis.telling_lines(lines)
        last = " / ".join(diagnosis.shortened(line) for line in log[-3:])
        why = str(cause) if cause else f"Its last line: {last}" if last else "It printed nothing."
        journal = diagnosis.journal_of(endpoint["unit"]) if lines else ""
        message = diagnosis.sentences(sentence, why, journal)
        self.end_in_failure(msg=message, diagnosis=vars(cause) if cause else {}, log=log)

    def end_in_failure(self, **result: Any) -> None:
        self.module.fail_json(**self.resume["before"], **result, done=True, progress="")

    def dead(self, endpoint: Endpoint, state: Mapping[str, str]) -> None:
        if self.once:
            return
        status = state.get("ExecMainStatus", "")
        how = f"{state['ActiveState']}, {state['Result']}" + (f", status {status}" if status not in ("", "0") else "")
        self.fail(f"{endpoint['unit']} ended before {endpoint['name']} answered ({how}).", endpoint)

    def refused(self, endpoint: Endpoint, detail: str) -> None:
        """Fail because the endpoint answers, but never as this instance would. The message has its answer."""
        cause = diagnosis.diagnose([f"vllm-wait: {endpoint['model']} on port {endpoint['port']}: {detail}"])
        why = str(cause) if cause else f"{endpoint['name']} cannot be checked: {detail}"
        message = diagnosis.sentences(why, diagnosis.journal_of(endpoint["unit"]))
        self.end_in_failure(msg=message, diagnosis=vars(cause) if cause else {}, log=[])

    def late(self, endpoint: Endpoint, elapsed: float) -> None:
        detail = self.answers[endpoint["name"]].detail
        self.fail(f"{endpoint['name']} did not answer within {int(elapsed)} s ({detail}).", endpoint)

    def waiting_for(self) -> List[Endpoint]:
        return [
            endpoint for endpoint in self.module.params["endpoints"] if endpoint["name"] not in self.resume["ready"]
        ]

    def slice(self) -> None:
        end = time.monotonic() + self.module.params.get("wait_s", 0)
        while True:
            for endpoint in self.waiting_for():
                self.look(endpoint)
            if self.once or not self.waiting_for() or time.monotonic() >= end:
                return
            elapsed = clock.elapsed(self.resume)
            for endpoint in self.waiting_for():
                answer = self.answers[endpoint["name"]]
                if answer.refused:
                    self.refused(endpoint, answer.detail)
                if elapsed > endpoint["timeout_s"]:
                    self.late(endpoint, elapsed)
            time.sleep(PAUSE_S)

    def progress(self) -> str:
        elapsed = int(clock.elapsed(self.resume))
        parts = []
        for endpoint in self.waiting_for():
            busy = diagnosis.phase(self.log(endpoint)) or self.answers[endpoint["name"]].detail
            parts.append(f"{endpoint['name']}: {busy}")
        return f"{'; '.join(parts)} ({elapsed} s)"

    def endpoints(self) -> List[Dict[str, Any]]:
        return [
            {
                "name": endpoint["name"],
                "url": url_of(endpoint),
                "model": endpoint["model"],
                "ready": endpoint["name"] in self.resume["ready"],
                "detail": self.resume["ready"].get(endpoint["name"]) or self.answers[endpoint["name"]].detail,
                "seconds": self.resume.get("parts", {}).get(endpoint["name"], {}),
            }
            for endpoint in self.module.params["endpoints"]
        ]

    def end(self) -> None:
        """Check until the call's time is up, then return the module's result."""
        self.slice()
        before = self.resume["before"]
        if self.waiting_for() and not self.once:
            self.module.exit_json(**before, done=False, progress=self.progress(), resume=self.resume)
        self.module.exit_json(**before, done=True, progress="", endpoints=self.endpoints())
