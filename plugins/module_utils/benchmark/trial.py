# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A candidate of a tune on this node: its files, its unit, and the way back to what served before.

The unit is rendered by the role vllm, from the template of every instance. It lies in /run, and conflicts with the
instance's own unit where it takes its GPUs: what serves is never changed, so a reboot brings it back as well.
``python -m ….benchmark.trial FOLDER`` puts the old set back: the job's unit runs it, however the job ends.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional

from ..node import commands, files as node_files
from ..node.commands import Runner
from ..programs import diagnosis
from .gpus import PATIENCE_S

#: Where all files of a trial are: what serves has its own elsewhere, and a reboot takes these.
RUN = "/run/"
#: What a trial's configuration says at its top.
ABOUT = "# A candidate of a tune, as JSON, which YAML includes. It goes with the tune.\n"


class TrialError(Exception):
    """A candidate cannot be tried. The message is for the user."""


@dataclass(frozen=True)
class Trial:
    """The unit of candidates, and the instance's own. ``config``: the options that candidates change.

    Raises:
        ValueError: its files are not below /run, so they may be those of what serves.
    """

    unit: str
    own_unit: str
    in_place: bool
    config_path: str
    environment_path: str
    config: Mapping[str, Any]

    def __post_init__(self) -> None:
        for path in (self.config_path, self.environment_path):
            if not path.startswith(RUN):
                raise ValueError(f"The files of a trial are below {RUN}, and {path} is not: nothing was changed.")


def written(trial: Trial, options: Mapping[str, Any]) -> str:
    """The configuration of a candidate: None removes an option."""
    merged = {name: value for name, value in {**trial.config, **options}.items() if value is not None}
    return ABOUT + json.dumps(merged, indent=2, sort_keys=True) + "\n"


def environment(base: str, env: Mapping[str, str]) -> str:
    """The environment of a candidate: of two lines Docker takes the last."""
    return "".join(f"{line}\n" for line in (*base.splitlines(), *(f"{name}={env[name]}" for name in sorted(env))))


class Switch:
    """Starts one candidate after the other. ``folder``: that of the job, which notes what must be put back."""

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
        """Why the engine did not start, from what it said in this run: those before it had the same unit.

        ``err``: what systemctl said.
        """
        (shown,) = commands.shown(self.run(commands.show(["InvocationID"], self.trial.unit))[1]) or [{}]
        self.run(["journalctl", "--sync"])
        command = ["journalctl", "--no-pager", "--quiet", "--all", "--output=cat", "--lines=2000"]
        _rc, out, _err = self.run([*command, f"_SYSTEMD_INVOCATION_ID={shown.get('InvocationID', '')}"])
        found = diagnosis.diagnose(out.splitlines())
        last = found.cause if found else " ".join(diagnosis.telling_lines(out.splitlines(), 1))
        return diagnosis.shortened(last or err or "it did not start")

    def own_runs(self) -> bool:
        """Whether somebody started the instance's own unit meanwhile."""
        (shown,) = commands.shown(self.run(commands.show(["ActiveState"], self.trial.own_unit))[1]) or [{}]
        return shown.get("ActiveState") in ("active", "activating")


def power_limits(run: Runner, limits: Mapping[str, float]) -> None:
    """Set the power limit of GPUs, by their UUIDs, in watts.

    Raises:
        TrialError: that of some cannot be set.
    """
    troubles = []
    for uuid, watts in limits.items():
        command = ["nvidia-smi", f"--id={uuid}", f"--power-limit={watts:g}"]
        rc, out, err = run(commands.within(PATIENCE_S, *command))
        if rc != 0:
            said = "it did not answer" if rc in commands.TIMED_OUT else (err or out).strip()
            troubles.append(f"nvidia-smi does not set the power limit of {uuid} to {watts:g} W: {said}")
    if troubles:
        raise TrialError(" ".join(troubles))


def put_back(run: Runner, folder: str, wait: bool = False) -> str:
    """End the tune's unit and start what served before, as the job's folder notes it. Doing it twice changes nothing.

    ``wait``: until that serves. Returns what could not be put back, in words; empty if all was.
    """
    try:
        note: Dict[str, Any] = json.loads(node_files.read_text(os.path.join(folder, "put-back.json")))
    except OSError:
        return ""
    run([note["docker"], "rm", "--force", note["client"]])
    run(["systemctl", "stop", note["unit"]])
    run(["systemctl", "reset-failed", note["unit"]])
    for path in note["files"]:
        if path.startswith(RUN) and os.path.lexists(path):
            os.unlink(path)
    run(["systemctl", "daemon-reload"])
    troubles: List[str] = []
    try:
        power_limits(run, note["power_limits"])
    except TrialError as trouble:
        troubles.append(str(trouble))
    if note["was_active"]:
        rc, _out, err = run(["systemctl", "start", *([] if wait else ["--no-block"]), note["own_unit"]])
        if rc != 0:
            said = err.strip() or f"systemctl start ended with {rc}"
            troubles.append(f"{note['own_unit']} does not start again: {said}")
    return " ".join(troubles)


def main(folder: str, run: Optional[Runner] = None) -> int:
    """Put back; what could not be is told, in the journal of the job's unit, and fails it."""
    trouble = put_back(run or commands.runner(dict(os.environ)), folder)
    if trouble:
        sys.stderr.write(f"{trouble}\n")
    return 1 if trouble else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
