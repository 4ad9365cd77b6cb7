# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checkout's Ansible leaves out what is ok or skipped: what is to be read must not be a task that is only ok."""

from __future__ import annotations

import configparser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[3]
QUIET = {"display_skipped_hosts": "false", "display_ok_hosts": "false"}
PAGES = sorted(
    path for kind in ("playbooks", "playbooks/tasks", "roles/*/tasks") for path in CHECKOUT.glob(f"{kind}/*.yml")
)


def tasks(entries: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for entry in entries:
        yield entry
        for key in ("tasks", "block", "rescue", "always"):
            yield from tasks(entry.get(key) or [])


def test_the_checkout_is_quiet_and_the_first_page_names_the_same_settings() -> None:
    config = configparser.ConfigParser()
    config.read(CHECKOUT / "ansible.cfg")
    assert {key: config["defaults"].get(key) for key in QUIET} == QUIET
    page = (CHECKOUT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    assert "[defaults]\n" + "".join(f"{key} = {value}\n" for key, value in QUIET.items()) in page


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_debug_tasks_are_shown(path: Path) -> None:
    entries = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    mute = [task["name"] for task in tasks(entries) if "ansible.builtin.debug" in task and not task.get("changed_when")]
    assert mute == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_a_refusal_is_printed_once(path: Path) -> None:
    entries = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    assert [task["name"] for task in tasks(entries) if "ansible.builtin.fail" in task] == []
