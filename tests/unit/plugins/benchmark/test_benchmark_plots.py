# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plots have units, legends that name each series, and no text over text."""

from __future__ import annotations

import importlib
import io
import itertools
import sys
from collections.abc import Iterator
from typing import Any

import matplotlib.image
import pytest
from ansible_collections.gpunode.llm.plugins.plugin_utils.benchmark import plots, references
from ansible_collections.gpunode.llm.tests.unit.plugins.benchmark import records
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

HOSTILE = "$\\no such{$ <script>\n_模型"


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Figure]]:
    """The figures that are saved."""
    saved: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *args: Any, **named: Any) -> None:
        saved.append(figure)
        save(figure, *args, **named)

    monkeypatch.setattr(Figure, "savefig", keep)
    yield saved
    assert saved


def drawn(*contents: dict[str, Any]) -> list[plots.Picture]:
    return plots.of_records(contents, references.drawn(references.of_models(contents)))


def texts(figure: Figure) -> list[Text]:
    """What is written when the figure is drawn: numbers beyond an axis are not."""
    written: dict[int, Text] = {}
    draw = Text.draw

    def keep(text: Text, *args: Any, **named: Any) -> None:
        written[id(text)] = text
        draw(text, *args, **named)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Text, "draw", keep)
        patched.setattr(Annotation, "draw", keep)
        figure.canvas.draw()
    return [text for text in written.values() if text.get_visible() and text.get_text().strip()]


def assert_readable(figure: Figure) -> None:
    """Every axis has its unit, and no text lies over another or outside the picture."""
    for panel in figure.axes:
        labels = [panel.get_ylabel(), *([panel.get_xlabel()] if panel is figure.axes[-1] else [])]
        assert all(any(unit in label for unit in ("/s", "ms", "(W)", "/J", "requests")) for label in labels), labels
    shown = [(text.get_text(), Text.get_window_extent(text)) for text in texts(figure)]
    whole = figure.bbox.padded(1)
    assert len(shown) > 5
    for (one, box), (other, beside) in itertools.combinations(shown, 2):
        assert not box.padded(-1).overlaps(beside.padded(-1)), (one, other)
    for text, box in shown:
        assert whole.x0 <= box.x0, text
        assert box.x1 <= whole.x1, text
        assert whole.y0 <= box.y0, text
        assert box.y1 <= whole.y1, text


SECOND = {"identity": "20261127T231500Z-8b-guide", "label": "kv-cache-dtype=fp8"}
MANY = [records.record(f"2026110{day}T000000Z-8b-guide", label=f"candidate {day}") for day in range(1, 10)]
CLOSE = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 1024, 2048, 4000, 4096)


@pytest.mark.parametrize(
    "contents",
    [
        [records.record(points=records.points(noise=0.03))],
        [
            records.record(goals={"ttft_ms": 500.0, "itl_ms": 50.0}),
            records.record(**SECOND, points=records.points(1.2)),
        ],
        [records.record(points=records.points(sweep=(1000,)))],
        [
            records.record(points=records.points(sweep=CLOSE)),
            records.record(**SECOND, points=records.points(sweep=(3, 1500))),
        ],
        [records.record(points=[])],
        [records.record(points=[{**point, "tpot_ms": None, "itl_ms": None} for point in records.points()])],
        [records.record(label=HOSTILE, model={**records.MODEL, "instance": HOSTILE * 9})],
        [records.without_gpu()],
        MANY,
    ],
    ids=["one", "two", "one point", "close", "none", "no latency", "hostile", "cpu", "many"],
)
def test_no_text_lies_over_another(contents: list[dict[str, Any]], figures: list[Figure]) -> None:
    for picture in drawn(*contents):
        image = matplotlib.image.imread(io.BytesIO(picture.png), format="png")
        assert image.shape[1] == 1200
    for figure in figures:
        assert_readable(figure)


def test_a_number_covers_no_point(figures: list[Figure]) -> None:
    plots.of_tune(records.tune(candidates=[records.candidate(f"max-num-seqs={n}", 1 + n / 100) for n in range(40)]))
    (panel,) = figures[0].axes
    points = [panel.transData.transform(place) for marks in panel.collections for place in marks.get_offsets()]
    boxes = [Text.get_window_extent(note) for note in panel.texts]
    assert len(points) == 80
    assert len(boxes) > 10
    assert [(x, y) for x, y in points for box in boxes if box.contains(x, y)] == []


def looks(figure: Figure) -> list[tuple[str, ...]]:
    """How each line of the first panel looks."""
    lines = [bars.lines[0] for bars in figure.axes[0].containers]
    return [(line.get_color(), line.get_marker(), line.get_linestyle(), line.get_markerfacecolor()) for line in lines]


def test_every_line_looks_different_even_where_it_is_one_point(figures: list[Figure]) -> None:
    drawn(*({**content, "points": records.points(sweep=(1000,))} for content in MANY))
    throughput, _per_user, latency, _power = map(looks, figures)
    assert len(throughput) == len(set(throughput)) == 9
    assert len(latency) == len({(colour, mark, face) for colour, mark, _dashes, face in latency}) == 18


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_every_series_and_line_has_its_name(figures: list[Figure]) -> None:
    names = [picture.name for picture in drawn(records.record(goals={"ttft_ms": 500}), records.record(**SECOND))]
    assert names == ["throughput", "per-user", "latency", "power"]
    throughput, per_user, latency, power = map(legend, figures)
    both = ["8b", "8b, kv-cache-dtype=fp8"]
    assert throughput == [*both, "guide's logs: 8b, 1x H100, vLLM 0.5", "guide's logs: 8b, 8x H100, vLLM 0.5"]
    assert per_user[:2] == both
    assert "guide's logs: 8x H100, per GPU" in per_user
    assert "MLPerf Inference v5.1, offline: 8x H200, per GPU, another load" in per_user
    assert latency == [f"{name}: {which}" for name in both for which in ("p50", "p99")] + ["goal: TTFT 500 ms"]
    assert power == [*both, "power limit: 700 W"]
    assert figures[0].get_suptitle() == "guide, 1x NVIDIA H100 80GB HBM3, vllm 0.33.0"


def test_lines_are_the_medians_and_bars_the_repeats(figures: list[Figure]) -> None:
    rates = (90.0, 100.0, 130.0)
    drawn(records.record(points=[{**records.point(16), "output_tokens_per_s": rate} for rate in rates]))
    (bars,) = figures[0].axes[0].containers
    line, _caps, (spread,) = bars
    assert line.get_xydata().tolist() == [[16, 100]]
    assert [end[1] for end in spread.get_segments()[0]] == [90, 130]


def test_two_gpus_count_twice_per_gpu(figures: list[Figure]) -> None:
    two = records.record(
        node=records.node(gpus=[records.GPU] * 2), engine=records.engine(**{"tensor-parallel-size": 2})
    )
    drawn(two, records.record(node=records.node(gpus=[records.GPU] * 2)))
    both, one = (line.get_xdata() for line in figures[1].axes[0].lines[:2])
    assert both == pytest.approx([value / 2 for value in one])
    assert "power limit: 1 400 W" in legend(figures[3])


def test_the_same_thing_twice_is_told_apart() -> None:
    one, other = records.record("20261101T000000Z-8b-guide"), records.record("20261102T000000Z-8b-guide")
    assert [made.label for made in plots.series([one, other])] == [
        "8b, 2026-11-01T23:15:00Z",
        "8b, 2026-11-02T23:15:00Z",
    ]
    labels = [made.label for made in plots.series([one, {**one, "id": "20261101T000001Z-8b-guide"}])]
    assert [label.split(", ")[1] for label in labels] == ["20261101T000000Z-8b-guide", "20261101T000001Z-8b-guide"]


def test_a_power_limit_that_is_not_known_is_no_line() -> None:
    bare = {key: value for key, value in records.GPU.items() if key != "power_limit_w"}
    assert plots.series([records.record(node=records.node(gpus=[bare]))])[0].power_limit_w is None


@pytest.mark.parametrize(
    "content",
    [
        records.tune(),
        records.tune(candidates=[records.candidate(f"max-num-seqs={n}", 1 + n / 1e5) for n in range(40)]),
        records.tune(node=records.node(gpus=[])),
        records.tune(best=None, candidates=[records.candidate("worse", 1.0, state="refused")]),
    ],
    ids=["tune", "crowded", "cpu", "all refused"],
)
def test_the_frontier_of_a_tune_is_readable(content: dict[str, Any], figures: list[Figure]) -> None:
    (picture,) = plots.of_tune(content)
    assert picture.name == "frontier"
    assert_readable(figures[0])


def test_what_may_not_win_is_no_part_of_the_frontier(figures: list[Figure]) -> None:
    content = records.tune()
    content["candidates"][3] = records.candidate("kv-cache-dtype=fp8", 2.0, state="refused")
    plots.of_tune(content)
    (frontier,) = figures[0].axes[0].lines
    best = [(x, y) for number, x, y in plots.candidate_rates(content) if number == 2]
    assert sorted(map(tuple, frontier.get_xydata().tolist())) == sorted(best)
    assert legend(figures[0])[-1] == "refused or failed"


def test_a_tune_without_points_has_no_plot() -> None:
    assert plots.of_tune(records.tune(candidates=[records.candidate("a", 1, points=None)])) == []
    silent = [{**records.point(1), "tpot_ms": None}]
    assert plots.of_tune(records.tune(candidates=[records.candidate("a", 1, points=silent)])) == []


@pytest.mark.parametrize(
    ("points", "best"),
    [
        ([], set()),
        ([(1, 1)], {(1, 1)}),
        ([(1, 5), (2, 9), (3, 8), (2, 4), (1, 4)], {(1, 5), (2, 9)}),
        ([(1, 5), (1, 5)], {(1, 5)}),
    ],
)
def test_the_frontier(points: list[tuple[float, float]], best: set[tuple[float, float]]) -> None:
    assert plots.frontier(points) == best


def test_without_matplotlib_a_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plots.MISSING == ""
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "matplotlib", None)
        missing = importlib.reload(plots).MISSING
    importlib.reload(plots)
    assert f"has no matplotlib. Install it with: {sys.executable} -m pip install -r " in missing
    assert "matplotlib==" in plots.REQUIREMENTS.read_text()
    assert str(plots.REQUIREMENTS) in missing
