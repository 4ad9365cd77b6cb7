# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a unit runs what is on disk."""

from __future__ import annotations

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils import _units

SHOW = """Id=vllm-a.service
LoadState=loaded
ActiveState=active
SubState=running
NeedDaemonReload=no
UnitFileState=enabled

Id=vllm-b.service
LoadState=not-found
ActiveState=inactive
SubState=dead
NeedDaemonReload=no
UnitFileState=
"""


def test_show_of_several_units():
    shown = _units.parse_show(SHOW)
    assert shown["vllm-a.service"] == _units.Shown("vllm-a.service", "loaded", "active", "running", False, True)
    assert shown["vllm-b.service"] == _units.Shown("vllm-b.service")


@pytest.mark.parametrize(
    ("active", "changed", "reload", "image_moved", "action", "why"),
    [
        ("active", "", False, False, "none", "runs what is on disk"),
        ("activating", "", False, False, "none", "runs what is on disk"),
        ("active", "/etc/x", False, False, "restart", "/etc/x is not what"),
        ("activating", "/etc/x", False, False, "restart", "/etc/x is not what"),
        ("active", "", True, False, "restart", "had not read"),
        ("active", "", False, True, "restart", "another image"),
        ("inactive", "", False, False, "start", "not running"),
        ("failed", "/etc/x", True, False, "start", "had failed"),
    ],
)
def test_decision(active, changed, reload, image_moved, action, why):
    decision = _units.decide(_units.Shown("u", "loaded", active, "", reload), changed, image_moved)
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
    assert _units.stale_file("/run/from", ["/a", "/b"], checksums.get) == stale


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[Unit]\nInstance=a\n", {}),
        ("[X-gpunode]\n# Image=b\nInstance=a\nCache=/c=d\n[Install]\nImage=no", {"instance": "a", "cache": "/c=d"}),
        ("", {}),
    ],
)
def test_belongings(text, found):
    assert _units.parse_belongings(text) == found
