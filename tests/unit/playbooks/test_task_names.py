# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A task's name is a verb and its object, in the words of the field: `Install Docker`, `Download the weights`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(CHECKOUT / "docs"))
import troubleshooting

#: Words that tell nothing of what is done: to have, to know and to see are what every task is for.
FORBIDDEN = {"A", "An", "Be", "Have", "It", "Keep", "Know", "Learn", "Let", "Look", "Say", "See", "Tell", "The"}
FOLDERS = (".", "playbooks", "playbooks/tasks", "roles/*/tasks", "roles/*/handlers", "molecule/*", "tests/*")
PAGES = sorted(path for folder in FOLDERS for path in CHECKOUT.glob(f"{folder}/*.yml"))


def names(entries: Any) -> Iterator[str]:
    """Of plays, tasks, handlers, and tasks in blocks."""
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict):
            yield from [entry["name"]] if isinstance(entry.get("name"), str) else []
            for key in ("tasks", "pre_tasks", "post_tasks", "handlers", "block", "rescue", "always"):
                yield from names(entry.get(key))


def wrong(name: str) -> bool:
    verb, _blank, rest = name.partition(" ")
    return not re.fullmatch(r"[A-Z][a-z]+,?", verb) or verb.rstrip(",") in FORBIDDEN or not rest


def test_names_that_are_none_are_found() -> None:
    play = [{"name": "See what is here", "tasks": [{"block": [{"name": "Look"}, {"name": "List the GPUs"}]}]}]
    assert [name for name in names(play) if wrong(name)] == ["See what is here", "Look"]
    assert not wrong("Start, reload or restart the gateway")
    assert wrong("A container sees the GPUs")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_a_tasks_name_is_verb_and_object(page: Path) -> None:
    assert [name for name in names(yaml.safe_load(page.read_text(encoding="utf-8"))) if wrong(name)] == []


def test_the_page_of_troubles_names_tasks_of_the_play() -> None:
    pages = [CHECKOUT / "playbooks" / name for name in ("site.yml", "tasks/runtime.yml", "tasks/change.yml")]
    tasks = [name for page in pages for name in names(yaml.safe_load(page.read_text(encoding="utf-8")))]
    quoted = re.findall(r"(?m)^\| \*(.*?)\* \|", troubleshooting.HEAD)
    assert len(quoted) > 3
    assert [text for text in quoted if not any(name.startswith(text) for name in tasks)] == []
