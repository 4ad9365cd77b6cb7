# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a vLLM server answers, asked with nothing but Python's standard library.

This file is used twice. The module ``endpoint_ready`` imports it; and the role puts it on the node, where every unit
runs it as ``ExecStartPost=``, so that a unit is started when it answers a completion, not when its process exists.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sys
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional, Tuple

#: Seconds that one request may take. The first completion after a start may compile kernels.
HEALTH_S = 5
COMPLETION_S = 60

#: (method, path, body, headers, timeout) -> (status, text); raises OSError or HTTPException where nothing answers.
Ask = Callable[[str, str, Optional[str], Dict[str, str], float], Tuple[int, str]]


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


def probe(ask: Ask, model: str, key: str = "") -> Answer:
    """Health, then the list of models, then one token: each says more than the one before it, and costs more."""
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
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
        body = json.dumps({"model": model, "prompt": "Hello", "max_tokens": 1})
        status, text = ask("POST", "/v1/completions", body, headers, COMPLETION_S)
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
    sleep: Callable[[float], None],
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


def main(argv: Any = None) -> int:
    parser = argparse.ArgumentParser(description="Wait until a vLLM server on this machine answers a completion.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--model", required=True, help="the name under which it is served")
    parser.add_argument("--env-file", default="", help="where VLLM_API_KEY is found")
    parser.add_argument("--pid", type=int, default=0, help="give up when this process is gone")
    options = parser.parse_args(argv)
    key = read_key(options.env_file)
    ask = asker(options.host, options.port)
    answer = wait_until_ready(
        lambda: probe(ask, options.model, key),
        lambda: not options.pid or os.path.exists(f"/proc/{options.pid}"),
        time.sleep,
    )
    sys.stdout.write(f"vllm-wait: {options.model} on port {options.port}: {answer.detail}\n")
    return 0 if answer.ready else 1


if __name__ == "__main__":
    raise SystemExit(main())
