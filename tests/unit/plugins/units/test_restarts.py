# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of systemd, and in which order."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.units import run as units_run, unit as units_unit


class Module:
    def __init__(self, unit, **shown):
        self.params, self.check_mode = {"units": [unit], "would_change": []}, False
        self.shown = {"Id": unit["name"], "LoadState": "loaded", "UnitFileState": "enabled", **shown}
        self.ran = []

    def run_command(self, argv):
        if argv[:2] == ["systemctl", "show"]:
            shown = "".join(f"{key}={value}\n" for key, value in self.shown.items())
            return 0, "Id=old.service\nActiveState=active\n" if "old.service" in argv else shown, ""
        self.ran.append(" ".join(argv[1:]))
        # systemd refuses this one for a unit that it does not hold in memory.
        return (1, "", "not loaded") if argv[1] == "reset-failed" else (0, "", "")

    def get_bin_path(self, _name):
        return None

    def fail_json(self, **result):
        raise AssertionError(result)


@pytest.fixture
def unit(tmp_path):
    file, started_from = tmp_path / "a.yaml", tmp_path / "started-from"
    aside = started_from / str(file).lstrip("/")
    aside.parent.mkdir(parents=True)
    for path in (file, aside):
        path.write_text("a\n")
    return {
        "name": "u.service",
        "files": [str(file)],
        "started_from": str(started_from),
        "container": None,
        "image": None,
        "reloads": False,
    }


def action(module):
    """What a call does with the unit, or would do."""
    (result,) = units_run.run(module)["units"]
    return result["action"]


def test_nothing_is_asked_where_nothing_differs(unit):
    module = Module(unit, ActiveState="active")
    assert (action(module), module.ran) == ("none", [])


@pytest.mark.parametrize("state", ["active", "failed", "inactive"])
def test_the_count_of_starts_begins_anew_before_every_start(unit, state):
    with open(unit["files"][0], "a", encoding="utf-8") as stream:
        stream.write("b\n")
    module = Module(unit, ActiveState=state)
    assert action(module) == ("restart" if state == "active" else "start")
    assert module.ran == ["reset-failed u.service", "restart --no-block u.service"]


def test_a_new_unit_is_read_enabled_and_started_in_this_order(unit):
    module = Module(unit, ActiveState="inactive", LoadState="not-found", UnitFileState="")
    assert action(module) == "start"
    assert [words.split()[0] for words in module.ran] == ["daemon-reload", "enable", "reset-failed", "restart"]


def test_check_mode_counts_what_would_change(unit):
    module = Module(unit, ActiveState="active")
    module.params["would_change"], module.check_mode = unit["files"], True
    assert (action(module), module.ran) == ("restart", [])


@pytest.mark.parametrize(
    ("state", "expected"),
    [("active", ["reload u.service"]), ("inactive", ["reset-failed u.service", "restart u.service"])],
)
def test_a_service_that_reloads_is_waited_for(unit, state, expected):
    with open(unit["files"][0], "a", encoding="utf-8") as stream:
        stream.write("b\n")
    module = Module({**unit, "reloads": True}, ActiveState=state)
    assert action(module) == ("reload" if state == "active" else "start")
    assert module.ran == expected


def test_a_program_that_was_replaced_is_noticed(unit, tmp_path):
    program = tmp_path / "program"
    shutil.copy("/bin/sleep", program)
    with subprocess.Popen([program, "60"]) as process:
        try:
            module = Module({**unit, "reloads": True}, ActiveState="active", MainPID=str(process.pid))
            assert action(module) == "none"
            program.unlink()
            assert action(module) == "reload"
        finally:
            process.kill()


@pytest.fixture
def notes(tmp_path, monkeypatch):
    monkeypatch.setattr(units_unit, "STOOD_DOWN", str(tmp_path / "notes"))
    return tmp_path / "notes"


@pytest.mark.parametrize(
    ("state", "edited", "stops"), [("active", False, False), ("active", True, True), ("inactive", False, True)]
)
def test_replaced_units_stop_right_before_the_first_start(unit, notes, state, edited, stops):
    if edited:
        with open(unit["files"][0], "a", encoding="utf-8") as stream:
            stream.write("b\n")
    module = Module(unit, ActiveState=state)
    module.params["instead_of"] = ["old.service"]
    result = units_run.run(module)
    start = ["reset-failed u.service", "restart --no-block u.service"]
    assert module.ran == (["stop old.service", *start] if stops else [])
    # Noted before it stops, so that a play that dies is known by the next one.
    assert [path.name for path in notes.glob("*")] == (["old.service"] if stops else [])
    assert ("old.service: stop, its GPUs and port are needed by listed units\n" in result["diff"]["after"]) is stops


def test_check_mode_stops_nothing(unit, notes):
    module = Module(unit, ActiveState="inactive")
    module.params["instead_of"], module.check_mode = ["old.service"], True
    assert units_run.run(module)["units"][0]["action"] == "stop"
    assert (module.ran, notes.exists()) == ([], False)
