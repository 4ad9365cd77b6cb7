# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands that several files use: how to call them, how to read their output, and how to run them in parallel."""

from __future__ import annotations

import subprocess
from typing import Callable, Dict, List, Mapping, Sequence, Tuple

#: Exit status, stdout and stderr of a command.
Runner = Callable[[Sequence[str]], Tuple[int, str, str]]

#: Exit codes of `timeout` when the time was up: the command ended on SIGTERM, or was killed.
TIMED_OUT = (124, 137)


def within(seconds: object, *argv: str) -> List[str]:
    """A command with a time limit, for programs that may never answer: a hanging daemon, a lost GPU."""
    return ["timeout", "--kill-after=5", str(seconds), *argv]


def show(properties: Sequence[str], *units: str) -> List[str]:
    """The command that shows units; ``shown`` parses its output."""
    return ["systemctl", "show", *units, f"--property={','.join(properties)}"]


def shown(text: str) -> List[Dict[str, str]]:
    """The properties of each unit, in the order of the units on the command line.

    >>> shown("Id=a.service\\nJob=\\n\\nId=b.service\\n")
    [{'Id': 'a.service', 'Job': ''}, {'Id': 'b.service'}]
    """
    blocks = ([line.split("=", 1) for line in block.splitlines() if "=" in line] for block in text.split("\n\n"))
    return [dict(block) for block in blocks if block]


def inspected(run: Runner, docker: str, kind: str, template: str, *names: str) -> str:
    """Docker's information on images or containers, one line for each that exists; empty if none does.

    Args:
        docker: the program.
        kind: V(image) or V(container).
        template: what to print for each, as a Go template.
    """
    _rc, out, _err = run([docker, kind, "inspect", f"--format={template}", *names])
    return str(out).strip()


def runner(environment: Mapping[str, str]) -> Runner:
    """A function that runs programs with this environment, several at a time."""

    def run(argv: Sequence[str]) -> Tuple[int, str, str]:
        try:
            done = subprocess.run(  # pylint: disable=ansible-bad-function
                list(argv),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env={**environment, "LC_ALL": "C"},
                check=False,
            )
        except OSError as error:
            return 127, "", str(error)
        return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")

    return run
