# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs of a benchmark and of a tune on a node that is made up: its engine gives the figures that a test says."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.gpunode.llm.plugins.module_utils.benchmark import __main__ as benchmark_main
from ansible_collections.gpunode.llm.plugins.module_utils.benchmark.measure import BenchmarkError
from ansible_collections.gpunode.llm.tests.unit.plugins.benchmark import records

IMAGE = "vllm/vllm-openai:v0.33.0"
DIGEST = "sha256:" + "a" * 64
GPU = records.GPU["uuid"]
RUN = {
    **{"name": "guide", "profile": {"prompt_tokens": 215, "output_tokens": 128}, "concurrency": [1, 16]},
    **{"headline": 16, "repeats": 2, "per_client": 1, "least": 8, "clients": 0, "seed": 7, "goals": {}, "rows": []},
}
MODEL = {**records.MODEL}


class Node:
    """Runs commands. ``fails``: the words of a command that fails, and what it says."""

    def __init__(self) -> None:
        self.ran: list[list[str]] = []
        self.fails: dict[str, str] = {}
        self.own_state = "inactive"
        self.limit_w = 700.0

    def __call__(self, argv: Sequence[str], **_named: Any) -> tuple[int, str, str]:
        line = " ".join(argv)
        self.ran.append(list(argv))
        for words, said in self.fails.items():
            if words in line:
                return 1, "", said
        if "--power-limit=" in line:
            self.limit_w = float(line.rpartition("=")[2])
        if argv[1:3] == ["image", "inspect"]:
            return 0, f'["vllm/vllm-openai@{DIGEST}"] {DIGEST}\n', ""
        if "--query-gpu=" in line:
            return 0, f"NVIDIA H100 80GB HBM3, {GPU}, 81559, {self.limit_w}, 1980, 580.159.04\n", ""
        if argv[:2] == ["systemctl", "show"]:
            return 0, f"ActiveState={self.own_state}\n", ""
        return 0, "", ""

    def lines(self, word: str) -> list[str]:
        return [" ".join(argv) for argv in self.ran if word in " ".join(argv)]


class Measurement:
    """Stands for measure.Measurement. ``speed``: of each candidate, from the options that its configuration has."""

    def __init__(self, config: Path | None = None) -> None:
        self.config, self.asked = config, []
        self.speed: Callable[[Mapping[str, Any]], float] = lambda options: 1.0
        self.change: Callable[[dict[str, Any]], Any] = lambda point: point

    def options(self) -> dict[str, Any]:
        if self.config is None:
            return {}
        text = self.config.read_text()
        options: dict[str, Any] = json.loads(text[text.index("{") :])
        return options

    def points(self, target: Any, runs: Sequence[Mapping[str, Any]], key: str) -> dict[str, Any]:
        self.asked.append((target, list(runs), key))
        options = self.options()
        found = []
        for run in runs:
            points = records.points(self.speed(options), 0.001, run["repeats"], run["concurrency"])
            for point in points:
                self.change(point)
            found.append(points)
        return {"engine": {"version": "0.33.0", "options": {"max-model-len": 4096, **options}}, "points": found}


def common(folder: Path) -> dict[str, Any]:
    """What the orders of both have."""
    return {
        **{"docker": "/usr/bin/docker", "host": "gpu01", "name": "8b", "collection": "1.2.0", "label": ""},
        **{"results": str(folder.parent / "kept"), "runs": [copy.deepcopy(RUN)], "quality": {}, "busy": False},
        **{"model": MODEL, "environment": {"VLLM_A": "1"}},
        "target": {
            **{"name": "8b", "container": "vllm-8b", "image": IMAGE, "served": "8b"},
            **{"host": "127.0.0.1", "port": 8000, "gpus": [GPU], "env_file": str(folder / "8b.env")},
        },
    }


def env_file(folder: Path) -> None:
    """The engine's own file."""
    (folder / "8b.env").write_text("VLLM_API_KEY=sk-one\n")


def choice(name: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"name": f"{name}={value}", "options": {name: value}, "env": {}, "exact": True, **more}


def tuned(folder: Path, **more: Any) -> dict[str, Any]:
    """The order of a tune in place of what serves."""
    trial = {
        **{"unit": "vllm-8b-tune-trial.service", "own_unit": "vllm-8b.service", "in_place": True},
        **{"config_path": str(folder / "trial.yaml"), "environment_path": str(folder / "trial.env")},
        "config": {"max-model-len": 4096},
    }
    note = {
        **{"docker": "/usr/bin/docker", "client": "gpunode-benchmark-8b-tune-trial", "unit": trial["unit"]},
        **{"own_unit": trial["own_unit"], "was_active": True, "power_limits": {}},
        "files": [trial["config_path"], trial["environment_path"]],
    }
    axes = {"max-num-seqs": [choice("max-num-seqs", 128), choice("max-num-seqs", 512)]}
    return {
        **common(folder),
        **{"kind": "tune", "objective": "throughput", "budget_s": 3600.0, "previous": {}, "question": "what"},
        **{"power_limits": {}, "axes": axes, "trial": trial, "put_back": note},
        "engine": {
            "name": "vllm",
            "version": "",
            "image": "vllm/vllm-openai:v0.33.0",
            "image_digest": DIGEST,
            "env": {},
        },
        **more,
    }


class Clock:
    """Each look at it takes a second."""

    def __init__(self) -> None:
        self.now = 1_795_736_100.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def tune(folder: Path, node: Node, measurement: Measurement | None = None, **more: Any) -> benchmark_main.Tune:
    """A tune whose files are as the module leaves them."""
    plain = tuned(folder, **more)
    Path(plain["trial"]["environment_path"]).write_text("A=1\n")
    (folder / "put-back.json").write_text(json.dumps(plain["put_back"]))
    Path(plain["results"]).mkdir(exist_ok=True)
    env_file(folder)
    job = benchmark_main.Tune(str(folder), plain, Clock())
    job.run = node
    job.measurement = measurement or Measurement(Path(plain["trial"]["config_path"]))
    return job


def benchmark(folder: Path, node: Node, **more: Any) -> benchmark_main.Job:
    plain = {**common(folder), "kind": "benchmark", **more}
    Path(plain["results"]).mkdir(exist_ok=True)
    env_file(folder)
    job = benchmark_main.Job(str(folder), plain, Clock())
    job.run, job.measurement = node, Measurement()
    return job


def failing(_options: Mapping[str, Any]) -> float:
    raise BenchmarkError("The client failed: no answer")
