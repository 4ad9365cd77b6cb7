# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Benchmarks and tunes with the node's settings.

The tests share one node and go in their order: the first ones measure it as it was made, the later ones make it slow,
and a tune makes it fast again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from scenario import Play, Running, begin_play, on_node, run_play

SETTINGS = yaml.safe_load((Path(__file__).parents[1] / "converge.yml").read_text())[0]["vars"]
ENGINE_KEY, GATEWAY_KEY = SETTINGS["vllm_api_keys"][0], SETTINGS["gateway_keys"]["ada"]
#: A load of a second or two.
SMALL = {"prompt_tokens": 16, "output_tokens": 32, "concurrency": [1, 16], "headline": 16, "per_client": 2, "least": 8}
#: What makes the engine slow: one request after the other.
SLOW = {"max-num-seqs": 1}
#: What the node keeps.
KEPT = "/var/lib/gpunode/benchmark"
#: What measures, as its command line names it.
CLIENT = "benchmark.client"


@dataclass(frozen=True)
class Controller:
    """The folders on this machine that users give."""

    records: Path
    presets: Path

    def settings(self, **more: Any) -> list[str]:
        given = {"benchmark_extra_profiles": {"small": SMALL}, "benchmark_dir": str(self.records), **SETTINGS, **more}
        return ["-e", json.dumps(given)]

    def benchmark(self, **more: Any) -> Play:
        return run_play("playbooks/benchmark.yml", *self.settings(**{"benchmark_profiles": "small", **more}))

    def tune(self, **more: Any) -> Play:
        return self.begin_tune(**more).wait()

    def begin_tune(self, **more: Any) -> Running:
        given = {"tune_profile": "small", "benchmark_repeats": 1, **more}
        return begin_play("playbooks/tune.yml", *self.settings(**given))

    def site(self, **more: Any) -> Play:
        return run_play("site.yml", "-e", json.dumps({**SETTINGS, **more}))

    def files(self) -> set[Path]:
        return set(self.records.glob("*"))

    def new(self, before: set[Path], suffix: str = ".json") -> Path:
        """The one file that was not there before."""
        (path,) = [path for path in self.files() - before if path.name.endswith(suffix)]
        return path


@pytest.fixture(scope="session")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Controller:
    folder = tmp_path_factory.mktemp("controller")
    (folder / "presets").mkdir()
    return Controller(folder / "records", folder / "presets")


@contextmanager
def command_lines(into: list[str]) -> Iterator[None]:
    """All command lines of the node's processes meanwhile, looked at some times a second, each once."""
    look = (
        "while :; do for p in /proc/[0-9]*; do tr '\\\\0' ' ' <$p/cmdline 2>/dev/null && echo; done; sleep 0.1; done"
        " | awk '!seen[$0]++ { print; fflush() }' >/run/command-lines"
    )
    on_node(f'systemd-run --quiet --collect --unit=look sh -c "{look}"'.replace("$", "\\$"))
    try:
        yield
    finally:
        on_node("systemctl stop look")
    into += on_node("cat /run/command-lines").splitlines()


def load(name: str) -> dict[str, Any]:
    """What the node keeps, by its file's name."""
    return json.loads(on_node(f"cat {KEPT}/{name}"))
