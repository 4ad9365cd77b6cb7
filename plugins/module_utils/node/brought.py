# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The images and models that the collection downloaded to a node and that are still there.

A name is noted before its download, so that a play that is stopped in between leaves a note. It is removed with the
image or the model. Packages and repositories need no note: the files that the roles write for them name their owner.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Dict, Iterable, List, Mapping

from . import files as node_files
from .schema import numbered

PATH = "/var/lib/gpunode/brought.json"
KINDS = ("images", "models")


def read(path: str) -> Dict[str, List[str]]:
    """The names, by kind.

    Raises:
        ValueError: the file exists, but this module did not write it.
    """
    try:
        noted = json.loads(node_files.read_text(path))
        return {kind: sorted(str(name) for name in noted.get(kind, [])) for kind in KINDS}
    except FileNotFoundError:
        return {kind: [] for kind in KINDS}
    except (ValueError, AttributeError, TypeError):
        raise ValueError(
            f"{path} should be JSON with the lists {' and '.join(KINDS)}, but is not: repair or remove it"
        ) from None


def changed(
    now: Mapping[str, List[str]], add: Mapping[str, Iterable[str]], drop: Mapping[str, Iterable[str]]
) -> Dict[str, List[str]]:
    """The updated names."""
    return {kind: sorted({*now[kind], *add.get(kind, ())} - {"", *drop.get(kind, ())}) for kind in KINDS}


def write(names: Mapping[str, List[str]], path: str) -> None:
    """Write the names; remove the file if there are none."""
    if any(names.values()):
        node_files.write_atomically(path, json.dumps(numbered(names), indent=1, sort_keys=True) + "\n")
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def note(path: str, **names: Iterable[str]) -> None:
    """Note what is about to be downloaded: ``images`` and ``models``."""
    now = read(path)
    wanted = changed(now, names, {})
    if wanted != now:
        write(wanted, path)


def forget(path: str, **names: Iterable[str]) -> None:
    """Remove names of what is gone."""
    now = read(path)
    wanted = changed(now, {}, names)
    if wanted != now:
        write(wanted, path)
