# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What begins alike goes to the same engine: its own counters of the prefix cache say so, against round robin."""

from __future__ import annotations

import random

from clients import WORDS, Front, beginning, steady_load
from conftest import CHANGE, FLEET, KEY, counter, note, ready, site
from scenario import wait_until

CONVERSATIONS, TURNS = 8, 6


def hits() -> tuple[float, float]:
    """Tokens that engines looked up in their caches so far, and those that they found there."""
    names = ("prefix_cache_queries_total", "prefix_cache_hits_total")
    queries, found = (sum(counter(node, name) for node in FLEET) for name in names)
    return queries, found


def share_of_hits(front: Front) -> float:
    """Of some conversations that grow, each turn with all that came before, by turns."""
    client, draw = front.client(KEY), random.Random()
    texts = [beginning(draw, 200) for _conversation in range(CONVERSATIONS)]
    before = hits()
    for _turn in range(TURNS):
        # In an order of their own each time, or turns and engines go together by chance.
        draw.shuffle(texts)
        for at, text in enumerate(texts):
            client.completions.create(model="tiny", prompt=text, max_tokens=1)
            texts[at] = f"{text} {' '.join(draw.choices(WORDS, k=40))}"
    queries, found = (after - earlier for after, earlier in zip(hits(), before, strict=True))
    assert queries > 0
    return found / queries


def test_the_same_beginning_goes_to_the_same_engine(front: Front) -> None:
    aware = share_of_hits(front)
    # The router's own change loses nothing either.
    with steady_load(front, KEY) as load:
        result = site(**CHANGE, router_policy="round_robin")
    assert result.status == 0, result.text[-3000:]
    assert load.failed == []
    wait_until(lambda: all(ready(node) for node in FLEET))
    by_turns = share_of_hits(front)
    note(f"of the tokens of prompts, {aware:.0%} were in the cache with cache_aware, {by_turns:.0%} with round_robin")
    assert aware > by_turns + 0.1
    back = site(**CHANGE)
    assert back.status == 0, back.text[-3000:]
