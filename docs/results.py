# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write docs/results.md from the records in docs/results: python docs/results.py"""

from __future__ import annotations

import runpy
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
PAGE = CHECKOUT / "docs" / "results.md"
# Lets this be run from a checkout as it is.
runpy.run_path(str(CHECKOUT / "tests" / "unit" / "conftest.py"))

from ansible_collections.gpunode.llm.plugins.plugin_utils.benchmark import record, references
from ansible_collections.gpunode.llm.plugins.plugin_utils.benchmark.record import Record

HEAD = """# Results

What was measured, beside the logs of the guide that this collection began with. Each line is a record of
`playbooks/benchmark.yml`'s client; the records, with every percentile, the options and the driver, are in
[docs/results](https://github.com/gpunode/llm/tree/main/docs/results).

The load is `guide` of `catalog/benchmarks.yml`: so many requests at once, with 215 prompt and 128 output tokens on
average. Weights are random, which changes answers and not speed. Output tokens per second of all GPUs together:

"""
REPEAT = """
## Repeat it

On a node of your own, with `site.yml` first:

```console
$ ansible-playbook gpunode.llm.benchmark -e benchmark_profiles=guide -e benchmark_repeats=3
```

[Speed that is measured](guides/speed.md) says how to find the options that are fastest on your GPUs.
"""


def records() -> list[Record]:
    return [record.read(str(path)) for path in sorted((CHECKOUT / "docs" / "results").glob("*.json"))]


def key_of(content: Record) -> tuple[str, str]:
    return references.model_of(content["model"]["repo_id"]), record.hardware(content)


def page() -> str:
    groups = groupby(sorted(records(), key=key_of), key_of)
    return HEAD + "\n".join(_lines((key, list(group)) for key, group in groups)) + "\n" + REPEAT


def _lines(groups: Iterator[tuple[tuple[str, str], list[Record]]]) -> Iterator[str]:
    for (model, hardware), group in groups:
        yield f"## `{model}` on {hardware}\n"
        yield from _table(group)
        guide = [one for one in references.of_models(group) if one.source == "guide"]
        figures = [f"{one.output_tokens_per_s:,.0f} on {one.hardware}" for one in guide]
        if figures:
            yield f"\nThe guide's logs, 1,000 at once: {', '.join(figures)}."
        yield ""


def _table(group: Sequence[Record]) -> Iterator[str]:
    counts = sorted({point["concurrency"] for one in group for point in one["points"]})
    yield f"| options | vLLM | {' | '.join(f'{count:,} at once' for count in counts)} | tokens/J |"
    yield f"|---|---|{'---:|' * (len(counts) + 1)}"
    for one in sorted(group, key=_rate):
        by_count = record.by_concurrency(one["points"])
        cells = [_number(record.middle(by_count.get(count, ()), "output_tokens_per_s"), 0) for count in counts]
        joule = _number(record.middle(by_count.get(one["profile"]["headline"], ()), "tokens_per_joule"), 1)
        yield f"| {one['label']} | {one['engine']['version']} | {' | '.join(cells)} | {joule} |"


def _rate(content: Record) -> float:
    by_count = record.by_concurrency(content["points"]).values()
    return max(record.middle(points, "output_tokens_per_s") or 0.0 for points in by_count)


def _number(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:,.{decimals}f}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
