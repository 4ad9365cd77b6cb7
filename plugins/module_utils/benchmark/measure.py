# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure one endpoint of this node: run the client in the engine's image, and sample the GPUs meanwhile."""

from __future__ import annotations

import glob
import http.client
import json
import os
import re
import subprocess
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from ..node import commands, files as node_files
from ..node.commands import Runner
from ..programs import vllm_wait
from . import figures, gpus as benchmark_gpus

#: Runs the Python of the image's vllm command, wherever it is installed.
SHELL = 'exec $(sed -n "1s/^#!//p" "$(command -v vllm)") "$@"'
#: The client's folders in its container.
CODE, WORK = "/benchmark/code", "/benchmark/work"
CLIENT = f"{__package__}.client"


class BenchmarkError(Exception):
    """It cannot be measured. The message is for the user."""


@dataclass(frozen=True)
class Target:
    """What is measured. ``base_url``: where its clients are; ``port`` is the engine's own, whose counters are read."""

    name: str
    container: str
    image: str
    served: str
    host: str
    port: int
    gpus: Sequence[str] = ()
    env_file: str = ""
    base_url: str = ""
    insecure: bool = False

    @property
    def engine_url(self) -> str:
        return vllm_wait.base_url(self.host, self.port)[: -len("/v1")]


def command(docker: str, target: Target, folder: str) -> List[str]:
    """The command that runs the client: with the engine's files, read-only, and the node's network; without a GPU.

    The key is in the environment of the command, not in its words.
    """
    return [
        *(docker, "run", "--rm", "--init", f"--name={client_of(target.name)}", "--pull=never", "--network=host"),
        *("--security-opt=no-new-privileges", "--cap-drop=ALL", "--log-driver=none"),
        *("--env=OPENAI_API_KEY", "--env=HF_HUB_OFFLINE=1"),
        *("--env=VLLM_LOGGING_LEVEL=ERROR", "--env=VLLM_NO_USAGE_STATS=1"),
        # It asks this node alone, whatever proxy Docker hands to its containers.
        *("--env=NO_PROXY=*", "--env=no_proxy=*", f"--env=PYTHONPATH={CODE}", "--env=NVIDIA_VISIBLE_DEVICES=void"),
        f"--volumes-from={target.container}:ro",
        *(f"--volume={folder}/code:{CODE}:ro", f"--volume={folder}/work:{WORK}", "--entrypoint=/bin/sh"),
        *(target.image, "-c", SHELL, "sh", "-m", CLIENT, WORK),
    ]


def client_of(name: str) -> str:
    """The container of the client."""
    return f"gpunode-benchmark-{name}"


def busy(metrics: str) -> int:
    """The requests that an engine has, from the text of its /metrics."""
    counted = figures.counters(metrics)
    return round(counted.get("running", 0) + counted.get("waiting", 0))


def look(target: Target) -> str:
    """The engine's /metrics; empty if it does not answer."""
    ask = vllm_wait.asker(target.host, target.port)
    try:
        status, text = ask("GET", "/metrics", None, {}, 10)
    except (OSError, http.client.HTTPException):
        return ""
    return text if status == 200 else ""


class Measurement:
    """Measures a target. ``key`` opens its clients' URL; ``say`` gets the lines of progress."""

    def __init__(self, run: Runner, docker: str, folder: str, say: Callable[[str], None]) -> None:
        self.run, self.docker, self.folder, self.say = run, docker, folder, say
        self.popen: Callable[..., Any] = subprocess.Popen

    def points(self, target: Target, runs: Sequence[Mapping[str, Any]], key: str) -> Dict[str, Any]:
        """Measure all runs: their points, in the order of ``runs``, and what the engine is.

        Raises:
            BenchmarkError: the client failed, with its last words, or no request of a run was answered.
        """
        work = os.path.join(self.folder, "work")
        for path in glob.glob(f"{work}/*"):
            os.unlink(path)
        spec = {
            "base_url": target.base_url or target.engine_url,
            "engine_url": target.engine_url,
            "metrics_url": f"{target.engine_url}/metrics",
            "model": target.served,
            "insecure": target.insecure,
            "runs": list(runs),
        }
        node_files.write_atomically(os.path.join(work, "spec.json"), json.dumps(spec))
        self.run([self.docker, "rm", "--force", client_of(target.name)])
        with benchmark_gpus.Sampler(target.gpus) as sampler:
            self._client(target, key)
        engine = json.loads(node_files.read_text(os.path.join(work, "engine.json")))
        points = [self._of(number, sampler) for number in range(len(runs))]
        for run, measured in zip(runs, points):
            if not any(point["completed"] for point in measured):
                errors = sorted({error for point in measured for error in point["errors"]})
                raise BenchmarkError(
                    f"No request of the profile {run['name']} was answered: {'; '.join(errors) or 'nothing was asked'}."
                )
        return {"engine": engine, "points": points}

    def _client(self, target: Target, key: str) -> None:
        environment = {**os.environ, "OPENAI_API_KEY": key}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
        process = self.popen(command(self.docker, target, self.folder), env=environment, **pipes)
        last: List[str] = []
        for line in process.stdout:
            if not line.strip():
                continue
            last = [*last[-4:], line.strip()]
            if re.match(r"(starting the client|[\w.-]+: (warming|measur))", line):
                self.say(line.strip())
        rc = process.wait()
        if rc != 0:
            refused = node_files.text_of(os.path.join(self.folder, "work", "refused.json"))
            words = " | ".join(last) or f"it ended with {rc}, and said nothing"
            raise BenchmarkError(json.loads(refused) if refused else f"The client failed: {words}")

    def _of(self, number: int, sampler: benchmark_gpus.Sampler) -> List[Dict[str, Any]]:
        """The points of one run, each with what the GPUs did meanwhile."""
        paths = sorted(glob.glob(os.path.join(self.folder, "work", f"{number}-*.json")))
        points = [json.loads(node_files.read_text(path)) for path in paths]
        return [
            {
                **{name: value for name, value in point.items() if name not in ("started", "ended")},
                **benchmark_gpus.figures(sampler.samples, point["started"], point["ended"], point["output_tokens"]),
            }
            for point in points
        ]


def image_of(run: Runner, docker: str, reference: str) -> str:
    """The digest of an image in its registry, or else its ID on this node; empty if it is not here."""
    text = commands.inspected(run, docker, "image", "{{json .RepoDigests}} {{.Id}}", reference)
    digest = re.search(r"@(sha256:[0-9a-f]{64})", text) or re.search(r"(sha256:[0-9a-f]{64})", text)
    return digest.group(1) if digest else ""


def cpu_of(cpuinfo: str) -> str:
    """The name of the node's CPU, from the text of /proc/cpuinfo."""
    match = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return match.group(1).strip() if match else ""


def node(run: Runner, gpus: Sequence[str], name: str) -> Dict[str, Any]:
    """Where it was measured."""
    system = os.uname()
    cpu = cpu_of(node_files.text_of("/proc/cpuinfo"))
    return {
        "name": name,
        "cpu": cpu,
        "cpus": os.cpu_count() or 1,
        "kernel": system.release,
        **benchmark_gpus.described(run, gpus),
    }


def key_of(target: Target, given: Optional[str]) -> str:
    """The key that was given, or that of the engine, from its own file."""
    return given or (vllm_wait.read_key(target.env_file) if target.env_file else "")
