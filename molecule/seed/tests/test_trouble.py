# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens between the nodes when one of them, or the controller, does not do its part."""

from __future__ import annotations

import re

import pytest
from conftest import (
    FOLDER,
    REPO,
    SECRETS,
    SHARDS,
    ask,
    begin,
    clear,
    fetch,
    held,
    here,
    left,
    manifests,
    note,
    options,
    size,
    slow,
    unit,
)
from scenario import nodes, on_node, run_play, wait_until

#: Of the weights, in per cent: what a broken connection had under way. To begin again would be some fifty.
MOST_TWICE = 15.0


def wait_for(node: str, amount: float) -> None:
    """Until a node has so many bytes."""

    def there() -> bool:
        return here(node) > amount

    wait_until(there)


def test_a_follower_that_is_killed_goes_on(hub, late, seeder) -> None:
    """It came later, too: the others have everything, and the hub is not asked."""
    total, before = size(hub), left(seeder)
    hub.reset()
    with slow(seeder, "40mbit"), held([late], 0.3 * total):
        running = begin()
        wait_for(late, 0.3 * total)
        killed = here(late)
        on_node("systemctl kill -s KILL 'gpunode-weights-weights-*'", node=late)
    result = running.wait()
    assert result.status == 0, result.text[-3000:]
    assert len(manifests(late)) == 1
    assert re.findall(r"changed=(\d+)", result.text)[1] == "0"
    assert hub.sent() == {}
    twice = 100 * (left(seeder) - before - total) / total
    note(f"killed at {100 * killed / total:.0f} %; {twice:.1f} % more than the weights has left the seeder")
    assert killed < total
    assert twice < MOST_TWICE
    assert ask(seeder, late) == "refused"


def test_the_controller_is_killed(hub, late, seeder) -> None:
    """The follower goes on without it, and the next play attaches, with another password for the service."""
    total, before = size(hub), left(seeder)
    hub.reset()
    with slow(seeder, "40mbit"), held([late], 0.1 * total):
        running = begin()
        wait_for(late, 0.1 * total)
        running.kill()
        began = on_node(f"systemctl show -P InvocationID {unit(late)}", node=late)
        first = on_node(f"cat {SECRETS}", node=seeder)
        running = begin()

        def renewed() -> bool:
            return on_node(f"cat {SECRETS}", check=False, node=seeder) not in ("", first)

        wait_until(renewed)
        again = on_node(f"systemctl show -P InvocationID {unit(late)}", node=late)
        assert here(late) < total
    result = running.wait()
    assert result.status == 0, result.text[-3000:]
    assert again == began
    assert len(manifests(late)) == 1
    assert hub.sent() == {}
    note(f"{100 * (left(seeder) - before - total) / total:.1f} % more than the weights has left the seeder")
    assert 100 * (left(seeder) - before - total) / total < MOST_TWICE
    assert ask(seeder, late) == "refused"


# A bit of a shard, where the cache has it.
FLIP = """
path = '{path}'
with open(path, 'r+b') as stream:
    stream.seek(1000000)
    byte = stream.read(1)[0]
    stream.seek(1000000)
    stream.write(bytes([byte ^ 1]))
"""


def test_a_seeder_with_a_damaged_copy_is_named_and_mended(hub, late, seeder) -> None:
    flip = FLIP.format(path=f"$(ls {FOLDER}/snapshots/*/{SHARDS[1]})")
    on_node(f'python3 -c "{flip}"', node=seeder)
    result = fetch()
    assert result.status != 0
    assert f"{SHARDS[1]} of {REPO}: {seeder} sends bytes whose SHA-256 is" in result.words
    assert "Its copy is damaged: verify the weights there" in result.words
    assert manifests(late) == []
    assert ask(seeder, late) == "refused"

    limited = ("--limit", seeder)
    result = run_play("playbooks/verify.yml", *options(), *limited)
    assert result.status != 0
    assert f"{SHARDS[1]}: its bytes differ from the hub" in result.words
    hub.reset()
    result = run_play("playbooks/verify.yml", *options(huggingface_verify_mend=True), *limited)
    assert result.status == 0, result.text[-3000:]
    assert hub.sent() == {SHARDS[1]: hub.sizes(REPO)[SHARDS[1]]}
    hub.reset()
    result = fetch()
    assert result.status == 0, result.text[-3000:]
    assert hub.sent() == {}
    assert len(manifests(late)) == 1


@pytest.mark.parametrize(
    ("faults", "model", "message"),
    [
        pytest.param([], {"repo_id": "weights/none"}, "weights/none does not exist on", id="before it begins"),
        pytest.param(
            [{"kind": "wrong", "path": f"{SHARDS[1]}$", "times": -1}],
            {"repo_id": REPO},
            "the hub sends bytes whose SHA-256 is",
            id="on the way",
        ),
    ],
)
def test_whose_failure_it_was(hub, seeder, followers, faults, model, message) -> None:
    clear()
    hub.faults(*faults)
    result = fetch(case=model)
    assert result.status != 0
    for node in followers:
        last = result.words.partition(f"[{node}]: FAILED! =>")[2].partition("FAILED! =>")[0]
        assert f"{seeder}, which fetches {model['repo_id']} for this node, failed: " in last
        assert message in last
    assert all(manifests(node) == [] for node in nodes())
    assert ask(seeder, followers[0]) == "refused"
