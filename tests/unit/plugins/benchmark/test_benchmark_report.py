# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of a report loads nothing, shows a hostile name as it is, and says what it leaves out."""

from __future__ import annotations

import base64
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.plugin_utils.benchmark import compare, plots, report
from ansible_collections.gpunode.llm.tests.unit.plugins.benchmark import records

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """A page's tags, texts and addresses; raises for a tag that is not closed in its turn."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(data.decode())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        assert not [name for name, _value in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data.strip())
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(filter(None, self.words))


def page_of(files: dict[str, bytes]) -> Page:
    (page,) = (data for name, data in files.items() if name.endswith(".html"))
    return Page(page)


def test_the_files_of_a_benchmark() -> None:
    files = report.of_records([records.record("20261126T231500Z-8b-guide")])
    assert list(files) == [
        "20261126T231500Z-8b-guide.html",
        *(f"20261126T231500Z-8b-guide-{plot}.png" for plot in ("throughput", "per-user", "latency", "power")),
    ]
    pictures = [data for name, data in files.items() if name.endswith(".png")]
    assert {data[:8] for data in pictures} == {b"\x89PNG\r\n\x1a\n"}
    embedded = [address.removeprefix("data:image/png;base64,") for address in page_of(files).loads]
    assert [base64.b64decode(text, validate=True) for text in embedded] == pictures


def test_a_page_loads_nothing() -> None:
    content = records.record(label="https://example.org/x.js")
    for files in (report.of_records([content]), report.of_tune(records.tune(objective="http://example.org"))):
        page = page_of(files)
        assert page.loads
        assert all(address.startswith("data:image/png;base64,") for address in page.loads)
        assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
        html = next(iter(files.values())).decode()
        assert "url(" not in html
        assert "@import" not in html


HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7 * 7 }}\ud800"


def everywhere(value: Any, keep: tuple[str, ...] = ("id",)) -> Any:
    """The record with every text of it hostile."""
    if isinstance(value, dict):
        return {key: item if key in keep else everywhere(item, keep) for key, item in value.items()}
    if isinstance(value, list):
        return [everywhere(item, keep) for item in value]
    return HOSTILE if isinstance(value, str) else value


@pytest.mark.parametrize("content", [records.record(), records.tune()], ids=["record", "tune"])
def test_a_hostile_name_is_shown_as_it_is(content: dict[str, Any]) -> None:
    hostile = everywhere(content)
    hostile["engine"]["options"] = {HOSTILE: HOSTILE}
    page = page_of(report.of_tune(hostile) if "candidates" in hostile else report.of_records([hostile], hostile))
    assert "script" not in page.tags
    assert all(address.startswith("data:image/png;base64,") for address in page.loads)
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7 * 7 }}" in page.text


def test_the_figures_are_in_the_page() -> None:
    page = page_of(report.of_records([records.record()]))
    saturated = next(row for row in page.rows if row[:2] == ["1 000", "3"])
    assert saturated == [
        *("1 000", "3", "7 788", "60.84", "1 118", "2 907", "128.4", "122.0", "378.1", "16 436"),
        *("658", "11.83", "0.35", "0"),
    ]
    head = page.rows[0]
    assert head[2:6] == ["output tokens/s", "requests/s", "TTFT p50 ms", "p99"]
    assert "goodput requests/s" not in head
    assert next(row for row in page.rows if row[1:2] == ["ITL"])[:4] == ["1", "ITL", "6.6", "3.8"]
    assert ["option max-model-len", "131072"] in page.rows
    assert ["image digest", "sha256:" + "a" * 64] in page.rows
    assert ["power limit (W)", "700"] in page.rows
    assert ["profile output_tokens", "128"] in page.rows
    assert any(row[:5] == ["guide's logs", "8b", "1x H100", "2 383", "2 383"] for row in page.rows)
    assert "are no measurements of this collection" in page.text


def test_a_column_that_has_figures_is_there() -> None:
    points = [{**point, "goodput_requests_per_s": 12.5} for point in records.points()]
    quality = {"task": "gsm8k", "questions": 200, "score": 0.76, "stderr": 0.03}
    topology = "\tGPU0\nGPU0\t X"
    content = records.record(points=points, quality=quality, node=records.node(topology=topology))
    page = page_of(report.of_records([content]))
    assert page.rows[0][4] == "goodput requests/s"
    assert ["quality", "gsm8k, 200 questions: 0.76 ± 0.03"] in page.rows
    assert "GPU0\nGPU0\t X" in page.text
    bare = records.record(quality={**quality, "stderr": None})
    assert ["quality", "gsm8k, 200 questions: 0.76"] in page_of(report.of_records([bare])).rows


def test_what_is_doubtful_stands_at_the_top() -> None:
    points = [{**records.point(16), "failed": 3, "errors": ["timeout"]}]
    text = page_of(report.of_records([records.record(points=points)])).text
    assert text.index("8b: At concurrency 16, 3 of 1003 requests failed: timeout.") < text.index("Plots")


def test_a_comparison_is_a_table_with_the_earlier_record_as_a_series() -> None:
    earlier = records.record("20261101T000000Z-8b-guide")
    later = records.record(points=records.points(0.7), engine=records.engine(**{"max-num-seqs": 64}))
    page = page_of(report.of_records([later], earlier, compare.compare(earlier, later)))
    assert "Compared with 20261101T000000Z-8b-guide of 2026-11-01T23:15:00Z: slower ." in page.text
    row = next(row for row in page.rows if row and "→" in row[1])
    assert row[:2] == ["1", "152.1 → 106.5-30.0% slowernoise 2.0%"]
    assert ["option max-num-seqs", "not set", "64"] in page.rows
    assert len([row for row in page.rows if row[:2] == ["1 000", "3"]]) == 2
    same = page_of(report.of_records([earlier], earlier, compare.compare(earlier, earlier)))
    assert "Nothing differs in what was measured" in same.text


def test_a_figure_that_was_not_compared_leaves_its_cell_empty() -> None:
    earlier = records.record("20261101T000000Z-8b-guide")
    later = records.record(points=[{**point, "itl_ms": None} for point in records.points()])
    page = page_of(report.of_records([later], earlier, compare.compare(earlier, later)))
    assert next(row for row in page.rows if row and "→" in row[1])[-2:] == ["", ""]


def test_without_a_gpu_the_page_says_why_a_plot_is_left_out() -> None:
    files = report.of_records([records.without_gpu()])
    assert not [name for name in files if "power" in name]
    page = page_of(files)
    assert report.NO_POWER in page.text
    assert ["hardware", "Intel(R) Xeon(R) Platinum 8480+"] in page.rows
    assert not [row for row in page.rows if "power W" in row]


def test_figures_of_gpus_do_not_flatten_those_of_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(plots, "of_records", lambda _contents, references: seen.append(references) or [])
    page = page_of(report.of_records([records.without_gpu()]))
    assert seen == [[]]
    assert "guide's logs" in page.text


def test_without_matplotlib_the_tables_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "MISSING", "The plots are left out.")
    for files in (report.of_records([records.record()]), report.of_tune(records.tune())):
        assert len(files) == 1
        page = page_of(files)
        assert page.text.count("The plots are left out.") == 1
        assert not page.loads
        assert len(page.rows) > 5


def test_the_page_of_a_tune() -> None:
    files = report.of_tune(records.tune())
    assert list(files) == ["20261127T010000Z-8b-tune.html", "20261127T010000Z-8b-tune-frontier.png"]
    page = page_of(files)
    assert page.rows[:3] == [
        ["#", "candidate", "state", "score (throughput)", "gain", "quality", "why", "options"],
        ["1", "base", "measured", "7 788.0", "+0.0%", "0.76", "", ""],
        [
            *("2", "max-num-batched-tokens=16384", "measured", "9 423.5", "+21.0%", "-", ""),
            "max-num-batched-tokens: 16384",
        ],
    ]
    assert page.rows[4][2:7] == ["refused", "8 644.7", "+11.0%", "0.52", "worse answers"]
    assert page.rows[5][2:7] == ["failed", "-", "-", "-", "out of memory"]
    assert "The best candidate is max-num-batched-tokens=16384." in page.text
    assert ["budget minutes", "60"] in page.rows


def test_a_tune_that_measured_nothing_says_so() -> None:
    failed = records.candidate("base", 1, points=[], score=None, state="failed", env={"A": "1"})
    files = report.of_tune(records.tune(best=None, candidates=[failed]))
    assert len(files) == 1
    page = page_of(files)
    assert "No candidate was measured." in page.text
    assert report.NO_FRONTIER in page.text
    assert page.rows[1][-1] == "A=1"


def test_records_that_travelled_as_json_are_the_same(tmp_path: Path) -> None:
    content = records.record()
    assert report.of_records([json.loads(json.dumps(content))]) == report.of_records([content])
