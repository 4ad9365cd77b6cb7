# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a playbook writes on this machine goes where its user stands, and not beside the playbook."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.gpunode.llm.plugins.filter.values import from_here

PLAYBOOKS = Path(__file__).resolve().parents[3] / "playbooks"


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("status.json", "{here}/status.json"),
        ("./a/../b", "{here}/b"),
        ("/srv/bundle/", "/srv/bundle"),
        ("~/support", "/home/ada/support"),
        ("", ""),
        (None, ""),
    ],
)
def test_a_path_is_seen_from_where_the_user_stands(
    path: str, seen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.chdir(tmp_path)
    assert from_here(path) == seen.format(here=tmp_path)


@pytest.mark.parametrize(
    ("page", "name"), [("plan", "json"), ("status", "json"), ("logs", "logs_dir"), ("bundle", "bundle")]
)
def test_every_playbook_sees_it_so(page: str, name: str) -> None:
    """`ansible.builtin.copy` and `fetch` see a relative path from the playbook, which may lie in site-packages."""
    text = (PLAYBOOKS / f"{page}.yml").read_text(encoding="utf-8")
    uses = [use for use in re.findall(r"\{\{.*?\}\}", text) if re.search(rf"(?<![\w.'/]){name}(?=[ }}|])", use)]
    assert uses
    assert [use for use in uses if "gpunode.llm.from_here" not in use and "to_json" not in use] == []
