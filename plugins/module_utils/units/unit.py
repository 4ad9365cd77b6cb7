# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a unit runs from the current files: compares systemd's view and the copies that the unit made at its start.

At its start, each of our units copies the files that it starts from into one folder, under their own paths. If a copy
differs from the current file, the unit needs a restart, whoever changed the file. So a play that was stopped before
the restart is completed by the next one, and an edit that was undone restarts nothing. Once the unit has answered, that
folder becomes the last good set, to which a failed change returns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Optional, Sequence

from ..node import commands

#: Records the units that were stopped to make room for others. A reboot clears it, and starts them again.
STOOD_DOWN = "/run/gpunode/stood-down"

PROPERTIES = ("Id", "LoadState", "ActiveState", "SubState", "NeedDaemonReload", "UnitFileState", "MainPID")

#: path -> SHA-256 in hex, or None if there is no such file
Checksum = Callable[[str], Optional[str]]


@dataclass(frozen=True)
class Shown:
    """The properties of one unit from ``systemctl show``."""

    name: str
    load: str = "not-found"
    active: str = "inactive"
    sub: str = "dead"
    needs_reload: bool = False
    enabled: bool = False
    pid: int = 0

    @property
    def runs(self) -> bool:
        return self.active in ("active", "activating", "reloading", "deactivating", "refreshing")


@dataclass(frozen=True)
class Decision:
    name: str
    action: str  # none, start, restart, reload, stop
    why: str


def parse_show(text: str) -> dict[str, Shown]:
    """The units in the output of ``commands.show(PROPERTIES, …)``."""
    return {
        value["Id"]: Shown(
            name=value["Id"],
            load=value.get("LoadState", "not-found"),
            active=value.get("ActiveState", "inactive"),
            sub=value.get("SubState", "dead"),
            needs_reload=value.get("NeedDaemonReload") == "yes",
            enabled=value.get("UnitFileState") in ("enabled", "enabled-runtime", "static", "generated"),
            pid=int(value.get("MainPID") or 0),
        )
        for value in commands.shown(text)
        if "Id" in value
    }


def stale_file(started_from: str, files: Sequence[str], checksum: Checksum) -> str:
    """The first file that differs from its copy; empty if none does."""
    for path in files:
        started = checksum(started_from + path)
        if started is None or started != checksum(path):
            return path
    return ""


def is_unit(path: str, name: str) -> bool:
    """Whether a file is the unit's own file."""
    return path.rsplit("/", 1)[-1] == name


def decide(shown: Shown, changed: str, moved: str = "", reloads: bool = False) -> Decision:
    """What a unit needs. ``changed``: a file that differs from its copy. ``moved``: another reason, as a new image.

    ``reloads``: a reload picks up its program and its files, except the unit file.
    """
    if shown.active == "failed":
        return Decision(shown.name, "start", "it had failed")
    if not shown.runs:
        return Decision(shown.name, "start", "it was not running")
    if changed:
        action = "reload" if reloads and not shown.needs_reload and not is_unit(changed, shown.name) else "restart"
        return Decision(shown.name, action, f"{changed} has changed since the unit was started")
    if shown.needs_reload:
        return Decision(shown.name, "restart", "systemd had not reloaded its unit file")
    if moved:
        return Decision(shown.name, "reload" if reloads else "restart", moved)
    return Decision(shown.name, "none", "it runs from the current files")
