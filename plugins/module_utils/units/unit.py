# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a unit runs what is on disk, from what systemd shows and from what the unit put aside when it started.

A unit of ours copies at its start the files that it starts from, each under its own path in one folder. Comparing those
with the files as they are now tells whether a restart is due, whoever changed a file and whenever: a play that was
stopped between writing and restarting is finished by the next one, and a file that was edited and put back costs
nothing. Once the unit has answered, that folder becomes the last good set, to which a failed change returns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Optional, Sequence

from ..node import commands

#: Where it is noted which units were stopped to make room for others; gone with the next boot, which starts them again.
STOOD_DOWN = "/run/gpunode/stood-down"

PROPERTIES = ("Id", "LoadState", "ActiveState", "SubState", "NeedDaemonReload", "UnitFileState", "MainPID")

#: path -> sha256 in hex, or None where there is no such file
Checksum = Callable[[str], Optional[str]]


@dataclass(frozen=True)
class Shown:
    """One unit as ``systemctl show`` tells of it."""

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
    """What systemd said of units, asked with ``commands.show(PROPERTIES, …)``."""
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
    """The first of the files that is not what the unit started from; empty when all are."""
    for path in files:
        started = checksum(started_from + path)
        if started is None or started != checksum(path):
            return path
    return ""


def is_unit(path: str, name: str) -> bool:
    """Whether a file is the unit itself."""
    return path.rsplit("/", 1)[-1] == name


def decide(shown: Shown, changed: str, moved: str = "", reloads: bool = False) -> Decision:
    """What a unit needs. ``changed``: a file of its that is not what it runs from. ``moved``: what else is not.

    ``reloads``: it takes up its program and its files while it runs, all but the unit itself.
    """
    if shown.active == "failed":
        return Decision(shown.name, "start", "it had failed")
    if not shown.runs:
        return Decision(shown.name, "start", "it was not running")
    if changed:
        action = "reload" if reloads and not shown.needs_reload and not is_unit(changed, shown.name) else "restart"
        return Decision(shown.name, action, f"{changed} is not what it was started from")
    if shown.needs_reload:
        return Decision(shown.name, "restart", "systemd had not read its unit file again")
    if moved:
        return Decision(shown.name, "reload" if reloads else "restart", moved)
    return Decision(shown.name, "none", "it runs what is on disk")
