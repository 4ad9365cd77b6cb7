# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients as users have them: the package openai over TLS; and a steady load of streams, of which none may be lost."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import openai
from answers import ANSWERS
from scenario import LAB

#: The gateway's ID of a request, in the answer and in its journal.
ID_HEADER = "x-request-id"
#: What the journal's line of a request ends with: its ID, and the engine.
LINE = re.compile(r" s ([0-9a-f]{32}) (\S+)$")
#: Of a continuation.
TOKENS = 40
WORDS = ("the", "GPU", "is", "warm", "and", "its", "fans", "hum", "a", "song", "of", "tokens")


@dataclass(frozen=True)
class Front:
    """The one URL: its name, where that is, and whom to believe that it is it."""

    name: str
    port: int
    address: str
    certificate: str
    #: The node that it is on.
    node: str

    @property
    def url(self) -> str:
        return f"https://{self.name}:{self.port}/v1"

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.certificate)

    def client(self, key: str, path: str = "", **more: Any) -> openai.OpenAI:
        """The package's own client; it does not try again what was lost, since that would hide it."""
        url = self.url.replace("/v1", f"{path}/v1")
        transport = openai.DefaultHttpxClient(verify=self.tls())
        return openai.OpenAI(api_key=key, base_url=url, http_client=transport, max_retries=0, **more)


@contextmanager
def resolved(name: str, address: str) -> Iterator[None]:
    """A name that no server of names knows, for clients of this process."""
    own = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **more: Any) -> Any:
        found = host.decode() if isinstance(host, bytes) else host
        return own(address if found == name else host, *args, **more)

    socket.getaddrinfo = getaddrinfo  # type: ignore[assignment]
    try:
        yield
    finally:
        socket.getaddrinfo = own


def beginning(draw: random.Random, words: int = 30) -> str:
    """Of a text that there was not before."""
    return f"{draw.getrandbits(64)} {' '.join(draw.choices(WORDS, k=words))}"


class Journal:
    """Which engine answered each request, from the gateway's journal while that goes on."""

    def __init__(self, node: str) -> None:
        self.engines: dict[str, str] = {}
        line = [str(LAB), "ssh", node, f"sudo journalctl -f -o cat -t gateway --since=@{int(time.time())}"]
        self.program = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.thread = threading.Thread(target=self.read)
        self.thread.start()

    def read(self) -> None:
        assert self.program.stdout is not None
        for line in self.program.stdout:
            if found := LINE.search(line):
                self.engines[found[1]] = found[2]

    def end(self, requests: Iterable[str]) -> None:
        """Wait for the lines of these requests, each of which is written when its answer has ended."""
        missing, deadline = set(requests), time.monotonic() + 30
        while missing - set(self.engines) and time.monotonic() < deadline:
            time.sleep(0.1)
        self.program.terminate()
        self.thread.join()


@dataclass(frozen=True)
class Stream:
    """What came of a stream: whole, lost before its first piece, cut after it, or wrong."""

    began: float
    ended: float
    outcome: str
    #: The gateway's ID; nothing where no answer began.
    request: str
    journal: Journal
    words: str = ""

    @property
    def engine(self) -> str:
        """The engine that had it, as the gateway's journal says; nothing where no answer began."""
        return self.journal.engines.get(self.request, "")


@dataclass
class Answer:
    """A stream on its way: a question that the model was trained to answer."""

    question: str
    text: str = ""
    end: str = ""
    request: str = ""
    trouble: str = ""

    async def take(self, client: openai.AsyncOpenAI, model: str) -> None:
        messages: Any = [{"role": "user", "content": self.question}]
        raw = await client.chat.completions.with_raw_response.create(
            model=model, messages=messages, max_tokens=100, stream=True
        )
        self.request = raw.headers.get(ID_HEADER, "")
        async for piece in raw.parse():
            for choice in piece.choices:
                self.text += choice.delta.content or ""
                self.end = choice.finish_reason or self.end

    def is_right(self) -> bool:
        return self.text == ANSWERS[self.question]

    @property
    def outcome(self) -> str:
        if self.trouble or not self.end:
            return "cut" if self.text else "lost"
        return "whole" if self.is_right() else "wrong"


@dataclass
class Continuation(Answer):
    """A stream of so many tokens after a beginning that no engine has seen, so that any of them may get it."""

    tokens: int = 0

    async def take(self, client: openai.AsyncOpenAI, model: str) -> None:
        raw = await client.completions.with_raw_response.create(
            model=model,
            prompt=self.question,
            max_tokens=TOKENS,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
        self.request = raw.headers.get(ID_HEADER, "")
        async for piece in raw.parse():
            self.tokens = piece.usage.completion_tokens if piece.usage else self.tokens
            for choice in piece.choices:
                self.text += choice.text
                self.end = choice.finish_reason or self.end

    def is_right(self) -> bool:
        return (self.end, self.tokens) == ("length", TOKENS)


@dataclass
class Load:
    """So many streams at a time, one after the other on each of the lines, until told to end.

    Half of them are questions that the lab's model was trained to answer, so a wrong text shows. The router sends those
    to the engines that had them before. The others begin as nothing before did and go anywhere. Nothing is tried again.
    Every request has a connection of its own: one that is kept may be closed in the moment in which it is used.
    """

    front: Front
    key: str
    model: str = "tiny"
    lines: int = 20
    streams: list[Stream] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.questions, self.draw = itertools.cycle(ANSWERS), random.Random()
        self.ended = threading.Event()
        self.journal = Journal(self.front.node)
        self.thread = threading.Thread(target=lambda: asyncio.run(self.run()))

    async def run(self) -> None:
        limits = openai.DefaultAsyncHttpxClient(verify=self.front.tls(), headers={"Connection": "close"})
        async with openai.AsyncOpenAI(
            api_key=self.key, base_url=self.front.url, http_client=limits, max_retries=0, timeout=300
        ) as client:
            await asyncio.gather(*(self.line(client, line % 2 == 0) for line in range(self.lines)))

    async def line(self, client: openai.AsyncOpenAI, asks: bool) -> None:
        while not self.ended.is_set():
            answer = Answer(next(self.questions)) if asks else Continuation(beginning(self.draw))
            began = time.monotonic()
            try:
                await answer.take(client, self.model)
            except Exception as trouble:  # whatever it is, it is a lost stream
                answer.trouble = f"{type(trouble).__name__}: {trouble}"
            ended = time.monotonic()
            self.streams.append(Stream(began, ended, answer.outcome, answer.request, self.journal, str(answer)))
            if answer.outcome != "whole":
                print(
                    f"\n    {time.strftime('%T')} {answer.outcome} after {time.monotonic() - began:.1f} s: {answer}",
                    flush=True,
                )
                await asyncio.sleep(0.5)  # what is refused at once is not asked for a thousand times

    @property
    def failed(self) -> list[Stream]:
        return [stream for stream in self.streams if stream.outcome != "whole"]

    def after(self, moment: float, engine: str = "") -> list[Stream]:
        """Those that began after a moment, on one engine where it is named."""
        return [stream for stream in list(self.streams) if stream.began > moment and engine in stream.engine]

    def figures(self) -> str:
        """How many there were, for the run's output."""
        counts = ", ".join(f"{sum(s.outcome == how for s in self.streams)} {how}" for how in ("lost", "cut", "wrong"))
        return f"{len(self.streams)} streams, {self.lines} at a time: {counts}"


@contextmanager
def steady_load(front: Front, key: str, **more: Any) -> Iterator[Load]:
    """A load that has begun to be answered, and ends, with all its streams, where this does."""
    load = Load(front, key, **more)
    load.thread.start()
    try:
        deadline = time.monotonic() + 60
        while len(load.streams) < load.lines and time.monotonic() < deadline:
            time.sleep(0.1)
        yield load
    finally:
        load.ended.set()
        load.thread.join()
        load.journal.end(stream.request for stream in load.streams if stream.request)
