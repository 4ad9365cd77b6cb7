# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of a tune: it finds a planted optimum, goes on where it was, and is not taken in by noise or failures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.benchmark import search
from ansible_collections.gpunode.llm.plugins.module_utils.benchmark.search import (
    BASE,
    FAILED,
    MEASURED,
    REFUSED,
    Candidate,
    Choice,
    Outcome,
)
from hypothesis import given, settings, strategies as st

Axes = Mapping[str, list[Choice]]
Measure = Callable[[Candidate], Outcome]

SEQS, TOKENS, LAYOUT, DRAFT = "max-num-seqs", "max-num-batched-tokens", "layout", "speculation"


def value(option: str, number: int) -> Choice:
    return Choice(f"{option}={number}", {option: number})


AXES: Axes = {
    LAYOUT: [Choice("tp1-dp2", {"tensor-parallel-size": 1}), Choice("tp2-dp1", {"tensor-parallel-size": 2})],
    TOKENS: [value(TOKENS, number) for number in (2048, 4096, 16384)],
    SEQS: [value(SEQS, number) for number in (256, 512, 1024)],
    DRAFT: [Choice("ngram", {"speculative-config": {"method": "ngram"}}, exact=False)],
}


def measured(candidate: Candidate, *scores: float) -> Outcome:
    return Outcome(candidate.name, MEASURED, scores)


def tune(
    axes: Axes, measure: Measure, previous: Mapping[str, str] | None = None, known: Mapping[str, Outcome] | None = None
) -> tuple[list[str], dict[str, Outcome]]:
    """The names in the order in which they are measured, and how all came out."""
    outcomes, order = dict(known or {}), []
    while candidate := search.following(axes, outcomes, previous or {}):
        assert candidate.name not in outcomes, "measured twice"
        order.append(candidate.name)
        outcomes[candidate.name] = measure(candidate)
    return order, outcomes


def planted(gains: Mapping[str, float]) -> Measure:
    """Each choice of these multiplies what the baseline has."""

    def measure(candidate: Candidate) -> Outcome:
        score = 1000.0
        for choice in candidate.choices.values():
            score *= gains.get(choice.name, 0.9)
        return measured(candidate, score)

    return measure


GAINS = {"tp1-dp2": 1.9, f"{TOKENS}=16384": 1.1, f"{TOKENS}=4096": 1.05, f"{SEQS}=512": 1.2, "ngram": 0.5}
OPTIMUM = f"tp1-dp2, {TOKENS}=16384, {SEQS}=512"


def test_planted_optimum_is_found_one_axis_after_the_other() -> None:
    order, outcomes = tune(AXES, planted(GAINS))
    best = search.winner(AXES, outcomes, {})
    assert best.name == OPTIMUM
    assert best.options() == {"tensor-parallel-size": 1, TOKENS: 16384, SEQS: 512}
    # The baseline, then every choice once, each from the best so far.
    assert len(order) == 1 + 2 + 3 + 3 + 1
    assert order[:4] == [BASE, "tp1-dp2", "tp2-dp1", f"tp1-dp2, {TOKENS}=2048"]
    assert order[-1] == f"tp1-dp2, {TOKENS}=16384, {SEQS}=512, ngram"


@pytest.mark.parametrize("cut", range(11))
def test_tune_that_was_cut_off_goes_on_and_measures_nothing_again(cut: int) -> None:
    order, outcomes = tune(AXES, planted(GAINS))
    kept = {name: outcomes[name] for name in order[:cut]}
    rest, again = tune(AXES, planted(GAINS), known=kept)
    assert rest == order[cut:]
    assert search.winner(AXES, again, {}).name == OPTIMUM


@pytest.mark.parametrize("cut", range(1, 11))
def test_what_is_best_so_far_is_best_of_a_tune_that_was_cut_off(cut: int) -> None:
    order, outcomes = tune(AXES, planted(GAINS))
    kept = {name: outcomes[name] for name in order[:cut]}
    best = search.winner(AXES, kept, {})
    assert kept[best.name].score == max(outcome.score for outcome in kept.values())


def test_what_was_measured_counts_where_another_axis_was_put_before_it() -> None:
    """A cut-off tune that is run again with one axis more has not lost what it found."""
    _order, outcomes = tune({SEQS: AXES[SEQS]}, planted(GAINS))
    axes = {TOKENS: AXES[TOKENS], SEQS: AXES[SEQS]}
    assert search.winner(axes, outcomes, {}).name == f"{SEQS}=512"
    following = search.following(axes, outcomes, {})
    assert following is not None
    assert following.name == f"{TOKENS}=2048"


def test_previous_best_is_measured_right_after_the_baseline() -> None:
    previous = {LAYOUT: "tp1-dp2", SEQS: f"{SEQS}=512", TOKENS: "gone"}
    order, outcomes = tune(AXES, planted(GAINS), previous)
    assert order[:3] == [BASE, f"tp1-dp2, {SEQS}=512", f"tp2-dp1, {SEQS}=512"]
    assert search.winner(AXES, outcomes, previous).name == OPTIMUM


def test_previous_best_that_is_no_longer_better_is_left() -> None:
    previous = {LAYOUT: "tp2-dp1"}
    order, outcomes = tune(AXES, planted({f"{SEQS}=512": 1.2}), previous)
    assert order[:3] == [BASE, "tp2-dp1", "tp1-dp2"]
    assert search.winner(AXES, outcomes, previous).name == f"{SEQS}=512"


@pytest.mark.parametrize("previous", [{}, {"axis-of-another-release": "x"}, {LAYOUT: "tp8-dp1"}])
def test_previous_best_that_nobody_knows_is_not_measured(previous: Mapping[str, str]) -> None:
    assert tune(AXES, planted({}), previous)[0][:2] == [BASE, "tp1-dp2"]


@pytest.mark.parametrize("state", [FAILED, REFUSED])
def test_failed_and_refused_candidates_never_win(state: str) -> None:
    def measure(candidate: Candidate) -> Outcome:
        fast = any(choice.name in (f"{SEQS}=512", "ngram") for choice in candidate.choices.values())
        return Outcome(candidate.name, state, [9000.0]) if fast else measured(candidate, 1000.0)

    order, outcomes = tune(AXES, measure)
    assert search.winner(AXES, outcomes, {}).name == BASE
    # Nor is anything tried on top of one.
    assert order[-1] == "ngram"


@pytest.mark.parametrize(
    "base", [Outcome(BASE, FAILED, ()), Outcome(BASE, MEASURED, ()), Outcome(BASE, MEASURED, [0.0])]
)
def test_nothing_is_compared_with_a_baseline_that_could_not_be_measured(base: Outcome) -> None:
    order, outcomes = tune(AXES, lambda _candidate: base, {SEQS: f"{SEQS}=512"})
    assert order == [BASE]
    outcomes["tp1-dp2"] = Outcome("tp1-dp2", MEASURED, [5.0])
    assert search.winner(AXES, outcomes, {}).name == BASE


def test_without_outcomes_nothing_has_won() -> None:
    assert search.winner(AXES, {}, {}).name == BASE


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([100.0], 0.02), ([], 0.02), ([100.0, 100.5], 0.02), ([90.0, 100.0, 110.0], 0.2), ([0.0, 0.0], 0.02)],
)
def test_noise_is_the_spread_of_the_baseline(scores: list[float], expected: float) -> None:
    assert search.noise(Outcome(BASE, MEASURED, scores)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("gain", "base", "best"),
    [
        (1.019, [1000.0], BASE),
        (1.021, [1000.0], f"{SEQS}=512"),
        # Repeats that differ by 10 %.
        (1.09, [950.0, 1000.0, 1050.0], BASE),
        (1.11, [950.0, 1000.0, 1050.0], f"{SEQS}=512"),
    ],
)
def test_gain_within_noise_is_none(gain: float, base: list[float], best: str) -> None:
    def measure(candidate: Candidate) -> Outcome:
        scores = {BASE: base, f"{SEQS}=512": [1000.0 * gain]}
        return measured(candidate, *scores.get(candidate.name, [500.0]))

    assert search.winner(AXES, tune(AXES, measure)[1], {}).name == best


def test_option_that_gains_nothing_on_top_of_the_best_is_not_taken() -> None:
    """Else a winner collects what luck gave to each axis."""
    _order, outcomes = tune(AXES, planted({"tp1-dp2": 1.5, f"{TOKENS}=2048": 1.01, f"{SEQS}=256": 1.015, "ngram": 1.0}))
    assert search.winner(AXES, outcomes, {}).name == "tp1-dp2"


#: Of small tables, so that all orders occur: no axis, no choice, ties, and scores within noise.
@st.composite
def tunes(draw: st.DrawFn) -> tuple[Axes, dict[str, str], Measure]:
    counts = draw(st.lists(st.integers(0, 3), max_size=4))
    axes = {f"a{at}": [value(f"a{at}", number) for number in range(count)] for at, count in enumerate(counts)}
    names = draw(st.permutations(list(axes)))
    previous = {axis: f"{axis}={draw(st.integers(0, 4))}" for axis in names if draw(st.booleans())}
    random = draw(st.randoms(use_true_random=False))

    def measure(candidate: Candidate) -> Outcome:
        state = random.choice([MEASURED] * 6 + [FAILED, REFUSED]) if candidate.choices else MEASURED
        return Outcome(candidate.name, state, [random.choice([100.0, 101.0, 103.0, random.uniform(50, 200)])])

    return {axis: axes[axis] for axis in names}, previous, measure


@settings(max_examples=300, deadline=None)
@given(tunes())
def test_following_and_winner_agree(tune_: tuple[Axes, dict[str, str], Measure]) -> None:
    axes, previous, measure = tune_
    outcomes: dict[str, Outcome] = {}
    best = 0.0
    while candidate := search.following(axes, outcomes, previous):
        won = search.winner(axes, outcomes, previous)
        if BASE in outcomes and len(outcomes) > 1:
            # What is tried next is built on what is best so far, but for the choices of one axis.
            assert sum(won.choices.get(axis) != choice for axis, choice in candidate.choices.items()) <= 1
        outcomes[candidate.name] = measure(candidate)
        now = outcomes[search.winner(axes, outcomes, previous).name].score
        assert now >= best, "the best so far got worse"
        best = now
    won = outcomes[search.winner(axes, outcomes, previous).name]
    least = outcomes[BASE].score * (1 + search.noise(outcomes[BASE]))
    assert won.state == MEASURED
    assert won.name == BASE or won.score > least
    # Nothing that was measured is better than the winner beyond noise, and something better than the baseline wins.
    assert max(one.score for one in outcomes.values()) <= won.score * (1 + search.noise(outcomes[BASE]))


def test_candidate_says_its_options_by_its_axes_in_any_order() -> None:
    power = Choice("300 W", power_limit_w=300)
    front = Choice("rust-front", env={"VLLM_USE_RUST_FRONTEND": "1"})
    one = Candidate({SEQS: AXES[SEQS][0], "power-limit": power, "front": front})
    other = Candidate({"front": front, "power-limit": power, SEQS: AXES[SEQS][0]})
    assert one.name == other.name == f"rust-front, {SEQS}=256, 300 W"
    assert (one.options(), one.env(), one.power_limit_w) == ({SEQS: 256}, {"VLLM_USE_RUST_FRONTEND": "1"}, 300)
    assert one.exact
    assert not one.with_({DRAFT: AXES[DRAFT][0]}).exact
    assert (Candidate().name, Candidate().power_limit_w, Candidate().exact) == (BASE, None, True)


def row(concurrency: int, rate: float, failed: int = 0, **more: Any) -> dict[str, Any]:
    point = {"concurrency": concurrency, "output_tokens_per_s": rate, "failed": failed, "tpot_ms": {"p50": 10.0}}
    return {**point, "goodput_requests_per_s": rate / 100, **more}


POINTS = [row(1, 100.0), row(1, 99.0, tpot_ms=None), row(64, 5000.0), row(64, 5100.0), row(64, 9e9, 1), row(256, 7e3)]


@pytest.mark.parametrize(
    ("objective", "scores"),
    [("throughput", [5000.0, 5100.0]), ("goodput", [50.0, 51.0]), ("latency", [100.0])],
)
def test_score_is_about_the_objective_and_leaves_out_what_failed(objective: str, scores: list[float]) -> None:
    assert search.score(POINTS, objective, 64) == scores


def test_score_without_goodput_or_time() -> None:
    assert search.score([row(64, 1.0, goodput_requests_per_s=None)], "goodput", 64) == [0.0]
    assert search.score([row(1, 1.0, tpot_ms={"p50": 0.0})], "latency", 64) == []


def test_choices_come_from_the_data_of_a_job() -> None:
    assert search.choices_from({SEQS: [{"name": f"{SEQS}=256", "options": {SEQS: 256}}], "p": [{"name": "x"}]}) == {
        SEQS: [value(SEQS, 256)],
        "p": [Choice("x")],
    }
