# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Work out which files come from which templates. The action plugin passes the function that renders."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SAFE_IN_A_PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

#: (name of the source, whether it is a template, further variables) -> text
Render = Callable[[str, bool, Mapping[str, Any]], str]


def place(dest: str, item: Mapping[str, Any]) -> str:
    """Fill the {fields} of ``dest`` from the item. A value must be valid as part of a file name."""

    def fill(match: re.Match[str]) -> str:
        if match[1] not in item:
            raise ValueError(f"dest '{dest}' uses '{match[1]}', which is not in the item")
        value = str(item[match[1]])
        if not _SAFE_IN_A_PATH.fullmatch(value):
            raise ValueError(
                f"{match[1]} is {value!r}, which cannot be part of a file name: use letters, digits, dots, dashes"
            )
        return value

    path = _FIELD.sub(fill, dest)
    if not path.startswith("/"):
        raise ValueError(f"dest '{path}' is not an absolute path")
    return path


def rendered(
    files: Sequence[Mapping[str, Any]], items: Sequence[Mapping[str, Any]], item_var: str, render: Render
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The arguments of the module on the node: one entry with its text per file, and separately the secret texts."""
    entries = [entry for file in files for entry in _entries(file, items, item_var, render)]
    secrets: dict[str, str] = {}
    known: set[str] = set()
    for entry in entries:
        dest = entry["dest"]
        if dest in known:
            raise ValueError(f"two files would be written to {dest}")
        known.add(dest)
        if entry["secret"]:
            secrets[dest] = entry.pop("content")
    return entries, secrets


def _items(file: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The items that a file is written for: the one in ``of``, all if ``dest`` has fields, else a single empty one."""
    if not file.get("of"):
        return items if _FIELD.search(file["dest"]) else [{}]
    named = [item for item in items if item.get("name") == file["of"]]
    if len(named) != 1:
        raise ValueError(f"{file['dest']} is of '{file['of']}', and {len(named)} items have that name")
    return named


def _entries(
    file: Mapping[str, Any], items: Sequence[Mapping[str, Any]], item_var: str, render: Render
) -> Iterator[dict[str, Any]]:
    secret, present = bool(file.get("secret")), bool(file.get("present", True))
    template = bool(file.get("template", True))
    for item in _items(file, items):
        extra = {item_var: item} if item else {}
        yield {
            "src": file["src"],
            "dest": place(file["dest"], item),
            "mode": file.get("mode") or ("0600" if secret else "0644"),
            "validate": file.get("validate"),
            "secret": secret,
            "template": template,
            "present": present,
            "content": render(file["src"], template, extra) if present else "",
        }
