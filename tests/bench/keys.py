# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a thousand keys cost at the gateway: streams with one of them, against one key alone, in both grades.

The gateway is the real nginx with the role's own configuration, the engine a stub that has all tokens at once, both on
loopback. Plain keys are nginx's own tables; keys that may less than all are asked of the script.

It measures and prints; it asserts nothing.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from routed import CLIENT_KEY, ENGINES, FRONT, engines, front
from router import COLUMNS, row
from streams import Target


def plain(count: int) -> dict[str, Any]:
    return {**{f"client-{number}": f"sk-of-a-bench-{number:032d}" for number in range(count - 1)}, "bench": CLIENT_KEY}


def limited(keys: Mapping[str, str]) -> dict[str, Any]:
    return {
        name: {"key": key, "models": ["stub"], "expires": "2099-12-31", "tokens_per_day": 10**9}
        for name, key in keys.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--tokens", type=int, default=16)
    args = parser.parse_args()
    cases = {
        "1 key": plain(1),
        "1,000 keys": plain(1000),
        "1 key, limited": limited(plain(1)),
        "1,000 keys, limited": limited(plain(1000)),
    }
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="bench-keys-") as name:
        folder = Path(name)
        # The gateway's workers are another user.
        folder.chmod(0o755)
        stack.enter_context(engines(folder))
        ways = {}
        for number, (case, keys) in enumerate(cases.items()):
            process = stack.enter_context(front(folder / str(number), ENGINES, FRONT + number, keys))
            certificate = f"{folder}/{number}/certificate.pem"
            url = f"https://127.0.0.1:{FRONT + number}"
            ways[case] = Target(url, key=CLIENT_KEY, tokens=args.tokens, certificate=certificate), process
        print(f"{'':24}{COLUMNS}")
        for at_once in args.at_once:
            for case, (target, process) in ways.items():
                row(case, target, at_once, args.streams // (4 if at_once == 1 else 1), {"gateway": process})


if __name__ == "__main__":
    main()
