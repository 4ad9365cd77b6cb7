# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Counts tokens by client within vLLM, beside vLLM's own counters and from the same figures.

vLLM loads it by its option ``--middleware``. The gateway puts the client's name into the header X-Request-Id, and this
notes it as the request begins. vLLM keeps the requests that it works at in one dictionary: what is taken out of it has
ended, whether it was answered whole or its client hung up. So every API counts alike, and no answer is read or changed.

Each request that ended is a line in a file, and the file is read when the engine starts: what /metrics shows goes on
where it was, and only requests in flight are missing after a crash.
"""

from __future__ import annotations

import contextvars
import fcntl
import importlib
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Awaitable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Callable, Dict, List, Tuple

#: How the gateway names a request.
REQUEST = re.compile(rb"gpunode-([A-Za-z0-9][A-Za-z0-9._-]{0,63})-[0-9a-f]{32}\Z")
#: Who asked past the gateway: the node itself, a benchmark.
NOBODY = "-"
#: The client of the request that this code works for.
CLIENT: contextvars.ContextVar[str] = contextvars.ContextVar("client", default=NOBODY)
#: Beyond this size the lines of a client are added up to one.
LARGEST = 1 << 20
FILE, MODEL = "GPUNODE_USAGE_FILE", "GPUNODE_USAGE_MODEL"
LABELS = ("client", "model_name", "since")
logger = logging.getLogger("vllm.gpunode_usage")
NOT_COUNTED = "Usage is not counted any more: this vLLM is not as the collection knows it."

#: Client and model; requests, tokens in, tokens out.
Key = Tuple[str, str]
Counts = List[int]


def client_of(headers: Iterable[Tuple[bytes, bytes]]) -> str:
    """The client's name in a request's headers."""
    for name, value in headers:
        found = REQUEST.match(value) if name == b"x-request-id" else None
        if found:
            return found[1].decode()
    return NOBODY


class Journal:
    """The file of requests that ended: first its name, then a line for each request, or for several."""

    def __init__(self, path: str, largest: int = LARGEST) -> None:
        self.path, self.largest = path, largest

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Several processes of one engine write it, and so may a second engine that stands in for the first one."""
        with open(f"{self.path}.lock", "w", encoding="ascii") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield

    def read(self) -> Tuple[str, Dict[Key, Counts]]:
        """The file's own name, and the sums. A line that was cut off is left out."""
        since, sums = "", {}  # type: Tuple[str, Dict[Key, Counts]]
        try:
            with open(self.path, encoding="utf-8") as stream:
                lines = stream.read().splitlines()
        except FileNotFoundError:
            lines = []
        for line in lines:
            try:
                row = json.loads(line)
                if isinstance(row, str):
                    since = row
                    continue
                client, model, asked, prompt, generated = row
                add(sums, (client, model), (asked, prompt, generated))
            except (ValueError, TypeError):
                continue
        return since or f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(4)}", sums

    def begin(self) -> Tuple[str, Dict[Key, Counts]]:
        """The sums so far, and the file as short as it can be."""
        with self.lock():
            return self.shorten()

    def shorten(self) -> Tuple[str, Dict[Key, Counts]]:
        since, sums = self.read()
        rows = [json.dumps(since), *(json.dumps([*key, *counts]) for key, counts in sums.items())]
        with open(f"{self.path}.new", "w", encoding="utf-8") as stream:
            stream.write("\n".join(rows))
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(f"{self.path}.new", self.path)
        return since, sums

    def add(self, key: Key, counts: Counts) -> None:
        with self.lock():
            with open(self.path, "a", encoding="utf-8") as stream:
                # A full disk may have cut off the line before.
                stream.write("\n" + json.dumps([*key, *counts]))
                size = stream.tell()
            if size > self.largest:
                self.shorten()


def add(sums: Dict[Key, Counts], key: Key, counts: Iterable[int]) -> None:
    """Add three numbers to those of a key."""
    sums[key] = [old + int(new) for old, new in zip(sums.get(key, (0, 0, 0)), counts)]


class Usage:
    """What is counted: shown by one counter for each of the three numbers, and kept in the journal."""

    def __init__(self, journal: Journal, model: str, counters: Callable[..., List[Any]], first: bool = True) -> None:
        self.journal, self.model, self.full = journal, model, False
        try:
            since, sums = journal.begin()
        except OSError as error:
            logger.warning("Usage is kept until the next start only: %s", error)
            since, sums = journal.read()
        self.counters, self.since = counters(), since
        # Of several processes, whose counters /metrics adds up, one has the sums so far.
        for key, counts in sums.items() if first else ():
            self.show(key, counts)

    def show(self, key: Key, counts: Counts) -> None:
        for counter, count in zip(self.counters, counts):
            counter.labels(*key, self.since).inc(count)

    def ended(self, client: str, state: Any) -> None:
        """Count a request by what vLLM has counted of it: its prompt, once that is computed, and each token."""
        stats = state.stats
        if stats is None:
            return
        key = client, str(state.lora_name or self.model)
        counts = [1, 0 if state.is_prefilling else int(state.prompt_len), int(stats.num_generation_tokens)]
        self.show(key, counts)
        try:
            self.journal.add(key, counts)
            self.full = False
        except OSError as error:
            if not self.full:
                logger.warning("Usage is kept until the next start only: %s", error)
            self.full = True


class Requests(Dict[str, Any]):
    """The requests that vLLM works at: it notes whose each is, and counts each that ends."""

    def __init__(self, usage: Usage) -> None:
        super().__init__()
        self.usage, self.clients, self.wrong = usage, {}, False  # type: Usage, Dict[str, str], bool

    def __setitem__(self, request_id: str, state: Any) -> None:
        self.clients[request_id] = CLIENT.get()
        super().__setitem__(request_id, state)

    def pop(self, request_id: str, *default: Any) -> Any:
        state = super().pop(request_id, *default)
        client = self.clients.pop(request_id, None)
        if client is None or self.wrong:
            return state
        try:
            self.usage.ended(client, state)
        except Exception:
            # Of another vLLM than this knows: the request is answered all the same.
            logger.exception(NOT_COUNTED)
            self.wrong = True
        return state

    def __delitem__(self, request_id: str) -> None:
        self.pop(request_id)


def watch(processor: Any, usage: Usage) -> None:
    """Have vLLM's output processor keep its requests where they are counted."""
    requests = Requests(usage)
    for request_id, state in processor.request_states.items():
        requests[request_id] = state
    processor.request_states = requests


def counters() -> List[Any]:
    """The three counters of /metrics."""
    client = importlib.import_module("prometheus_client")
    told = (
        ("requests", "Requests that ended, by the gateway's client."),
        ("prompt_tokens", "Prompt tokens computed, by the gateway's client."),
        ("generation_tokens", "Tokens generated, by the gateway's client."),
    )
    return [client.Counter(f"gpunode_{name}", text, LABELS) for name, text in told]


def is_first() -> bool:
    """Whether no other process of this engine has come before."""
    shared = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if not shared:
        return True
    try:
        with open(os.path.join(shared, "gpunode-usage"), "x", encoding="ascii"):
            return True
    except FileExistsError:
        return False


def begin(app: Any) -> None:
    """Count in this process, if its vLLM is as this knows it: an engine goes on serving without being counted."""
    try:
        usage = Usage(Journal(os.environ[FILE]), os.environ.get(MODEL, ""), counters, is_first())
        watch(app.state.engine_client.output_processor, usage)
    except Exception:
        logger.exception(NOT_COUNTED)


Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]


class ByClient:
    """The middleware: it notes the client of a request, and passes everything on as it is."""

    def __init__(self, app: App) -> None:
        self.app, self.begun = app, False

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        # The first scope is that of the server's start, before any request.
        if not self.begun:
            self.begun = True
            begin(scope["app"])
        if scope["type"] == "http":
            CLIENT.set(client_of(scope["headers"]))
        await self.app(scope, receive, send)
