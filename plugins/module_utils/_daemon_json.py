# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""daemon.json: merged key by key, and which changes Docker takes without a restart."""

from __future__ import annotations

import json
from typing import Any, Dict, List

Config = Dict[str, Any]

# dockerd reads these again at a SIGHUP, with every container running on; all others ask for a restart.
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


def load(text: str) -> Config:
    """The settings in a file's text; an empty file has none.

    Raises:
        ValueError: it is not a JSON object.
    """
    if not text.strip():
        return {}
    config = json.loads(text)
    if not isinstance(config, dict):
        raise ValueError("it holds no JSON object")
    return config


def merge(base: Config, wanted: Config) -> Config:
    """``base`` with the keys of ``wanted`` in it, at any depth. A null takes its key away; a list replaces a list."""
    merged = dict(base)
    for key, value in wanted.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            here = merged.get(key)
            merged[key] = merge(here if isinstance(here, dict) else {}, value)
        else:
            merged[key] = value
    return merged


def dump(config: Config) -> str:
    """Readable, in the order of the keys as they came."""
    return json.dumps(config, indent=4, ensure_ascii=False) + "\n"


def changed_keys(before: Config, after: Config) -> List[str]:
    """The settings at the top that differ."""
    return sorted(key for key in {*before, *after} if before.get(key) != after.get(key))


def needs_restart(keys: List[str]) -> bool:
    """Whether a reload is not enough for these settings."""
    return not RELOADABLE.issuperset(keys)


def dump_like_go(config: Config) -> str:
    """As nvidia-ctk writes it: keys sorted, no newline at the end, and what could be HTML escaped."""
    text = json.dumps(config, indent=4, sort_keys=True, ensure_ascii=False)
    for character in "&<>":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
