# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plots of a report, each as a PNG of 1200 pixels in width. The only file that uses matplotlib.

A legend lies below its plot, and a text in a plot is left out where it would cover another.
"""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import record, summary
from .record import Point, Record
from .references import Reference

REQUIREMENTS = Path(__file__).resolve().parents[3] / "requirements-report.txt"
try:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator
    from matplotlib.transforms import Bbox

    MISSING = ""
except ImportError:
    MISSING = (
        f"The plots are left out, since {sys.executable} has no matplotlib. Install it with: {sys.executable} -m pip"
        f" install -r {REQUIREMENTS}"
    )

#: Okabe and Ito's colours but yellow, which people with any kind of colour vision tell apart; and one more marks, so
#: that a second series of a colour has another.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKS = "os^DvPX*"
QUIET = "#6E6E6E"
_REFERENCE_DASHES = ((0, (6, 3)), (0, (2, 2)), (0, (8, 3, 2, 3)), (0, (1, 3)), (0, (12, 4)), (0, (4, 6)))
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.titlesize": 13,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "lines.linewidth": 2,
    "lines.markersize": 7,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    # A name with $ in it is a name, and no formula.
    "text.parse_math": False,
}
#: Inches, and dots per inch: 1200 pixels in width; the height of a line of a legend; and half a point, in dots.
WIDTH, DPI, LINE, MARK = 10.0, 120, 0.23, 5
#: Longest name of a series in a legend, one that leaves room for a second column, and longest line above a plot.
LONGEST, LONGEST_OF_TWO, LONGEST_ABOVE = 100, 55, 130


@dataclass(frozen=True)
class Series:
    """Points that one line joins. ``gpus`` is 0 on a node without GPUs."""

    label: str
    points: Sequence[Point]
    gpus: int
    goals: Mapping[str, Any]
    power_limit_w: float | None = None


@dataclass(frozen=True)
class Plot:
    """What a plot shows. ``draw`` gets its panels, which stand above each other; ``height`` is in inches."""

    name: str
    title: str
    says: str
    height: float
    panels: int
    draw: Callable[[Sequence[Any]], None]


@dataclass(frozen=True)
class Picture:
    """A drawn plot. ``name`` is the end of its file's name; ``says`` is a sentence for those who do not see it."""

    name: str
    title: str
    says: str
    png: bytes


def series(contents: Sequence[Record]) -> list[Series]:
    """A series for each record, named by what it does not share with the others."""
    parts = [summary.parts(content) for content in contents]
    shared = _shared(parts)
    labels = [", ".join((own[0], *(part for part in own[1:] if part not in shared))) for own in parts]
    dated = [
        f"{label}, {content['date']}" if labels.count(label) > 1 else label for label, content in zip(labels, contents)
    ]
    return [
        Series(_label(long if dated.count(long) == 1 else f"{label}, {content['id']}"), *_of_gpus(content))
        for label, long, content in zip(labels, dated, contents)
    ]


def subtitle(contents: Sequence[Record]) -> str:
    """What all records share, such as ``guide, 1x NVIDIA H100 80GB HBM3``; it stands above their plots."""
    parts = [summary.parts(content) for content in contents]
    return ", ".join(part for part in parts[0][1:] if part in _shared(parts))


def _shared(parts: Sequence[Sequence[str]]) -> set[str]:
    return set.intersection(*(set(own[1:]) for own in parts))


def _of_gpus(content: Record) -> tuple[Sequence[Point], int, Mapping[str, Any], float | None]:
    gpus = content["node"]["gpus"][: record.gpus_used(content)]
    limits = [gpu.get("power_limit_w") for gpu in gpus]
    return content["points"], len(gpus), content.get("goals") or {}, sum(limits) if limits and all(limits) else None


def _label(text: str, longest: int = LONGEST) -> str:
    """One line of text. matplotlib leaves a name out of a legend that begins with an underscore."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text).lstrip("_ ")
    return plain if len(plain) <= longest else plain[: longest - 1] + "…"


def of_records(contents: Sequence[Record], references: Sequence[Reference]) -> list[Picture]:
    """Every plot that these records have figures for."""
    found, above = series(contents), subtitle(contents)
    plots = [_throughput(found, references), _per_user(found, references), _latency(found)]
    return [_drawn(plot, above) for plot in (*plots, *([_power(found)] if has_power(found) else ()))]


def has_power(all_series: Sequence[Series]) -> bool:
    """Whether the power of a GPU was measured."""
    return any(record.values(one.points, "power_w.mean") for one in all_series)


def _drawn(plot: Plot, above: str) -> Picture:
    """Draw a plot, with a line of text above it."""
    # A name may have letters that the font lacks; matplotlib draws a box and warns each time.
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure = Figure(figsize=(WIDTH, plot.height), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        panels = list(figure.subplots(plot.panels, 1, sharex=plot.panels > 1, squeeze=False)[:, 0])
        plot.draw(panels)
        figure.suptitle(_label(above, LONGEST_ABOVE), x=0.008, ha="left", fontsize=10, color=QUIET)
        _legend(figure, panels)
        for panel in panels:
            _write_notes(figure, panel)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", metadata={"Software": None})
    return Picture(plot.name, plot.title, plot.says, stream.getvalue())


def _legend(figure: Any, panels: Iterable[Any]) -> None:
    """One legend for all panels, below them, where it covers nothing: first what was measured, then lines beside it."""
    entries: dict[str, Any] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels()):
            entries.setdefault(label, handle)
    labels = sorted(entries, key=lambda label: not isinstance(entries[label], tuple))  # an errorbar is a tuple
    columns = 1 if len(labels) < 3 or max(map(len, labels)) > LONGEST_OF_TWO else 2
    look: dict[str, Any] = {"frameon": False, "fontsize": 10, "handlelength": 3.5}
    figure.legend([entries[label] for label in labels], labels, loc="outside lower left", ncols=columns, **look)
    figure.set_figheight(figure.get_figheight() + max(0, len(labels) / columns - 3) * LINE)


def _note(panel: Any, text: str, x: float, y: float, colour: str) -> None:
    """Remember a short text beside a point; it is written once everything else is in its place."""
    panel.gpunode_notes = [*getattr(panel, "gpunode_notes", []), (text, x, y, colour)]


def _dots(panel: Any, note: tuple[str, float, float, str]) -> Any:
    """Where the point of a note lies in the picture."""
    return panel.transData.transform(note[1:3])


#: Where a note may stand beside its point, in dots: to the right above, then the other corners.
_CORNERS = ((7, 6, "left"), (-7, 6, "right"), (7, -14, "left"), (-7, -14, "right"))


def _write_notes(figure: Any, panel: Any) -> None:
    """Write each note where it covers neither a point nor another note and stays within its panel, or not at all."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    within = panel.get_window_extent(renderer)
    notes = getattr(panel, "gpunode_notes", [])
    taken = [Bbox.from_extents(x, y, x, y).padded(MARK) for x, y in (_dots(panel, note) for note in notes)]
    for text, x, y, colour in notes:
        for right, up, side in _CORNERS:
            look = {"ha": side, "color": colour, "fontsize": 9, "bbox": {"fc": "white", "ec": "none", "pad": 0.5}}
            written = panel.annotate(text, (x, y), (right, up), textcoords="offset points", **look)
            written.set_in_layout(False)
            box = written.get_window_extent(renderer).padded(2)
            inside = within.containsx(box.x0) and within.containsx(box.x1) and within.containsy(box.y0)
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            written.remove()


def _number(value: float, _position: int = 0) -> str:
    return f"{value:,.0f}".replace(",", " ") if value >= 10 or value == int(value) else f"{value:g}"


def _from_zero(panel: Any) -> None:
    """Both axes from 0, with room for numbers at the other ends."""
    panel.set_xlim(0, max(1.0, panel.dataLim.x1) * 1.08)
    panel.set_ylim(0, max(1.0, panel.dataLim.y1) * 1.08)


def _look(at: int) -> dict[str, Any]:
    """How the series of this number looks."""
    return {"color": COLOURS[at % len(COLOURS)], "marker": MARKS[at % len(MARKS)]}


def _by_concurrency(panel: Any, all_series: Sequence[Series]) -> None:
    """An axis with a mark at each concurrency that was measured, where there is room for its number."""
    found = sorted({int(point["concurrency"]) for one in all_series for point in one.points}) or [1]
    ticks = [found[0]]
    for at in found[1:]:
        if at / ticks[-1] >= max(1.3, (found[-1] / found[0]) ** (1 / 16)):
            ticks.append(at)
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_locator(FixedLocator(ticks))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(_number))
    panel.set_xlim(found[0] / 1.25, found[-1] * 1.25)


def _middles(points: Iterable[Point], name: str) -> tuple[list[int], list[float], list[tuple[float, float]]]:
    """Concurrencies, the medians of a figure, and its lowest and highest repeat there."""
    found = {at: record.values(repeats, name) for at, repeats in record.by_concurrency(points).items()}
    found = {at: values for at, values in found.items() if values}
    middle = [
        record.middle(repeats, name) or 0.0 for at, repeats in record.by_concurrency(points).items() if at in found
    ]
    return list(found), middle, [(min(values), max(values)) for values in found.values()]


def _line(panel: Any, points: Iterable[Point], name: str, **look: Any) -> None:
    """A line through the medians, with a bar from the lowest to the highest repeat."""
    at, middle, ranges = _middles(points, name)
    if at:
        below = [value - low for value, (low, _high) in zip(middle, ranges)]
        above = [high - value for value, (_low, high) in zip(middle, ranges)]
        panel.errorbar(at, middle, yerr=(below, above), capsize=3, elinewidth=1.2, **look)


def _throughput(all_series: Sequence[Series], references: Sequence[Reference]) -> Plot:
    title = "Throughput against concurrency"

    def draw(panels: Sequence[Any]) -> None:
        (panel,) = panels
        _by_concurrency(panel, all_series)
        for at, one in enumerate(all_series):
            _line(panel, one.points, "output_tokens_per_s", label=one.label, **_look(at))
        # MLPerf's figures of eight GPUs say nothing on this axis; the plot per GPU has them.
        guide = [reference for reference in references if reference.source == "guide"]
        for at, reference in enumerate(guide):
            label = _label(f"{reference.title}: {reference.model}, {reference.hardware}, vLLM 0.5")
            panel.axhline(reference.output_tokens_per_s, color=QUIET, lw=1.4, ls=_REFERENCE_DASHES[at % 6], label=label)
        panel.set(title=title, xlabel="concurrency (requests at once)", ylabel="output tokens/s (whole instance)")
        panel.yaxis.set_major_formatter(FuncFormatter(_number))
        panel.set_ylim(bottom=0)

    says = "Output tokens per second against requests at once; bars reach from the lowest to the highest repeat."
    return Plot("throughput", title, says, 5.8, 1, draw)


def _rates(one: Series) -> list[tuple[int, float, float]]:
    """Concurrency, tokens/s that a user gets, and tokens/s of a GPU (of the node where there is none)."""
    rates = []
    for at, repeats in record.by_concurrency(one.points).items():
        tpot, rate = record.middle(repeats, "tpot_ms.p50"), record.middle(repeats, "output_tokens_per_s")
        if tpot and rate:
            rates.append((at, 1000 / tpot, rate / max(1, one.gpus)))
    return rates


def _per_user(all_series: Sequence[Series], references: Sequence[Reference]) -> Plot:
    title = "Throughput per user against throughput per GPU"
    where = "GPU" if any(one.gpus for one in all_series) else "node, which has no GPU"

    def draw(panels: Sequence[Any]) -> None:
        (panel,) = panels
        for at, one in enumerate(all_series):
            rates = _rates(one)
            panel.plot([x for _at, _y, x in rates], [y for _at, y, _x in rates], label=one.label, **_look(at))
            for concurrency, y, x in rates:
                _note(panel, _number(concurrency), x, y, COLOURS[at % len(COLOURS)])
        for at, reference in enumerate(references):
            other = "" if reference.source == "guide" else ", another load"
            label = _label(f"{reference.title}: {reference.hardware}, per GPU{other}")
            panel.axvline(reference.per_gpu, color=QUIET, lw=1.4, ls=_REFERENCE_DASHES[at % 6], label=label)
        panel.set(
            title=title, xlabel=f"output tokens/s per {where}", ylabel="tokens/s per user (1000 / median TPOT in ms)"
        )
        panel.xaxis.set_major_formatter(FuncFormatter(_number))
        _from_zero(panel)

    says = "Each point is a concurrency, and has its number. Up is faster for a user, right is more work of a GPU."
    return Plot("per-user", title, says, 6.2, 1, draw)


_LATENCIES = (("ttft_ms", "time to first token", "TTFT"), ("itl_ms", "time between tokens", "ITL"))


def _latency(all_series: Sequence[Series]) -> Plot:
    title = "Latency against concurrency"

    def draw(panels: Sequence[Any]) -> None:
        for panel, (name, words, short) in zip(panels, _LATENCIES):
            _by_concurrency(panel, all_series)
            panel.set_yscale("log")
            for at, one in enumerate(all_series):
                for which, more in (("p50", {"ls": "-"}), ("p99", {"ls": "--", "mfc": "white"})):
                    look = {**_look(at), **more, "label": f"{one.label}: {which}"}
                    _line(panel, one.points, f"{name}.{which}", **look)
            for goal in sorted({float(one.goals[name]) for one in all_series if one.goals.get(name)}):
                panel.axhline(goal, color=QUIET, lw=1.4, ls=":", label=f"goal: {short} {_number(goal)} ms")
            panel.set(title=f"{words.capitalize()} ({short})", ylabel=f"{short} (ms)")
            panel.yaxis.set_major_formatter(FuncFormatter(_number))
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_minor_locator(NullLocator())
        panels[-1].set_xlabel("concurrency (requests at once)")

    says = "The median and the 99th percentile of the time to the first token, and of the time between two tokens."
    return Plot("latency", title, says, 8.4, 2, draw)


def _power(all_series: Sequence[Series]) -> Plot:
    title = "GPU power and tokens per joule"

    def draw(panels: Sequence[Any]) -> None:
        measured = [(at, one) for at, one in enumerate(all_series) if has_power([one])]
        for panel in panels:
            _by_concurrency(panel, [one for _at, one in measured])
        for at, one in measured:
            _line(panels[0], one.points, "power_w.mean", label=one.label, **_look(at))
            _line(panels[1], one.points, "tokens_per_joule", label=one.label, **_look(at))
        for limit in sorted({one.power_limit_w for _at, one in measured if one.power_limit_w}):
            panels[0].axhline(limit, color=QUIET, lw=1.4, ls="--", label=f"power limit: {_number(limit)} W")
        panels[0].set(title="Mean power of the GPUs", ylabel="power (W)")
        panels[1].set(title="Output tokens per joule", ylabel="tokens/J", xlabel="concurrency (requests at once)")
        for panel in panels:
            panel.set_ylim(bottom=0)

    says = "Mean power of the instance's GPUs together, and output tokens per joule of it."
    return Plot("power", title, says, 7.6, 2, draw)


def of_tune(content: Record) -> list[Picture]:
    """The frontier of throughput against latency over all points of all candidates."""
    rates = candidate_rates(content)
    kinds = _kinds(content)
    refused = kinds[-1][-1]
    best = frontier([(x, y) for number, x, y in rates if number not in refused])
    where = "GPU" if content["node"]["gpus"] else "node, which has no GPU"
    title = "Throughput against latency of every candidate"

    def draw(panels: Sequence[Any]) -> None:
        (panel,) = panels
        panel.plot(
            *(zip(*sorted(best)) if best else ((), ())), color="#AAAAAA", lw=1.4, label="frontier: nothing is better"
        )
        for label, colour, mark, numbers in kinds:
            mine = [(x, y) for number, x, y in rates if number in numbers]
            if mine:
                panel.scatter(
                    *zip(*mine), color=colour, marker=mark, s=60, zorder=3, label=_label(label, LONGEST_OF_TWO)
                )
        for number, x, y in sorted(rates, key=lambda rate: rate[1:] not in best):
            _note(panel, str(number), x, y, "#333333")
        panel.set(
            title=title, xlabel="median time per output token, TPOT p50 (ms)", ylabel=f"output tokens/s per {where}"
        )
        panel.yaxis.set_major_formatter(FuncFormatter(_number))
        _from_zero(panel)

    says = "Each point is a candidate at a concurrency, and has its number in the table. Left and up is better."
    return [_drawn(Plot("frontier", title, says, 6.2, 1, draw), ", ".join(summary.parts(content)))] if rates else []


def _kinds(content: Record) -> list[tuple[str, str, str, set[int]]]:
    """Label, colour, mark, and the numbers of the candidates that have them; those that may not win come last."""

    def numbers(holds: Callable[[Mapping[str, Any]], bool]) -> set[int]:
        return {number for number, one in enumerate(content["candidates"], 1) if holds(one)}

    best = numbers(lambda one: one["name"] == content.get("best"))
    base = numbers(lambda one: one["name"] == content.get("baseline")) - best
    refused = numbers(lambda one: one["state"] != "measured") - best - base
    return [
        ("other candidates", QUIET, "o", numbers(lambda one: True) - best - base - refused),
        (f"baseline: {content.get('baseline')}", COLOURS[0], "s", base),
        (f"best: {content.get('best')}", COLOURS[1], "^", best),
        ("refused or failed", QUIET, "x", refused),
    ]


def candidate_rates(content: Record) -> list[tuple[int, float, float]]:
    """The number of a candidate, its median TPOT in ms, and its tokens/s per GPU, at each concurrency."""
    rates = []
    for number, candidate in enumerate(content["candidates"], 1):
        options = {**(content["engine"].get("options") or {}), **(candidate.get("options") or {})}
        gpus = max(1, record.used(options, content["node"]["gpus"]))
        for repeats in record.by_concurrency(candidate.get("points") or ()).values():
            tpot, rate = record.middle(repeats, "tpot_ms.p50"), record.middle(repeats, "output_tokens_per_s")
            if tpot is not None and rate is not None:
                rates.append((number, tpot, rate / gpus))
    return rates


def frontier(points: Sequence[tuple[float, float]]) -> set[tuple[float, float]]:
    """The points (latency, throughput) than which no other is better in both."""
    return {(x, y) for x, y in points if not any(a <= x and b >= y and (a, b) != (x, y) for a, b in points)}
