# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The progress of a download: status.json for the module that waits, words for the journal."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from dataclasses import asdict, dataclass, field
from typing import Callable, Iterator, Sequence

from ..node import files as node_files, words
from .snapshot import RepoFile

WORDS_EVERY_S = 15.0


@dataclass
class Status:
    """The progress of a job.

    ``rate``: bytes per second over the last ten seconds. ``seconds``: the duration so far. ``current``: the files in
    transfer, each with its bytes on disk and its size. ``wrong``: the files whose hash differs from the manifest.
    """

    phase: str = "starting"
    done: int = 0
    total: int = 0
    rate: float = 0.0
    files_done: int = 0
    files: int = 0
    current: dict[str, list[int]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    changed: bool = False
    error: str = ""
    seconds: float = 0.0

    def line(self) -> str:
        """One line for the user.

        >>> Status("fetching", 3_000_000_000, 16_000_000_000, 250e6, 1, 12, {"a.safetensors": [1, 3]}).line()
        'fetching 3.0 GB of 16.0 GB (19 %), 250.0 MB/s, 52 s left, 1 of 12 files; a.safetensors 33 %'
        """
        if not self.total:
            return self.phase
        share = self.done * 100 // self.total
        parts = [f"{self.phase} {words.size(self.done)} of {words.size(self.total)} ({share} %)"]
        if self.rate >= 1000 and self.done < self.total:
            left = round((self.total - self.done) / self.rate)
            parts += [f"{words.size(self.rate)}/s", f"{words.duration(left)} left"]
        return "; ".join([", ".join([*parts, f"{self.files_done} of {self.files} files"]), *self.on_their_way()])

    def on_their_way(self) -> list[str]:
        """The files in transfer, the largest first, as many as fit a line."""
        largest = sorted(self.current.items(), key=lambda entry: -entry[1][1])
        return [f"{path} {done * 100 // max(size, 1)} %" for path, (done, size) in largest[:4]]


class Progress:
    """Counts bytes under a lock, writes status.json every second and a line to the journal now and then."""

    def __init__(self, folder: str, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.path = os.path.join(folder, "status.json")
        self.say, self.clock = say, clock
        self.lock = threading.Lock()
        self.status = Status()
        self.marks: list[tuple[float, int]] = []
        self.began = self.logged_at = clock()

    def begin(self, phase: str, files: Sequence[RepoFile], done: int = 0, files_done: int = 0) -> None:
        with self.lock:
            self.status.phase, self.status.files, self.status.files_done = phase, len(files), files_done
            self.status.done, self.status.total = done, sum(f.size for f in files)
            self.marks = []
        self.tick(words=True)

    def begins(self, file: RepoFile, here: int = 0) -> None:
        with self.lock:
            self.status.current[file.path] = [here, file.size]

    def add(self, file: RepoFile, amount: int) -> None:
        with self.lock:
            self.status.done += amount
            self.status.current.setdefault(file.path, [0, file.size])[0] += amount

    def finished(self, file: RepoFile) -> None:
        with self.lock:
            self.status.files_done += 1
            self.status.current.pop(file.path, None)

    def tick(self, words: bool = False) -> None:
        with self.lock:
            now = self.clock()
            self.marks = [(at, done) for at, done in self.marks if now - at <= 10.0] + [(now, self.status.done)]
            self.status.seconds = round(now - self.began, 1)
            first_at, first = self.marks[0]
            self.status.rate = max(0.0, (self.status.done - first) / (now - first_at)) if now > first_at else 0.0
            content, line = json.dumps(asdict(self.status)), self.status.line()
            words = words or now - self.logged_at >= WORDS_EVERY_S
            if words:
                self.logged_at = now
            node_files.write_atomically(self.path, content, power_cut=False)
        if words:
            self.say(line)

    @contextlib.contextmanager
    def ticking(self) -> Iterator[None]:
        over = threading.Event()

        def loop() -> None:
            while not over.wait(1.0):
                self.tick()

        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
