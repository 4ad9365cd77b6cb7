# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The router of a fleet that no lab can hold: 64 engines that are stubs, the real smg, and 2,000 streams at once.

First how long a change of the manifest takes until the router has it, with streams under way; then an engine that is
killed and comes back; then what the router uses with so many streams, each with a token every now and then. Client and
stubs share this machine's cores with the router.

It measures and prints; it asserts nothing.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from routed import CONTROL_KEY, ENGINE_KEY, ROUTERS, Used, asked, engines, healthy, router, until, used, workers
from streams import Seen, Target, measure

MODELS = ("a", "b")
URL = f"http://127.0.0.1:{ROUTERS[0]}"


def say(what: str, figure: str) -> None:
    print(f"{what:58} {figure}", flush=True)


def took(folder: Path, numbers: range | list[int]) -> float:
    """Seconds until the router has exactly these, healthy."""
    workers(folder, numbers)

    def the_router_has_them() -> bool:
        found = asked(f"{URL}/workers", CONTROL_KEY)["workers"]
        return len(found) == len(numbers) == sum(worker["is_healthy"] for worker in found)

    return until(the_router_has_them)


@contextmanager
def load(at_once: int, into: list[Seen]) -> Iterator[None]:
    """Streams of half a second or so, until the end."""
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            into.append(measure(Target(URL, ENGINE_KEY, "a", 5), at_once, at_once * 2))

    client = threading.Thread(target=run)
    client.start()
    try:
        yield
    finally:
        ended.set()
        client.join()


def membership(folder: Path, count: int) -> None:
    """Changes of the manifest, while streams are under way."""
    seen: list[Seen] = []
    with load(64, seen):
        time.sleep(2)
        for name, numbers in (
            ("one leaves", range(count - 1)),
            ("one joins", range(count)),
            ("half of them leave", range(count // 2)),
            ("half of them join", range(count)),
        ):
            say(f"{name}, until the router has it", f"{took(folder, numbers):.2f} s")
    streams, failures = sum(len(one.totals) for one in seen), [text for one in seen for text in one.failures]
    say("streams meanwhile, and those that failed", f"{streams}, {len(failures)} {failures[:1] or ''}")


def idle(process: int, seconds: float = 20) -> None:
    before = used(process)
    time.sleep(seconds)
    after = used(process)
    say("with nothing to do, of one CPU", f"{(after.cpu_s - before.cpu_s) / seconds:.1%}, {after.mib:.0f} MiB")


def killed(folder: Path, count: int, start: Callable[[], int]) -> None:
    """One engine has a process of its own, which is killed and started again."""

    def all_are_in() -> bool:
        return healthy(ROUTERS[0]) == count + 1

    lone = start()
    workers(folder, range(count + 1))
    until(all_are_in)
    seen: list[Seen] = []
    with load(64, seen):
        time.sleep(1)
        os.kill(lone, signal.SIGKILL)
        out = until(lambda: not all_are_in())
        start()
        back = until(all_are_in)
    failures = [text for one in seen for text in one.failures]
    say("an engine is killed, until it is out", f"{out:.1f} s")
    say("it starts again, until it is in", f"{back:.1f} s")
    say("streams that failed meanwhile, which were on it", f"{len(failures)} {failures[:1] or ''}")
    workers(folder, range(count))


class Watch(threading.Thread):
    """The most that a process had, and its CPU time from the first stream's begin to the end."""

    def __init__(self, process: int) -> None:
        super().__init__()
        self.process, self.most, self.ended = process, 0.0, threading.Event()
        self.first: Used = used(process)

    def run(self) -> None:
        while not self.ended.wait(0.2):
            self.most = max(self.most, used(self.process).mib)


def many(process: int, at_once: int, tokens: int) -> None:
    """So many streams at once."""
    watch = Watch(process)
    watch.start()
    seen = measure(Target(URL, ENGINE_KEY, "a", tokens), at_once, at_once)
    watch.ended.set()
    watch.join()
    cpu = used(process).cpu_s - watch.first.cpu_s
    rate = seen.tokens / seen.seconds
    say(f"{at_once} streams at once, tokens/s in all", f"{rate:,.0f}, {len(seen.failures)} failed")
    say("the router meanwhile, CPUs", f"{cpu / seen.seconds:.2f}; {cpu / max(1, seen.tokens) * 1e6:.0f} us a token")
    say("its memory, before and at the most", f"{watch.first.mib:.0f} MiB, {watch.most:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", type=int, default=64)
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--tokens", type=int, default=60, help="of each of the many streams")
    parser.add_argument("--interval-ms", type=float, default=250, help="between two tokens of a stream")
    args = parser.parse_args()
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="bench-fleet-") as name:
        folder, count = Path(name), args.engines
        workers(folder, range(count))
        stack.enter_context(engines(folder, count, MODELS, args.interval_ms))
        began = time.perf_counter()
        smg = stack.enter_context(router(folder))
        say(f"the router starts, until it has {count} engines", f"{time.perf_counter() - began:.1f} s")
        idle(smg)
        membership(folder, count)
        killed(folder, count, lambda: stack.enter_context(engines(folder, 1, MODELS, args.interval_ms, count)))
        many(smg, args.streams, args.tokens)
        idle(smg, 5)


if __name__ == "__main__":
    main()
