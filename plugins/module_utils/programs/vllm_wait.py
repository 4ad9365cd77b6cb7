# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a vLLM server answers, and goes on answering, asked with nothing but Python's standard library.

This file is used twice. The module ``endpoint_ready`` imports it; and the role puts it on the node, where every unit
runs it as ``ExecStartPost=``, so that a unit is started when it answers a completion, or what else its task is, and not
when its process exists. A
child of it stays behind in the unit as its watchdog: an engine can hang with all its processes healthy and /health at
200, and only what it works off tells. The watchdog kills nothing without evidence that nothing was worked off:

- /metrics answers, an engine has requests, and none of its counters moves: evidence. What moves while a long prompt is
  read is the KV cache alone, so it counts as well.
- No engine has requests, /metrics answers at once, and a token that is asked for does not come: evidence.
- Nobody listens: evidence.
- Nothing is answered in time: a server that is saturated looks just so, which is no evidence, unless the processes of
  the container use no time of a processor either. Only what has shown no life for very long is given up all the same.
"""

from __future__ import annotations

import argparse
import http.client
import importlib
import json
import math
import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

#: Seconds that one request may take. The first completion after a start may compile kernels.
HEALTH_S = 5
COMPLETION_S = 60
#: How much longer than with evidence an engine may show no life without any.
PATIENT_TIMES = 24
#: The share of one processor under which a container does nothing. An engine at work keeps several busy.
STILL_SHARE = 0.02
#: What a client sees when the answer is late; before Python 3.10 it is no TimeoutError.
LATE = (socket.timeout, TimeoutError)

#: (method, path, body, headers, timeout) -> (status, text); raises OSError or HTTPException where nothing answers.
Ask = Callable[[str, str, Optional[str], Dict[str, str], float], Tuple[int, str]]
#: Seconds, of a clock that nobody sets.
Clock = Callable[[], float]
Sleep = Callable[[float], None]


@dataclass(frozen=True)
class Question:
    """The smallest request of a task: its route, its body without the model, where the answer is, what it is called."""

    path: str
    body: Dict[str, Any]
    answer: Tuple[str, str]
    title: str


GENERATE = "generate"
#: By what a model is served for. vLLM offers a pooling model no completion, and each other route to its task alone.
QUESTIONS = {
    GENERATE: Question("/v1/completions", {"prompt": "Hello", "max_tokens": 1}, ("choices", "text"), "a completion"),
    "embed": Question("/v1/embeddings", {"input": "Hello"}, ("data", "embedding"), "an embedding"),
    "rerank": Question(
        "/v1/rerank", {"query": "Hello", "documents": ["Hello"]}, ("results", "relevance_score"), "a reranking"
    ),
    "classify": Question("/classify", {"input": "Hello"}, ("data", "probs"), "a classification"),
    "pooling": Question("/pooling", {"input": "Hello"}, ("data", "data"), "a pooling"),
}


@dataclass(frozen=True)
class Answer:
    """``ready``: it answered a request of its task. ``refused``: it never will, so waiting is useless."""

    ready: bool
    detail: str
    refused: bool = False


def reachable_host(host: str) -> str:
    """The address under which a server that listens on ``host`` is reached from its own machine."""
    return {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1", "[::]": "::1"}.get(host, host.strip("[]"))


def base_url(host: str, port: int) -> str:
    """The base URL for a client on the same machine."""
    reached = reachable_host(host)
    return f"http://{f'[{reached}]' if ':' in reached else reached}:{port}/v1"


def asker(host: str, port: int) -> Ask:
    """Ask over plain HTTP, never through a proxy: the server is on this machine."""

    def ask(method: str, path: str, body: Optional[str], headers: Dict[str, str], timeout: float) -> Tuple[int, str]:
        connection = http.client.HTTPConnection(reachable_host(host), port, timeout=timeout)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read(1 << 20).decode("utf-8", "replace")
        finally:
            connection.close()

    return ask


def _headers(key: str) -> Dict[str, str]:
    return {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}


def _one_answer(ask: Ask, model: str, headers: Dict[str, str], timeout: float, question: Question) -> Tuple[int, str]:
    return ask("POST", question.path, json.dumps({"model": model, **question.body}), headers, timeout)


def probe(ask: Ask, model: str, key: str = "", task: str = GENERATE) -> Answer:
    """Health, then the list of models, then one request: each says more than the one before it, and costs more."""
    headers, question = _headers(key), QUESTIONS[task]
    try:
        status, text = ask("GET", "/health", None, headers, HEALTH_S)
        if status != 200:
            return _not_ok("/health", status, text, key)
        status, text = ask("GET", "/v1/models", None, headers, HEALTH_S)
        if status != 200:
            return _not_ok("/v1/models", status, text, key)
        served = [entry["id"] for entry in json.loads(text)["data"]]
        if model not in served:
            there = ", ".join(served) or "nothing"
            return Answer(False, f"it serves {there}, not {model}: {OTHER_NAME}", True)
        status, text = _one_answer(ask, model, headers, COMPLETION_S, question)
        if status != 200:
            return _not_ok(question.path, status, text, key)
        listed, value = question.answer
        json.loads(text)[listed][0][value]
    except (OSError, http.client.HTTPException) as error:
        # Nobody listens before the engine is ready, and Docker's port forwarding then hangs up or resets.
        return Answer(False, f"no answer yet ({type(error).__name__})")
    except (ValueError, KeyError, IndexError, TypeError):
        return Answer(False, "what answers on this port is not vLLM", True)
    return Answer(True, f"it answers {question.title}")


OTHER_NAME = "its served-model-name is another, or another server has this port"
#: Answers below 500 that say "later" and not "no".
LATER = (408, 425, 429)


def _not_ok(path: str, status: int, text: str, key: str) -> Answer:
    """Any answer but 200. What the server says of it follows, without the key."""
    detail = message_in(text)
    detail = f"{path} answers {status}" + (f": {detail.replace(key, '…') if key else detail}" if detail else "")
    if status in (401, 403):
        return Answer(False, f"{detail}; it runs with another API key than its env file has", True)
    return Answer(False, detail, 300 <= status < 500 and status not in LATER)


def message_in(text: str, most: int = 200) -> str:
    """What the body of an error says, in one line: the message alone where it is an API's."""
    message: Any = text
    try:
        message = json.loads(text)
        while isinstance(message, dict):
            message = next(message[name] for name in ("error", "message", "detail") if name in message)
    except (ValueError, StopIteration):
        message = text
    line = " ".join(re.sub(r"<[^>]*>", " ", str(message)).split()).rstrip(".")
    return line if len(line) <= most else line[: most - 2].rstrip() + " …"


def key_in(env_text: str) -> str:
    """The API key in the text of an env file as Docker reads it: no quotes, the last one wins."""
    key = ""
    for line in env_text.splitlines():
        name, equals, value = line.lstrip().partition("=")
        if equals and name == "VLLM_API_KEY":
            key = value
    return key


def read_key(path: str) -> str:
    if not path:
        return ""
    with open(path, encoding="utf-8") as stream:
        return key_in(stream.read())


def wait_until_ready(
    look: Callable[[], Answer],
    alive: Callable[[], bool],
    sleep: Sleep,
    pause_s: float = 2,
) -> Answer:
    """Look until it is ready, until it refuses, which no waiting changes, or until the process is gone.

    Twice, since who refuses may be another server that has the port: Docker says so and ends, which is the better word.
    How long it may take is the unit's TimeoutStartSec.
    """
    refused = False
    while True:
        if not alive():
            return Answer(False, "the engine ended before it answered", True)
        answer = look()
        if answer.ready or (answer.refused and refused):
            return answer
        refused = answer.refused
        sleep(pause_s)


@dataclass
class Work:
    """What one engine behind the port has to do, and what moves while it works that off.

    ``tokens``, ``steps``: how many since its start; both stand still while a long prompt is read. ``cache``: the share
    of its KV cache that is in use, which grows with every part of one.
    """

    requests: float = 0
    tokens: float = 0
    steps: float = 0
    cache: float = 0

    @property
    def mark(self) -> Tuple[float, float, float]:
        return self.tokens, self.steps, self.cache


_COUNTED = {
    "vllm:num_requests_running": "requests",
    "vllm:num_requests_waiting": "requests",
    "vllm:prompt_tokens_total": "tokens",
    "vllm:generation_tokens_total": "tokens",
    "vllm:iteration_tokens_total_count": "steps",
    "vllm:kv_cache_usage_perc": "cache",
}
_SAMPLE = re.compile(r"^([\w:]+)(?:\{([^}]*)\})? (\S+)", re.MULTILINE)


def work_in(metrics: str) -> Dict[str, Work]:
    """The work of each engine, by its number, from the text of /metrics; empty where statistics are switched off."""
    works: Dict[str, Work] = {}
    for name, labels, value in _SAMPLE.findall(metrics):
        if name in _COUNTED:
            engine = next(iter(re.findall(r'\bengine="(\d+)"', labels)), "0")
            work = works.setdefault(engine, Work())
            setattr(work, _COUNTED[name], getattr(work, _COUNTED[name]) + float(value))
    return works


def moved(before: str, after: str) -> bool:
    """Whether an engine has made progress between two texts of /metrics."""
    first, second = work_in(before), work_in(after)
    return any(work.mark != first[engine].mark for engine, work in second.items() if engine in first)


@dataclass
class LifeSigns:
    """For how long there has been evidence that nothing is worked off; this file's beginning says what is evidence.

    Time that tells nothing is left out, so what hangs is found although it answers now and then only.
    ``answer_s``: how long an answer may take. ``cpu``: the processors' seconds that the container's processes have
    used, None where that is not known. ``patient_s``: how long it may show no life without evidence that there is none.
    """

    ask: Ask
    model: str
    key: str
    clock: Clock
    answer_s: float = COMPLETION_S
    cpu: Callable[[], Optional[float]] = lambda: None
    patient_s: float = math.inf
    since: Dict[str, float] = field(default_factory=dict)
    seen: Dict[str, Tuple[float, float, float]] = field(default_factory=dict)
    why: str = ""
    task: str = GENERATE

    def __post_init__(self) -> None:
        self.began = self.looked = self.lived = self.clock()
        self.used = self.cpu()

    def silent_s(self) -> float:
        """Look, and return for how many seconds the engine that is silent longest has shown no life."""
        could_ask = True
        try:
            evidence = self._look()
        except ConnectionError:
            # Refused; or hung up on, by Docker's port forwarding that found nobody.
            evidence, self.why = True, "nobody listens on its port"
        except (*LATE, http.client.HTTPException):  # or cut short
            evidence = False
        except OSError:
            # This node has no more ports or files to ask with, and who was not asked may well do nothing.
            evidence = could_ask = False
        now = self.clock()
        still = self._is_still(now)
        if still and could_ask and not evidence:
            evidence, self.why = True, "it answers nothing, and its processes do nothing"
        if not evidence:
            self._leave_out(now)
        self.looked = now
        if now - self.lived >= self.patient_s:
            self.why = "it answers too late, or nothing at all"
            return now - self.lived
        return now - min(self.since.values(), default=self.began)

    def _look(self) -> bool:
        """Ask, and return whether the answer tells anything, be it that the engine lives or that it does not."""
        sent_at = self.clock()
        status, text = self.ask("GET", "/metrics", None, _headers(self.key), self.answer_s)
        prompt = self.clock() - sent_at <= HEALTH_S
        works = work_in(text) if status == 200 else {}
        idle = not any(work.requests for work in works.values())
        token: Optional[bool] = False
        if idle:
            # Where the statistics are switched off, that it answers is all that can be seen.
            token = True if status == 200 and not works else self._answers()
        self._compare(works, idle, bool(token))
        # Who is slow to say that there is nothing to do has more to do than it says.
        return token is not None or (prompt and status == 200)

    def _answers(self) -> Optional[bool]:
        """Whether it does; None where it takes too long. A refusal is the server's, and tells nothing of the engine."""
        try:
            question = QUESTIONS[self.task]
            return _one_answer(self.ask, self.model, _headers(self.key), self.answer_s, question)[0] < 500
        except LATE:
            return None

    def _compare(self, works: Dict[str, Work], idle: bool, token: bool) -> None:
        """Record which engines have made progress since the last check."""
        now = self.clock()
        if token:
            self.began = self.lived = now
            self.since = dict.fromkeys(self.since, now)
        for engine, work in works.items():
            moved = work.mark != self.seen.get(engine, work.mark)
            if moved:
                self.lived = now
            if moved or (work.requests == 0 and not idle):
                self.since[engine] = now
            self.since.setdefault(engine, self.began if idle else now)
            self.seen[engine] = work.mark
        waiting = sum(work.requests for work in works.values())
        none = "token" if self.task == GENERATE else "answer"
        self.why = (
            f"of {waiting:.0f} requests it works off none" if waiting else f"it has nothing to do and gives no {none}"
        )

    def _is_still(self, now: float) -> bool:
        """Whether its processes have done next to nothing since the last look, where that can be seen."""
        before, self.used = self.used, self.cpu()
        if before is None or self.used is None:
            return False
        return self.used - before < STILL_SHARE * (now - self.looked)

    def _leave_out(self, now: float) -> None:
        """Do not count the time since the last check."""
        self.began = min(now, self.began + now - self.looked)
        self.since = {engine: min(now, since + now - self.looked) for engine, since in self.since.items()}


def watch(signs: LifeSigns, hang_s: float, sleep: Sleep) -> float:
    """Return, with the seconds of silence, once an engine has shown no life for ``hang_s`` seconds."""
    while True:
        sleep(min(60, hang_s / 5))
        silent = signs.silent_s()
        if silent >= hang_s:
            return silent


def notify(words: str, address: str = "") -> None:
    """Send a message to systemd, see sd_notify(3). Does nothing without a socket."""
    address = address or os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(words.encode(), "\0" + address[1:] if address.startswith("@") else address)


CGROUPS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")


def output_of(*command: str) -> str:
    """Run a command with a time limit; empty if it fails."""
    try:
        # A unit runs this, with no module around it.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            command, check=False, capture_output=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace").strip()


def cpu_files(cgroup: str, roots: Sequence[str] = CGROUPS) -> List[str]:
    """Where the kernel may count for a process's group, from its /proc/PID/cgroup; nothing without cgroup v2."""
    groups = [line[3:].strip() for line in cgroup.splitlines() if line.startswith("0::/")]
    return [f"{root}{group}/cpu.stat" for group in groups for root in roots]


def cpu_seconds(files: Sequence[str]) -> Optional[float]:
    """The seconds of all processors together that a group has used; None where no file tells."""
    for path in files:
        try:
            with open(path, encoding="utf-8") as stream:
                match = re.search(r"^usage_usec (\d+)$", stream.read(), re.MULTILINE)
        except OSError:
            continue
        if match:
            return int(match.group(1)) / 1e6
    return None


def container_cpu(docker: str, container: str) -> Callable[[], Optional[float]]:
    """The processors' time of a container that runs now."""
    pid = output_of(docker, "container", "inspect", "--format={{.State.Pid}}", container)
    try:
        with open(f"/proc/{int(pid)}/cgroup", encoding="utf-8") as stream:
            files = cpu_files(stream.read())
    except (OSError, ValueError):
        files = []
    return lambda: cpu_seconds(files)


#: The table of causes, diagnosis.py, as the role lays it beside this program.
TABLE = "vllm_diagnosis"


def why_it_ended(run: str) -> str:
    """The cause and what to do about it, from the journal of this run of the unit; empty where nothing tells it."""
    sys.dont_write_bytecode = True
    try:
        table = importlib.import_module(TABLE)
    except ImportError:
        return ""
    output_of("journalctl", "--sync")
    lines = output_of(
        "journalctl", "--no-pager", "--quiet", "--all", "--output=cat", "--lines=2000", f"_SYSTEMD_INVOCATION_ID={run}"
    ).splitlines()
    cause = table.diagnose([line.strip() for line in lines if line.strip()])
    return str(cause) if cause else ""


def stay_as_watchdog(signs: Callable[[], LifeSigns], hang_s: float, unit: str) -> None:
    """Leave a child behind that has systemd kill the unit when it hangs, which Restart= then starts again.

    Only "trigger", never the pings of WatchdogSec=: these would be due while the engine is still loading.
    """
    if os.fork():
        return
    looked = signs()
    silent = watch(looked, hang_s, time.sleep)
    # While it finishes its last requests it does not listen any more.
    if unit and output_of("systemctl", "show", "--property=ActiveState", unit) == "ActiveState=deactivating":
        os._exit(0)
    reason = f"no sign of life from {looked.model} for {silent:.0f} s: {looked.why or 'it hangs'}"
    sys.stdout.write(f"vllm-wait: {reason}. systemd kills it and starts it again.\n")
    sys.stdout.flush()
    notify(f"STATUS={reason}\nWATCHDOG=trigger")
    time.sleep(hang_s)  # systemd's signal comes first
    os._exit(1)


def main(argv: Any = None) -> int:
    parser = argparse.ArgumentParser(description="Wait until a vLLM server on this machine answers a request.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--model", required=True, help="the name under which it is served")
    parser.add_argument("--task", default=GENERATE, choices=sorted(QUESTIONS), help="what it is served for")
    parser.add_argument("--env-file", default="", help="where VLLM_API_KEY is found")
    parser.add_argument("--pid", type=int, default=0, help="give up when this process is gone")
    parser.add_argument("--hang-s", type=float, default=0, help="silence that makes a hang; 0: do not watch")
    parser.add_argument("--docker", default="docker", help="Docker's client")
    parser.add_argument("--container", default="", help="its container, and its unit without .service")
    options = parser.parse_args(argv)
    key = read_key(options.env_file)
    ask = asker(options.host, options.port)

    def alive() -> bool:
        return not options.pid or os.path.exists(f"/proc/{options.pid}")

    answer = wait_until_ready(lambda: probe(ask, options.model, key, options.task), alive, time.sleep)
    run = os.environ.get("INVOCATION_ID", "")
    why = why_it_ended(run) if run and not answer.ready and not alive() else ""
    detail = f"{answer.detail}. {why}" if why else answer.detail
    sys.stdout.write(f"vllm-wait: {options.model} on port {options.port}: {detail}\n")
    sys.stdout.flush()
    if answer.ready and options.hang_s:
        stay_as_watchdog(lambda: _signs(ask, key, options), options.hang_s, f"{options.container}.service")
    return 0 if answer.ready else 1


def _signs(ask: Ask, key: str, options: argparse.Namespace) -> LifeSigns:
    cpu = container_cpu(options.docker, options.container)
    answer_s, patient_s = min(COMPLETION_S, options.hang_s), PATIENT_TIMES * options.hang_s
    return LifeSigns(ask, options.model, key, time.monotonic, answer_s, cpu, patient_s, task=options.task)


if __name__ == "__main__":
    raise SystemExit(main())
