# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The forms of the keys of a user's own entries: what the catalogue's types say is what an entry must have."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Any

from .catalog import near


def _listed(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _whole(value: Any) -> bool:
    """Numbers of a command line arrive as text."""
    return re.fullmatch(r"\s*-?\d{1,18}\s*", str(value), re.ASCII) is not None


def _plain(value: Any) -> bool:
    """One line: what is shown and written stays in its place."""
    return isinstance(value, (str, int, float)) and not isinstance(value, bool) and str(value).isprintable()


#: How the annotation of a field begins, what its key must have, and whether a value has it.
FORMS: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    ("Mapping", "a dictionary such as {name: value}", lambda value: isinstance(value, Mapping)),
    ("tuple[str", "a list of texts such as [one, two]", lambda value: _listed(value) and all(map(_plain, value))),
    ("tuple[int", "a list of whole numbers such as [1, 2]", lambda value: _listed(value) and all(map(_whole, value))),
    ("Tuple", "a list", _listed),
    ("tuple", "a list", _listed),
    ("bool", "true or false", lambda value: isinstance(value, bool)),
    ("Optional[int", "a whole number", _whole),
    ("int", "a whole number", _whole),
    ("float", "a number", lambda value: isinstance(value, (int, float)) and not isinstance(value, bool)),
    ("str", "a text", _plain),
)


def types_of(spec: type, leave_out: Iterable[str] = (), **beside: str) -> dict[str, str]:
    """The annotation of each field of a dataclass of the catalogue, and of keys ``beside`` them."""
    return {**{field.name: str(field.type) for field in fields(spec) if field.name not in leave_out}, **beside}


def required(spec: type) -> tuple[str, ...]:
    """The fields without a default."""
    return tuple(key.name for key in fields(spec) if key.default is MISSING and key.default_factory is MISSING)


def entry(what: str, value: Any) -> None:
    """Raise ValueError for an entry that is no dictionary."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{what} must be a dictionary such as {{name: value}}, not {value!r}.")


def check(what: str, value: Any, types: Mapping[str, str], wanted: Iterable[str] = ()) -> None:
    """Raise ValueError for an entry that is none, a key that is unknown or missing, and a value of another form."""
    entry(what, value)
    _known(what, value, types)
    missing = next((key for key in wanted if value.get(key) is None), "")
    if missing:
        raise ValueError(f"{what}: {missing} is missing.")
    for key, item in value.items():
        form = next((form for form in FORMS if types[key].startswith(form[0])), None)
        if form and item is not None and not form[2](item):
            raise ValueError(f"{what}: {key} must be {form[1]}, not {item!r}.")


def _known(what: str, value: Mapping[str, Any], types: Iterable[str]) -> None:
    """Raise ValueError for an unknown key: it is usually a typing error."""
    known = sorted(types)
    for key in value:
        if key not in known:
            meant = near(str(key), known)
            raise ValueError(f"{what}: unknown key {key!r}{f', did you mean {meant[0]!r}?' if meant else '.'}")
