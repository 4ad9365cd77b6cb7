# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands for the module vllm.benchmarks.serve, and for an engine: what the client uses of them, and no more."""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

OPTIONS = (
    *("--backend", "--base-url", "--endpoint", "--model", "--served-model-name", "--dataset-name", "--request-rate"),
    *("--ready-check-timeout-sec", "--temperature"),
)


@dataclass
class SampleRequest:
    prompt: Any
    prompt_len: int
    expected_output_len: int
    request_id: str


def add_cli_args(parser: argparse.ArgumentParser) -> None:
    for option in OPTIONS:
        parser.add_argument(option)
    for option in ("--num-prompts", "--max-concurrency"):
        parser.add_argument(option, type=int)
    for option in ("--disable-tqdm", "--save-detailed", "--ignore-eos", "--insecure"):
        parser.add_argument(option, action="store_true")


def bench(ask: Callable[[Any, SampleRequest], Any] | None = None) -> Any:
    """The module. ``ask``: a coroutine that answers one request with (start, prompt, answer, ttft, itl, error)."""
    module = SimpleNamespace(FlexibleArgumentParser=argparse.ArgumentParser, SampleRequest=SampleRequest)
    module.add_cli_args = add_cli_args

    def wrong(*_args: Any, **_options: Any) -> Any:
        raise AssertionError("the client has requests of its own, and no tokenizer")

    async def benchmark(args: Any, samples: list[SampleRequest]) -> dict[str, list[Any]]:
        limit = asyncio.Semaphore(args.max_concurrency)

        async def one(sample: SampleRequest) -> Any:
            async with limit:
                return await (ask or at_once)(args, sample)

        columns = zip(*await asyncio.gather(*map(one, samples)))
        return dict(zip(("start_times", "input_lens", "output_lens", "ttfts", "itls", "errors"), map(list, columns)))

    async def main_async(args: Any) -> Any:
        tokenizer = module.get_tokenizer(args.model, trust_remote_code=False)
        assert tokenizer("text", add_special_tokens=False).input_ids == []
        return await module.benchmark(args, module.get_samples(args, tokenizer))

    module.get_samples = module.get_tokenizer = wrong
    module.benchmark, module.main = benchmark, lambda args: asyncio.run(main_async(args))
    return module


async def at_once(_args: Any, sample: SampleRequest) -> Any:
    """Answers without any engine: a token each hundredth of a second, as it says."""
    made = sample.expected_output_len
    return time.perf_counter(), sample.prompt_len, made, 0.01, [0.01] * (made - 1), ""


async def over_http(args: Any, sample: SampleRequest) -> Any:
    """Asks an engine, as vLLM does: a stream of tokens, and what was used at its end."""
    url, started = urlsplit(args.base_url), time.perf_counter()
    body = json.dumps({"prompt": sample.prompt, "max_tokens": sample.expected_output_len}).encode()
    head = f"POST {args.endpoint} HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(head + body)
    times, used = [started], {"prompt_tokens": 0, "completion_tokens": 0}
    async for line in reader:
        if line.startswith(b"data: {"):
            data = json.loads(line[6:])
            used = data.get("usage") or used
            times += [time.perf_counter()] if data["choices"] else []
    writer.close()
    gaps = [after - before for before, after in zip(times, times[1:])]
    return started, used["prompt_tokens"], used["completion_tokens"], gaps[0], gaps[1:], ""


class Handler(BaseHTTPRequestHandler):
    """Answers for the engine that its server has."""

    def log_message(self, *_args: Any) -> None:
        pass

    @property
    def engine(self) -> Engine:
        return self.server.engine  # type: ignore[attr-defined]

    def answer(self, body: str) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body.encode())

    def do_GET(self) -> None:
        self.engine.headers.append(dict(self.headers))
        counted = f'vllm:request_success_total{{engine="0"}} {self.engine.finished}.0\n'
        self.answer(json.dumps({"data": self.engine.models}) if self.path == "/v1/models" else counted)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize":
            # A token of a word is its length.
            self.answer(json.dumps({"tokens": [len(word) for word in asked["prompt"].split()]}))
            return
        used = {"prompt_tokens": len(asked["prompt"]), "completion_tokens": asked["max_tokens"]}
        parts = [{"choices": [{"text": "a"}]}] * asked["max_tokens"] + [{"choices": [], "usage": used}]
        with self.engine.lock:
            self.engine.prompts.append(asked["prompt"])
            self.engine.finished += 1
        self.answer("".join(f"data: {json.dumps(part)}\n\n" for part in parts))


class Engine:
    """A small HTTP server that answers completions, and counts them in its /metrics, between ``with`` and its end."""

    def __init__(self, models: list[dict[str, Any]] | None = None) -> None:
        self.models, self.finished = models or [], 0
        self.prompts: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.engine = self  # type: ignore[attr-defined]
        self.server.request_queue_size = 64
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Engine:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_error: Any) -> None:
        self.server.shutdown()
        self.server.server_close()
