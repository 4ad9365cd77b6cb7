# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's side of the lock: who waits for whom, which message each gets, and the process that keeps it."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.node.lock import BEAT_S, VOID_S
from ansible_collections.gpunode.llm.plugins.plugin_utils.node import one_play
from ansible_collections.gpunode.llm.plugins.plugin_utils.node.one_play import HeldError

OTHER = {"id": "x", "who": "ann@ctl", "play": "site.yml", "job": "AWX job 12", "since": "2026-01-01 00:00:00 UTC"}


class World:
    """Another play has the node: it gives a sign of life every 10 s until it ends, cleanly or with its controller."""

    def __init__(self, ends: float = 1e9, lost: float = 1e9) -> None:
        self.now, self.ends, self.lost = 0.0, ends, lost
        self.shown: list[str] = []

    def call(self) -> dict[str, Any]:
        last = min(self.now, self.lost) // BEAT_S * BEAT_S
        free = self.now >= self.ends or self.now - last > VOID_S
        return {"lock": {"mine": True, "new": True} if free else {**OTHER, "mine": False, "beat": str(last)}}

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def wait(self, timeout_s: float = 0) -> float:
        """When the node was this play's."""
        one_play.wait(self.call, timeout_s, self.shown.append, lambda: self.now, self.sleep)
        return self.now


def test_a_free_node_is_taken_at_once_without_a_word() -> None:
    world = World(ends=0)
    assert world.wait() == 0
    assert world.shown == []


def test_a_running_play_refuses_a_second_which_names_it() -> None:
    world = World()
    with pytest.raises(HeldError) as refused:
        world.wait()
    assert world.now <= BEAT_S
    assert str(refused.value) == (
        "Another play has this node: site.yml of ann@ctl, AWX job 12, since 2026-01-01 00:00:00 UTC. "
        "Nothing was changed. Run again when it has ended, or wait for it with -e node_lock_timeout_s=600."
    )
    assert len(world.shown) == 1


def test_it_is_waited_for_by_choice() -> None:
    world = World(ends=100)
    assert 100 <= world.wait(600) <= 100 + one_play.LOOK_S
    assert len(world.shown) == 1


def test_the_wait_has_an_end() -> None:
    world = World()
    with pytest.raises(HeldError, match="This play waited 30 s for it"):
        world.wait(30)
    assert 30 <= world.now <= 30 + one_play.LOOK_S


@pytest.mark.parametrize("timeout_s", [0, 600])
def test_a_play_that_is_dead_stands_in_nobodys_way(timeout_s: float) -> None:
    """Its controller was lost with it, so nobody released the node."""
    world = World(lost=-1)
    assert world.wait(timeout_s) <= VOID_S


def test_who_came_next_is_alive() -> None:
    """The play that is waited for ends, and a third one takes the node before this one looks again."""
    leases = iter([{**OTHER, "beat": "1"}, {**OTHER, "id": "y", "beat": "2", "who": "bob@ctl"}])
    with pytest.raises(HeldError, match="bob@ctl"):
        one_play.wait(lambda: {"lock": {**next(leases), "mine": False}}, 0, print, lambda: 0, lambda _s: None)


def test_all_tasks_of_one_run_are_one_and_another_run_is_another() -> None:
    identity = one_play.identity(os.getpid(), {"awx_job_id": 12})
    assert identity == one_play.identity(os.getpid(), {"awx_job_id": 12})
    assert identity["id"] != one_play.identity(os.getppid(), {})["id"]
    assert identity["job"] == "AWX job 12"
    # It goes into a shell's line and a pattern.
    assert all(letter.isalnum() or letter == "-" for letter in identity["id"])


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def keep(main: subprocess.Popen[bytes], pipe: Path) -> Callable[[float], str]:
    """A keeper of that process's lock; the function that is returned reads what it did, "" where it did nothing."""
    reader = os.open(pipe, os.O_RDWR)  # so that it never ends, whoever closes it

    def tell(word: str) -> Callable[[], None]:
        return lambda: pipe.write_text(word)

    one_play.start_keeper(main.pid, tell("renewed "), tell("released "), set())

    def read(seconds: float) -> str:
        ready, *_rest = select.select([reader], [], [], seconds)
        return os.read(reader, 100).decode() if ready else ""

    return read


@pytest.mark.parametrize("signal", [9, 15])
def test_the_lock_goes_with_the_play_however_it_dies(monkeypatch: pytest.MonkeyPatch, pipe: Path, signal: int) -> None:
    monkeypatch.setattr(one_play, "BEAT_S", 0.05)
    with subprocess.Popen(["sleep", "600"]) as main:
        read = keep(main, pipe)
        assert set(read(30).split()) == {"renewed"}
        main.send_signal(signal)
        main.wait()
        words: list[str] = []
        while "released" not in words:
            words += read(30).split() or pytest.fail(f"it was not released: {words}")
    assert words[-1] == "released"


def test_the_keeper_holds_no_output_of_the_play(pipe: Path) -> None:
    """Whoever reads what the play prints waits for the last process that could print there."""
    with subprocess.Popen(["sleep", "600"]) as main:
        ours, theirs = os.pipe()
        keep(main, pipe)
        os.close(theirs)
        assert select.select([ours], [], [], 30)[0] == [ours]
        assert os.read(ours, 1) == b""
        os.close(ours)
        assert main.poll() is None
        main.kill()
