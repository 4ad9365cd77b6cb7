# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order in which a tune tries its candidates: one axis after the other, each from the best so far.

Pure: what has been measured goes in, the next candidate comes out. So a tune that was cut off goes on where it was.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

BASE = "base"
#: Measured, failed to start or to be measured, refused by its quality.
MEASURED, FAILED, REFUSED = "measured", "failed", "refused"
#: The least noise, as a share: two runs of the same engine differ by this on a quiet GPU.
LEAST_NOISE = 0.02


@dataclass(frozen=True)
class Choice:
    """One value on an axis: options of vLLM (None removes one) and environment. ``exact``: it changes no answer."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    exact: bool = True
    power_limit_w: Optional[int] = None


@dataclass(frozen=True)
class Candidate:
    """The choices that it has, one of an axis at the most, by the names of the axes."""

    choices: Mapping[str, Choice] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return ", ".join(self.choices[axis].name for axis in sorted(self.choices)) or BASE

    @property
    def exact(self) -> bool:
        return all(choice.exact for choice in self.choices.values())

    @property
    def power_limit_w(self) -> Optional[int]:
        return next((choice.power_limit_w for choice in self.choices.values() if choice.power_limit_w), None)

    def options(self) -> Dict[str, Any]:
        return {name: value for axis in sorted(self.choices) for name, value in self.choices[axis].options.items()}

    def env(self) -> Dict[str, str]:
        return {name: value for axis in sorted(self.choices) for name, value in self.choices[axis].env.items()}

    def with_(self, choices: Mapping[str, Choice]) -> Candidate:
        return Candidate({**self.choices, **choices})


@dataclass(frozen=True)
class Outcome:
    """How a candidate came out. ``scores``: one of each repeat, the higher the better."""

    name: str
    state: str
    scores: Sequence[float] = ()

    @property
    def score(self) -> float:
        return median(self.scores) if self.state == MEASURED and self.scores else 0.0


def noise(base: Outcome) -> float:
    """The share by which repeats of the baseline differ; never less than LEAST_NOISE."""
    if len(base.scores) < 2 or not base.score:
        return LEAST_NOISE
    return max(LEAST_NOISE, (max(base.scores) - min(base.scores)) / base.score)


def _steps(
    axes: Mapping[str, Sequence[Choice]], previous: Mapping[str, str]
) -> Iterator[Sequence[Mapping[str, Choice]]]:
    """What each step tries on top of the best so far: first the best of an earlier tune, then one axis each."""
    yield [{axis: one for axis, choices in axes.items() for one in choices if previous.get(axis) == one.name}]
    for axis, choices in axes.items():
        yield [{axis: choice} for choice in choices]


def _walk(
    axes: Mapping[str, Sequence[Choice]], outcomes: Mapping[str, Outcome], previous: Mapping[str, str]
) -> Tuple[Candidate, Optional[Candidate]]:
    """The best of those measured, and the first one of those on the way that has not been; None if all have been."""
    best, missing = Candidate(), None
    base = outcomes.get(BASE)
    if base is None or not base.score:
        # Without the baseline nothing can be better.
        return best, None if base else best
    for step in _steps(axes, previous):
        rivals = [best.with_(more) for more in step]
        missing = missing or next((rival for rival in rivals if rival.name not in outcomes), None)
        best = _better(best, [rival for rival in rivals if rival.name in outcomes], outcomes)
    return best, missing


def _better(best: Candidate, rivals: Sequence[Candidate], outcomes: Mapping[str, Outcome]) -> Candidate:
    """The best of the rivals, if it is better beyond noise than what they were made from: else it gains nothing."""
    first = max(rivals, key=lambda rival: outcomes[rival.name].score, default=best)
    least = outcomes[best.name].score * (1 + noise(outcomes[BASE]))
    return first if outcomes[first.name].score > least else best


def following(
    axes: Mapping[str, Sequence[Choice]], outcomes: Mapping[str, Outcome], previous: Mapping[str, str]
) -> Optional[Candidate]:
    """The next candidate to measure; None if all have been, or if the baseline could not be."""
    return _walk(axes, outcomes, previous)[1]


def winner(
    axes: Mapping[str, Sequence[Choice]], outcomes: Mapping[str, Outcome], previous: Mapping[str, str]
) -> Candidate:
    """The best of those measured."""
    return _walk(axes, outcomes, previous)[0]


def score(points: Sequence[Mapping[str, Any]], objective: str, concurrency: int) -> List[float]:
    """One score of each repeat without a failed request, the higher the better.

    throughput: output tokens per second at this concurrency; goodput: requests per second within the goals there;
    latency: tokens per second of a single user.
    """
    at = 1 if objective == "latency" else concurrency
    rows = [point for point in points if point["concurrency"] == at and not point["failed"]]
    if objective == "latency":
        return [1000.0 / row["tpot_ms"]["p50"] for row in rows if row["tpot_ms"] and row["tpot_ms"]["p50"]]
    key = "goodput_requests_per_s" if objective == "goodput" else "output_tokens_per_s"
    return [float(row[key] or 0.0) for row in rows]


def choices_from(plain: Mapping[str, Sequence[Mapping[str, Any]]]) -> Dict[str, List[Choice]]:
    """Axes from the data of a job."""
    return {axis: [Choice(**choice) for choice in choices] for axis, choices in plain.items()}
