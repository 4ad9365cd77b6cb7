# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a vLLM server answers, and goes on answering, asked with nothing but Python's standard library.

This file is used twice. The module ``endpoint_ready`` imports it; and the role puts it on the node, where every unit
runs it as ``ExecStartPost=``, so that a unit is started when it answers a completion, not when its process exists. A
child of it stays behind in the unit as its watchdog: an engine can hang with all its processes healthy and /health at
200, and only what it works off tells.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Optional, Tuple

#: Seconds that one request may take. The first completion after a start may compile kernels.
HEALTH_S = 5
COMPLETION_S = 60

#: (method, path, body, headers, timeout) -> (status, text); raises OSError or HTTPException where nothing answers.
Ask = Callable[[str, str, Optional[str], Dict[str, str], float], Tuple[int, str]]
#: Seconds, of a clock that nobody sets.
Clock = Callable[[], float]
Sleep = Callable[[float], None]


@dataclass(frozen=True)
class Answer:
    """``ready``: a completion was answered. ``refused``: it answers and will never say yes, so waiting is useless."""

    ready: bool
    detail: str
    refused: bool = False


def reachable_host(host: str) -> str:
    """The address under which a server that listens on ``host`` is reached from its own machine."""
    return {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1", "[::]": "::1"}.get(host, host.strip("[]"))


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


def _one_token(ask: Ask, model: str, headers: Dict[str, str], timeout: float) -> Tuple[int, str]:
    body = json.dumps({"model": model, "prompt": "Hello", "max_tokens": 1})
    return ask("POST", "/v1/completions", body, headers, timeout)


def probe(ask: Ask, model: str, key: str = "") -> Answer:
    """Health, then the list of models, then one token: each says more than the one before it, and costs more."""
    headers = _headers(key)
    try:
        status, _text = ask("GET", "/health", None, headers, HEALTH_S)
        if status != 200:
            return Answer(False, f"/health answers {status}")
        status, text = ask("GET", "/v1/models", None, headers, HEALTH_S)
        if status != 200:
            return _not_ok("/v1/models", status, text)
        served = [entry["id"] for entry in json.loads(text)["data"]]
        if model not in served:
            return Answer(False, f"it serves {', '.join(served)}, not {model}: another server has this port", True)
        status, text = _one_token(ask, model, headers, COMPLETION_S)
        if status != 200:
            return _not_ok("/v1/completions", status, text)
        json.loads(text)["choices"][0]["text"]
    except (OSError, http.client.HTTPException) as error:
        # Nobody listens before the engine is ready, and Docker's port forwarding then hangs up or resets.
        return Answer(False, f"no answer yet ({type(error).__name__})")
    except (ValueError, KeyError, IndexError, TypeError):
        return Answer(False, "what answers on this port is not vLLM", True)
    return Answer(True, "it answers a completion")


def _not_ok(path: str, status: int, text: str) -> Answer:
    if status in (401, 403):
        return Answer(False, f"{path} answers {status}: it runs with another API key than its env file has", True)
    return Answer(False, f"{path} answers {status}: {text[:200].strip()}", status in (400, 404))


def key_in(env_text: str) -> str:
    """The API key in the text of an env file as Docker reads it: no quotes, the last one wins."""
    found = ""
    for line in env_text.splitlines():
        name, equals, value = line.lstrip().partition("=")
        if equals and name == "VLLM_API_KEY":
            found = value
    return found


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
    """Look until it is ready, or until the process is gone. How long that may take is the unit's TimeoutStartSec."""
    while True:
        if not alive():
            return Answer(False, "the engine ended before it answered; journalctl -u says why", True)
        answer = look()
        if answer.ready:
            return answer
        sleep(pause_s)


@dataclass
class Work:
    """What one engine behind the port has to do, and how many tokens it has worked off since its start."""

    requests: float = 0
    tokens: float = 0


_COUNTED = {
    "vllm:num_requests_running": "requests",
    "vllm:num_requests_waiting": "requests",
    "vllm:prompt_tokens_total": "tokens",
    "vllm:generation_tokens_total": "tokens",
}
_SAMPLE = re.compile(r'^([\w:]+)\{(?:[^}]*,)?engine="(\d+)"[^}]*\} (\S+)', re.MULTILINE)


def work_in(metrics: str) -> Dict[str, Work]:
    """The work of each engine, by its number, from the text of /metrics; empty where statistics are switched off."""
    found: Dict[str, Work] = {}
    for name, engine, value in _SAMPLE.findall(metrics):
        if name in _COUNTED:
            work = found.setdefault(engine, Work())
            setattr(work, _COUNTED[name], getattr(work, _COUNTED[name]) + float(value))
    return found


@dataclass
class LifeSigns:
    """Since when there is no sign of life.

    An engine with requests lives while its count of tokens moves, however long its queue is: a completion of our own
    would wait in that queue. One without requests is asked for a token.
    """

    ask: Ask
    model: str
    key: str
    clock: Clock
    answer_s: float = COMPLETION_S
    since: Dict[str, float] = field(default_factory=dict)
    seen: Dict[str, float] = field(default_factory=dict)
    began: float = 0

    def __post_init__(self) -> None:
        self.began = self.clock()

    def silent_s(self) -> float:
        """Look, and return for how many seconds the engine that is silent longest has shown no life."""
        try:
            status, text = self.ask("GET", "/metrics", None, _headers(self.key), min(HEALTH_S, self.answer_s))
            if status == 200:
                self._take(work_in(text))
        except (OSError, http.client.HTTPException):
            pass  # no answer is no sign
        return self.clock() - min(self.since.values(), default=self.began)

    def _take(self, works: Dict[str, Work]) -> None:
        if not works:  # the statistics are off: that it answers is all that can be seen
            self.began = self.clock()
            return
        idle = all(work.requests == 0 for work in works.values())
        answered = idle and self._answers()
        for engine, work in works.items():
            moved = work.tokens != self.seen.get(engine)
            waits_for_work = work.requests == 0 and not idle
            if answered or moved or waits_for_work or engine not in self.since:
                self.since[engine] = self.clock()
            self.seen[engine] = work.tokens

    def _answers(self) -> bool:
        return _one_token(self.ask, self.model, _headers(self.key), self.answer_s)[0] == 200


def watch(signs: LifeSigns, hang_s: float, sleep: Sleep) -> float:
    """Return, with the seconds of silence, once an engine has shown no life for ``hang_s`` seconds."""
    while True:
        sleep(min(60, hang_s / 5))
        silent = signs.silent_s()
        if silent >= hang_s:
            return silent


def notify(words: str, address: str = "") -> None:
    """Tell systemd; see sd_notify(3). Where nobody listens, nothing is said."""
    address = address or os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.sendto(words.encode(), "\0" + address[1:] if address.startswith("@") else address)


def stay_as_watchdog(ask: Ask, model: str, key: str, hang_s: float) -> None:
    """Leave a child behind that has systemd kill the unit when it hangs, which Restart= then starts again.

    Only "trigger", never the pings of WatchdogSec=: these would be due while the engine is still loading.
    """
    if os.fork():
        return
    signs = LifeSigns(ask, model, key, time.monotonic, min(COMPLETION_S, hang_s))
    silent = watch(signs, hang_s, time.sleep)
    said = f"no sign of life from {model} for {silent:.0f} s: it hangs"
    sys.stdout.write(f"vllm-wait: {said}. systemd kills it and starts it again.\n")
    sys.stdout.flush()
    notify(f"STATUS={said}\nWATCHDOG=trigger")
    time.sleep(hang_s)  # systemd's signal comes first
    os._exit(1)


def main(argv: Any = None) -> int:
    parser = argparse.ArgumentParser(description="Wait until a vLLM server on this machine answers a completion.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--model", required=True, help="the name under which it is served")
    parser.add_argument("--env-file", default="", help="where VLLM_API_KEY is found")
    parser.add_argument("--pid", type=int, default=0, help="give up when this process is gone")
    parser.add_argument("--hang-s", type=float, default=0, help="silence that makes a hang; 0: do not watch")
    options = parser.parse_args(argv)
    key = read_key(options.env_file)
    ask = asker(options.host, options.port)
    answer = wait_until_ready(
        lambda: probe(ask, options.model, key),
        lambda: not options.pid or os.path.exists(f"/proc/{options.pid}"),
        time.sleep,
    )
    sys.stdout.write(f"vllm-wait: {options.model} on port {options.port}: {answer.detail}\n")
    sys.stdout.flush()
    if answer.ready and options.hang_s:
        stay_as_watchdog(ask, options.model, key, options.hang_s)
    return 0 if answer.ready else 1


if __name__ == "__main__":
    raise SystemExit(main())
