# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start one process of the router: Shepherd Model Gateway (smg), in this process, so that no key is in a command line.

It is copied to the node and runs in the router's virtual environment: standard library only, and smg.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
from typing import Any, Callable, Dict, List, Mapping, Sequence

#: Of smg's options, those that are the same for every fleet. Tokenizers are the engines' business. A worker that is
#: down stays known: its model is unavailable then, and not unknown, and it has requests as soon as it answers again.
FIXED = (
    *("--disable-tokenizer-autoload", "--discovery-provider", "file", "--history-backend", "none"),
    "--no-remove-unhealthy-workers",
)
#: Seconds between looks at a worker that does not answer yet, and at the file of workers.
LOOK_S = 2


def read(path: str) -> str:
    """The text of a file; empty if there is none."""
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except FileNotFoundError:
        return ""


def aliases(path: str) -> Dict[str, str]:
    """Other names of models, each with the name that engines know."""
    return dict(json.loads(read(path) or "{}"))


def arguments(
    settings: Mapping[str, Any], number: int, key: str, control_key: str, names: Mapping[str, str]
) -> List[str]:
    """The arguments of smg for the process of this number."""
    options = {
        "host": settings["host"],
        "port": settings["ports"][number],
        "prometheus-host": settings["host"],
        "prometheus-port": settings["metrics_ports"][number],
        "policy": settings["policy"],
        "discovery-file": settings["workers"],
        "discovery-check-interval-secs": LOOK_S,
        "worker-startup-check-interval": LOOK_S,
        "health-check-interval-secs": settings["check_interval_s"],
        "health-check-timeout-secs": settings["check_timeout_s"],
        "health-failure-threshold": settings["check_failures"],
        "health-success-threshold": 1,
        "request-timeout-secs": settings["request_timeout_s"],
        "shutdown-grace-period-secs": settings["drain_timeout_s"],
        "max-payload-size": settings["max_body_mib"] << 20,
        "log-level": settings["log_level"],
        # Without this key /workers would open to the engines' key.
        "control-plane-api-keys": f"gpunode:gpunode:admin:{control_key}",
        **({"api-key": key} if key else {}),
        **({"otlp-traces-endpoint": settings["otlp_endpoint"]} if settings.get("otlp_endpoint") else {}),
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    others = [word for name, model in sorted(names.items()) for word in ("--model-alias", f"{name}={model}")]
    traces = ["--enable-trace"] if "otlp-traces-endpoint" in options else []
    return ["smg", "launch", *FIXED, *traces, *words, *others]


def control_key(path: str) -> str:
    """Make the key of this start, for root and this process only."""
    key = secrets.token_hex(32)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as stream:
        stream.write(key)
    return key


def start() -> Callable[[], None]:
    """The start of smg. It is not here where this file is only read."""
    from smg.cli import main as smg_main

    begin: Callable[[], None] = smg_main
    return begin


def main(argv: Sequence[str], run: Callable[[], Callable[[], None]] = start) -> None:
    parser = argparse.ArgumentParser(description="Start one process of the router.")
    parser.add_argument("--settings", required=True, help="the settings, a JSON file")
    parser.add_argument("--number", type=int, choices=(0, 1), default=0, help="which of the two processes")
    parser.add_argument("--key", required=True, help="the file with the engines' key; empty where they have none")
    parser.add_argument("--control-key", required=True, help="the file for the key of /workers")
    options = parser.parse_args(argv)
    settings = json.loads(read(options.settings))
    keys = read(options.key).strip(), control_key(options.control_key)
    begin = run()
    sys.argv = arguments(settings, options.number, *keys, aliases(settings["aliases"]))
    begin()


if __name__ == "__main__":
    main(sys.argv[1:])
