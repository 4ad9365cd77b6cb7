# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files come from which templates."""

from __future__ import annotations

import pytest
from ansible_collections.gpunode.llm.plugins.plugin_utils.file_plan import place, rendered

ITEMS = [{"name": "a"}, {"name": "b"}]


def render(src, template, extra):
    return f"{src} {template} {extra.get('i', {}).get('name', '-')}"


def test_one_file_per_item_and_one_for_all():
    files = [{"src": "s", "dest": "/etc/{name}.x"}, {"src": "p", "dest": "/lib/p", "template": False}]
    entries, secrets = rendered(files, ITEMS, "i", render)
    assert [(entry["dest"], entry["content"]) for entry in entries] == [
        ("/etc/a.x", "s True a"),
        ("/etc/b.x", "s True b"),
        ("/lib/p", "p False -"),
    ]
    assert secrets == {}
    # What is no template is a program, of which a diff shows no lines.
    assert [entry["template"] for entry in entries] == [True, True, False]


def test_a_secret_text_is_apart_and_its_file_is_closed():
    entries, secrets = rendered([{"src": "s", "dest": "/etc/{name}.env", "secret": True}], ITEMS, "i", render)
    assert secrets == {"/etc/a.env": "s True a", "/etc/b.env": "s True b"}
    assert [(entry["mode"], "content" in entry) for entry in entries] == [("0600", False)] * 2


def test_an_absent_file_is_not_rendered():
    entries, _secrets = rendered([{"src": "s", "dest": "/etc/x", "present": False}], [], "i", None)
    assert entries[0]["content"] == ""


def test_no_items_no_files():
    assert rendered([{"src": "s", "dest": "/etc/{name}"}], [], "i", render) == ([], {})


@pytest.mark.parametrize(
    ("dest", "item", "message"),
    [
        ("/etc/{name}", {}, "uses 'name'"),
        ("/etc/{name}", {"name": "../shadow"}, "cannot be part of a file name"),
        ("/etc/{name}", {"name": "a/b"}, "cannot be part of a file name"),
        ("/etc/{name}", {"name": ""}, "cannot be part of a file name"),
        ("/etc/{name}", {"name": "a b;reboot"}, "cannot be part of a file name"),
        ("/etc/{name}", {"name": "-x"}, "cannot be part of a file name"),
        ("/etc/{name}", {"name": "a\n"}, "cannot be part of a file name"),
        ("etc/x", {}, "not an absolute path"),
    ],
)
def test_refused(dest, item, message):
    with pytest.raises(ValueError, match=message):
        place(dest, item)


def test_two_files_in_one_place_are_refused():
    with pytest.raises(ValueError, match="two files"):
        rendered([{"src": "s", "dest": "/x"}, {"src": "t", "dest": "/x"}], [], "i", render)
