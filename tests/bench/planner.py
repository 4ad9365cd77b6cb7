# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What planning costs: the whole matrix of models x hosts, one plan, the table of public models, and gpu_info over a
module that does nothing.

Prints the figures and ends with 1 where one is over its limit. A stand-in nvidia-smi prints a board of eight GPUs and
counts how often it is called.
"""

from __future__ import annotations

import json
import os
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
BOARD = CHECKOUT / "tests" / "fixtures" / "nvidia_smi" / "h100x8.xml"
TABLE = CHECKOUT / "tests" / "fixtures" / "models" / "configs.jsonl"
MATRIX_LIMIT_S = 2.0  # a thousand plans
HOST_LIMIT_S = 0.5
TABLE_LIMIT_S = 2.0
GPU_INFO_LIMIT_S = 0.2
ROUNDS = 10
PLAY = "- hosts: localhost\n  connection: local\n  gather_facts: false\n  tasks:\n"
# By turns, so that what else the machine does meets both alike.
TURN = "    - name: nothing\n      ansible.builtin.ping:\n    - name: gpu_info\n      gpunode.llm.gpu_info:\n"


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def planning() -> tuple[float, float, float, float, int]:
    """Seconds to read the catalogue, for the whole matrix, for one host of it, for one plan; rows of the matrix."""
    runpy.run_path(str(CHECKOUT / "tests" / "unit" / "conftest.py"))
    from ansible_collections.gpunode.llm.plugins.plugin_utils.planner import (
        catalog_files as planner_catalog_files,
        host as planner_host,
        matrix as planner_matrix,
        plan as planner_plan,
        request as planner_request,
    )

    reading = timed(planner_catalog_files.load_catalog)
    catalog = planner_catalog_files.load_catalog()
    rows = []

    def whole(labels: list[str]) -> None:
        hosts = [(label, planner_host.read_host(planner_host.given_gpus(label, catalog), catalog)) for label in labels]
        models = planner_matrix.matrix_models(["all"], catalog)
        rows.extend(planner_matrix.matrix({"models": models}, hosts, catalog, 1000)[0])

    def one() -> None:
        request = planner_request.read_request({"model": "405b-fp8"}, catalog)
        planner_plan.make_plan(request, planner_host.given_gpus("8xH100", catalog), catalog)

    labels = [f"{count}x{gpu.key}" for gpu in catalog.gpus.values() for count in (gpu.matrix_counts or (1,))]
    every = timed(lambda: whole(labels))
    count = len(rows)
    return (
        reading,
        every,
        timed(lambda: whole(["8xh100"])),
        statistics.median(timed(one) for _round in range(20)),
        count,
    )


def table() -> tuple[float, int]:
    """Seconds to read the table of public models and to plan each on one host, and how many there are."""
    from ansible_collections.gpunode.llm.plugins.plugin_utils.planner import (
        catalog_files as planner_catalog_files,
        host as planner_host,
        plan as planner_plan,
        request as planner_request,
    )

    lines = [json.loads(line) for line in TABLE.read_text(encoding="utf-8").splitlines()]

    def whole() -> None:
        fields = ("repo_id", "config", "hf_quant_config")
        entries = {line["repo_id"]: {key: line.get(key) for key in fields} for line in lines}
        catalog = planner_catalog_files.load_catalog(entries)
        for name in entries:
            request = planner_request.read_request({"model": name}, catalog)
            planner_plan.make_plan(request, planner_host.given_gpus("8xH200", catalog), catalog)

    return timed(whole), len(lines)


def asking() -> tuple[float, float, float]:
    """Median seconds of a module that does nothing and of gpu_info; calls of nvidia-smi for each gpu_info."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        tool, calls, durations = here / "nvidia-smi", here / "calls", here / "durations"
        tool.write_text(f"#!/bin/sh\necho called >>{calls}\nexec cat {BOARD}\n")
        tool.chmod(0o755)
        (here / "play.yml").write_text(PLAY + TURN * ROUNDS)
        env = {
            **os.environ,
            "PATH": f"{here}:{os.environ['PATH']}",
            "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            "ANSIBLE_CALLBACK_PLUGINS": str(CHECKOUT / "tests" / "bench" / "callback"),
            "ANSIBLE_CALLBACKS_ENABLED": "durations",
            "DURATIONS_FILE": str(durations),
        }
        command = [sys.executable, "-m", "ansible.cli.playbook", str(here / "play.yml")]
        subprocess.run(command, cwd=CHECKOUT, env=env, check=True, stdout=subprocess.DEVNULL)
        tasks = [json.loads(line) for line in durations.read_text().splitlines()]
        nothing, gpu_info = (
            statistics.median(task["seconds"] for task in tasks if task["name"] == name)
            for name in ("nothing", "gpu_info")
        )
        return nothing, gpu_info, len(calls.read_text().splitlines()) / ROUNDS


def main() -> int:
    reading, whole, host, request, rows = planning()
    public, models = table()
    nothing, gpu_info, calls = asking()
    print(f"reading the catalogue          {reading * 1000:8.1f} ms")
    print(f"the whole matrix, {rows:4d} plans   {whole * 1000:8.1f} ms   (at most {MATRIX_LIMIT_S * 1000:.0f})")
    print(f"the catalogue on one host      {host * 1000:8.1f} ms   (at most {HOST_LIMIT_S * 1000:.0f})")
    print(f"{models:4d} public models on one     {public * 1000:8.1f} ms   (at most {TABLE_LIMIT_S * 1000:.0f})")
    print(f"one plan with its reasons      {request * 1000:8.1f} ms")
    print(f"a module that does nothing     {nothing * 1000:8.1f} ms")
    print(f"gpu_info                       {gpu_info * 1000:8.1f} ms")
    over = gpu_info - nothing
    print(f"gpu_info over nothing          {over * 1000:8.1f} ms   (at most {GPU_INFO_LIMIT_S * 1000:.0f})")
    print(f"calls of nvidia-smi            {calls:8.1f}      (at most 1)")
    slow = whole > MATRIX_LIMIT_S or host > HOST_LIMIT_S or public > TABLE_LIMIT_S
    return slow or over > GPU_INFO_LIMIT_S or calls > 1


if __name__ == "__main__":
    sys.exit(main())
