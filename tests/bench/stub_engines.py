# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many engines in one process, each on a port of its own: what a router asks of vLLM is answered, tokens cost nothing.

``stub_engines.py --port 9100 --count 64 --models a b`` has 64 engines from port 9100 on, which serve a and b by turns.
A client gets as many tokens as its max_tokens says, one every --interval-ms, or as fast as it goes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
from collections.abc import Callable
from dataclasses import dataclass, field

ROUTES = ("/v1/chat/completions", "/v1/completions")
DONE = b"data: [DONE]\n\n"
LABELS = '{{engine="0",model_name="{0}"}}'
METRICS = f"vllm:num_requests_running{LABELS} {{1}}\nvllm:num_requests_waiting{LABELS} 0\n"


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def head(status: str, kind: str, length: int | None) -> bytes:
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{size}\r\n\r\n".encode()


@dataclass
class Engine:
    """One of them: its model, and what it counts."""

    model: str
    key: str
    interval_s: float
    running: int = 0
    served: int = 0
    connections: set[Connection] = field(default_factory=set)

    def pages(self, path: str) -> tuple[str, str]:
        """The type and the text of a page that is asked for by GET."""
        if path == "/v1/models":
            entry = {"id": self.model, "object": "model", "created": 1, "owned_by": "vllm", "max_model_len": 8192}
            return "application/json", json.dumps({"object": "list", "data": [entry]})
        if path == "/metrics":
            return "text/plain; version=0.0.4", METRICS.format(self.model, self.running)
        pages = {"/health": "", "/version": '{"version": "0.33.0"}'}
        return "application/json", pages.get(path, '{"detail": "Not Found"}')

    def event(self, path: str, last: bool) -> bytes:
        """What a stream has for a token."""
        end = "length" if last else None
        choice = {"index": 0, "finish_reason": end}
        choice |= {"delta": {"content": "token "}} if "chat" in path else {"text": "token "}
        kind = "chat.completion.chunk" if "chat" in path else "text_completion"
        told = {"id": "stub", "object": kind, "created": 1, "model": self.model, "choices": [choice]}
        return b"data: " + json.dumps(told).encode() + b"\n\n"

    def whole(self, path: str, tokens: int) -> bytes:
        """The answer to who wants no stream."""
        text = "token " * tokens
        choice = {"index": 0, "finish_reason": "length"}
        choice |= {"message": {"role": "assistant", "content": text}} if "chat" in path else {"text": text}
        usage = {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1}
        told = {"id": "stub", "object": "chat.completion", "created": 1, "model": self.model, "choices": [choice]}
        return json.dumps({**told, "usage": usage}).encode()


class Connection(asyncio.Protocol):
    """A client's connection: one request after the other."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.seen, self.busy = engine, b"", False
        self.timer: asyncio.Handle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.engine.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.engine.connections.discard(self)
        if self.timer:
            self.timer.cancel()
        if self.busy:
            self.engine.running -= 1

    def data_received(self, data: bytes) -> None:
        self.seen += data
        if not self.busy:
            self.next()

    def next(self) -> None:
        """Answer the next request, where it is here as a whole."""
        top, end, rest = self.seen.partition(b"\r\n\r\n")
        if not end:
            return
        lines = top.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _colon, value in (line.partition(":") for line in lines[1:])}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return
        body, self.seen = rest[:length], rest[length:]
        method, path, _version = lines[0].split(" ", 2)
        self.answer(method, path.partition("?")[0], headers.get("authorization", ""), body)

    def answer(self, method: str, path: str, authorization: str, body: bytes) -> None:
        engine = self.engine
        if path.startswith("/v1") and engine.key and authorization != f"Bearer {engine.key}":
            return self.say("401 Unauthorized", "application/json", b'{"error": "Unauthorized"}')
        if method == "POST" and path in ROUTES:
            return self.complete(path, json.loads(body))
        known = path in ("/v1/models", "/metrics", "/health", "/version")
        kind, text = engine.pages(path)
        self.say("200 OK" if known else "404 Not Found", kind, text.encode())

    def say(self, status: str, kind: str, body: bytes) -> None:
        self.transport.write(head(status, kind, len(body)) + body)
        self.next()

    def complete(self, path: str, asked: dict[str, object]) -> None:
        tokens = int(str(asked.get("max_tokens") or asked.get("max_completion_tokens") or 16))
        self.engine.served += 1
        if not asked.get("stream"):
            return self.say("200 OK", "application/json", self.engine.whole(path, tokens))
        self.busy = True
        self.engine.running += 1
        self.transport.write(head("200 OK", "text/event-stream", None))
        self.stream(chunked(self.engine.event(path, False)), chunked(self.engine.event(path, True)), tokens)

    def stream(self, event: bytes, last: bytes, left: int) -> None:
        """Send a token, and have the next one come in its time."""
        if left > 1:
            self.transport.write(event)
            loop, again = asyncio.get_running_loop(), (self.stream, event, last, left - 1)
            interval = self.engine.interval_s
            self.timer = loop.call_later(interval, *again) if interval else loop.call_soon(*again)
            return
        self.timer = None
        self.transport.write(last + chunked(DONE) + b"0\r\n\r\n")
        self.busy = False
        self.engine.running -= 1
        self.next()


def made(engine: Engine) -> Callable[[], Connection]:
    return lambda: Connection(engine)


async def serve(engines: list[Engine], host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    servers = [
        await loop.create_server(made(engine), host, port + number, backlog=4096)
        for number, engine in enumerate(engines)
    ]
    print(f"{len(servers)} engines from port {port} on", flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9100, help="that of the first")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--models", nargs="+", default=["stub"])
    parser.add_argument("--key", default="", help="which clients must have; the key of a stub is no secret")
    parser.add_argument("--interval-ms", type=float, default=0)
    args = parser.parse_args()
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    models = [args.models[number % len(args.models)] for number in range(args.count)]
    engines = [Engine(model, args.key, args.interval_ms / 1000) for model in models]
    asyncio.run(serve(engines, args.host, args.port))


if __name__ == "__main__":
    main()
