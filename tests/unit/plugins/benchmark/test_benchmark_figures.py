# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The figures of a point: percentiles as numpy has them, rates from the first request to the last token."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.benchmark import figures
from ansible_collections.gpunode.llm.plugins.module_utils.benchmark.figures import Part
from hypothesis import given, settings, strategies as st

METRICS = """# HELP vllm:request_success_total Count of successfully processed requests.
# TYPE vllm:request_success_total counter
vllm:request_success_total{engine="0",finished_reason="stop",model_name="8b"} 3.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="8b"} 40.0
vllm:request_success_total{engine="1",finished_reason="length",model_name="8b"} 7.0
vllm:request_success_created{engine="0",finished_reason="stop",model_name="8b"} 1.79e+09
vllm:num_preemptions_total{engine="0"} 2.0
vllm:prefix_cache_hits_total{engine="0"} 1.5e+06
vllm:external_prefix_cache_hits_total{engine="0"} 99.0
vllm:num_requests_running{engine="0"} 4.0
vllm:num_requests_waiting{engine="0"} 1.0
vllm:gpu_cache_usage_perc{engine="0"} NaN
python_info 1.0
"""


def part(*rows: tuple[float, int, int, float, list[float], str], **more: Any) -> Part:
    """Rows: start, prompt and answer in tokens, time to the first one, times between tokens, error."""
    columns = [list(column) for column in zip(*rows)] or [[], [], [], [], [], []]
    return Part(**{"started": 0.0, "ended": 10.0, "cpu_s": 2.0, **more}, **dict(zip(NAMES, columns)))


NAMES = ("start_times", "input_lens", "output_lens", "ttfts", "itls", "errors")
GOOD = (100.0, 20, 5, 0.2, [0.1, 0.1, 0.1, 0.1], "")
SLOW = (101.0, 30, 11, 1.0, [0.2] * 10, "")
ONE = (100.5, 10, 1, 0.5, [], "")
BAD = (90.0, 40, 0, 0.0, [], "Traceback\n  File x\nOSError: refused\n\n")


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60))
def test_percentiles_are_those_of_numpy(values: list[float]) -> None:
    found = figures.percentiles(values, 1)
    assert found is not None
    for share in figures.PERCENTILES:
        assert found[f"p{share}"] == pytest.approx(numpy.percentile(values, share), abs=0.001)
    assert found["mean"] == pytest.approx(numpy.mean(values), abs=0.001)
    assert found["max"] == pytest.approx(max(values), abs=0.001)


def test_percentiles_are_in_milliseconds_and_none_of_nothing() -> None:
    assert figures.percentiles([]) is None
    assert figures.percentiles([0.25]) == dict.fromkeys(
        ("mean", "p1", "p5", "p10", "p25", "p50", "p75", "p90", "p95", "p99", "max"), 250.0
    )


def test_counters_are_summed_over_engines_and_reasons() -> None:
    assert figures.counters(METRICS) == {
        **{"finished": 50.0, "preemptions": 2.0, "cached_prompt_tokens": 1_500_000.0},
        **{"running": 4.0, "waiting": 1.0},
    }
    assert figures.counters("") == {}


def test_point_counts_what_all_processes_saw() -> None:
    found = figures.point([part(GOOD, BAD), part(SLOW, ONE)], {})
    assert (found["requests"], found["completed"], found["failed"]) == (4, 3, 1)
    # From the first good request, at 100, to the last token, at 101 + 1 + 2.
    assert found["duration_s"] == 4.0
    assert (found["input_tokens"], found["output_tokens"]) == (60, 17)
    assert (found["output_tokens_per_s"], found["total_tokens_per_s"]) == (4.25, 19.25)
    assert found["requests_per_s"] == 0.75
    assert found["goodput_requests_per_s"] is None
    assert found["errors"] == ["OSError: refused"]


def test_point_has_the_times_of_good_requests_alone() -> None:
    found = figures.point([part(GOOD, BAD, SLOW, ONE)], {})
    assert (found["ttft_ms"]["p50"], found["ttft_ms"]["max"]) == (500.0, 1000.0)
    # Of an answer of one token there is no time between tokens.
    assert (found["tpot_ms"]["mean"], found["tpot_ms"]["max"]) == (150.0, 200.0)
    assert found["itl_ms"]["max"] == 200.0
    assert found["e2e_ms"]["max"] == 3000.0


def test_tokens_that_come_together_count_each() -> None:
    """With speculation a chunk has several tokens: five of them in two chunks."""
    found = figures.point([part((0.0, 1, 5, 0.1, [0.4], ""))], {})
    assert found["tpot_ms"]["mean"] == 100.0
    assert found["itl_ms"]["mean"] == 400.0


@pytest.mark.parametrize(
    ("goals", "good"),
    [
        ({"ttft_ms": 500.0}, 2),
        ({"ttft_ms": 499.0}, 1),
        ({"itl_ms": 100.1}, 2),
        ({"ttft_ms": 300.0, "itl_ms": 100.1}, 1),
        ({"ttft_ms": 1.0}, 0),
        ({"ttft_ms": 5000.0, "itl_ms": 5000.0}, 3),
    ],
)
def test_goodput_counts_requests_within_all_goals(goals: dict[str, float], good: int) -> None:
    assert figures.point([part(GOOD, SLOW, ONE, BAD)], goals)["goodput_requests_per_s"] == good / 4


def test_nothing_completed() -> None:
    found = figures.point([part(BAD)], {"ttft_ms": 1.0})
    assert (found["requests"], found["completed"], found["duration_s"]) == (1, 0, 0.0)
    assert (found["output_tokens_per_s"], found["goodput_requests_per_s"]) == (0.0, 0.0)
    assert [found[name] for name in ("ttft_ms", "tpot_ms", "itl_ms", "e2e_ms")] == [None] * 4


def test_errors_are_told_once_and_a_few_of_them() -> None:
    rows = [(0.0, 1, 0, 0.0, [], f"{number % 7} was wrong{'!' * 400}") for number in range(40)]
    errors = figures.point([part(*rows)], {})["errors"]
    assert len(errors) == figures.ERRORS
    assert errors[0].startswith("0 was wrong!")
    assert max(map(len, errors)) == 300
    assert figures.point([part((0.0, 1, 0, 0.0, [], " \n "))], {})["errors"] == ["no reason was given"]


def test_client_share_is_that_of_its_busiest_process() -> None:
    parts = [part(started=0.0, ended=10.0, cpu_s=2.0), part(started=5.0, ended=10.0, cpu_s=4.5)]
    assert figures.client(parts) == {"client_cpu_s": 6.5, "client_cpu_share": 0.9}
    assert figures.client([]) == {"client_cpu_s": 0, "client_cpu_share": 0.0}


def test_engine_counts_what_was_not_ours() -> None:
    before = {"finished": 10.0, "preemptions": 1.0, "cached_prompt_tokens": 5.0, "drafted": 100.0, "accepted": 50.0}
    after = {"finished": 25.0, "preemptions": 4.0, "cached_prompt_tokens": 70.0, "drafted": 300.0, "accepted": 110.0}
    assert figures.engine(before, after, 12) == {
        **{"others": 3, "preemptions": 3, "cached_prompt_tokens": 65, "acceptance_rate": 0.3},
    }
    assert figures.engine(before, after, 20)["others"] == 0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {}),
        # It did not say before, so all that it ever did would count.
        ({}, {"finished": 5000.0, "preemptions": 9.0, "cached_prompt_tokens": 8.0, "drafted": 10.0, "accepted": 9.0}),
        # It was started anew.
        ({"finished": 5000.0, "preemptions": 9.0}, {"finished": 3.0, "preemptions": 0.0}),
    ],
)
def test_engine_that_did_not_count_says_nothing(before: dict[str, float], after: dict[str, float]) -> None:
    assert figures.engine(before, after, 12) == {
        **{"others": 0, "preemptions": 0, "cached_prompt_tokens": 0, "acceptance_rate": None},
    }
