# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The instances and the gateway of a node: as configured now, as started, and as they last answered."""

from __future__ import annotations

import glob
import os
from typing import Iterable, List, Mapping, Optional, Sequence, Tuple

from ..node.files import text_of
from . import names, old_unit
from .record import Record, document, parse

#: Where the record is in the folders that hold copies, and how a copy's path ends.
_RECORD = ".json"


def instances(
    unit_dirs: Sequence[str] = (names.UNIT_DIR,),
    record_dirs: Sequence[str] = names.RECORD_DIRS,
    without_unit: bool = False,
) -> List[Record]:
    """The instances with a unit in one of these folders, by name. Links are skipped.

    ``without_unit``: also those with a record but no unit, because their removal was interrupted.
    """
    paths = [path for folder in unit_dirs for path in sorted(glob.glob(f"{folder}/{names.UNITS}"))]
    written = {record.unit: record for record in _written(record_dirs)}
    records = [written.pop(os.path.basename(path), None) or _of_old(path) for path in paths if not os.path.islink(path)]
    gone = [record for record in written.values() if not os.path.lexists(record.files.unit)] if without_unit else []
    return [record for record in records if record] + gone


def as_started(record: Record, root: str = "") -> Optional[Record]:
    """The record from which an instance's unit was started; None if it does not run. ``root``: a prefix, for tests."""
    return in_copies(root + names.started_from(record.unit), record.unit)


def in_copies(folder: str, unit: str) -> Optional[Record]:
    """The record among copies of an instance's files; None if the folder has no copy of the unit."""
    copies = dict(copied(folder))
    for path, copy in copies.items():
        record = parse(text_of(copy)) if path.endswith(_RECORD) else None
        if record and record.unit == unit:
            return record
    path = next((path for path in copies if os.path.basename(path) == unit), "")
    text = text_of(copies[path]) if path else ""
    return old_unit.record_of(path, text, text_of(copies.get(old_unit.config_path(text), "")))


def copied(folder: str) -> Iterable[Tuple[str, str]]:
    """The copies in a folder, each as (original path, path of the copy)."""
    for base, _folders, files in os.walk(folder):
        for copy in (os.path.join(base, name) for name in files):
            yield copy[len(folder.rstrip("/")) :], copy


def is_record(path: str) -> bool:
    """Whether a file of an instance is its record, which the engine does not read."""
    return path.endswith(_RECORD)


def gateway_listens(
    record: str = names.GATEWAY_RECORD, unit: str = f"{names.UNIT_DIR}/{names.GATEWAY_UNIT}"
) -> List[Tuple[str, int]]:
    """The hosts and ports on which the node's gateway must listen; empty if there is no gateway."""
    value = document(text_of(record))
    if value is None:
        return old_unit.gateway_listens(text_of(unit))
    return [(str(address["host"]), int(address["port"])) for address in value.get("listens") or ()]


def by_unit(records: Iterable[Record]) -> Mapping[str, Record]:
    """The instances by the names of their units."""
    return {record.unit: record for record in records}


def _written(folders: Iterable[str]) -> Iterable[Record]:
    for folder in folders:
        for path in sorted(glob.glob(f"{glob.escape(folder)}/*{_RECORD}")):
            record = parse(text_of(path))
            if record:
                yield record


def _of_old(path: str) -> Optional[Record]:
    text = text_of(path)
    return old_unit.record_of(path, text, text_of(old_unit.config_path(text)))
