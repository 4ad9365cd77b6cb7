# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The requests of a benchmark, from a profile of catalog/benchmarks.yml and a seed: the same seed gives the same.

A prompt is a list of random token IDs, so that neither side spends time on text and nothing but the profile decides
what the prefix cache can reuse. Rows of the user's own file stay text.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any, Iterable, Iterator, List, Mapping, Sequence, Union

#: The first token IDs of a vocabulary are often special ones, and the last ones too: a placeholder of an image that is
#: not there, or the end of a text.
FIRST_ID, LAST_SHARE = 300, 0.9
#: Of a vocabulary too small for that, as test models have.
SMALL = 1000
#: How close drawn lengths come to the mean that a profile says, and how often that is tried.
MEAN_WITHIN, ROUNDS = 0.01, 20


@dataclass(frozen=True)
class Request:
    """A prompt, as token IDs or text, and the number of tokens to generate."""

    prompt: Union[List[int], str]
    output_tokens: int

    @property
    def prompt_tokens(self) -> int:
        """Of a text unknown here: the engine counts them."""
        return len(self.prompt) if isinstance(self.prompt, list) else 0


class LoadError(ValueError):
    """A file of requests cannot be read. The message is for the user."""


def requests(
    profile: Mapping[str, Any], count: int, seed: int, vocabulary: int, rows: Sequence[Request] = ()
) -> List[Request]:
    """Draw ``count`` requests. ``rows``: the user's own, of which some are repeated if they are too few."""
    rng = random.Random(seed)
    if rows:
        return [row for row, _number in zip(_shuffled(rows, rng), range(count))]
    outputs = _lengths(profile["output_tokens"], count, rng)
    prompts = _lengths(profile["prompt_tokens"], count, rng)
    if profile.get("turns"):
        return _turns(profile, prompts, outputs, Tokens(rng, vocabulary))
    return _plain(profile, prompts, outputs, Tokens(rng, vocabulary))


class Tokens:
    """Draws random token IDs."""

    def __init__(self, rng: random.Random, vocabulary: int) -> None:
        self.rng = rng
        self.last = max(1, int(vocabulary * LAST_SHARE) - 1)
        self.first = FIRST_ID if vocabulary > SMALL else min(self.last, vocabulary // 4 + 1)

    def draw(self, count: int) -> List[int]:
        return [self.rng.randint(self.first, self.last) for _number in range(count)]


def _plain(profile: Mapping[str, Any], prompts: Sequence[int], outputs: Sequence[int], tokens: Tokens) -> List[Request]:
    length, prefixes = (int(profile.get(name) or least) for name, least in (("prefix_tokens", 0), ("prefixes", 1)))
    shared = [tokens.draw(length) for _prefix in range(prefixes)]
    return [
        Request(shared[number % len(shared)] + tokens.draw(length), output)
        for number, (length, output) in enumerate(zip(prompts, outputs))
    ]


def _turns(profile: Mapping[str, Any], prompts: Sequence[int], outputs: Sequence[int], tokens: Tokens) -> List[Request]:
    """Conversations that grow: each turn has what came before, an answer's worth of tokens, and a tool's result.

    All first turns come first, then all second ones. Where there are as many conversations as requests at once, a turn
    is so asked when the one before it has been answered.
    """
    turns = int(profile["turns"])
    shared = tokens.draw(int(profile.get("prefix_tokens") or 0))
    histories: List[List[int]] = [list(shared) for _conversation in range(max(1, -(-len(prompts) // turns)))]
    drawn: List[Request] = []
    for number, (length, output) in enumerate(zip(prompts, outputs)):
        history = histories[number % len(histories)]
        history += tokens.draw(length)
        drawn.append(Request(list(history), output))
        history += tokens.draw(output)
    return drawn


def _lengths(wanted: Any, count: int, rng: random.Random) -> List[int]:
    """All the same, or long-tailed around a mean: ``{mean, sigma, most}`` of a log-normal distribution."""
    if not isinstance(wanted, Mapping):
        return [int(wanted)] * count
    mean, most = float(wanted["mean"]), int(wanted["most"])
    sigma = float(wanted["sigma"])
    drawn = [min(most, max(1.0, mean * rng.lognormvariate(0, sigma))) for _number in range(count)]
    lengths, scale = [], mean * count / max(1.0, sum(drawn))
    # What is cut off at either end moves the mean.
    for _round in range(ROUNDS):
        lengths = [min(most, max(4, round(length * scale))) for length in drawn]
        off = mean * count / max(1, sum(lengths))
        if abs(off - 1) <= MEAN_WITHIN:
            break
        scale *= off
    return lengths


def longest(profile: Mapping[str, Any]) -> int:
    """The tokens of the profile's longest request, prompt and answer together."""
    prompt, output = (
        int(part["most"] if isinstance(part, Mapping) else part)
        for part in (profile["prompt_tokens"], profile["output_tokens"])
    )
    return int(profile.get("prefix_tokens") or 0) + (prompt + output) * int(profile.get("turns") or 1)


def read_rows(lines: Iterable[str]) -> List[Request]:
    """The user's own requests, one JSON object a line: ``{"prompt": TEXT, "output_tokens": NUMBER}``.

    Raises:
        LoadError: a line is not one.
    """
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            request = Request(row["prompt"], int(row["output_tokens"]))
        except (ValueError, KeyError, TypeError, OverflowError) as trouble:
            raise LoadError(
                f'Line {number} is not a request such as {{"prompt": "Hello", "output_tokens": 128}}: {trouble!r}.'
            ) from trouble
        if request.output_tokens < 1 or not request.prompt or not isinstance(request.prompt, str):
            raise LoadError(f"Line {number} must have a prompt, which is text, and output_tokens of 1 or more.")
        rows.append(request)
    if not rows:
        raise LoadError("It has no request.")
    return rows


def _shuffled(rows: Sequence[Request], rng: random.Random) -> Iterator[Request]:
    while True:
        again = list(rows)
        rng.shuffle(again)
        yield from again
