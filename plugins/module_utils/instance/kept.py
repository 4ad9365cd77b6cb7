# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a unit last ran from and answered, as the unit keeps it, and what differs from that on the node now.

The kept folder holds the files under their own paths, and in ``image`` the ID of the image that ran.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Dict, Mapping, Sequence

from ..node import files as node_files
from ..units import unit as units_unit

DEFAULT_START_S = 900


@dataclass(frozen=True)
class Kept:
    """The last good set of one unit. ``files``: path on the node -> the kept copy."""

    folder: str
    files: Mapping[str, str]
    image_id: str
    image: str
    endpoint: Mapping[str, object]

    def differing(self, checksum: units_unit.Checksum) -> Sequence[str]:
        return [path for path, copy in self.files.items() if checksum(copy) != checksum(path)]


def read_kept(folder: str, unit: str) -> Kept:
    """Raises OSError where a unit has never answered, so nothing was kept."""
    files: Dict[str, str] = {}
    for base, _folders, names in os.walk(folder):
        for name in names:
            copy = os.path.join(base, name)
            path = "/" + os.path.relpath(copy, folder)
            if path != "/image":
                files[path] = copy
    (unit_path,) = [path for path in files if os.path.basename(path) == unit] or [""]
    if not unit_path:
        raise FileNotFoundError(f"{folder} holds no {unit}")
    text = node_files.read_text(files[unit_path])
    belongs = units_unit.parse_belongings(text)
    return Kept(
        folder,
        dict(sorted(files.items())),
        node_files.read_text(os.path.join(folder, "image")).strip(),
        belongs.get("image", ""),
        endpoint(unit, text, belongs),
    )


def endpoint(unit: str, text: str, belongs: Mapping[str, str]) -> Dict[str, object]:
    """Where the kept unit answers, as endpoint_ready takes it."""
    limit = re.search(r"^TimeoutStartSec=(\d+)$", text, re.MULTILINE)
    # systemd counts the wait for the GPUs apart from what comes after it.
    gpus = re.search(r"^ExecStartPre=.* --timeout-s=(\d+) ", text, re.MULTILINE)
    return {
        "name": belongs.get("instance", ""),
        "unit": unit,
        "host": belongs.get("host") or "127.0.0.1",
        "port": int(belongs.get("port") or 8000),
        "model": belongs.get("served", ""),
        "env_file": belongs.get("environment", ""),
        # The unit's own time-out comes first, so that the journal tells of it.
        "timeout_s": int(limit.group(1) if limit else DEFAULT_START_S) + int(gpus.group(1) if gpus else 0) + 60,
    }
