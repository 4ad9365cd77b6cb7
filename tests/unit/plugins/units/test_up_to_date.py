# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a unit runs from the current files."""

from __future__ import annotations

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.units import unit as units_unit

SHOW = """Id=vllm-a.service
LoadState=loaded
ActiveState=active
SubState=running
NeedDaemonReload=no
UnitFileState=enabled
MainPID=42

Id=vllm-b.service
LoadState=not-found
ActiveState=inactive
SubState=dead
NeedDaemonReload=no
UnitFileState=
"""


def test_show_of_several_units():
    shown = units_unit.parse_show(SHOW)
    assert shown["vllm-a.service"] == units_unit.Shown("vllm-a.service", "loaded", "active", "running", False, True, 42)
    assert shown["vllm-b.service"] == units_unit.Shown("vllm-b.service")


@pytest.mark.parametrize(
    ("active", "changed", "reload", "moved", "reloads", "action", "why"),
    [
        ("active", "", False, "", False, "none", "runs from the current files"),
        ("activating", "", False, "", False, "none", "runs from the current files"),
        ("active", "/etc/x", False, "", False, "restart", "/etc/x has changed since"),
        ("activating", "/etc/x", False, "", False, "restart", "/etc/x has changed since"),
        ("active", "", True, "", False, "restart", "had not reloaded"),
        ("active", "", False, "another image", False, "restart", "another image"),
        ("inactive", "", False, "", False, "start", "not running"),
        ("failed", "/etc/x", True, "", False, "start", "had failed"),
        ("active", "", False, "", True, "none", "runs from the current files"),
        ("active", "/etc/x", False, "", True, "reload", "/etc/x has changed since"),
        ("active", "/etc/x", True, "", True, "restart", "/etc/x has changed since"),  # the unit, behind systemd's back
        ("active", "/etc/systemd/system/u.service", False, "", True, "restart", "u.service has changed since"),
        ("active", "", False, "its program was replaced", True, "reload", "replaced"),
        ("inactive", "/etc/x", False, "", True, "start", "not running"),
    ],
)
def test_decision(active, changed, reload, moved, reloads, action, why):
    decision = units_unit.decide(units_unit.Shown("u.service", "loaded", active, "", reload), changed, moved, reloads)
    assert decision.action == action
    assert why in decision.why


@pytest.mark.parametrize(
    ("aside", "on_disk", "stale"),
    [
        ({"/a": "1", "/b": "2"}, {"/a": "1", "/b": "2"}, ""),
        ({"/a": "1", "/b": "2"}, {"/a": "1", "/b": "3"}, "/b"),
        ({"/a": "1", "/b": "2"}, {"/a": "1"}, "/b"),
        ({"/a": "1"}, {"/a": "1", "/b": "2"}, "/b"),
        ({}, {"/a": "1", "/b": "2"}, "/a"),
        ({}, {}, "/a"),
    ],
)
def test_stale(aside, on_disk, stale):
    checksums = {**on_disk, **{f"/run/from{path}": checksum for path, checksum in aside.items()}}
    assert units_unit.stale_file("/run/from", ["/a", "/b"], checksums.get) == stale
