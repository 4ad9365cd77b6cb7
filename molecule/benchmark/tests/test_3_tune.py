# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tune finds what makes the slow engine fast, whoever is killed meanwhile, and leaves nothing but a preset."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from conftest import ENGINE_KEY, KEPT, SLOW, Controller, load
from scenario import Play, Running, on_node, wait_until, wrong_answers

TRIAL = "vllm-tiny-tune-trial"
JOB = "gpunode-tune-tiny"
#: What is tried. The last one has fewer tokens in a step than sequences, which vLLM refuses.
VALUES = {"max-num-seqs": [2, 16], "max-num-batched-tokens": [8]}


@pytest.fixture(scope="module")
def no_room() -> Iterator[None]:
    """The node has no memory for a second engine, as far as it says."""
    on_node("sed 's/^MemAvailable:.*/MemAvailable: 524288 kB/' /proc/meminfo >/run/meminfo")
    on_node("mount --bind /run/meminfo /proc/meminfo")
    yield
    on_node("umount /proc/meminfo")


def state() -> dict[str, str]:
    """What serves: the files of its set, and those that it was started from."""
    folders = "/etc/vllm /run/vllm-tiny/started-from /etc/systemd/system/vllm-tiny.service /var/lib/gpunode/vllm"
    return {
        "files": on_node(f"find {folders} -type f -exec sha256sum {{}} + | sort"),
        "unit": on_node("systemctl is-active vllm-tiny; systemctl is-enabled vllm-tiny"),
    }


def left() -> str:
    """What is left of a tune: units, files, containers."""
    units = f"systemctl list-units --all --plain --no-legend '{TRIAL}*' '{JOB}*'"
    files = f"ls -d /run/{TRIAL}* /run/gpunode/{JOB}* /run/gpunode/beside/* /run/systemd/system/vllm-*"
    containers = "docker ps -a --format '{{.Names}}' | grep -v '^vllm-tiny$'"
    return on_node(f"{units}; {files} 2>/dev/null; {containers}", check=False)


def serves() -> bool:
    return on_node("systemctl is-active vllm-tiny", check=False) == "active"


def started(name: str, play: Running) -> None:
    """Wait until the job starts a candidate."""

    def at_it() -> bool:
        assert play.process.poll() is None, play.output()[-3000:]
        return name in on_node(f"grep -o 'starting {name}' /run/gpunode/{JOB}/status.json", check=False)

    wait_until(at_it, 240)
    wait_until(lambda: on_node(f"systemctl is-active {TRIAL}", check=False) == "activating", 60)


def rows(tune: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in tune["candidates"]}


def test_beside_what_serves_it_disturbs_nobody(controller: Controller) -> None:
    """There is room; and what vLLM refuses ends no tune."""
    before, pid = state(), on_node("systemctl show -P MainPID vllm-tiny")
    files = controller.files()
    result = controller.tune(
        vllm_extra_args=SLOW, vllm_presets_dir=str(controller.presets), tune_values={"max-num-batched-tokens": [0]}
    )
    assert result.status == 0, result.text[-3000:]
    assert "Nothing that was tried is better" in result.words
    assert list(controller.presets.iterdir()) == []
    refused = rows(json.loads(controller.new(files).read_text()))["max-num-batched-tokens=0"]
    assert refused["state"] == "failed"
    assert "batched" in refused["why"]
    assert (state(), on_node("systemctl show -P MainPID vllm-tiny"), left()) == (before, pid, "")


def tune(controller: Controller, **more: Any) -> Running:
    given = {"vllm_presets_dir": str(controller.presets), "tune_values": VALUES, "tune_in_place": True}
    return controller.begin_tune(vllm_extra_args=SLOW, **{**given, **more})


def test_without_room_it_asks_for_consent(controller: Controller, no_room: None) -> None:
    before, kept = state(), on_node(f"ls {KEPT}")
    result = tune(controller, tune_in_place=False).wait()
    assert result.status != 0
    assert "There is no free GPU or memory beside tiny" in result.words
    assert "-e tune_in_place=true" in result.words
    assert (state(), left(), on_node(f"ls {KEPT}")) == (before, "", kept)


def test_a_killed_tune_leaves_what_served(controller: Controller, no_room: None) -> None:
    before, play = state(), tune(controller)
    started("max-num-seqs=2", play)
    assert not serves()
    on_node(f"systemctl kill -s KILL {JOB}")
    wait_until(serves, 120)
    assert wrong_answers(key=ENGINE_KEY) == {}
    result = play.wait()
    assert result.status != 0
    assert "The tune of tiny was stopped" in result.words
    assert (state(), left()) == (before, "")


@pytest.fixture(scope="module")
def tuned(controller: Controller, no_room: None) -> tuple[Play, dict[str, Any], dict[str, str]]:
    """The tune goes on; its controller is killed on the way, and the same command takes the result."""
    before, kept = state(), rows(load("tiny-tune.json"))
    play = tune(controller)
    started("max-num-seqs=2", play)
    play.kill()
    wait_until(lambda: on_node(f"systemctl show -P SubState {JOB}") == "exited", 300)
    assert serves()
    files = controller.files()
    result = tune(controller).wait()
    assert result.status == 0, result.text[-3000:]
    found = json.loads(controller.new(files).read_text())
    # What was measured before the first death was not measured again.
    assert (list(kept), rows(found)["base"]["points"]) == (["base"], kept["base"]["points"])
    assert found["candidates"] == load("tiny-tune.json")["candidates"]
    return result, found, before


def test_it_finds_the_best(tuned: tuple[Play, dict[str, Any], dict[str, str]]) -> None:
    result, found, _before = tuned
    measured = rows(found)
    assert (found["ended"], found["best"]) == ("complete", "max-num-seqs=16")
    assert measured["base"]["score"] < measured["max-num-seqs=2"]["score"] < measured["max-num-seqs=16"]["score"]
    (refused,) = [row for row in found["candidates"] if row["state"] == "failed"]
    assert refused["name"] == "max-num-batched-tokens=8, max-num-seqs=16"
    assert "batched" in refused["why"]
    assert "max-num-seqs=16 is the best" in result.words
    assert "Traceback" not in result.text


def test_afterwards_all_is_as_before(tuned: tuple[Play, dict[str, Any], dict[str, str]]) -> None:
    assert (state(), left()) == (tuned[2], "")
    assert wrong_answers(key=ENGINE_KEY) == {}


def test_the_preset_is_taken_and_the_plan_says_so(controller: Controller, tuned: Any) -> None:
    (path,) = controller.presets.iterdir()
    ((name, preset),) = yaml.safe_load(path.read_text())["presets"].items()
    assert (preset["gpus"], preset["vllm"]) == ({"type": "cpu", "count": 0}, {"max-num-seqs": 16})
    assert preset["measured"]["record"] == tuned[1]["id"]
    result = controller.site(vllm_presets_dir=str(controller.presets), vllm_beside=False)
    assert result.status == 0, result.text[-3000:]
    assert name == "tiny-cpu-throughput"
    assert f"preset {name}:" in result.words
    assert "max-num-seqs: 16" in on_node("cat /etc/vllm/tiny.yaml")
    assert wrong_answers(key=ENGINE_KEY) == {}
