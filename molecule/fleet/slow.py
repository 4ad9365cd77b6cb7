# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on a node: lets what computes in an engine that serves work a fifth of the time, as if its model were larger.

Tokens of the lab's model cost so little that twenty streams of it would take all CPUs from what is to be tested.
"""

import os
import pathlib
import signal
import subprocess
import sys
import time

UNIT = "vllm-tiny"


def computing():
    """The processes of engines that compute; none while the unit starts or stops."""
    if subprocess.run(["systemctl", "is-active", "--quiet", UNIT], check=False).returncode:
        return []
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/comm"):
        try:
            if path.read_text().startswith("VLLM::"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def tell(processes, sign):
    for process in processes:
        try:
            os.kill(process, sign)
        except OSError:
            continue


def main():
    processes, looked = [], 0.0
    signal.signal(signal.SIGTERM, lambda *_told: sys.exit(0))
    try:
        while True:
            if time.monotonic() - looked > 3:
                processes, looked = computing(), time.monotonic()
            tell(processes, signal.SIGSTOP)
            time.sleep(0.2)
            tell(processes, signal.SIGCONT)
            time.sleep(0.05)
    finally:
        tell(processes, signal.SIGCONT)


if __name__ == "__main__":
    main()
