# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the router and the gateway add to a stream, in milliseconds, and what they let through at the most.

The engine is a stub that has all tokens at once, so all that is seen is the way; the router is the real smg and the
gateway the real nginx, with the role's own configuration, all on loopback. They share this machine's cores with the
client and the stub: the rates are lower bounds. The seconds of a CPU that each stream costs them do not depend on that.

It measures and prints; it asserts nothing.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path

from routed import CLIENT_KEY, ENGINE_KEY, ENGINES, FRONT, ROUTERS, engines, front, router, used, workers
from streams import Seen, Target, measure

COLUMNS = f"{'at once':>8} {'first':>8} {'99 %':>8} {'whole':>8} {'streams/s':>9} {'tokens/s':>10}   CPU ms a stream"


def row(name: str, target: Target, at_once: int, total: int, processes: dict[str, int]) -> None:
    """Measure a way, and print its line."""
    measure(target, at_once, max(at_once, total // 10))  # connections and caches are no part of it
    before = {which: used(process).cpu_s for which, process in processes.items()}
    seen: Seen = measure(target, at_once, total)
    costs = {which: (used(process).cpu_s - before[which]) / total * 1000 for which, process in processes.items()}
    told = "  ".join(f"{which} {cost:.2f}" for which, cost in costs.items())
    failed = f"   {len(seen.failures)} FAILED: {seen.failures[0]}" if seen.failures else ""
    print(f"{name:24}{at_once:8} {seen.row()}   {told}{failed}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 32, 256])
    parser.add_argument("--streams", type=int, default=4000, help="of each; a tenth where it is one at once")
    parser.add_argument("--tokens", type=int, default=64)
    args = parser.parse_args()
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="bench-router-") as name:
        folder = Path(name)
        # The front's workers are another user.
        folder.chmod(0o755)
        workers(folder, [0])
        engine = stack.enter_context(engines(folder))
        smg = stack.enter_context(router(folder))
        before_engine = stack.enter_context(front(folder / "engine", ENGINES, FRONT))
        before_router = stack.enter_context(front(folder / "router", ROUTERS[0], FRONT + 1))
        direct = {"key": ENGINE_KEY, "tokens": args.tokens}
        through = {"key": CLIENT_KEY, "tokens": args.tokens}
        ways = (
            ("engine", Target(f"http://127.0.0.1:{ENGINES}", **direct), {"engine": engine}),
            ("router", Target(f"http://127.0.0.1:{ROUTERS[0]}", **direct), {"engine": engine, "router": smg}),
            (
                "gateway",
                Target(f"https://127.0.0.1:{FRONT}", **through, certificate=f"{folder}/engine/certificate.pem"),
                {"engine": engine, "gateway": before_engine},
            ),
            (
                "gateway and router",
                Target(f"https://127.0.0.1:{FRONT + 1}", **through, certificate=f"{folder}/router/certificate.pem"),
                {"engine": engine, "router": smg, "gateway": before_router},
            ),
        )
        print(f"{args.tokens} tokens a stream; ms to the first token (median, 99th percentile) and of the whole")
        print(f"{'':24}{COLUMNS}")
        for at_once in args.at_once:
            for way, target, processes in ways:
                row(way, target, at_once, args.streams // (10 if at_once == 1 else 1), processes)


if __name__ == "__main__":
    main()
