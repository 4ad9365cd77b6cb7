# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The last good set of a unit: the files from which it last answered, compared with those on the node now.

The kept folder holds each file under its own path, and the image ID in ``image``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Dict, Mapping, Sequence

from ..node import files as node_files
from ..units import unit as units_unit
from . import known
from .record import Record

#: The ID of the image that ran.
_IMAGE = "image"


@dataclass(frozen=True)
class Kept:
    """The last good set of one unit. ``files``: path on the node -> its kept copy."""

    folder: str
    files: Mapping[str, str]
    image_id: str
    record: Record

    def differing(self, checksum: units_unit.Checksum) -> Sequence[str]:
        return [path for path, copy in self.files.items() if checksum(copy) != checksum(path)]


def read_kept(folder: str, unit: str) -> Kept:
    """Read the last good set. Raises OSError if the unit has never answered, so nothing was kept."""
    copies: Dict[str, str] = dict(known.copied(folder))
    record = known.in_copies(folder, unit)
    if record is None:
        raise FileNotFoundError(f"{folder} holds no {unit}")
    copies.pop(f"/{_IMAGE}", None)
    files = {path: copy for path, copy in sorted(copies.items()) if not known.is_record(path)}
    return Kept(folder, files, node_files.read_text(os.path.join(folder, _IMAGE)).strip(), record)
