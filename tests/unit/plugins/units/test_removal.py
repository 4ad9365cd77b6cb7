# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of systemd so that nothing of a unit is left, and in which order."""

from __future__ import annotations

import json
import os

import pytest
from ansible_collections.gpunode.llm.plugins.modules import units_removed


class Exit(Exception):
    pass


class Node:
    """A module's surroundings. ``states``: unit -> ActiveState, for those that systemd holds."""

    def __init__(self, units, states):
        self.params, self.check_mode, self.states, self.ran = {"units": units}, False, states, []

    def run_command(self, argv):
        if argv[1] == "show":
            blocks = []
            for name in (word for word in argv[2:] if not word.startswith("--")):
                there = [path for unit in self.params["units"] if unit["unit"] == name for path in unit["files"]]
                load = "loaded" if any(os.path.exists(path) for path in there) else "not-found"
                state = self.states.get(name, "inactive")
                enabled = "enabled" if load == "loaded" else ""
                blocks.append(f"Id={name}\nLoadState={load}\nActiveState={state}\nUnitFileState={enabled}\n")
            return 0, "\n".join(blocks), ""
        # What is there at this moment, to see what comes before what.
        left = [
            os.path.basename(path) for unit in self.params["units"] for path in unit["files"] if os.path.exists(path)
        ]
        self.ran.append((" ".join(argv[1:]), left))
        return 0, "", ""

    def exit_json(self, **result):
        raise Exit(json.dumps(result))

    def fail_json(self, **result):
        raise AssertionError(result)


@pytest.fixture
def run(monkeypatch):
    def call(node):
        monkeypatch.setattr(units_removed, "AnsibleModule", lambda **_spec: node)
        with pytest.raises(Exit) as ended:
            units_removed.main()
        return json.loads(str(ended.value))

    return call


@pytest.fixture
def unit(tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "x").write_text("x")
    files = [tmp_path / "a.yaml", cache, tmp_path / "a.service"]
    for path in (files[0], files[2]):
        path.write_text("x")
    return {"unit": "a.service", "files": [str(path) for path in files]}


@pytest.mark.parametrize("state", ["active", "activating", "failed"])
def test_a_unit_that_runs_or_has_failed_is_ended_and_forgotten(run, unit, state):
    node = Node([unit], {"a.service": state})
    result = run(node)
    every = ["a.yaml", "cache", "a.service"]
    assert node.ran == [
        ("stop a.service", every),
        ("reset-failed a.service", every),
        ("disable --quiet a.service", every),
        ("daemon-reload", []),
    ]
    assert (result["changed"], result["ended"], result["removed"]) == (True, ["a.service"], unit["files"])


def test_the_unit_file_is_the_last_to_go(run, unit, monkeypatch):
    gone = []
    unlink = os.unlink
    monkeypatch.setattr(os, "unlink", lambda path, **kept: gone.append(os.path.basename(path)) or unlink(path, **kept))
    run(Node([unit], {}))
    assert gone[-1] == "a.service"


def test_a_failed_unit_whose_file_went_before_is_forgotten_too(run, unit, tmp_path):
    node = Node([{"unit": "a.service", "files": [str(tmp_path / "none")]}], {"a.service": "failed"})
    assert run(node)["changed"] is True
    assert "reset-failed a.service" in [words for words, _left in node.ran]


def test_missing_units_are_not_touched(run, tmp_path):
    node = Node([{"unit": "a.service", "files": [str(tmp_path / "none")]}], {})
    assert run(node)["changed"] is False
    assert node.ran == []


def test_check_mode_reports_and_does_nothing(run, unit):
    node = Node([unit], {"a.service": "failed"})
    node.check_mode = True
    result = run(node)
    assert (result["changed"], result["ended"], result["removed"]) == (True, ["a.service"], unit["files"])
    assert node.ran == []
    assert os.path.exists(unit["files"][2])


def test_a_pattern_stands_for_what_systemd_holds(run, monkeypatch):
    """Transient units of jobs, one that fetches still and one that failed with nobody there to read it."""
    node = Node([{"unit": "gpunode-pull-*.service", "files": []}], {})
    shown = "".join(
        f"Id=gpunode-pull-{name}.service\nLoadState=loaded\nActiveState={state}\nUnitFileState=transient\n\n"
        for name, state in (("a", "active"), ("b", "failed"))
    )
    real = node.run_command
    node.run_command = lambda argv: (0, shown, "") if argv[1] == "show" else real(argv)
    both = "gpunode-pull-a.service gpunode-pull-b.service"
    assert run(node)["ended"] == both.split()
    assert [words for words, _left in node.ran] == [f"stop {both}", f"reset-failed {both}"]


def test_the_note_that_it_made_room_goes_with_it(run, unit, tmp_path, monkeypatch):
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "a.service").touch()
    monkeypatch.setattr(units_removed.units_unit, "STOOD_DOWN", str(notes))
    assert run(Node([unit], {}))["removed"] == [str(notes / "a.service"), *unit["files"]]
    assert list(notes.iterdir()) == []
