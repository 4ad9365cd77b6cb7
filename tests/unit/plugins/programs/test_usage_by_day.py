# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What keeps usage by day on the gateway's host: engines that restart, days that end, disks that are full, kills."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.programs import usage

NOON = 1_764_244_800.0  # 2025-11-27, 12:00 UTC
TODAY, TOMORROW = "2025-11-27", "2025-11-28"


def page(counts, since="s1"):
    """An engine's page of metrics, from counts by client and model."""
    lines = [usage.COUNTS, "# TYPE vllm:prompt_tokens counter", 'vllm:prompt_tokens_total{model_name="8b"} 7.0']
    for (client, model), numbers in counts.items():
        labels = f'client="{client}",model_name="{model}",since="{since}"'
        names = zip(usage.NAMES, numbers, strict=True)
        lines += [f"gpunode_{name}_total{{{labels}}} {float(number)}" for name, number in names]
        lines += [f"gpunode_requests_created{{{labels}}} 1.7e+09"]
    return "\n".join(lines) + "\n"


@pytest.fixture
def counter(tmp_path):
    """A counter before engines whose pages a test sets."""
    for folder in ("state", "run"):
        (tmp_path / folder).mkdir()
    settings = {"engines": ["http://a"], "workers": "", "limits": {}, "interval_s": 0.05, "keep_days": 3}
    settings |= {"state": str(tmp_path / "state"), "run": str(tmp_path / "run")}
    one = SimpleNamespace(pages={}, settings=settings, state=tmp_path / "state", run=tmp_path / "run")
    one.path = tmp_path / "settings.json"

    def set_to(**more):
        one.path.write_text(json.dumps({**one.settings, **more}))

    def look(now=NOON):
        one.program.look(now)

    def begin():
        one.program = usage.Counter(str(one.path), lambda url: one.pages.get(url))

    def rows(day=TODAY):
        path = one.state / f"{day}.json"
        return json.loads(path.read_text())["rows"] if path.exists() else None

    one.set, one.look, one.begin, one.rows = set_to, look, begin, rows
    set_to()
    begin()
    return one


def test_what_is_new_is_added(counter):
    counter.pages["http://a"] = page({("ada", "8b"): (1, 10, 5), ("grace", "8b"): (1, 3, 2)})
    counter.look()
    counter.pages["http://a"] = page({("ada", "8b"): (3, 30, 9), ("grace", "8b"): (1, 3, 2)})
    counter.look()
    assert counter.rows() == {"ada": {"8b": [3, 30, 9]}, "grace": {"8b": [1, 3, 2]}}


def test_a_kill_counts_nothing_twice_and_loses_nothing(counter):
    for number in range(1, 5):
        counter.pages["http://a"] = page({("ada", "8b"): (number, 10 * number, number)})
        counter.begin()
        counter.look()
    counter.begin()
    counter.look()
    assert counter.rows() == {"ada": {"8b": [4, 40, 4]}}


def test_an_engine_that_is_new_begins_at_nothing_and_a_moved_one_does_not(counter):
    counter.pages["http://a"] = page({("ada", "8b"): (5, 50, 5)}, "s1")
    counter.look()
    counter.pages["http://a"] = page({("ada", "8b"): (2, 20, 2)}, "s2")
    counter.look()
    counter.set(engines=["http://b"])
    counter.pages["http://b"] = page({("ada", "8b"): (6, 60, 6)}, "s1")
    counter.look()
    assert counter.rows() == {"ada": {"8b": [8, 80, 8]}}


def test_lines_that_an_engine_lost_count_once(counter):
    for numbers in ((5, 50, 5), (3, 30, 3), (4, 40, 4)):
        counter.pages["http://a"] = page({("ada", "8b"): numbers})
        counter.look()
    assert counter.rows() == {"ada": {"8b": [6, 60, 6]}}


def test_an_engine_that_does_not_answer_is_told_and_the_others_count(counter):
    counter.set(engines=["http://a", "http://gone"])
    counter.pages["http://a"] = page({("ada", "8b"): (1, 10, 5)})
    counter.look()
    text = (counter.run / "metrics.prom").read_text()
    assert 'gpunode_usage_engine_counts{engine="http://a"} 1' in text
    assert 'gpunode_usage_engine_counts{engine="http://gone"} 0' in text
    assert 'gpunode_usage_prompt_tokens_total{client="ada",model="8b"} 10' in text


def test_an_engine_that_does_not_count_is_told_of_and_its_figures_are_no_zeros(counter):
    counter.pages["http://a"] = "# TYPE vllm:prompt_tokens counter\n"
    counter.look()
    assert usage.kept(str(counter.state), TODAY) == ([], [f"{TODAY}: http://a did not count; its journal says why."])
    assert 'gpunode_usage_engine_counts{engine="http://a"} 0' in (counter.run / "metrics.prom").read_text()
    counter.pages["http://a"] = page({})
    counter.look()
    assert usage.kept(str(counter.state), TODAY) == ([], [])
    assert 'gpunode_usage_engine_counts{engine="http://a"} 1' in (counter.run / "metrics.prom").read_text()


def test_engines_of_a_router_come_and_go(counter, tmp_path):
    workers = tmp_path / "workers.json"
    counter.set(workers=str(workers))
    counter.look()
    workers.write_text(json.dumps({"version": 1, "workers": [{"id": "n-8b", "url": "http://n:8000"}]}))
    counter.pages["http://n:8000"] = page({("ada", "8b"): (1, 10, 5)})
    counter.look()
    assert counter.rows() == {"ada": {"8b": [1, 10, 5]}}


def test_a_day_ends_at_midnight_and_the_sums_go_on(counter):
    counter.pages["http://a"] = page({("ada", "8b"): (1, 10, 5)})
    counter.look()
    counter.pages["http://a"] = page({("ada", "8b"): (2, 30, 6)})
    counter.begin()
    counter.look(NOON + 43_200)
    assert counter.rows() == {"ada": {"8b": [1, 10, 5]}}
    assert counter.rows(TOMORROW) == {"ada": {"8b": [1, 20, 1]}}
    assert 'generation_tokens_total{client="ada",model="8b"} 6' in (counter.run / "metrics.prom").read_text()


def test_days_are_kept_for_as_long_as_is_said(counter):
    for number in range(6):
        counter.pages["http://a"] = page({("ada", "8b"): (number + 1, 0, 0)})
        counter.look(NOON + number * 86_400)
    (counter.state / "notes.json").write_text("mine")
    assert sorted(path.name for path in counter.state.iterdir())[:3] == [
        f"2025-{day}.json" for day in ("11-30", "12-01", "12-02")
    ]


def test_who_has_used_the_tokens_of_the_day_is_named_until_midnight(counter):
    counter.set(limits={"ada": 15, "grace": 15})
    counter.pages["http://a"] = page({("ada", "8b"): (1, 10, 4), ("grace", "8b"): (1, 10, 5)})
    counter.look()
    assert {path.name: path.read_text() for path in (counter.run / "over").iterdir()} == {"grace": f"{TODAY}\n"}
    counter.look()
    counter.set(limits={"ada": 15, "grace": 16})
    counter.look()
    assert list((counter.run / "over").iterdir()) == []
    counter.set(limits={"ada": 14})
    counter.look()
    counter.look(NOON + 86_400)
    assert list((counter.run / "over").iterdir()) == []
    assert 'gpunode_usage_tokens_per_day_limit{client="ada"} 14' in (counter.run / "metrics.prom").read_text()
    assert 'gpunode_usage_tokens_today{client="ada"} 0' in (counter.run / "metrics.prom").read_text()


def test_a_full_disk_is_told_once_and_nothing_is_lost(counter, monkeypatch, capsys):
    own = usage.write

    def full(*_args, **_more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(usage, "write", full)
    for number in (1, 2, 3):
        counter.pages["http://a"] = page({("ada", "8b"): (number, 10 * number, number)})
        counter.look()
    assert capsys.readouterr().err.count("No space left on device") == 1
    monkeypatch.setattr(usage, "write", own)
    counter.look()
    assert counter.rows() == {"ada": {"8b": [3, 30, 3]}}


def test_a_day_that_cannot_be_read_is_passed_over(counter):
    counter.pages["http://a"] = page({("ada", "8b"): (1, 10, 5)})
    counter.look()
    (counter.state / f"{TOMORROW}.json").write_text("{")
    counter.begin()
    assert counter.program.day.day == TODAY
    rows, trouble = usage.kept(str(counter.state), TODAY)
    assert rows == [
        {"day": TODAY, "client": "ada", "model": "8b", "requests": 1, "prompt_tokens": 10, "generation_tokens": 5}
    ]
    assert trouble == [f"{counter.state}/{TOMORROW}.json cannot be read."]
    assert usage.kept(str(counter.state), TOMORROW)[0] == []


def test_a_day_has_so_many_rows_and_no_more(counter, monkeypatch):
    monkeypatch.setattr(usage, "MOST_ROWS", 2)
    monkeypatch.setattr(usage, "MOST_ENGINES", 2)
    for number in range(4):
        counter.pages["http://a"] = page({(f"c{number}", "8b"): (1, 1, 1)}, f"s{number}")
        counter.look(NOON + number)
    assert counter.rows() == {"c0": {"8b": [1, 1, 1]}, "c1": {"8b": [1, 1, 1]}, "(others)": {"8b": [2, 2, 2]}}
    assert set(json.loads((counter.state / f"{TODAY}.json").read_text())["seen"]) == {"s2", "s3"}


class Metrics(http.server.BaseHTTPRequestHandler):
    text = page({("ada", "8b"): (1, 10, 5)})

    def log_message(self, *_args):
        pass

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.text.encode())


@pytest.fixture
def engine():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metrics)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()


def test_it_looks_once_more_when_it_is_told_to_end(counter, engine):
    counter.set(engines=[engine, "http://127.0.0.1:1", "no address"], interval_s=600)
    line = [sys.executable, usage.__file__, "--settings", str(counter.path)]
    program = subprocess.Popen(line, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    for _each in range(200):
        if (counter.run / "metrics.prom").exists():
            break
        time.sleep(0.05)
    Metrics.text = page({("ada", "8b"): (2, 20, 6)})
    program.send_signal(signal.SIGTERM)
    assert program.wait() == 0
    assert counter.rows(usage.day_of(time.time())) == {"ada": {"8b": [2, 20, 6]}}


def test_it_can_look_once(counter, engine):
    counter.set(engines=[engine])
    assert usage.main(["--settings", str(counter.path), "--once"], lambda: NOON) == 0
    assert counter.rows() is not None
    with pytest.raises(SystemExit):
        usage.main([])


def test_it_goes_on_looking(counter, engine):
    counter.set(engines=[engine], interval_s=0)
    moments = iter([NOON, NOON + 1])

    def clock():
        try:
            return next(moments)
        except StopIteration:
            raise KeyboardInterrupt from None

    with pytest.raises(KeyboardInterrupt):
        usage.main(["--settings", str(counter.path)], clock)
