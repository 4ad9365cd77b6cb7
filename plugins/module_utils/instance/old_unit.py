# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Until release 1.1: the record of an instance, or of the gateway, from a unit of a release that wrote no records yet.

This is the only place that reads text of our own units and configurations. Delete the file, with its calls in known.py,
when 1.1 comes: by then every play has written a record beside each unit.
"""

from __future__ import annotations

import os
import re
from typing import Dict, List, Optional, Tuple

from . import names
from .record import START_S, Files, Record, patience_s

_GPU = re.compile(r"--device=nvidia\.com/gpu=(\d+|GPU-[0-9A-Za-z-]+)")
_LIMIT = re.compile(r"^TimeoutStartSec=(\d+)$", re.MULTILINE)
#: systemd counts the wait for the GPUs apart from what comes after it.
_GPU_WAIT = re.compile(r"^ExecStartPre=.* --timeout-s=(\d+) ", re.MULTILINE)
#: The section in which a unit says what belongs to it. systemd passes over X- sections.
_SECTION = "[X-gpunode]"


def record_of(path: str, text: str, config: str = "") -> Optional[Record]:
    """The record that a unit's text stands for; None for a unit of others. ``config``: the text of its settings."""
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
    """Where the settings of a unit's engine are."""
    return _section(text).get("config", "")


def gateway_listens(text: str) -> List[Tuple[str, int]]:
    """What the gateway's unit says that it listens on."""
    pairs = [pair.split() for pair in _section(text).get("listens", "").split(",")]
    return [(pair[0], int(pair[1])) for pair in pairs if len(pair) == 2 and pair[1].isdigit()]


def _section(text: str) -> Dict[str, str]:
    found: Dict[str, str] = {}
    inside = False
    for line in text.splitlines():
        if line.startswith("["):
            inside = line.strip() == _SECTION
        elif inside and "=" in line and not line.startswith("#"):
            key, value = line.split("=", 1)
            found[key.strip().lower()] = value.strip()
    return found


def _setting(config: str, key: str) -> str:
    """A plain setting of one word. Nodes have no YAML reader of their own, and such a one stands on its own line."""
    match = re.search(rf"^{re.escape(key)}: *['\"]?([^'\"\n]*?)['\"]? *$", config, re.MULTILINE)
    return match.group(1) if match else ""


def _number(text: str) -> Optional[int]:
    return int(text) if text.isdigit() else None
