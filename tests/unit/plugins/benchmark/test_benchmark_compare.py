# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A planted change is told, noise is not; what differs is named; what cannot be compared is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.plugin_utils.benchmark import compare
from ansible_collections.gpunode.llm.plugins.plugin_utils.benchmark.compare import FASTER, MIXED, SAME, SLOWER
from ansible_collections.gpunode.llm.tests.unit.plugins.benchmark import records
from hypothesis import given, settings, strategies as st

EARLIER = records.record("20261101T000000Z-8b-guide")


def against(**more: Any) -> compare.Comparison:
    return compare.compare(EARLIER, records.record(**more))


def three(*values: float, concurrency: int = 16) -> list[dict[str, Any]]:
    """Repeats of one point that differ in their throughput alone."""
    still = records.point(concurrency)
    return [{**still, "repeat": at, "output_tokens_per_s": value} for at, value in enumerate(values, 1)]


@given(speed=st.sampled_from([0.6, 0.8, 1.25, 1.6]), seed=st.integers(0, 10**6), noise=st.floats(0, 0.008))
@settings(deadline=None, max_examples=60)
def test_a_planted_change_is_told(speed: float, seed: int, noise: float) -> None:
    earlier = records.record(points=records.points(1.0, noise, seed=seed))
    later = records.record(points=records.points(speed, noise, seed=seed + 1))
    found = compare.compare(earlier, later)
    planted = FASTER if speed > 1 else SLOWER
    throughput = [change.verdict for change in found.changes if change.metric == "output_tokens_per_s"]
    assert set(throughput) == {planted}
    assert found.verdict == planted


@pytest.mark.parametrize("repeats", [2, 3, 5])
@pytest.mark.parametrize("noise", [0.01, 0.04])
def test_noise_is_not_told(repeats: int, noise: float) -> None:
    """Of 200 comparisons of 25 figures each, in which nothing changed but by chance."""
    verdicts = []
    for seed in range(200):
        sides = (records.points(1.0, noise, repeats, seed=seed), records.points(1.0, noise, repeats, seed=seed + 1000))
        earlier, later = (records.record(points=points) for points in sides)
        verdicts.append(compare.compare(earlier, later).verdict)
    assert verdicts.count(SAME) >= 192


@pytest.mark.parametrize(
    ("before", "after", "noise", "verdict"),
    [
        ((100, 100, 100), (98.1, 98.1, 98.1), 0.02, SAME),  # never below 2 %
        ((100, 100, 100), (97.9, 97.9, 97.9), 0.02, SLOWER),
        ((100, 100, 100), (102.1, 102.1, 102.1), 0.02, FASTER),
        ((98, 100, 102), (92, 92, 92), 0.04, SLOWER),  # the spread of both sides: 4 % and none
        ((96, 100, 104), (90, 94, 96), 0.1438, SAME),
        ((100,), (96,), 0.05, SAME),  # no repeats
        ((100,), (94,), 0.05, SLOWER),
        ((98, 100, 102), (94,), 0.08, SAME),  # the known side stands for both
        ((98, 100, 102), (91,), 0.08, SLOWER),
        ((100,), (0, 0), 0.05, SLOWER),  # nothing completed
    ],
)
def test_what_is_noise(before: Any, after: Any, noise: float, verdict: str) -> None:
    found = compare.compare(records.record(points=three(*before)), records.record(points=three(*after)))
    (change,) = [change for change in found.changes if change.metric == "output_tokens_per_s"]
    assert (change.noise, change.verdict) == (noise, verdict)
    assert found.verdict == verdict


def test_two_repeats_that_lie_together_by_chance_do_not_make_noise_small() -> None:
    """As at concurrency 16 here: half of the points say that this figure moves by 8 %."""
    calm, others = three(100, 100.1), [*three(96, 100, concurrency=64), *three(960, 1000, concurrency=256)]
    after = [*three(103, 103.1), *three(96, 100, concurrency=64), *three(960, 1000, concurrency=256)]
    found = compare.compare(records.record(points=calm + others), records.record(points=after))
    assert found.verdict == SAME


def test_less_latency_is_faster_and_a_trade_is_mixed() -> None:
    points = json.loads(json.dumps(records.points()))
    for point in points:
        point["ttft_ms"]["p50"] *= 0.5
    assert against(points=points).verdict == FASTER
    for point in points:
        point["itl_ms"]["p99"] *= 1.5
    found = against(points=points)
    assert found.verdict == MIXED
    assert {(change.metric, change.verdict) for change in found.changes} == {
        ("output_tokens_per_s", SAME),
        ("ttft_ms.p50", FASTER),
        ("ttft_ms.p99", SAME),
        ("itl_ms.p50", SAME),
        ("itl_ms.p99", SLOWER),
    }
    assert {change.metric for change in found.slower()} == {"itl_ms.p99"}


def test_a_smaller_batch_is_told_where_it_hurts_alone() -> None:
    """The planted regression of the lab: a smaller max-num-seqs changes nothing at a low concurrency."""
    points = [records.point(at, repeat, 0.7 if at > 64 else 1.0) for at in records.SWEEP for repeat in (1, 2, 3)]
    found = against(points=points, engine=records.engine(**{"max-num-seqs": 64}))
    assert found.verdict == SLOWER
    assert {change.concurrency for change in found.slower()} == {256, 1000}
    assert found.differences == {"option max-num-seqs": ("not set", "64")}


@pytest.mark.parametrize(
    ("more", "differs"),
    [
        ({"node": records.node(driver="590.1")}, {"driver": ("580.159.04", "590.1")}),
        ({"node": records.node(gpus=[{**records.GPU, "power_limit_w": 500.0}])}, {"power limit (W)": ("700", "500")}),
        (
            {"node": records.node(gpus=[])},
            {"hardware": ("1x NVIDIA H100 80GB HBM3", "Intel(R) Xeon(R) Platinum 8480+")},
        ),
        ({"node": records.node(topology="GPU0\n X")}, {"topology": ("not set", "GPU0 … (2 lines)")}),
        ({"model": {**records.MODEL, "revision": "1111"}}, {"revision": ("0e9e39f2", "1111")}),
        (
            {"engine": {**records.engine(), "image": "own/vllm:1"}},
            {"image": ("vllm/vllm-openai:v0.33.0", "own/vllm:1")},
        ),
        ({"engine": {**records.engine(), "env": {"A": "1"}}}, {"environment A": ("not set", "1")}),
        ({"through": "gateway"}, {"through": ("loopback", "gateway")}),
        ({"client": None}, {"client": ("vllm bench serve 0.33.0, 4 processes", "not set")}),
        ({"goals": {"ttft_ms": 500.0}}, {"goal ttft_ms": ("not set", "500")}),
    ],
)
def test_what_differs_is_named(more: dict[str, Any], differs: dict[str, Any]) -> None:
    found = against(**more).differences
    assert {what: found.get(what) for what in differs} == differs


def test_another_model_is_compared_with_a_warning() -> None:
    found = against(model={**records.MODEL, "repo_id": "RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8"})
    assert found.differences["model"][1] == "RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8"
    assert [note for note in found.notes if note.startswith("The model differs: RedHatAI/")]


@pytest.mark.parametrize(
    ("later", "words"),
    [
        (records.record(profile={"name": "chat"}), "its profile is chat, and was guide earlier"),
        (
            records.record(profile={**EARLIER["profile"], "output_tokens": 1024, "turns": 2}),
            r"the profile guide has changed \(output_tokens 1024 instead of 128, turns 2 instead of nothing\)",
        ),
        (records.record(points=records.points(sweep=(8, 32))), r"no concurrency is in both \(8, 32, and 1, 16, 64"),
        (records.tune(), "20261127T010000Z-8b-tune is the record of a tune"),
    ],
)
def test_what_cannot_be_compared_is_refused(later: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        compare.compare(EARLIER, later)


def test_another_sweep_and_description_are_the_same_load() -> None:
    profile = {**EARLIER["profile"], "description": "other words", "concurrency": [1, 2], "repeats": 5}
    assert against(profile=profile).verdict == SAME


def test_what_weakens_a_comparison_is_told() -> None:
    once = records.points(repeats=1)
    single = records.record("20261102T000000Z-8b-guide", points=once)
    assert against(points=once).notes == (
        f"{records.record()['id']} has no repeats: the noise of the other record stands for its own.",
    )
    assert compare.compare(single, records.record(points=once)).notes == (
        "Repeats were not made: what differs by less than 5% counts as noise. Measure with repeats.",
    )
    (note,) = against(points=records.points(sweep=(16, 64, 2000))).notes
    assert note == "Not compared, since only one of the two has it: concurrency 1, 256, 1000, 2000."
    (note,) = against(points=[{**point, "failed": 3} for point in records.points(sweep=records.SWEEP)]).notes
    assert note.startswith("Requests failed at concurrency 1, 16, 64, 256, 1000: figures there are")


QUALITY = {"task": "gsm8k", "questions": 40, "score": 0.75, "stderr": 0.07, "answers": "a", "asked": "q"}
RIGHT = "1" * 30 + "0" * 10


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (
            {"right": RIGHT},
            {"right": "0" * 12 + "1" * 18 + "0" * 10},
            "Its answers are worse: 18 of 40 answers are right",
        ),
        ({"right": RIGHT, "more": "of a later release"}, {"right": "0" + RIGHT[1:]}, ""),
        ({"right": RIGHT}, {"right": RIGHT, "asked": "others"}, "Their answers are not compared: the two were asked"),
        ({"right": RIGHT}, {}, ""),  # it does not say which answers were right
    ],
)
def test_a_loss_of_quality_is_told(before: dict[str, str], after: dict[str, str], words: str) -> None:
    earlier, later = (records.record(quality={**QUALITY, **side}) for side in (before, after))
    notes = compare.compare(earlier, later).notes
    assert notes == () if not words else notes[0].startswith(words)


def test_a_figure_that_one_side_lacks_is_left_out() -> None:
    found = against(points=[{**point, "itl_ms": None} for point in records.points()])
    assert {change.metric for change in found.changes} == {"output_tokens_per_s", "ttft_ms.p50", "ttft_ms.p99"}
    assert any(line.endswith(" -") for line in compare.lines(found))
    silent = records.record(
        points=[{**point, "output_tokens_per_s": 0, "ttft_ms": None, "itl_ms": None} for point in records.points()]
    )
    assert compare.compare(silent, silent).verdict == SAME
    assert len(compare.lines(compare.compare(silent, silent))) == 4


def test_the_screen_says_all_within_its_width() -> None:
    found = against(points=records.points(0.8), engine=records.engine(**{"max-num-seqs": 64}))
    lines = compare.lines(found)
    assert lines[0] == "Compared with 20261101T000000Z-8b-guide of 2026-11-01T23:15:00Z: slower."
    assert lines[1].split("  ")[1:2] == ["concurrency"]
    assert [line.split()[0] for line in lines[2:7]] == ["1", "16", "64", "256", "1000"]
    assert "-20.0% slower" in lines[2]
    assert "+25.0% slower" in lines[2]
    assert lines[-2:] == ["  What differs:", "    option max-num-seqs  64 (was not set)"]
    assert max(map(len, lines)) <= 100
    assert compare.lines(against())[-1].startswith("  Nothing differs in what was measured")


def test_the_data_are_plain() -> None:
    data = against(points=records.points(0.8), through="gateway").data()
    assert json.loads(json.dumps(data)) == data
    assert data["differences"] == [{"what": "through", "before": "loopback", "after": "gateway"}]
    assert data["changes"][0]["metric"] == "output_tokens_per_s"
    assert data["changes"][0]["concurrency"] == 1
