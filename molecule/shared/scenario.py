# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of all scenarios share: plays run as a user runs them, the lab's nodes, and its hub's faults."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest
from answers import ANSWERS, ask, over_ssh, wrong

CHECKOUT = Path(__file__).resolve().parents[2]
LAB = CHECKOUT / "tests" / "lab" / "lab"

# What makes a repository: shards of random bytes, alone or beside a copy of another repository.
MAKE = """
import os, pathlib, shutil, sys
repo_id, base, name, shards, mib = *sys.argv[1:4], *map(int, sys.argv[4:])
folder = pathlib.Path('/srv/hub') / repo_id
shutil.rmtree(folder, ignore_errors=True)
shutil.copytree(pathlib.Path('/srv/hub') / base, folder) if base else folder.mkdir(parents=True)
for number in range(shards):
    with (folder / f'{name}-{number:05}{".bin" if base else ".safetensors"}').open('wb') as out:
        for _ in range(mib):
            out.write(os.urandom(1 << 20))
"""


@dataclass(frozen=True)
class Play:
    """How a run of ansible-playbook ended."""

    status: int
    text: str

    @property
    def words(self) -> str:
        """What it said, wherever ansible broke the lines; YAML doubles quotation marks, which are as they were here."""
        return " ".join(self.text.split()).replace("''", "'")

    @property
    def changed(self) -> int:
        """The recap's own count, of the last host where there are several."""
        return int(re.findall(r"changed=(\d+)", self.text)[-1])


def nodes() -> list[str]:
    """The scenario's nodes."""
    return os.environ["GPUNODE_LAB_NODES"].replace(",", " ").split()


def docker(*argv: str) -> str:
    """What a docker command on the machine of the lab prints."""
    return subprocess.run(["docker", *argv], check=True, capture_output=True, text=True).stdout.strip()


def on_node(script: str, check: bool = True, node: str = "") -> str:
    """What a root shell on a node prints, the first one where none is named.

    A connection of its own: a node that was restarted has a new port.
    """
    line = [LAB, "ssh", node or nodes()[0], f"sudo sh -c {shlex.quote(script)}"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def wrong_answers(
    port: int = 8000, key: str = "", model: str = "tiny", node: str = "", questions: Iterable[str] = ANSWERS
) -> dict[str, str]:
    """What the lab's model, asked on a node, answers otherwise than it was trained to; nothing where all is well.

    Weights that were loaded wrong, a template that is not the model's and a damaged file show here, and in no status.
    """
    return wrong(ask(over_ssh([str(LAB), "ssh", node or nodes()[0]], port, key), questions, model))


def processes(node: str = "") -> str:
    """Of every process on a node the command line and the environment, a word or a variable a line."""
    each = "for p in /proc/[0-9]*; do tr '\\0' '\\n' <$p/cmdline; tr '\\0' '\\n' <$p/environ; done 2>/dev/null"
    return on_node(each, check=False, node=node)


def hunt(secret: str, node: str = "") -> list[str]:
    """The files of a node that hold a secret, and its journal where that does."""
    # Finds it, and not itself in what sudo writes to the journal of this very line.
    pattern = f"{secret[:-1]}[{secret[-1]}]"
    # Images, and what is asked for by its own means.
    elsewhere = "--exclude-dir=docker --exclude-dir=containerd --exclude-dir=journal"
    places = "/etc /home /opt /root /run /srv /tmp /var/lib /var/log"
    journal = f"journalctl --no-pager -o cat | grep -q -e '{pattern}' && echo journal"
    return on_node(f"grep -rls {elsewhere} -e '{pattern}' {places}; {journal}", check=False, node=node).split()


def environment() -> dict[str, str]:
    """What ansible needs to find the collection in the checkout and the scenario's nodes in the inventory."""
    # The scenario's log is for its own plays: a test's may warn. Without the colours that Molecule asks for, too: they
    # stand between the words of a line that was broken.
    inherited = {name: value for name, value in os.environ.items() if name != "ANSIBLE_LOG_PATH"}
    return {**inherited, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"}


def command(playbook: str, *args: str) -> list[str]:
    """The command line of a play against the scenario's nodes; a relative playbook is one of the checkout's."""
    return ["ansible-playbook", "-i", "inventories/lab", playbook, *args]


#: What ansible says of a node that it enters for the first time, whoever's play it is.
EXPECTED_WARNINGS = ("Module remote_tmp",)


def warnings(text: str) -> list[str]:
    """What a play, or the log of several, warns of."""
    lines = [line for line in text.splitlines() if "WARNING]: " in line]
    return [line for line in lines if not any(expected in line for expected in EXPECTED_WARNINGS)]


def wait_until(true: Callable[[], bool], seconds: float = 120) -> None:
    """Look until it is so, and fail where it does not come about."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"{true.__name__} did not come about in {seconds:.0f} s"
        time.sleep(0.1)


def run_play(playbook: str, *args: str) -> Play:
    """Run a playbook to its end."""
    done = subprocess.run(
        command(playbook, *args), cwd=CHECKOUT, env=environment(), capture_output=True, text=True, check=False
    )
    return Play(done.returncode, done.stdout + done.stderr)


@dataclass
class Running:
    """A play in the background."""

    process: subprocess.Popen[str]
    log: IO[str]

    def output(self) -> str:
        """What it has printed so far."""
        return Path(f"/proc/self/fd/{self.log.fileno()}").read_text()

    def wait(self) -> Play:
        status = self.process.wait()
        self.log.seek(0)
        return Play(status, self.log.read())

    def interrupt(self) -> Play:
        """As ctrl-c does, which all of its processes get."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.wait()

    def kill(self) -> None:
        """As a laptop dies: the play and all that it started, with no chance to clean up."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def begin_play(playbook: str, *args: str) -> Running:
    """Run a playbook in the background."""
    log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (the play outlives this call)
    line = command(playbook, *args)
    streams = {"stdout": log, "stderr": subprocess.STDOUT, "text": True}
    return Running(subprocess.Popen(line, cwd=CHECKOUT, env=environment(), start_new_session=True, **streams), log)


@pytest.fixture(scope="session")
def play() -> Callable[..., Play]:
    """Run site.yml against the scenario's nodes, with further arguments."""
    return lambda *args: run_play("site.yml", *args)


@pytest.fixture
def board() -> Iterator[Callable[[str], None]]:
    """Put other GPUs into the first node; one H100, as the scenario began, comes back after the test."""

    def fit(name: str) -> None:
        subprocess.run([LAB, "fit", nodes()[0], name], check=True, capture_output=True)

    yield fit
    fit("h100x1")


class Hub:
    """The lab's hub from the outside: its counters, and what goes wrong in it. See tests/lab/hub/server.py."""

    def __init__(self, box: str = "gpunode-lab-hub") -> None:
        self.box = box
        address = docker("inspect", "-f", '{{(index .NetworkSettings.Networks "gpunode-lab-net").IPAddress}}', box)
        self.url = f"http://{address}"

    def python(self, script: str, *args: str) -> None:
        """Run a script of Python where the repositories lie: /srv/hub/ORG/NAME."""
        docker("exec", self.box, "python3", "-c", script, *args)

    def ask(self, path: str, method: str = "GET", body: Any = None) -> Any:
        """Ask below /_lab/ and return what JSON it answers."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}/_lab/{path}", data=data, method=method, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read().decode()
        return json.loads(text) if text.strip() else None

    def answers(self) -> bool:
        """Whether it is up."""
        try:
            self.counters()
        except OSError:
            return False
        return True

    def counters(self) -> dict[str, Any]:
        """Bytes and requests, in all and per file, since the last reset."""
        return self.ask("counters")

    def faults(self, *faults: dict[str, Any]) -> None:
        """Put faults in force."""
        self.ask("faults", "POST", list(faults))

    def let_go(self) -> None:
        """Faults gone, and what was held goes on; counters stay."""
        self.ask("faults", "DELETE")

    def reset(self) -> None:
        """Counters to nothing, faults gone."""
        self.ask("reset", "POST")

    def sizes(self, repo_id: str) -> dict[str, int]:
        """The files of a repository that a server of models wants."""
        with urllib.request.urlopen(f"{self.url}/api/models/{repo_id}/tree/main?recursive=true") as answer:
            listed = json.loads(answer.read())
        return {f["path"]: f["size"] for f in listed if not f["path"].startswith("original/")}

    def read(self, repo_id: str, name: str) -> str:
        """The text of a file."""
        with urllib.request.urlopen(f"{self.url}/{repo_id}/resolve/main/{name}") as answer:
            return answer.read().decode()

    def sent(self) -> dict[str, int]:
        """Bytes that it has sent of each file; one that the client asked for the head of is not in it."""
        counts = self.counters()["bytes"]
        return {path.partition("/main/")[2] or path.split("/", 5)[-1]: count for path, count in counts.items()}

    def gets(self, name: str) -> int:
        """How often a file was asked for."""
        requests = self.counters()["requests"]
        return sum(count for key, count in requests.items() if key.startswith("GET ") and key.endswith(f"/{name}"))


@pytest.fixture
def hub() -> Iterator[Hub]:
    """The lab's hub, with no faults and empty counters before and after the test."""
    lab = Hub()
    lab.reset()
    yield lab
    lab.reset()


@contextmanager
def own_hub(name: str) -> Iterator[Hub]:
    """A hub for one scenario, http://NAME.gpunode.test to the nodes: faults and counters are of a whole server."""
    box = f"gpunode-lab-{name}"
    image = docker("inspect", "-f", "{{.Config.Image}}", "gpunode-lab-hub")
    net = ("--network=gpunode-lab-net", f"--network-alias={name}.gpunode.test", f"--label=gpunode-lab={name}")
    server = f"{CHECKOUT}/tests/lab/hub/server.py:/srv/server.py:ro"
    # What lies in the kernel when a connection breaks counts as sent, and on a busy machine that is many megabytes.
    little = "--sysctl=net.ipv4.tcp_wmem=4096 65536 262144"
    subprocess.run(["docker", "rm", "-f", box], capture_output=True, check=False)
    command_line = ("python3", "/srv/server.py", "--root", "/srv/hub", "--port", "80")
    docker("run", "-d", f"--name={box}", *net, little, "-v", server, image, *command_line)
    try:
        hub = Hub(box)
        wait_until(hub.answers)
        yield hub
    finally:
        docker("rm", "-f", box)


@contextmanager
def repository(repo_id: str, shards: int, mib: int, base: str = "", hub: Hub | None = None) -> Iterator[None]:
    """A repository of random shards on a hub, or a copy of another with ballast; gone afterwards."""
    hub = hub or Hub()
    hub.python(MAKE, repo_id, base, "ballast" if base else "model", str(shards), str(mib))
    # A hub hashes a repository at the first question, which is no part of any measurement.
    urllib.request.urlopen(f"{hub.url}/api/models/{repo_id}").close()
    try:
        yield
    finally:
        docker("exec", hub.box, "rm", "-rf", f"/srv/hub/{repo_id}")
