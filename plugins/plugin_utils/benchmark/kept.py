# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept on the controller of records that nodes returned: themselves, their reports, and how they compare."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...module_utils.node.schema import numbered
from ..screen import text as screen_text
from . import compare, plots, record, report, summary
from .compare import Comparison
from .record import Record


@dataclass(frozen=True)
class Kept:
    """The files of a report by their names, and what the screen shows of it.

    Sentences, or empty: ``problem`` says why the records cannot be compared with the earlier one, ``slower`` what has
    become slower.
    """

    files: Mapping[str, bytes] = field(default_factory=dict)
    comparison: Mapping[str, Any] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    problem: str = ""
    slower: str = ""

    def text(self, folder: str) -> list[str]:
        """The lines for the screen; the last ones name the pages in ``folder``."""
        pages = [f"Report: {os.path.join(folder, name)}" for name in self.files if name.endswith(".html")]
        return [*self.lines, *(hints() if pages else []), *pages]


def earlier(path: str, profiles: Sequence[str] = ()) -> Record | None:
    """The record to compare with, None for an empty path.

    Args:
        path: its file on the controller.
        profiles: what will be measured; none if that is not known.
    Raises:
        ValueError: there is no such record, or none of the profiles is its own.
    """
    if not path:
        return None
    content = record.read(path)
    if record.is_tune(content):
        raise ValueError(f"{path} is the record of a tune: name the record of a benchmark to compare with.")
    profile = content["profile"]["name"]
    if profiles and profile not in profiles:
        raise ValueError(
            f"{path} was measured with the profile {profile}, and now {', '.join(profiles)} would be: measure {profile}"
            " too, or name another record to compare with."
        )
    return content


def check_folder(folder: str) -> None:
    """Raise ValueError if no file can be written there. The folder need not exist."""
    place = os.path.abspath(folder)
    while not os.path.exists(place):
        place = os.path.dirname(place)
    if not os.path.isdir(place):
        raise ValueError(f"{folder} cannot hold reports: {place} is no folder.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"{folder} cannot hold reports: you may not write in {place}.")


def hints() -> list[str]:
    """What is needed to get all of a report."""
    return screen_text.wrapped(plots.MISSING) if plots.MISSING else []


def contents(given: Sequence[Any]) -> list[Record]:
    """The records themselves: those that a node returned, and those that are named by their paths."""
    found = [
        record.read(os.path.expanduser(one)) if isinstance(one, str) else record.checked(one, f"record {number}")
        for number, one in enumerate(given, 1)
    ]
    (name, times), *_rest = Counter(str(content["id"]) for content in found).most_common(1) or [("", 0)]
    if times > 1:
        raise ValueError(f"{times} records have the id {name}, and one file cannot hold them.")
    return found


def record_files(given: Sequence[Any]) -> dict[str, bytes]:
    """The files of the records that a node returned. Those that are named by their paths have one."""
    returned = [one for one in given if isinstance(one, Mapping)]
    return {
        f"{one['id']}.json": (json.dumps(numbered(one), indent=1, ensure_ascii=False) + "\n").encode("utf-8", "replace")
        for one in returned
    }


def made(found: Sequence[Record], before: Record | None) -> Kept:
    """The reports of records: one page for all benchmarks, and one for each tune."""
    tunes = [content for content in found if record.is_tune(content)]
    benchmarks = [content for content in found if not record.is_tune(content)]
    comparison, problem = None, ""
    if before and benchmarks:
        benchmarks.sort(key=lambda content: -_alike(content, before))
        try:
            comparison = compare.compare(before, benchmarks[0])
        except ValueError as error:
            problem = str(error)
    pages = [report.of_records(benchmarks, before if comparison else None, comparison)] if benchmarks else []
    lines = [line for content in found for line in (*summary.lines(content), "")]
    return Kept(
        files={name: data for page in (*pages, *map(report.of_tune, tunes)) for name, data in page.items()},
        comparison=comparison.data() if comparison else {},
        lines=(*lines, *((*compare.lines(comparison), "") if comparison else ())),
        problem=problem,
        slower=_slower(comparison) if comparison else "",
    )


def _alike(content: Record, before: Record) -> int:
    """How much a record is like the one before it: the profile counts more than the instance."""
    same_profile: bool = content["profile"]["name"] == before["profile"]["name"]
    return 2 * int(same_profile) + int(summary.name(content) == summary.name(before))


def _slower(comparison: Comparison) -> str:
    """A sentence on what is slower, empty if nothing is."""
    found = sorted(comparison.slower(), key=lambda change: -abs(change.change))
    if not found:
        return ""
    titles = {metric.name: metric.title for metric in compare.METRICS}
    worst, more = found[0], len(found) - 1
    return (
        f"Slower than {comparison.earlier} beyond noise: {titles[worst.metric]} at concurrency {worst.concurrency} was"
        f" {summary.shown(worst.before, 1)} and is {summary.shown(worst.after, 1)} ({worst.change:+.1%}, noise"
        f" {worst.noise:.1%}){f'; {more} more like it' if more else ''}."
    )
