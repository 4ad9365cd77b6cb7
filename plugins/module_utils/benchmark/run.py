# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules benchmark and tune do around their job: start it, report its progress, and take its results."""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import Any, Dict, List, Mapping, Tuple

from ..image import container, engine_figures
from ..instance import known, names as instance_names
from ..instance.record import Record
from ..node import commands, files as node_files, schema as node_schema
from ..programs import diagnosis, vllm_wait
from ..support import secret_names
from ..units import job as units_job
from . import (
    __main__ as benchmark_main,
    client as benchmark_client,
    figures as benchmark_figures,
    gpus as benchmark_gpus,
    load as benchmark_load,
    measure as benchmark_measure,
    quality as benchmark_quality,
    search as benchmark_search,
    trial as benchmark_trial,
)
from .measure import BenchmarkError, Target

RUN = "/run/gpunode"
#: What the node keeps of its benchmarks and tunes.
RESULTS = "/var/lib/gpunode/benchmark"
#: Options of the modules `benchmark` and `tune`, documented in doc_fragments/benchmark.py: what is asked of an engine,
#: which their action plugins turn into runs; and what the job on the node needs.
LOAD: Dict[str, Dict[str, Any]] = {
    "profiles": {"type": "list", "elements": "str", "default": []},
    "extra_profiles": {"type": "dict", "default": {}},
    "concurrency": {"type": "list", "elements": "raw", "default": []},
    "repeats": {"type": "int", "default": 1},
    "clients": {"type": "int", "default": 0},
    "goals": {"type": "dict", "default": {}},
    "requests": {"type": "str", "default": ""},
}
JOB: Dict[str, Dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "runs": {"type": "list", "elements": "dict"},
    "busy": {"type": "bool", "default": False},
    "quality": {"type": "dict", "default": {}},
    "host": {"type": "str", "default": ""},
    "collection": {"type": "str", "default": ""},
    "results": {"type": "path", "default": RESULTS},
    "docker": {"type": "path", "default": "/usr/bin/docker"},
    "wait_s": {"type": "int", "default": 5},
    "resume": {"type": "dict"},
}
CODE = (
    *(benchmark_main, benchmark_client, benchmark_figures, benchmark_gpus, benchmark_load, benchmark_measure),
    *(benchmark_quality, benchmark_search, benchmark_trial, container, engine_figures),
    *(commands, diagnosis, node_files, node_schema, vllm_wait),
)
#: Variables of an engine that decide how fast it is.
_OF_SPEED = ("VLLM_", "CUDA_", "NCCL_", "OMP_", "TORCH")


def unit(kind: str, name: str) -> str:
    """The name of a job's unit, without its suffix. ``kind``: benchmark or tune."""
    return units_job.unit_name(f"gpunode-{kind}", name)


def instance(name: str) -> Record:
    """The instance of this name on this node.

    Raises:
        BenchmarkError: there is none, or its model does not generate.
    """
    here = {record.name: record for record in known.instances()}
    if name not in here:
        raise BenchmarkError(
            f"This node has no instance {name}; it has {', '.join(here) or 'none'}. Serve it with site.yml first."
        )
    record = here[name]
    if record.task != vllm_wait.GENERATE:
        raise BenchmarkError(f"{name} serves {record.task}, and a benchmark measures models that generate text.")
    return record


def target(record: Record, gateway: Mapping[str, Any]) -> Target:
    """What is measured. ``gateway``: its URL of the instance, and whether its certificate is its own, if any."""
    return Target(
        name=record.name,
        container=instance_names.container_of(record.name),
        image=record.image,
        served=record.served,
        host=vllm_wait.reachable_host(record.host),
        port=record.port or 8000,
        gpus=list(record.gpus),
        env_file=record.files.environment,
        base_url=str(gateway.get("base_url") or ""),
        insecure=bool(gateway.get("insecure")),
    )


def environment(env_text: str) -> Dict[str, str]:
    """The variables of an engine that decide how fast it is, without secrets."""
    pairs = [line.partition("=") for line in env_text.splitlines() if not line.startswith("#")]
    return {
        name: value
        for name, equals, value in pairs
        if equals and name.startswith(_OF_SPEED) and secret_names.may_be_shown(name, value)
    }


def about(record: Record) -> Dict[str, Any]:
    """What a record says of an instance: its model and environment."""
    return {
        "name": record.name,
        "model": {
            "repo_id": record.model,
            "revision": record.revision,
            "served": record.served,
            "instance": record.name,
        },
        "environment": environment(node_files.text_of(record.files.environment)),
    }


#: What a user reads whose play ended before the job did.
AGAIN = "{what} had ended while no play waited for it: this is its result. Run the play again to measure anew."
#: What two jobs of the same order may differ in: a seed is new each time.
_OF_ONE_CALL = ("seed", "busy", "put_back", "power_limits")


def order(job: Mapping[str, Any]) -> Dict[str, Any]:
    """A job without what is another one in each call, to find the same order again."""
    plain: Dict[str, Any] = json.loads(json.dumps({key: job[key] for key in job if key not in _OF_ONE_CALL}))
    runs = [{key: value for key, value in run.items() if key not in _OF_ONE_CALL} for run in plain["runs"]]
    return {**plain, "runs": runs}


def under_way(run: commands.Runner, kind: str, asked: Mapping[str, Any], root: str = RUN) -> str:
    """Whether such a job is ``running``, or has ``ended`` and nobody took its result; else empty.

    ``asked``: the part of a job that is known before anything is written for it, with its name and runs.

    Raises:
        BenchmarkError: another job of this instance runs.
    """
    name = unit(kind, asked["name"])
    state, given = units_job.look(run, name).state, _order_of(os.path.join(root, name))
    same = bool(given) and all(given.get(key) == value for key, value in order(asked).items())
    if state == "running" and not same:
        raise BenchmarkError(_another(kind, asked["name"]))
    return {"running": "running", "succeeded": "ended"}.get(state, "") if same else ""


def _another(kind: str, name: str) -> str:
    return (
        f"Another {kind} of {name} runs on this node, with other settings: wait for it with the same command as it was"
        f" started with, or end it with systemctl stop {unit(kind, name)}."
    )


def start(run: commands.Runner, kind: str, job: Mapping[str, Any], secret: str = "", root: str = RUN) -> str:
    """Start the job, or attach to the same one, if it runs or its controller was lost before it took the result.

    Returns ``started``, ``running`` or ``ended``.

    Raises:
        BenchmarkError: another job of this instance runs.
    """
    name = unit(kind, job["name"])
    folder = os.path.join(root, name)
    state = units_job.look(run, name).state
    same = _order_of(folder) == order(job)
    if state == "running" and not same:
        raise BenchmarkError(_another(kind, job["name"]))
    if same and state in ("running", "succeeded"):
        return "running" if state == "running" else "ended"
    _prepare(run, kind, job, secret, folder)
    units_job.start_or_attach(run, _spec(kind, job, folder))
    return "started"


def discard(run: commands.Runner, job: Mapping[str, Any]) -> None:
    """Remove what a play has written for a tune that was not started."""
    for path in filter(os.path.lexists, job["put_back"]["files"]):
        os.unlink(path)
    run(["systemctl", "daemon-reload"])


def runs(run: commands.Runner, kind: str, name: str) -> bool:
    """Whether a job of this instance runs."""
    return units_job.look(run, unit(kind, name)).state == "running"


def _order_of(folder: str) -> Dict[str, Any]:
    try:
        return order(json.loads(node_files.read_text(os.path.join(folder, "job.json"))))
    except (OSError, ValueError):
        return {}


def _prepare(run: commands.Runner, kind: str, job: Mapping[str, Any], secret: str, folder: str) -> None:
    """Make the folder of a job, in place of that of an earlier one."""
    units_job.forget(run, unit(kind, job["name"]))
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(os.path.join(folder, "work"), mode=0o700)
    os.makedirs(str(job["results"]), exist_ok=True)
    units_job.write_code(os.path.join(folder, "code"), CODE)
    node_files.write_atomically(os.path.join(folder, "job.json"), json.dumps(dict(job)), mode=0o600)
    if secret:
        node_files.write_atomically(os.path.join(folder, "secret"), secret, mode=0o600)
    if job.get("put_back"):
        node_files.write_atomically(os.path.join(folder, "put-back.json"), json.dumps(job["put_back"]))
    variables = f'PYTHONPATH="{folder}/code"\nPYTHONDONTWRITEBYTECODE="1"\n'
    node_files.write_atomically(os.path.join(folder, "environment"), variables)


def _spec(kind: str, job: Mapping[str, Any], folder: str) -> units_job.JobSpec:
    package = str(benchmark_main.__package__)
    properties = {"User": "root", "UMask": "0077", "TimeoutStopSec": "300"}
    if job.get("put_back"):
        # Whatever ends the tune: what served before is started again.
        properties["ExecStopPost"] = f"{sys.executable} -m {package}.trial {folder}"
    return units_job.JobSpec(
        name=unit(kind, job["name"]),
        argv=[sys.executable, "-m", package, folder],
        description=f"{kind.capitalize()} of {job['name']}",
        environment_file=os.path.join(folder, "environment"),
        properties=properties,
        paths=[str(job["results"])],
    )


def wait(run: commands.Runner, kind: str, name: str, seconds: float, root: str = RUN) -> Tuple[bool, str, List[str]]:
    """Whether the job has ended, its progress in words, and the paths of its results.

    Raises:
        BenchmarkError: the job failed.
    """
    unit_name = unit(kind, name)
    folder = os.path.join(root, unit_name)
    state = units_job.wait(run, unit_name, seconds)
    try:
        status: Dict[str, Any] = json.loads(node_files.read_text(os.path.join(folder, "status.json")))
    except (OSError, ValueError):
        status = {}
    if state.state == "running":
        return False, str(status.get("line") or f"{kind} of {name}: starting"), []
    log = [] if status.get("error") else units_job.log_tail(run, unit_name, state.invocation, lines=3)
    results = node_files.text_of(os.path.join(folder, "results")).split()
    units_job.forget(run, unit_name)
    shutil.rmtree(folder, ignore_errors=True)
    if status.get("error") or state.state != "succeeded":
        raise BenchmarkError(
            status.get("error") or f"The {kind} of {name} was stopped: {'; '.join(log) or state.result}"
        )
    return True, str(status.get("line") or ""), results


def loaded(results: List[str]) -> List[Dict[str, Any]]:
    """The results themselves."""
    return [json.loads(node_files.read_text(path)) for path in results]
