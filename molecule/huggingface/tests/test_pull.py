# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A pull that is disturbed ends as one that is not, and fetches next to nothing twice."""

from __future__ import annotations

import subprocess

import pytest
from conftest import CONVERGE, HOLD, LINK, REPO, SHARDS, note
from scenario import LAB, nodes, on_node, wait_until

FILES = f"^/{REPO}/resolve/"
BALLAST = f"{FILES}.*/ballast"
#: Of all bytes, in per cent.
MOST_TWICE = 2.0


def arrived(pull, play) -> None:
    """The play went well, what is there is vouched for, and little of it came twice."""
    assert play.status == 0, play.text[-3000:]
    assert "main.json" not in pull.manifests()
    assert len([name for name in pull.manifests() if name.endswith(".json")]) == 1
    twice = pull.twice()
    note(f"{twice:.2f} % of {sum(pull.sizes().values()) / 1e6:.0f} MB sent twice")
    assert twice < MOST_TWICE


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_link_is_cut(pull, hub, share: float) -> None:
    hub.faults(LINK, {"kind": "cut", "path": BALLAST, "at": share, "times": len(SHARDS)})
    arrived(pull, pull.run())
    assert all(pull.gets(name) >= 2 for name in SHARDS)


def test_the_puller_is_killed(pull, hub) -> None:
    hub.faults({**HOLD, "at": 0.5})
    play = pull.begin()
    pull.wait_for(0.5)
    on_node(f"systemctl kill -s KILL {pull.unit()}")
    hub.let_go()
    ended = play.wait()
    arrived(pull, ended)
    assert all(pull.gets(name) == 2 for name in SHARDS)


def test_the_node_is_restarted(pull, hub) -> None:
    hub.faults({**HOLD, "at": 0.5})
    play = pull.begin()
    pull.wait_for(0.5)
    subprocess.run([LAB, "reboot", nodes()[0]], check=True, capture_output=True)
    hub.let_go()
    play.wait()
    arrived(pull, pull.run())
    assert all(pull.gets(name) == 2 for name in SHARDS)


def test_the_controller_is_killed(pull, hub) -> None:
    hub.faults({**HOLD, "at": 0.3})
    play = pull.begin()
    pull.wait_for(0.3)
    play.kill()
    began = on_node(f"systemctl show -P InvocationID {pull.unit()}")
    again = pull.begin()
    wait_until(lambda: "fetching " in again.output())
    assert on_node(f"systemctl show -P InvocationID {pull.unit()}") == began
    hub.let_go()
    arrived(pull, again.wait())
    assert all(pull.gets(name) == 1 for name in SHARDS)


STORMS = {
    "429 with Retry-After": {"status": 429, "retry_after": 1, "times": 6},
    "503": {"status": 503, "times": 6},
}


@pytest.mark.parametrize("storm", STORMS)
def test_a_storm_passes(pull, hub, storm: str) -> None:
    hub.faults({"kind": "status", "path": FILES, **STORMS[storm]})
    arrived(pull, pull.run())
    assert not any(fault["times"] for fault in hub.ask("faults"))


def test_a_storm_that_does_not_pass_is_the_message(pull, hub) -> None:
    hub.faults({"kind": "status", "path": BALLAST, "status": 503, "times": -1})
    play = pull.run(huggingface_attempts=2)
    assert play.status != 0
    assert "503" in play.text
    assert "2 attempts in a row" in play.words
    assert pull.manifests() == []


def test_the_hub_stalls(pull, hub) -> None:
    """Nothing comes any more and the connection stays; meanwhile all files are in flight, so memory is at its peak."""
    hub.faults({"kind": "stall", "path": BALLAST, "at": 0.9, "times": len(SHARDS)}, {**HOLD, "at": 0.95})
    play = pull.begin()
    pull.wait_for(0.95)
    peak = int(on_node(f"grep VmHWM /proc/$(systemctl show -P MainPID {pull.unit()})/status").split()[1]) / 1024
    note(f"the puller's peak of resident memory (VmHWM): {peak:.0f} MiB")
    assert 20 < peak < 300
    hub.let_go()
    arrived(pull, play.wait())


def test_wrong_bytes_once_are_fetched_again_alone(pull, hub) -> None:
    hub.faults({"kind": "wrong", "path": f"{FILES}.*/{SHARDS[1]}"})
    play = pull.run()
    assert play.status == 0, play.text[-3000:]
    assert [pull.gets(name) for name in SHARDS] == [1, 2]
    again = sum(pull.sent().values()) - sum(pull.sizes().values())
    note(f"{again} bytes fetched again, the file has {pull.sizes()[SHARDS[1]]}")
    assert again == pull.sizes()[SHARDS[1]]


def test_wrong_bytes_always_are_never_served(pull, hub) -> None:
    hub.faults({"kind": "wrong", "path": f"{FILES}.*/{SHARDS[1]}", "times": -1})
    play = pull.run()
    assert play.status != 0
    assert SHARDS[1] in play.text
    assert "proxy or mirror" in play.words
    assert pull.gets(SHARDS[1]) == 2
    # Nothing says that the model is here, to us or to any other tool, and no unit was made.
    assert pull.manifests() == []
    assert on_node(f"ls {pull.folder}/refs {pull.folder}/snapshots/*/{SHARDS[1]}", check=False) == ""
    assert on_node("ls /etc/systemd/system | grep ^vllm-", check=False) == ""


def test_a_disk_too_small_fails_before_the_first_byte(pull) -> None:
    """In preflight, before anything changed; and in the role, for whoever uses it alone."""
    on_node(f"mkdir -p {pull.home} && mount -t tmpfs -o size=100m cases {pull.home}")
    try:
        result, fetched = pull.run(CONVERGE), pull.run()
    finally:
        on_node(f"umount {pull.home}")
    for play in (result, fetched):
        assert play.status != 0
        assert "104.9 MB free" in play.words
    assert "Too little disk" in result.words
    assert result.changed == 0
    assert pull.sent() == {}
