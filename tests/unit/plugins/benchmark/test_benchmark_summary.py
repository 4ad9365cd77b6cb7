# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The screen's table of a record and of a tune, and what makes figures doubtful."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.plugin_utils.benchmark import references, summary
from ansible_collections.gpunode.llm.tests.unit.plugins.benchmark import records


def once(**more: Any) -> dict[str, Any]:
    return records.record(points=[{**records.point(16), **more}])


@pytest.mark.parametrize(
    ("more", "sentences"),
    [
        ({}, []),
        ({"client_cpu_share": 0.8}, []),
        ({"client_cpu_share": None, "others": None}, []),
        (
            {"client_cpu_share": 0.93},
            ["At concurrency 16 the busiest client used 93% of a CPU: it may be what was measured."],
        ),
        ({"failed": 3, "completed": 997}, ["At concurrency 16, 3 of 1000 requests failed."]),
        (
            {"failed": 3, "completed": 997, "errors": ["timeout", "reset"]},
            ["At concurrency 16, 3 of 1000 requests failed: timeout."],
        ),
        ({"others": 7}, ["At concurrency 16 the engine also served others (7 requests): its figures are too low."]),
    ],
)
def test_what_makes_figures_doubtful_is_told(more: dict[str, Any], sentences: list[str]) -> None:
    found = summary.warnings(once(**more))
    assert [sentence.partition(" Measure ")[0] for sentence in found] == sentences


def test_doubts_of_any_repeat_count() -> None:
    points = [
        records.point(16, 1),
        {**records.point(16, 2), "client_cpu_share": 0.99, "failed": 2},
        records.point(16, 3),
    ]
    content = records.record(points=points)
    assert [sentence[:30] for sentence in summary.warnings(content)] == [
        "At concurrency 16 the busiest ",
        "At concurrency 16, 2 of 3002 r",
    ]
    row = summary.lines(content)[2].split()
    assert row[-2:] == ["0.99", "2"]


def test_the_table_of_a_record() -> None:
    head, titles, *rows = summary.lines(records.record(label="candidate"))
    assert head == "8b, guide, 1x NVIDIA H100 80GB HBM3, vllm 0.33.0, candidate:"
    assert titles.split("  ")[1] == "concurrency"
    assert [row.split()[0] for row in rows] == ["1", "16", "64", "256", "1000"]
    assert rows[-1].split() == ["1000", "7", "788", "1", "118", "2", "907", "122.0", "378.1", "11.83", "0.35", "0"]
    assert max(map(len, [head, titles, *rows])) <= 100


def test_without_a_gpu_there_are_no_tokens_per_joule() -> None:
    head, _titles, *rows = summary.lines(records.without_gpu())
    assert "Intel(R) Xeon(R)" in head
    assert {row.split()[-3] for row in rows} == {"-"}


def test_the_table_of_a_tune() -> None:
    lines = summary.lines(records.tune())
    assert [line.split()[:1] for line in lines[2:-1]] == [[f"{number}."] for number in range(1, 6)]
    assert "+21.0%" in lines[3]
    assert lines[6].split()[2:] == ["failed", "-", "-", "-", "out", "of", "memory"]
    assert lines[-1] == "  Best: max-num-batched-tokens=16384."
    assert summary.lines(records.tune(best=None, candidates=[]))[-1] == "  No candidate was measured."


@pytest.mark.parametrize(("baseline", "score", "gain"), [(100.0, 121.0, 0.21), (-50.0, -40.0, 0.2), (None, 5.0, None)])
def test_a_gain_is_that_of_a_score_of_which_more_is_better(baseline: Any, score: float, gain: Any) -> None:
    """A latency is a negative score."""
    candidates = [records.candidate("base", 1, score=baseline), records.candidate("other", 1, score=score)]
    content = records.tune(candidates=candidates)
    assert summary.gain(candidates[1], content) == (None if gain is None else pytest.approx(gain))
    assert summary.gain(candidates[1], {**content, "baseline": None}) is None


@pytest.mark.parametrize(
    ("repo_id", "key"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "8b"),
        ("RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8", "8b"),
        ("meta-llama/Llama-3.3-70B-Instruct", "3.3-70b"),
        ("somebody/else", ""),
    ],
)
def test_other_weights_of_a_model_are_the_same_model(repo_id: str, key: str) -> None:
    assert references.model_of(repo_id) == key


def test_published_figures_are_those_of_the_model_and_drawn_are_those_of_the_gpu() -> None:
    found = references.of_models([records.record()])
    assert {one.model for one in found} == {"8b"}
    drawn = references.drawn(found)
    assert [(one.source, one.hardware, one.output_tokens_per_s) for one in drawn] == [
        ("guide", "1x H100", 2383),
        ("guide", "8x H100", 2518),
        ("mlperf-offline", "8x H200", 66037),  # there is none of an H100
        ("mlperf-server", "8x H200", 64915),
    ]
    assert drawn[2].per_gpu == pytest.approx(8254.6, abs=0.1)
    assert [one.own_gpu for one in drawn] == [True, True, False, False]
    strange = records.record(model={**records.MODEL, "repo_id": "somebody/else"})
    assert references.of_models([strange]) == []


def test_every_published_figure_is_of_a_model_and_a_gpu_of_the_catalogue() -> None:
    page, models, gpus = (references._catalog(name) for name in ("references.yml", "models.yml", "gpus.yml"))
    assert len(page["figures"]) > 10
    for figure in page["figures"]:
        assert figure["model"] in models["models"]
        assert "variant_of" not in models["models"][figure["model"]]
        assert figure["gpu"] in gpus["gpus"]
        assert {"title", "load", "from"} == page["sources"][figure["source"]].keys()
        assert figure["count"] in (1, 8)
