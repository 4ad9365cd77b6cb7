# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Until release 1.1: build the record of an instance, or of the gateway, from a unit of a release without records.

This is the only file that parses text of our own units and configurations. Delete it, and its calls in known.py, in
release 1.1: by then every play has written a record for each unit.
"""

from __future__ import annotations

import os
import re
from typing import Dict, List, Optional, Tuple

from . import names
from .record import START_S, Files, Record, patience_s

_GPU = re.compile(r"--device=nvidia\.com/gpu=(\d+|GPU-[0-9A-Za-z-]+)")
_LIMIT = re.compile(r"^TimeoutStartSec=(\d+)$", re.MULTILINE)
#: systemd limits the wait for the GPUs separately from the start after it.
_GPU_WAIT = re.compile(r"^ExecStartPre=.* --timeout-s=(\d+) ", re.MULTILINE)
#: The section with which a unit names its files. systemd ignores X- sections.
_SECTION = "[X-gpunode]"


def record_of(path: str, text: str, config: str = "") -> Optional[Record]:
    """The record for a unit's text; None if the unit is not ours. ``config``: the text of its settings."""
    belongs = _section(text)
    name, unit = belongs.get("instance"), os.path.basename(path)
    if not name:
        return None
    limit, wait = _LIMIT.search(text), _GPU_WAIT.search(text)
    return Record(
        name=name,
        unit=unit,
        image=belongs.get("image", ""),
        model=belongs.get("model", ""),
        revision=_setting(config, "revision"),
        served=belongs.get("served", ""),
        host=belongs.get("host") or "127.0.0.1",
        port=_number(belongs.get("port", "")),
        port_base=_number(belongs.get("portbase", "")),
        gpus=tuple(dict.fromkeys(_GPU.findall(text))),
        timeout_s=patience_s(int(limit.group(1)) if limit else START_S, int(wait.group(1)) if wait else 0),
        files=Files(
            config=belongs.get("config", ""),
            environment=belongs.get("environment", ""),
            api_keys=belongs.get("keys", ""),
            cache=belongs.get("cache", ""),
            kept=belongs.get("kept", ""),
            unit=path,
            record=names.record_path(name),
        ),
    )


def config_path(text: str) -> str:
    """The path of the settings of a unit's engine."""
    return _section(text).get("config", "")


def gateway_listens(text: str) -> List[Tuple[str, int]]:
    """The addresses and ports in the gateway's unit."""
    pairs = [pair.split() for pair in _section(text).get("listens", "").split(",")]
    return [(pair[0], int(pair[1])) for pair in pairs if len(pair) == 2 and pair[1].isdigit()]


def _section(text: str) -> Dict[str, str]:
    settings: Dict[str, str] = {}
    inside = False
    for line in text.splitlines():
        if line.startswith("["):
            inside = line.strip() == _SECTION
        elif inside and "=" in line and not line.startswith("#"):
            key, value = line.split("=", 1)
            settings[key.strip().lower()] = value.strip()
    return settings


def _setting(config: str, key: str) -> str:
    """A setting with one plain word. A node has no YAML parser; such a setting is always on a line of its own."""
    match = re.search(rf"^{re.escape(key)}: *['\"]?([^'\"\n]*?)['\"]? *$", config, re.MULTILINE)
    return match.group(1) if match else ""


def _number(text: str) -> Optional[int]:
    return int(text) if text.isdigit() else None
