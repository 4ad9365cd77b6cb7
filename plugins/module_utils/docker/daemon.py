# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""daemon.json: merge settings key by key; tell which changes need a restart of Docker."""

from __future__ import annotations

import json
import re
from typing import Any, Dict, List, Tuple

Config = Dict[str, Any]

# dockerd reloads these at a SIGHUP, without stopping containers; all others need a restart.
RELOADABLE = frozenset(
    [
        "allow-nondistributable-artifacts",
        "authorization-plugins",
        "debug",
        "default-runtime",
        "features",
        "insecure-registries",
        "labels",
        "live-restore",
        "max-concurrent-downloads",
        "max-concurrent-uploads",
        "max-download-attempts",
        "registry-mirrors",
        "runtimes",
        "shutdown-timeout",
    ]
)


KINDS = {dict: "a dictionary", list: "a list", str: "a text", bool: "true or false"}


def _once(pairs: List[Tuple[str, Any]]) -> Config:
    """An object, rejected if a key occurs twice: a merge would drop one of them."""
    keys = [key for key, _value in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"the key {key} occurs twice, and Docker would use only one of them")
    return dict(pairs)


def _cause(text: str, error: json.JSONDecodeError) -> str:
    """The decoder's error in words that name the usual mistakes."""
    before, after = text[: error.pos].rstrip()[-1:], text[error.pos :].lstrip()
    if any(re.match(r",\s*[}\]]", place) for place in (before + after, after)):
        cause = "a comma before a closing bracket"
    elif after[:1] == "#" or after[:2] in ("//", "/*"):
        cause = "a comment, which JSON does not allow"
    else:
        cause = error.msg[:1].lower() + error.msg[1:]
    return f"{cause}, in line {error.lineno}, column {error.colno}"


def load(text: str) -> Config:
    """The settings in a file's text; an empty file has none.

    Raises:
        ValueError: it is not a JSON object, or a key occurs twice.
    """
    if not text.strip():
        return {}
    try:
        config = json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise ValueError(_cause(text, error)) from error
    if not isinstance(config, dict):
        raise ValueError("it is not a JSON object")
    return config


def merge(base: Config, wanted: Config) -> Config:
    """``base`` updated with ``wanted``, at any depth. A null removes its key; a list replaces a list.

    Raises:
        ValueError: a dictionary would replace something else, which would be lost.
    """
    merged = dict(base)
    for key, value in wanted.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            here = {} if merged.get(key) is None else merged[key]
            if not isinstance(here, dict):
                raise ValueError(f"{key} is {KINDS.get(type(here), 'a number')}, but must be a dictionary")
            merged[key] = merge(here, value)
        else:
            merged[key] = value
    return merged


def dump(config: Config) -> str:
    """The settings as text, with the keys in their original order."""
    return json.dumps(config, indent=4, ensure_ascii=False) + "\n"


def changed_keys(before: Config, after: Config) -> List[str]:
    """The top-level settings that differ."""
    return sorted(key for key in {*before, *after} if before.get(key) != after.get(key))


def needs_restart(keys: List[str]) -> bool:
    """Whether a reload is not enough for these settings."""
    return not RELOADABLE.issuperset(keys)
