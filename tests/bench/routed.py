# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The router and the gateway on this machine's loopback, before engines that cost nothing, and what they use of it."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT / "tests" / "lab")]
from shell import CACHE

SMG = "smg==1.13.0"
ENGINE_KEY, CONTROL_KEY, CLIENT_KEY = (f"sk-{of}-of-a-bench-0123456789" for of in ("engine", "control", "client"))
ENGINES, ROUTERS, FRONT, METRICS = 19100, (19000, 19001), 19443, 19500
# As the role's launcher does it: the keys are in no command line.
LAUNCHER = """
import os, sys
sys.argv = ["smg", "launch", *sys.argv[1:], "--api-key", os.environ["ENGINE_KEY"]]
sys.argv += ["--control-plane-api-keys", "bench:Bench:admin:" + os.environ["CONTROL_KEY"]]
from smg.cli import main
sys.exit(main())
"""


def smg_python() -> str:
    """The interpreter of a venv with the router, made where there is none."""
    venv = CACHE / f"venv-{SMG.replace('==', '-')}"
    if not (venv / "complete").exists():
        shutil.rmtree(venv, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        subprocess.run([str(venv / "bin" / "pip"), "install", "-q", "--disable-pip-version-check", SMG], check=True)
        (venv / "complete").touch()
    return str(venv / "bin" / "python")


@dataclass(frozen=True)
class Used:
    """What a process has used so far, its children too: seconds of a CPU, and the MiB that it has now."""

    cpu_s: float
    mib: float


def used(pid: int) -> Used:
    """Of a process and its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    parts = [used(int(child)) for child in children]
    mib = pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
    return Used(own + sum(part.cpu_s for part in parts), mib + sum(part.mib for part in parts))


def until(true: Callable[[], bool], seconds: float = 60) -> float:
    """Look until it is so: the seconds that it took."""
    began = time.perf_counter()
    while not true():
        if time.perf_counter() - began > seconds:
            raise SystemExit(f"{true.__name__} did not come about in {seconds:.0f} s")
        time.sleep(0.02)
    return time.perf_counter() - began


def asked(url: str, key: str = "") -> Any:
    """What a page says, JSON or text; nothing where there is no answer, or a bad one."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            text = answer.read().decode()
            return json.loads(text) if "json" in answer.headers.get("Content-Type", "") else text
    except OSError:
        return None


@contextmanager
def running(*argv: str, log: Path, **env: str) -> Iterator[int]:
    """A program in the background, told to end afterwards: its process."""
    with log.open("w") as out:
        program = subprocess.Popen(argv, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **env})
        try:
            yield program.pid
        finally:
            program.terminate()
            program.wait()


@contextmanager
def engines(
    folder: Path, count: int = 1, models: tuple[str, ...] = ("stub",), interval_ms: float = 0, first: int = 0
) -> Iterator[int]:
    """So many of them from port ENGINES on, the first of them with this number, in one process."""
    program = [sys.executable, str(Path(__file__).with_name("stub_engines.py")), "--key", ENGINE_KEY]
    program += ["--port", str(ENGINES + first), "--count", str(count), "--interval-ms", str(interval_ms)]
    program += ["--models", *models]
    with running(*program, log=folder / f"engines-{first}.log") as process:

        def the_engines_answer() -> bool:
            return asked(f"http://127.0.0.1:{ENGINES + first + count - 1}/version") is not None

        until(the_engines_answer)
        yield process


def workers(folder: Path, numbers: Iterator[int] | list[int] | range) -> None:
    """Write the manifest: whole or not at all, as the role's module does it."""
    listed = [{"id": f"node-{number}", "url": f"http://127.0.0.1:{ENGINES + number}"} for number in numbers]
    fresh = folder / "workers.new"
    fresh.write_text(json.dumps({"version": 1, "workers": listed}))
    fresh.replace(folder / "workers.json")


def healthy(port: int) -> int:
    """The workers that the router has and counts as well."""
    found = asked(f"http://127.0.0.1:{port}/workers", CONTROL_KEY)
    return sum(worker["is_healthy"] for worker in found["workers"]) if found else -1


@contextmanager
def router(folder: Path, number: int = 0, **more: str) -> Iterator[int]:
    """smg with the options of the role's units, on ROUTERS[number], with the workers of the folder's manifest."""
    options: Mapping[str, str] = {
        **{"host": "127.0.0.1", "port": str(ROUTERS[number]), "policy": "cache_aware"},
        **{"prometheus-host": "127.0.0.1", "prometheus-port": str(METRICS + number)},
        **{"discovery-provider": "file", "discovery-file": str(folder / "workers.json")},
        **{"discovery-check-interval-secs": "2", "health-check-interval-secs": "2"},
        **{"health-check-timeout-secs": "2", "health-failure-threshold": "2", "health-success-threshold": "1"},
        **{"log-level": "warn", "max-concurrent-requests": "0", **{key.replace("_", "-"): more[key] for key in more}},
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    keys = {"ENGINE_KEY": ENGINE_KEY, "CONTROL_KEY": CONTROL_KEY}
    line = (smg_python(), "-c", LAUNCHER, "--enable-igw", "--no-remove-unhealthy-workers", *words)
    with running(*line, log=folder / f"router-{number}.log", **keys) as process:
        wanted = len(json.loads((folder / "workers.json").read_text())["workers"])

        def the_router_has_its_workers() -> bool:
            return healthy(ROUTERS[number]) == wanted

        until(the_router_has_its_workers)
        yield process


def front_files(folder: Path, engine_port: int, port: int, keys: Mapping[str, Any] | None = None) -> None:
    """The gateway's own configuration, from the role's templates, before one engine, which may be a router."""
    runpy.run_path(str(CHECKOUT / "tests" / "unit" / "conftest.py"))
    from ansible_collections.gpunode.llm.plugins.module_utils.tls import certificate
    from ansible_collections.gpunode.llm.tests.unit.roles.gateway import test_gateway_templates as role

    files = {"gateway_certificate": f"{folder}/certificate.pem", "gateway_certificate_key": f"{folder}/certificate.key"}
    subprocess.run(
        certificate.self_signed(*files.values(), ["localhost", "127.0.0.1"], 2), check=True, capture_output=True
    )
    settings = {
        **files,
        "gateway_instances": [{"name": "stub", "host": "127.0.0.1", "port": engine_port}],
        "gateway_engine_key": ENGINE_KEY,
        "gateway_keys": keys or {"bench": CLIENT_KEY},
        "gateway_host": "127.0.0.1",
        "gateway_port": port,
        "gateway_requests_per_second": 0,
        "gateway_connections": 0,
    }
    for name in ("nginx.conf", "keys.conf"):
        text = role.render(f"{name}.j2", **settings)
        # No journal listens here.
        (folder / name).write_text(text.replace("syslog:server=unix:/dev/log,tag=gateway,nohostname", "access.log"))


@contextmanager
def front(folder: Path, engine_port: int, port: int = FRONT, keys: Mapping[str, Any] | None = None) -> Iterator[int]:
    """nginx as the gateway runs it, on this port, before what listens on the other."""
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if nginx is None:
        raise SystemExit("nginx is not here; install the distribution's package nginx")
    folder.mkdir(exist_ok=True)
    front_files(folder, engine_port, port, keys)
    line = (nginx, "-p", f"{folder}/", "-c", f"{folder}/nginx.conf", "-g", "daemon off;")
    with running(*line, log=folder / "nginx.log") as process:
        until((folder / "nginx.pid").exists)
        yield process
