# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the collection brought to a node and no unit need name: images and models, until they are gone.

A name is noted before the thing comes, so that a play that was stopped in between is known as well, and forgotten when
the thing is gone. Packages and repositories need no note: the files that the roles write for them say whose they are.
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
        ValueError: there is such a file, and it is not what this wrote.
    """
    try:
        found = json.loads(node_files.read_text(path))
        return {kind: sorted(str(name) for name in found.get(kind, [])) for kind in KINDS}
    except FileNotFoundError:
        return {kind: [] for kind in KINDS}
    except (ValueError, AttributeError, TypeError):
        raise ValueError(
            f"{path} should be JSON with the lists {' and '.join(KINDS)}, and is not: mend it, or remove it"
        ) from None


def changed(
    now: Mapping[str, List[str]], add: Mapping[str, Iterable[str]], drop: Mapping[str, Iterable[str]]
) -> Dict[str, List[str]]:
    """The names as they are to be."""
    return {kind: sorted({*now[kind], *add.get(kind, ())} - {"", *drop.get(kind, ())}) for kind in KINDS}


def write(names: Mapping[str, List[str]], path: str) -> None:
    """Nothing is left of the file where there are no names."""
    if any(names.values()):
        node_files.write_atomically(path, json.dumps(numbered(names), indent=1, sort_keys=True) + "\n")
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def note(path: str, **names: Iterable[str]) -> None:
    """Write down what is about to come: ``images`` and ``models``."""
    now = read(path)
    wanted = changed(now, names, {})
    if wanted != now:
        write(wanted, path)


def forget(path: str, **names: Iterable[str]) -> None:
    """Strike out what is gone."""
    now = read(path)
    wanted = changed(now, {}, names)
    if wanted != now:
        write(wanted, path)
