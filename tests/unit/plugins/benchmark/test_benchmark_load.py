# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The requests of a profile: the same from the same seed, of the lengths that it says, sharing what it says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.benchmark import load
from ansible_collections.gpunode.llm.plugins.module_utils.benchmark.load import LoadError, Request
from ansible_collections.gpunode.llm.plugins.plugin_utils.benchmark import profiles
from hypothesis import given, settings, strategies as st

VOCABULARY = 128_256
PLAIN = {"prompt_tokens": 40, "output_tokens": 8}
AGENT = {"prefix_tokens": 20, "turns": 4, "prompt_tokens": 6, "output_tokens": 3}


def drawn(profile: Any, count: int = 12, seed: int = 1, vocabulary: int = VOCABULARY) -> list[Request]:
    return load.requests(profile, count, seed, vocabulary)


@pytest.mark.parametrize("name", profiles.catalog())
def test_same_seed_same_requests_and_another_seed_others(name: str) -> None:
    profile = profiles.catalog()[name]
    assert drawn(profile) == drawn(profile)
    first, second = drawn(profile), drawn(profile, seed=2)
    assert not {tuple(one.prompt) for one in first} & {tuple(one.prompt) for one in second}


def test_plain_requests_are_as_long_as_the_profile_says_and_share_nothing() -> None:
    requests = drawn(PLAIN)
    assert {(one.prompt_tokens, one.output_tokens) for one in requests} == {(40, 8)}
    assert len({tuple(one.prompt[:4]) for one in requests}) == 12


def test_shared_prefixes_are_as_many_as_the_profile_says() -> None:
    requests = drawn({**PLAIN, "prefix_tokens": 10, "prefixes": 3})
    starts = [tuple(one.prompt[:10]) for one in requests]
    assert len(set(starts)) == 3
    assert starts[:3] == starts[3:6]
    assert len({tuple(one.prompt[10:]) for one in requests}) == 12
    assert {one.prompt_tokens for one in requests} == {50}


def test_turns_grow_by_the_answer_before_and_what_is_new() -> None:
    """Twelve requests are three conversations of four turns: first all first turns."""
    requests = drawn(AGENT)
    assert [one.prompt_tokens for one in requests] == [26] * 3 + [35] * 3 + [44] * 3 + [53] * 3
    for before, after in zip(requests, requests[3:]):
        assert after.prompt[: before.prompt_tokens] == before.prompt
    assert len({tuple(one.prompt[:20]) for one in requests}) == 1
    assert len({tuple(one.prompt[20:26]) for one in requests}) == 3


@pytest.mark.parametrize("count", [1, 3, 5])
def test_fewer_requests_than_turns_are_one_conversation(count: int) -> None:
    requests = drawn({**AGENT, "turns": 5}, count)
    assert [one.prompt_tokens for one in requests] == [26 + 9 * turn for turn in range(count)]


@settings(max_examples=40, deadline=None)
@given(
    mean=st.integers(8, 2000),
    sigma=st.floats(0.1, 1.5),
    room=st.floats(1.5, 20),
    count=st.integers(8, 400),
    seed=st.integers(0, 2**40),
)
def test_long_tailed_lengths_have_the_mean_of_the_profile(
    mean: int, sigma: float, room: float, count: int, seed: int
) -> None:
    most = int(mean * room)
    profile = {**PLAIN, "prompt_tokens": 1, "output_tokens": {"mean": mean, "sigma": sigma, "most": most}}
    lengths = [one.output_tokens for one in drawn(profile, count, seed)]
    assert sum(lengths) / count == pytest.approx(mean, rel=0.03, abs=0.5)
    assert min(lengths) >= 4
    assert max(lengths) <= most


def test_mean_that_no_length_can_have_is_tried_and_left() -> None:
    profile = {**PLAIN, "output_tokens": {"mean": 2, "sigma": 1.0, "most": 8}}
    assert {one.output_tokens for one in drawn(profile)} == {4}


def test_lengths_of_a_long_tail_differ() -> None:
    lengths = [one.prompt_tokens for one in drawn(profiles.catalog()["guide"], 1000)]
    assert max(lengths) > 2 * 215 > 3 * min(lengths)


@pytest.mark.parametrize("vocabulary", [2, 16, 500, 1000, 1200, 32_000, VOCABULARY])
def test_tokens_are_of_the_vocabulary_and_not_of_its_ends(vocabulary: int) -> None:
    """At the ends are the special ones: an image's placeholder without an image ends some engines."""
    requests = drawn({**PLAIN, "prompt_tokens": 2000}, 4, vocabulary=vocabulary)
    tokens = {token for one in requests for token in one.prompt}
    assert min(tokens) >= (300 if vocabulary > 1000 else min(vocabulary // 4, 1))
    assert max(tokens) <= max(1, vocabulary * 9 // 10)


@pytest.mark.parametrize("name", profiles.catalog())
def test_no_request_is_longer_than_the_longest(name: str) -> None:
    profile = profiles.catalog()[name]
    longest = max(one.prompt_tokens + one.output_tokens for one in drawn(profile, 40))
    assert longest <= load.longest(profile)
    if not isinstance(profile["prompt_tokens"], dict):
        assert longest == load.longest(profile)


def test_own_requests_are_kept_as_they_are_and_repeated_in_another_order() -> None:
    rows = load.read_rows([json.dumps({"prompt": f"question {number}", "output_tokens": 5}) for number in range(9)])
    once = load.requests({}, 9, 1, 0, rows)
    assert sorted(one.prompt for one in once) == [f"question {number}" for number in range(9)]
    assert once == load.requests({}, 9, 1, 0, rows) != load.requests({}, 9, 2, 0, rows)
    more = load.requests({}, 20, 1, 0, rows)
    assert len(more) == 20
    assert {one.prompt for one in more} == {one.prompt for one in rows}
    assert more[0].prompt_tokens == 0


def test_rows_are_read_and_empty_lines_skipped() -> None:
    assert load.read_rows(['{"prompt": "Hello", "output_tokens": 3, "more": 1}', " ", ""]) == [Request("Hello", 3)]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("Hello", "Line 2 is not a request such as"),
        ('{"prompt": "Hello"}', "'output_tokens'"),
        ('["Hello", 3]', "TypeError"),
        ('{"prompt": "Hello", "output_tokens": "many"}', "Line 2 is not a request"),
        ('{"prompt": "Hello", "output_tokens": 1e999}', "Line 2 is not a request"),
        ('{"prompt": "", "output_tokens": 3}', "Line 2 must have a prompt"),
        ('{"prompt": ["Hello"], "output_tokens": 3}', "Line 2 must have a prompt, which is text"),
        ('{"prompt": "Hello", "output_tokens": 0}', "output_tokens of 1 or more"),
    ],
)
def test_line_that_is_no_request_is_named(line: str, says: str) -> None:
    with pytest.raises(LoadError, match="Line 2") as refused:
        load.read_rows(['{"prompt": "Hello", "output_tokens": 3}', line])
    assert says in str(refused.value)


def test_file_without_requests_is_refused() -> None:
    with pytest.raises(LoadError, match="It has no request"):
        load.read_rows(["", "  "])
