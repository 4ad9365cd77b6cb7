# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What site.yml costs on a lab node, in one run: first converge, then nothing to do, against a one-task ping play.

It measures and prints; it asserts nothing. Columns: tasks that ran (not skipped), wall seconds, ratio to the floor,
and the seconds of tasks that only pull or wait for the engine's start.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import tempfile

from measured import CHECKOUT, LAB, play

PULLS = re.compile(r"Fetch the (weights|images)")
STARTS = re.compile(r"wait for a completion")
INSTALLS = re.compile(r" : Install ")
PING = "- hosts: all\n  gather_facts: false\n  tasks:\n    - name: Ping\n      ansible.builtin.ping:\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often the floor and the second run are measured")
    args = parser.parse_args()
    node = "bench"
    subprocess.run([LAB, "up"], check=True)
    subprocess.run([LAB, "remove", node], check=True)
    subprocess.run([LAB, "node", node], check=True)
    try:
        with tempfile.NamedTemporaryFile("w", suffix=".yml", dir=CHECKOUT / "tests" / "bench") as ping:
            ping.write(PING)
            ping.flush()
            play(node, ping.name)  # the connection's first use is no part of the floor
            first, tasks = play(node, "site.yml", "-e", "model=tiny")
            floors = [play(node, ping.name)[0] for _round in range(args.rounds)]
            again = [play(node, "site.yml", "-e", "model=tiny") for _round in range(args.rounds)]
        report(floors, first, tasks, again)
    finally:
        subprocess.run([LAB, "remove", node], check=True)


def report(
    floors: list[float],
    first: float,
    tasks: list[tuple[str, float, bool]],
    again: list[tuple[float, list[tuple[str, float, bool]]]],
) -> None:
    """Print the table, and the dearest tasks of both runs."""
    floor = statistics.median(floors)
    wall, second = sorted(again, key=lambda run: run[0])[len(again) // 2]
    pulls = sum(s for name, s, ran in tasks if ran and PULLS.search(name))
    starts = sum(s for name, s, ran in tasks if ran and STARTS.search(name))
    installs = sum(s for name, s, ran in tasks if ran and INSTALLS.search(name))
    print(f"{'':26}{'tasks':>6}{'wall s':>9}{'x floor':>9}")
    print(f"{'one-task ping (floor)':26}{1:6}{floor:9.2f}{1:9.1f}")
    print(f"{'site.yml, nothing to do':26}{sum(r for *_rest, r in second):6}{wall:9.2f}{wall / floor:9.1f}")
    print(f"{'site.yml, first converge':26}{sum(r for *_rest, r in tasks):6}{first:9.2f}{first / floor:9.1f}")
    rest = first - pulls - starts
    print(f"  of it: pulling {pulls:.1f} s, the engine's start {starts:.1f} s, all else {rest:.1f} s")
    print(f"  of all else: installing packages {installs:.1f} s")
    for title, run in (("first converge", tasks), ("nothing to do", second)):
        print(f"dearest tasks, {title}:")
        for name, seconds, _ran in sorted(run, key=lambda t: -t[1])[:10]:
            print(f"  {seconds:7.2f} s  {name}")


if __name__ == "__main__":
    main()
