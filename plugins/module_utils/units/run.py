# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Units: decide what each one needs, and do it. Used by units_current, and by units_ready, which waits afterwards."""

from __future__ import annotations

import hashlib
import os
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ..node import commands, files as node_files
from . import unit as units_unit

Unit = Mapping[str, Any]

OPTIONS: Dict[str, Any] = {
    "units": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "files": {"type": "list", "elements": "path", "default": []},
            "started_from": {"type": "path", "required": True},
            "container": {"type": "str"},
            "image": {"type": "str"},
            "reloads": {"type": "bool", "default": False},
        },
    },
}
#: Options of the modules that change units.
RUNNING = {
    **OPTIONS,
    "would_change": {"type": "list", "elements": "path", "default": []},
    "instead_of": {"type": "list", "elements": "str", "default": []},
}


def checksum(path: str) -> Optional[str]:
    try:
        return hashlib.sha256(node_files.read_bytes(path)).hexdigest()
    except OSError:
        return None


class Units:
    def __init__(self, module: Any) -> None:
        self.module = module
        self.wanted = module.params["units"]
        self.shown = self.show([unit["name"] for unit in self.wanted])

    def systemctl(self, *words: str) -> str:
        rc, out, err = self.module.run_command(["systemctl", *words])
        if rc != 0:
            self.module.fail_json(msg=f"systemctl {' '.join(words)} failed: {(err or out).strip()}", units=[])
        return str(out)

    def show(self, names: Sequence[str]) -> Dict[str, units_unit.Shown]:
        units = units_unit.parse_show(self.systemctl(*commands.show(units_unit.PROPERTIES, *names)[1:]))
        return {name: units.get(name, units_unit.Shown(name)) for name in names}

    def changed_file(self, unit: Unit) -> str:
        # The unit file first: a service that reloads picks up all the other files.
        files = sorted(unit["files"], key=lambda path: not units_unit.is_unit(path, unit["name"]) and unit["reloads"])
        for path in files:
            if path in self.module.params.get("would_change", ()):
                return str(path)
        return units_unit.stale_file(unit["started_from"], files, checksum)

    def moved(self, unit: Unit) -> str:
        """Why the running program is not the current one: it was replaced, or its image name has a new image."""
        if unit["reloads"]:
            return "its program was replaced" if self.program_replaced(unit) else ""
        return "its image name now refers to another image" if self.image_moved(unit) else ""

    def program_replaced(self, unit: Unit) -> bool:
        try:
            return os.readlink(f"/proc/{self.shown[unit['name']].pid}/exe").endswith(" (deleted)")
        except OSError:
            return False

    def image_moved(self, unit: Unit) -> bool:
        docker = self.module.get_bin_path("docker")
        if not (docker and unit["container"] and unit["image"]):
            return False
        run = self.module.run_command
        running = commands.inspected(run, docker, "container", "{{.Image}}", unit["container"])
        named = commands.inspected(run, docker, "image", "{{.Id}}", unit["image"])
        return bool(running and named and running != named)

    def decide(self, unit: Unit) -> units_unit.Decision:
        shown = self.shown[unit["name"]]
        changed = self.changed_file(unit) if shown.runs else ""
        moved = self.moved(unit) if shown.runs and not changed else ""
        return units_unit.decide(shown, changed, moved, unit["reloads"])

    def in_the_way(self, decisions: Sequence[units_unit.Decision]) -> List[units_unit.Decision]:
        """Units to stop first, since they may use the same GPUs or port. Empty if all wanted units run."""
        names = self.module.params.get("instead_of") or []
        starting = [decision for decision in decisions if decision.action in ("start", "restart")]
        if not names or not (starting or any(shown.active != "active" for shown in self.shown.values())):
            return []
        running = [name for name, shown in self.show(names).items() if shown.runs]
        return [units_unit.Decision(name, "stop", "its GPUs and port are needed by listed units") for name in running]

    def stand_down(self, names: Sequence[str]) -> None:
        """Stop units, and record that a play did it, not a user. They stay enabled until their successors answer."""
        for name in names:
            node_files.write_atomically(os.path.join(units_unit.STOOD_DOWN, name), "")
        self.systemctl("stop", *names)

    def apply(self, decisions: Sequence[units_unit.Decision], to_enable: Sequence[str]) -> None:
        if any(shown.needs_reload or shown.load == "not-found" for shown in self.shown.values()):
            self.systemctl("daemon-reload")
        if to_enable:
            self.systemctl("enable", "--quiet", *to_enable)
        self.reload([decision.name for decision in decisions if decision.action == "reload"])
        quick = {unit["name"] for unit in self.wanted if unit["reloads"]}
        due = [decision.name for decision in decisions if decision.action in ("start", "restart")]
        self.restart([name for name in due if name in quick])
        self.restart([name for name in due if name not in quick], "--no-block")

    def reload(self, names: Sequence[str]) -> None:
        if names:
            self.systemctl("reload", *names)

    def restart(self, due: Sequence[str], *options: str) -> None:
        if due:
            # systemd limits the starts of a unit to end crash loops. Starts by a play count too, so it would refuse
            # the fifth deploy of an hour and leave the unit stopped. reset-failed clears the count. It fails for a
            # unit that systemd has not loaded, which has no count either.
            self.module.run_command(["systemctl", "reset-failed", *due])
            self.systemctl("restart", *options, *due)


def due(module: Any) -> Tuple[Units, List[units_unit.Decision], List[str]]:
    """The units, what each needs, and the names of those to enable."""
    units = Units(module)
    decisions = [units.decide(unit) for unit in units.wanted]
    return units, decisions, [name for name, shown in units.shown.items() if not shown.enabled]


def described(decisions: Sequence[units_unit.Decision], to_enable: Sequence[str]) -> List[str]:
    """What the units need, one line each."""
    needed = [decision for decision in decisions if decision.action != "none"]
    lines = [f"{decision.name}: {decision.action}, {decision.why}" for decision in needed]
    return lines + [f"{name}: enable" for name in to_enable]


def answer(lines: Sequence[str], decisions: Sequence[units_unit.Decision]) -> Dict[str, Any]:
    """What the units need, in one form for all modules, so that a play can use one result in place of another."""
    rows = [{"name": decision.name, "action": decision.action, "why": decision.why} for decision in decisions]
    return {"settled": not lines, "due": list(lines), "units": rows}


def run(module: Any) -> Dict[str, Any]:
    """Do what the units need; return the module's result. In check mode, only predict it."""
    if not module.params["units"]:
        return {"changed": False, **answer([], []), "diff": {"before": "", "after": ""}}
    units, decisions, to_enable = due(module)
    stopped = units.in_the_way(decisions)
    if not module.check_mode:
        if stopped:
            units.stand_down([unit.name for unit in stopped])
        units.apply(decisions, to_enable)
    decisions = [*stopped, *decisions]
    lines = described(decisions, to_enable)
    return {
        "changed": bool(lines),
        **answer(lines, decisions),
        "diff": {"before": "", "after": "".join(f"{line}\n" for line in lines)},
    }
