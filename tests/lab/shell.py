# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every part of the lab needs: running commands, saying what is being done, and where things are kept."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

LAB = Path(__file__).resolve().parent
CHECKOUT = LAB.parents[1]
CACHE = Path(
    os.environ.get("GPUNODE_LAB_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "gpunode-lab"
)
CACHE = CACHE.expanduser()


class LabError(Exception):
    """The lab cannot go on; the message says why and what to do."""


def run(*argv: str | Path, **kwargs: object) -> None:
    """Run a command with its output in view.

    Raises:
        LabError: it ended with a status other than 0.
    """
    done = subprocess.run([str(a) for a in argv], check=False, **kwargs)  # type: ignore[call-overload]
    if done.returncode:
        raise LabError(f"`{' '.join(str(a) for a in argv)[:300]}` ended with {done.returncode}")


def output(*argv: str | Path, check: bool = True) -> str:
    """Return what a command prints; '' where it fails and ``check`` is false."""
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, check=False)
    if done.returncode and check:
        raise LabError(f"`{' '.join(str(a) for a in argv)[:300]}` ended with {done.returncode}: {done.stderr.strip()}")
    return "" if done.returncode else done.stdout.strip()


def succeeds(*argv: str | Path) -> bool:
    """Say whether a command ends with 0; its output is dropped."""
    return subprocess.run([str(a) for a in argv], capture_output=True, check=False).returncode == 0


def say(text: str) -> None:
    """One line of progress."""
    print(f"[lab] {text}", file=sys.stderr, flush=True)


@contextmanager
def step(text: str) -> Iterator[None]:
    """Say what starts, and how long it took."""
    say(f"{text} …")
    began = time.monotonic()
    yield
    say(f"{text}: {time.monotonic() - began:.0f} s")


def digest(*parts: str | Path | Iterable[Path]) -> str:
    """Twelve hex digits that change when any of the texts or files does. A folder stands for every file below it."""
    summed = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            summed.update(part.encode())
            continue
        for top in [part] if isinstance(part, Path) else part:
            for path in sorted(p for p in ([top] if top.is_file() else top.rglob("*")) if p.is_file()):
                if not any(p == "__pycache__" or p.startswith(".") for p in path.relative_to(LAB).parts):
                    summed.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return summed.hexdigest()[:12]


def wait_for(text: str, seconds: float, *argv: str | Path) -> None:
    """Run a command once a second until it succeeds.

    Raises:
        LabError: it never did.
    """
    deadline = time.monotonic() + seconds
    while not succeeds(*argv):
        if time.monotonic() > deadline:
            raise LabError(f"{text}: not after {seconds:.0f} s")
        time.sleep(1)
