# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a node can get the router's package: a wheel of smg that fits, from an index or a folder."""

from __future__ import annotations

import glob
import os
from typing import Sequence, Tuple

from ..hub.api import Opener
from ..node.web import without_password

#: What smg 1.13.0 and what it imports have wheels for.
MACHINES = ("x86_64", "aarch64")
PYTHONS = ((3, 10), (3, 14))
#: pip's own index, and its own settings, which may name another one.
PYPI = "https://pypi.org/simple"
PIP_SETTINGS = ("/etc/pip.conf", "/etc/xdg/pip/pip.conf", "~/.config/pip/pip.conf", "~/.pip/pip.conf")


def obstacle(machine: str, python: Sequence[int]) -> str:
    """Why no wheel of smg fits; empty if one does."""
    if machine not in MACHINES:
        return f"smg has no wheel for {machine}"
    if not PYTHONS[0] <= tuple(python[:2]) <= PYTHONS[1]:
        first, last = (".".join(map(str, version)) for version in PYTHONS)
        found = ".".join(map(str, python)) or "no python3"
        return f"smg has wheels for Python {first} to {last}, and this node has {found}"
    return ""


def in_folder(wheels: str) -> str:
    """Why the folder that is used in place of an index has no smg; empty if it has."""
    return "" if glob.glob(os.path.join(glob.escape(wheels), "smg-*.whl")) else f"{wheels} has no wheel of smg"


def pip_index() -> str:
    """The index that pip asks if it is told of none; empty if its settings may say so."""
    return "" if any(os.path.exists(os.path.expanduser(path)) for path in PIP_SETTINGS) else PYPI


def at_index(index: str, opener: Opener) -> str:
    """Why an index does not have smg; empty if it has, or if it is not known which one will be asked."""
    if not index:
        return ""
    answer = opener("GET", f"{index.rstrip('/')}/smg/", {"Accept": "text/html, */*"})
    if 200 <= answer.status < 400:
        return ""
    problem = f"cannot be reached: {answer.reason}" if answer.status == 0 else f"answers {answer.status} for smg"
    return f"the Python package index {without_password(index)} {problem}"


def version(text: str) -> Tuple[int, ...]:
    """The version of Python from what it prints of itself; nothing if there is no Python."""
    return tuple(int(part) for part in text.split() if part.isdigit())
