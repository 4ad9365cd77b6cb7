# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A candidate of a tune on this node: its files, its unit, and the way back to what served before.

The unit is rendered by the role vllm, from the template of every instance. It lies in /run, and conflicts with the
instance's own unit where it takes its GPUs: what serves is never changed, so a reboot brings it back as well.
``python -m ….benchmark.trial FOLDER`` puts the old set back; the job's unit runs it when the job ends for whatever reason.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional

from ..node import commands, files as node_files
from ..node.commands import Runner

#: What a trial's configuration says at its top.
ABOUT = "# A candidate of a tune, as JSON, which YAML includes. It goes with the tune.\n"


class TrialError(Exception):
    """A candidate did not start. The message is for the user."""


@dataclass(frozen=True)
class Trial:
    """The unit of candidates, and the instance's own. ``config``: the options that candidates change."""

    unit: str
    own_unit: str
    in_place: bool
    config_path: str
    environment_path: str
    config: Mapping[str, Any]
    files: List[str] = field(default_factory=list)


def written(trial: Trial, options: Mapping[str, Any]) -> str:
    """The configuration of a candidate: None removes an option."""
    merged = {name: value for name, value in {**trial.config, **options}.items() if value is not None}
    return ABOUT + json.dumps(merged, indent=2, sort_keys=True) + "\n"


def environment(base: str, env: Mapping[str, str]) -> str:
    """The environment of a candidate: of two lines Docker takes the last."""
    return base + "".join(f"{name}={value}\n" for name, value in sorted(env.items()))


class Switch:
    """Starts candidates, and what served before. ``folder``: that of the job, which notes what must be put back."""

    def __init__(self, run: Runner, trial: Trial, folder: str) -> None:
        self.run, self.trial, self.folder = run, trial, folder
        self.base_environment = node_files.read_text(trial.environment_path)
        run(["systemctl", "daemon-reload"])

    def start(self, options: Mapping[str, Any], env: Mapping[str, str]) -> None:
        """Start a candidate in place of the one before it, and wait until it answers.

        Raises:
            TrialError: it did not, with the cause from its journal.
        """
        trial = self.trial
        node_files.write_atomically(trial.config_path, written(trial, options))
        node_files.write_atomically(trial.environment_path, environment(self.base_environment, env), mode=0o600)
        self.run(["systemctl", "stop", trial.unit])
        self.run(["systemctl", "reset-failed", trial.unit])
        # Conflicts= in the unit stops the instance's own where it takes its place.
        rc, _out, err = self.run(["systemctl", "start", trial.unit])
        if rc != 0:
            raise TrialError(self.why(err))

    def why(self, err: str) -> str:
        """The last lines of an engine that did not start."""
        command = ["journalctl", "--unit", self.trial.unit, "--lines=400", "--output=cat", "--no-pager", "--quiet"]
        _rc, out, _err = self.run(command)
        return cause(out.splitlines()) or err.strip() or "it did not start"

    def own_runs(self) -> bool:
        """Whether somebody started the instance's own unit meanwhile."""
        (shown,) = commands.shown(self.run(commands.show(["ActiveState"], self.trial.own_unit))[1]) or [{}]
        return shown.get("ActiveState") in ("active", "activating")


def cause(lines: List[str]) -> str:
    """The last line of an engine's journal that names an error."""
    errors = [line.strip() for line in lines if "Error" in line or "error:" in line]
    return errors[-1][-300:] if errors else ""


def power_limits(run: Runner, limits: Mapping[str, float]) -> None:
    """Set the power limit of GPUs, by their UUIDs, in watts."""
    for uuid, watts in limits.items():
        run(["nvidia-smi", f"--id={uuid}", f"--power-limit={watts:g}"])


def put_back(run: Runner, folder: str, wait: bool = False) -> str:
    """End the tune's unit and start what served before, as the job's folder notes it. Doing it twice changes nothing.

    Returns what systemd said if that does not start.
    """
    try:
        note: Dict[str, Any] = json.loads(node_files.read_text(os.path.join(folder, "put-back.json")))
    except OSError:
        return ""
    run([note["docker"], "rm", "--force", note["client"]])
    run(["systemctl", "stop", note["unit"]])
    run(["systemctl", "reset-failed", note["unit"]])
    for path in note["files"]:
        if os.path.lexists(path):
            os.unlink(path)
    run(["systemctl", "daemon-reload"])
    power_limits(run, note["power_limits"])
    if not note["was_active"]:
        return ""
    rc, _out, err = run(["systemctl", "start", *([] if wait else ["--no-block"]), note["own_unit"]])
    return err.strip() if rc != 0 else ""


def main(folder: str, run: Optional[Callable[..., Any]] = None) -> int:
    put_back(run or commands.runner(dict(os.environ)), folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
