# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep the usage of the engines by day, client and model, on the gateway's host.

It is copied to the node: standard library only. It reads the engines' counters, which never go back, every few seconds,
and adds what is new to the file of the day. That file also says how far the counters were, so it is whole by itself:
after a crash nothing is counted twice, and what was not counted yet comes with the next look.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple

SCHEMA = 1
#: What an engine counts, in the order of each row.
NAMES = ("requests", "prompt_tokens", "generation_tokens")
#: What stands on the page of each engine that counts, also before its first request.
COUNTS = "# TYPE gpunode_requests_total counter"
SAMPLE = re.compile(rf"gpunode_({'|'.join(NAMES)})_total\{{(.*)\}} (\S+)")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
DAY_FILE = re.compile(r"\d{4}-\d\d-\d\d\.json")
#: Seconds for an answer of an engine.
PATIENCE_S = 5
#: So many engines are known at the most: those that were seen last.
MOST_ENGINES = 1000
#: More rows than that on one day are counted as those of one client, so that the file has an end.
MOST_ROWS, OTHERS = 10_000, "(others)"

Counts = List[int]
#: The counters of one engine's journal by client and model.
Rows = Dict[str, Dict[str, Counts]]


def day_of(now: float) -> str:
    """The day in UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime(now))


def samples(text: str) -> Dict[str, Rows]:
    """The counters on a page of metrics, by the name of the engine's journal."""
    found: Dict[str, Rows] = {}
    for line in text.splitlines():
        match = SAMPLE.fullmatch(line)
        if not match:
            continue
        labels = {name: re.sub(r"\\(.)", r"\1", value) for name, value in LABEL.findall(match[2])}
        rows = found.setdefault(labels.get("since", ""), {}).setdefault(labels.get("client", ""), {})
        counts = rows.setdefault(labels.get("model_name", ""), [0] * len(NAMES))
        counts[NAMES.index(match[1])] = int(float(match[3]))
    return found


def each(rows: Mapping[str, Mapping[str, Counts]]) -> Iterator[Tuple[str, str, Counts]]:
    return ((client, model, counts) for client in rows for model, counts in rows[client].items())


def add(rows: Rows, client: str, model: str, counts: Iterable[int]) -> None:
    of_client = rows.setdefault(client, {})
    of_client[model] = [old + new for old, new in zip(of_client.get(model, [0] * len(NAMES)), counts)]


class Day:
    """The usage of a day, the sums of all days, and how far each counter was."""

    def __init__(self, day: str, value: Optional[Mapping[str, Any]] = None) -> None:
        value = value or {}
        self.day = day
        self.rows: Rows = value.get("rows", {}) if value.get("day") == day else {}
        self.sums: Rows = value.get("sums", {})
        self.seen: Dict[str, Dict[str, Any]] = value.get("seen", {})
        #: The engines that answer and do not count.
        self.silent: List[str] = value.get("silent", [])

    def count(self, found: Mapping[str, Rows], now: float) -> bool:
        """Add what is new; whether there was anything."""
        changed = False
        for since, rows in found.items():
            seen = self.seen.setdefault(since, {"rows": {}})
            seen["at"] = int(now)
            for client, model, counts in each(rows):
                known = seen["rows"].setdefault(client, {}).get(model, [0] * len(NAMES))
                # Where a full disk lost lines of the engine's own file, its counters begin lower after a start.
                new = [max(0, count - old) for count, old in zip(counts, known)]
                seen["rows"][client][model] = counts
                if any(new):
                    changed = True
                    self.add(client, model, new)
        return changed

    def add(self, client: str, model: str, counts: Counts) -> None:
        full = sum(map(len, self.rows.values())) >= MOST_ROWS and model not in self.rows.get(client, {})
        for rows in (self.rows, self.sums):
            add(rows, OTHERS if full else client, model, counts)

    def tokens(self, client: str) -> int:
        """Tokens of the day, in and out."""
        return sum(sum(counts[1:]) for counts in self.rows.get(client, {}).values())

    def text(self) -> str:
        newest = sorted(self.seen, key=lambda since: int(self.seen[since]["at"]))[-MOST_ENGINES:]
        seen = {since: self.seen[since] for since in newest}
        value = {"schema": SCHEMA, "day": self.day, "rows": self.rows, "sums": self.sums, "seen": seen}
        value["silent"] = self.silent
        return json.dumps(value, sort_keys=True) + "\n"


def kept(folder: str, first: str) -> Tuple[List[Dict[str, Any]], List[str]]:
    """The rows of a day and all after it, and a sentence for each day that cannot be read."""
    rows: List[Dict[str, Any]] = []
    trouble = []
    for path in sorted(Path(folder).glob("*.json")):
        if not DAY_FILE.fullmatch(path.name) or path.stem < first:
            continue
        value = read_json(path)
        if value.get("schema") != SCHEMA:
            trouble.append(f"{path} cannot be read.")
        trouble += [f"{path.stem}: {url} did not count; its journal says why." for url in value.get("silent", ())]
        for client, model, counts in each(value.get("rows", {})):
            rows.append({"day": path.stem, "client": client, "model": model, **dict(zip(NAMES, counts))})
    return rows, trouble


def metrics(day: Day, limits: Mapping[str, int], counting: Mapping[str, bool]) -> str:
    """The same as Prometheus' text."""
    lines = []
    for at, name in enumerate(NAMES):
        lines.append(f"# TYPE gpunode_usage_{name}_total counter")
        for client, model, counts in each(day.sums):
            labels = f"client={json.dumps(client)},model={json.dumps(model, ensure_ascii=False)}"
            lines.append(f"gpunode_usage_{name}_total{{{labels}}} {counts[at]}")
    lines.append("# TYPE gpunode_usage_tokens_per_day_limit gauge")
    lines += [f"gpunode_usage_tokens_per_day_limit{{client={json.dumps(c)}}} {limits[c]}" for c in limits]
    lines.append("# TYPE gpunode_usage_tokens_today gauge")
    lines += [f"gpunode_usage_tokens_today{{client={json.dumps(c)}}} {day.tokens(c)}" for c in limits]
    lines.append("# TYPE gpunode_usage_engine_counts gauge")
    lines += [f"gpunode_usage_engine_counts{{engine={json.dumps(url)}}} {int(counting[url])}" for url in counting]
    return "\n".join(lines) + "\n"


def write(path: Path, text: str, keep: bool = False) -> None:
    """A file that is there whole or as it was; `keep` outlasts a loss of power."""
    fresh = path.with_name(f"{path.name}.new")
    with fresh.open("w", encoding="utf-8") as stream:
        stream.write(text)
        if keep:
            stream.flush()
            os.fsync(stream.fileno())
    fresh.replace(path)


def asked(url: str) -> Optional[str]:
    """An engine's page of metrics; None if it does not answer."""
    try:
        with urllib.request.urlopen(f"{url}/metrics", timeout=PATIENCE_S) as answer:
            text: str = answer.read().decode("utf-8", "replace")
            return text
    except (OSError, ValueError):
        return None


def read_json(path: Path) -> Mapping[str, Any]:
    """A file's content; nothing if there is none, or no whole one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


class Counter:
    """One look after another at the engines."""

    def __init__(self, settings_path: str, ask: Callable[[str], Optional[str]] = asked) -> None:
        self.settings_path, self.ask = Path(settings_path), ask
        self.day = Day("")
        self.trouble = ""
        self.read_settings()
        self.load()

    def read_settings(self) -> None:
        """The settings are read before each look, so that a change of them takes no restart."""
        settings = read_json(self.settings_path)
        self.folder, self.run = Path(settings["state"]), Path(settings["run"])
        self.limits: Mapping[str, int] = settings["limits"]
        self.interval_s, self.keep_days = float(settings["interval_s"]), int(settings["keep_days"])
        workers = read_json(Path(settings["workers"])).get("workers", ()) if settings["workers"] else ()
        self.engines = list(dict.fromkeys([*settings["engines"], *(worker["url"] for worker in workers)]))

    def days(self) -> List[Path]:
        return sorted(path for path in self.folder.glob("*.json") if DAY_FILE.fullmatch(path.name))

    def load(self) -> None:
        """Go on with the newest day that can be read."""
        for path in reversed(self.days()):
            value = read_json(path)
            if value.get("schema") == SCHEMA:
                self.day = Day(str(value["day"]), value)
                return

    def look(self, now: float) -> None:
        """Ask every engine once, and write what differs. A full disk is told, and tried again with the next look."""
        self.read_settings()
        with ThreadPoolExecutor(max_workers=8) as pool:
            pages = dict(zip(self.engines, pool.map(self.ask, self.engines)))
        if day_of(now) != self.day.day:
            self.day = Day(day_of(now), {"sums": self.day.sums, "seen": self.day.seen})
        silent = [url for url, page in pages.items() if page is not None and COUNTS not in page]
        changed = silent != self.day.silent
        self.day.silent = silent
        for page in pages.values():
            changed = self.day.count(samples(page or ""), now) or changed
        try:
            if changed or self.trouble:
                write(self.folder / f"{self.day.day}.json", self.day.text(), keep=True)
            self.tell({url: COUNTS in (page or "") for url, page in pages.items()})
            self.clear()
            self.trouble = ""
        except OSError as error:
            if str(error) != self.trouble:
                print(f"Usage is not written, and is in memory until it can be: {error}", file=sys.stderr, flush=True)
            self.trouble = str(error)

    def tell(self, counting: Mapping[str, bool]) -> None:
        """Write the metrics, and a file for each client that has used its tokens of the day."""
        write(self.run / "metrics.prom", metrics(self.day, self.limits, counting))
        over = self.run / "over"
        over.mkdir(exist_ok=True)
        used = {client for client, limit in self.limits.items() if self.day.tokens(client) >= limit}
        for client in used:
            if not (over / client).exists() or (over / client).read_text().strip() != self.day.day:
                write(over / client, f"{self.day.day}\n")
        for path in over.iterdir():
            if path.name not in used:
                path.unlink()

    def clear(self) -> None:
        for path in self.days()[: -self.keep_days]:
            path.unlink()


def main(argv: Sequence[str], clock: Callable[[], float] = time.time) -> int:
    parser = argparse.ArgumentParser(description="Keep the usage of the engines by day, client and model.")
    parser.add_argument("--settings", required=True, help="the settings, a JSON file")
    parser.add_argument("--once", action="store_true", help="look once")
    options = parser.parse_args(argv)
    counter, ended = Counter(options.settings), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(ValueError):  # not the main thread
            signal.signal(number, lambda *_told: ended.set())
    while True:
        counter.look(clock())
        # The last look is after the gateway has stopped.
        if options.once or ended.is_set():
            return 0
        ended.wait(counter.interval_s)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
