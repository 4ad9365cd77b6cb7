# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many streams at once with as little of the CPU as Python can: what lies between is measured, and not the client."""

from __future__ import annotations

import asyncio
import json
import resource
import ssl
import statistics
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

END = b"data: [DONE]"


@dataclass(frozen=True)
class Target:
    """Where to ask, and for what."""

    url: str
    key: str
    model: str = "stub"
    tokens: int = 32
    certificate: str = ""

    def request(self, number: int) -> bytes:
        """A prompt of its own for each, as clients have."""
        messages = [{"role": "user", "content": f"Question {number}: " + "what is a token? " * 20}]
        asked = {"model": self.model, "messages": messages, "max_tokens": self.tokens, "stream": True}
        body = json.dumps(asked)
        lines = [
            "POST /v1/chat/completions HTTP/1.1",
            f"Host: {urlsplit(self.url).hostname}",
            "Content-Type: application/json",
            f"Authorization: Bearer {self.key}",
            f"Content-Length: {len(body)}",
        ]
        return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()

    def tls(self) -> ssl.SSLContext | None:
        return ssl.create_default_context(cafile=self.certificate) if self.certificate else None


@dataclass
class Seen:
    """What came of the requests."""

    firsts: list[float] = field(default_factory=list)
    totals: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        return len(self.totals) / self.seconds

    def row(self) -> str:
        """Median and 99th percentile to the first token, median of the whole, and how much of it there was."""
        firsts = sorted(self.firsts)
        late = firsts[min(len(firsts) - 1, int(len(firsts) * 0.99))]
        middle = statistics.median(firsts) * 1000, late * 1000, statistics.median(self.totals) * 1000
        return "{:8.2f} {:8.2f} {:8.2f}".format(*middle) + f" {self.rate:9.0f} {self.tokens / self.seconds:10.0f}"


class Client(asyncio.Protocol):
    """A connection that has one stream after the other."""

    def __init__(self) -> None:
        self.end: asyncio.Future[None] | None = None
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self.end and not self.end.done():
            self.end.set_exception(ConnectionError(f"cut after {self.tokens} tokens"))
        self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        if not self.first:
            self.first = time.perf_counter()
            self.tail = data[:64]
            if not data.startswith(b"HTTP/1.1 200"):
                self.end.set_exception(ConnectionError(data[:200].decode("latin-1")))
                return
        self.tokens += data.count(b"data: {")
        self.tail = (self.tail + data)[-64:]
        if END in self.tail and self.tail.endswith(b"0\r\n\r\n") and not self.end.done():
            self.end.set_result(None)

    async def ask(self, request: bytes) -> tuple[float, float, int]:
        """Seconds to the first byte and to the end, and the tokens."""
        self.first, self.tokens, self.tail = 0.0, 0, b""
        self.end = asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        self.transport.write(request)
        await self.end
        return self.first - began, time.perf_counter() - began, self.tokens


async def connected(target: Target, tls: ssl.SSLContext | None) -> Client:
    parts = urlsplit(target.url)
    _transport, client = await asyncio.get_running_loop().create_connection(
        Client, parts.hostname, parts.port, ssl=tls, server_hostname="localhost" if tls else None
    )
    return client


async def streams(target: Target, at_once: int, total: int) -> Seen:
    """So many streams in all, so many of them at once, each over a connection that is used again."""
    seen, left, tls = Seen(), iter(range(total)), target.tls()
    # One after the other: what a listener's queue cannot hold is tried again a second later.
    clients = [await connected(target, tls) for _number in range(at_once)]

    async def work(client: Client) -> None:
        for number in left:
            try:
                first, whole, tokens = await client.ask(target.request(number))
            except OSError as trouble:
                seen.failures.append(str(trouble))
                client.transport.close()
                client = await connected(target, tls)
                continue
            seen.firsts.append(first)
            seen.totals.append(whole)
            seen.tokens += tokens
            if tokens != target.tokens:
                seen.failures.append(f"{tokens} tokens, and not {target.tokens}")
        client.transport.close()

    began = time.perf_counter()
    await asyncio.gather(*map(work, clients))
    seen.seconds = time.perf_counter() - began
    return seen


def measure(target: Target, at_once: int, total: int) -> Seen:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return asyncio.run(streams(target, at_once, total))
