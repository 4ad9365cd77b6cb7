# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare two records of the same load: faster, slower, or the same beyond noise, and what else differs.

The noise of a figure is how far its repeats lie apart, (max - min) / median, of both sides together: each of the two
medians may be off by as much. The spread of two repeats counts 2.5 times, since it is smaller than that of more and
often small by chance. For the same reason the noise of a figure is never less than half of all points of the sweep
have, nor than 2 %. So 1 to 2 of 100 comparisons of 25 figures tell a change where there is nothing but noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from ...module_utils.benchmark.quality import Quality, outside_noise
from ..screen import text as screen_text
from . import record
from .record import Point, Record

#: The least noise, and that of two records without repeats.
LEAST, UNKNOWN = 0.02, 0.05
#: How many times the spread of two repeats counts. If once, half of all comparisons would tell a change that is none.
OF_TWO = 2.5
FASTER, SLOWER, SAME, MIXED = "faster", "slower", "the same", "mixed"


@dataclass(frozen=True)
class Metric:
    """A figure that is compared. ``name`` is its place in a point."""

    name: str
    title: str
    more_is_better: bool = False


METRICS = (
    Metric("output_tokens_per_s", "output tokens/s", more_is_better=True),
    Metric("ttft_ms.p50", "TTFT p50"),
    Metric("ttft_ms.p99", "TTFT p99"),
    Metric("itl_ms.p50", "ITL p50"),
    Metric("itl_ms.p99", "ITL p99"),
)


@dataclass(frozen=True)
class Change:
    """One figure at one concurrency. ``change`` and ``noise`` are shares: 0.1 is 10 %."""

    concurrency: int
    metric: str
    before: float
    after: float
    change: float
    noise: float
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """Two records of the same load.

    ``differences`` maps what differs in their provenance to both values; ``notes`` are sentences.
    """

    earlier: str
    earlier_date: str
    verdict: str
    changes: tuple[Change, ...]
    differences: Mapping[str, tuple[str, str]]
    notes: tuple[str, ...]

    def data(self) -> dict[str, Any]:
        """The comparison as a play reads it."""
        return {
            **asdict(self),
            "changes": [asdict(change) for change in self.changes],
            "differences": [{"what": what, "before": a, "after": b} for what, (a, b) in self.differences.items()],
            "notes": list(self.notes),
        }

    def slower(self) -> list[Change]:
        """What is slower beyond noise."""
        return [change for change in self.changes if change.verdict == SLOWER]


def compare(earlier: Record, later: Record) -> Comparison:
    """Compare a record with an earlier one. Raises ValueError if their loads differ."""
    _same_load(earlier, later)
    before, after = (record.by_concurrency(one["points"]) for one in (earlier, later))
    shared = [at for at in before if at in after]
    if not shared:
        raise ValueError(
            f"{later['id']} cannot be compared with {earlier['id']}: no concurrency is in both ({_listed(after)}, and"
            f" {_listed(before)} earlier)."
        )
    changes = tuple(change for metric in METRICS for change in _changes(metric, shared, before, after))
    return Comparison(
        earlier=str(earlier["id"]),
        earlier_date=str(earlier["date"]),
        verdict=overall(change.verdict for change in changes),
        changes=tuple(sorted(changes, key=lambda change: change.concurrency)),
        differences=differences(earlier, later),
        notes=tuple(_notes(earlier, later, before, after)),
    )


#: What a profile says beside its load: how it is called, and what is measured of it.
_NO_LOAD = {
    "name",
    "about",
    "headline",
    "title",
    "description",
    "concurrency",
    "concurrencies",
    "sweep",
    "repeats",
    "goals",
    "seed",
}


def _same_load(earlier: Record, later: Record) -> None:
    """Raise ValueError unless both were measured with the same load."""
    tune = next((one for one in (earlier, later) if record.is_tune(one)), None)
    if tune is not None:
        raise ValueError(f"{tune['id']} is the record of a tune: only two records of benchmarks can be compared.")
    cannot = f"{later['id']} cannot be compared with {earlier['id']}: "
    old, new = earlier["profile"], later["profile"]
    if old["name"] != new["name"]:
        raise ValueError(f"{cannot}its profile is {new['name']}, and was {old['name']} earlier.")
    differs = [key for key in {**old, **new} if key not in _NO_LOAD and old.get(key) != new.get(key)]
    if differs:
        told = ", ".join(f"{key} {_shown(new.get(key))} instead of {_shown(old.get(key))}" for key in sorted(differs))
        raise ValueError(f"{cannot}the profile {new['name']} has changed ({told}).")


Sweep = Mapping[int, Sequence[Point]]


def _changes(metric: Metric, shared: Iterable[int], before: Sweep, after: Sweep) -> Iterator[Change]:
    """The changes of a figure at each concurrency where both sides have it."""
    both = {at: (record.values(before[at], metric.name), record.values(after[at], metric.name)) for at in shared}
    both = {at: sides for at, sides in both.items() if all(sides) and median(sides[0]) > 0}
    noises = {at: _noise(*sides) for at, sides in both.items()}
    usual = median(noises.values()) if noises else LEAST
    for at, (old, new) in both.items():
        change = median(new) / median(old) - 1
        noise = max(noises[at], usual)
        gain = change if metric.more_is_better else -change
        verdict = SAME if abs(change) <= noise else FASTER if gain > 0 else SLOWER
        yield Change(at, metric.name, median(old), median(new), round(change, 4), round(noise, 4), verdict)


def _noise(old: Sequence[float], new: Sequence[float]) -> float:
    """How far repeats of both sides lie apart, as a share. A side without repeats is taken to be as the other."""
    spreads = [_spread(side) for side in (old, new) if len(side) > 1 and median(side) > 0]
    return max(LEAST, 2 * sum(spreads) / len(spreads)) if spreads else UNKNOWN


def _spread(side: Sequence[float]) -> float:
    return (max(side) - min(side)) / median(side) * (OF_TWO if len(side) == 2 else 1)


def overall(verdicts: Iterable[str]) -> str:
    """One verdict for all: mixed where some figures are faster and others slower."""
    found = set(verdicts) - {SAME}
    return found.pop() if len(found) == 1 else MIXED if found else SAME


def _notes(earlier: Record, later: Record, before: Sweep, after: Sweep) -> Iterator[str]:
    """Sentences on what makes the comparison weaker."""
    single = [one for one, sweep in ((earlier, before), (later, after)) if all(len(p) == 1 for p in sweep.values())]
    if len(single) == 2:
        yield f"Repeats were not made: what differs by less than {UNKNOWN:.0%} counts as noise. Measure with repeats."
    elif single:
        yield f"{single[0]['id']} has no repeats: the noise of the other record stands for its own."
    if earlier["model"]["repo_id"] != later["model"]["repo_id"]:
        yield (
            f"The model differs: {later['model']['repo_id']}, and {earlier['model']['repo_id']} earlier. Speed says"
            " nothing about the quality of their answers."
        )
    yield from _of_answers(earlier.get("quality"), later.get("quality"))
    only = [at for at in (*before, *after) if (at in before) != (at in after)]
    if only:
        yield f"Not compared, since only one of the two has it: concurrency {_listed(sorted(only))}."
    failed = [at for at in after if at in before and record.middle(after[at], "failed")]
    if failed:
        yield f"Requests failed at concurrency {_listed(failed)}: figures there are of those that completed."


def _of_answers(old: Any, new: Any) -> Iterator[str]:
    """A sentence where the answers are worse, and not by chance."""
    fields = Quality.__dataclass_fields__
    if not all(quality and fields.keys() <= quality.keys() for quality in (old, new)):
        return
    try:
        why = outside_noise(*(Quality(**{key: quality[key] for key in fields}) for quality in (old, new)))
    except ValueError as error:
        yield f"Their answers are not compared: {error}."
    else:
        yield from [f"Its answers are worse: {why}."] if why else ()


def differences(earlier: Record, later: Record) -> dict[str, tuple[str, str]]:
    """What differs in the provenance of two records, each with both values as text."""
    old, new = dict(provenance(earlier)), dict(provenance(later))
    pairs = {what: (old.get(what, "not set"), new.get(what, "not set")) for what in (*old, *new)}
    return {what: pair for what, pair in pairs.items() if pair[0] != pair[1]}


def provenance(content: Record) -> Iterator[tuple[str, str]]:
    """What a measurement was made of, by the words that people use."""
    node, engine, model = content["node"], content["engine"], content["model"]
    client = content.get("client") or {}
    parts = {
        "model": model["repo_id"],
        "revision": model.get("revision"),
        "engine": f"{engine['name']} {engine['version']}",
        "image": engine.get("image"),
        "image digest": engine.get("image_digest"),
        **{f"option {key}": value for key, value in (engine.get("options") or {}).items()},
        **{f"environment {key}": value for key, value in (engine.get("env") or {}).items()},
        "hardware": record.hardware(content),
        **{name: _of_gpus(node["gpus"], key) for name, key in GPU_FIGURES.items()},
        **{key: node.get(key) for key in ("driver", "kernel", "cpu", "cpus", "topology")},
        "node": node["name"],
        "through": content.get("through"),
        "client": f"{client.get('program')}, {client.get('processes')} processes" if client else None,
        **{f"goal {key}": value for key, value in (content.get("goals") or {}).items()},
        "collection": content.get("collection"),
    }
    return ((what, _shown(value)) for what, value in parts.items() if value not in (None, ""))


GPU_FIGURES = {
    "power limit (W)": "power_limit_w",
    "memory (GiB)": "memory_gib",
    "highest SM clock (MHz)": "clock_sm_max_mhz",
}


def _of_gpus(gpus: Sequence[Mapping[str, Any]], key: str) -> str:
    """The different values of GPUs, such as ``700``."""
    return ", ".join(dict.fromkeys(_shown(gpu[key]) for gpu in gpus if gpu.get(key) is not None))


def _shown(value: Any) -> str:
    """A value as text. A text of several lines, such as a topology, is not repeated."""
    if value is None:
        return "nothing"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    lines = text.splitlines()
    return text if len(lines) < 2 else f"{lines[0].strip()} … ({len(lines)} lines)"


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


def lines(comparison: Comparison) -> list[str]:
    """The comparison for the screen: the verdict, a table with a row per concurrency, and what differs."""
    titles = {metric.name: metric.title for metric in METRICS}
    found = {(change.concurrency, change.metric): change for change in comparison.changes}
    rows = [
        (str(at), *(_cell(found.get((at, name))) for name in titles))
        for at in sorted({change.concurrency for change in comparison.changes})
    ]
    noises = [change.noise for change in comparison.changes] or [LEAST]
    return [
        f"Compared with {comparison.earlier} of {comparison.earlier_date}: {comparison.verdict}.",
        *screen_text.columns([("concurrency", *titles.values()), *rows], right=range(6), indent="  "),
        *screen_text.wrapped(f"Noise is {min(noises):.1%} to {max(noises):.1%}: less counts as the same.", "  "),
        *(line for note in comparison.notes for line in screen_text.wrapped(note, "  ")),
        *_differing(comparison.differences),
    ]


def _cell(change: Change | None) -> str:
    return f"{change.change:+.1%} {change.verdict}" if change else "-"


def _differing(found: Mapping[str, tuple[str, str]]) -> list[str]:
    if not found:
        return ["  Nothing differs in what was measured: same image, options, driver and GPUs."]
    shown = screen_text.pairs(((what, f"{new} (was {old})") for what, (old, new) in found.items()), indent="    ")
    return ["  What differs:", *shown]
