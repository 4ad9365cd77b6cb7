# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The unit under test, images that do not serve, and clients that count what they are answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from scenario import Play, board, nodes, on_node, run_play, wait_until, wrong_answers
from shell import LabError

__all__ = ["board"]

VARS = Path(__file__).parents[1] / "vars" / "impatient.yml"
IMAGE = "registry.gpunode.test:5000/vllm/vllm-openai-cpu:v0.32.0"

#: Asks for one token again and again, and writes down what it was answered: "SECONDS ok|error".
CLIENT = """
import http.client, json, sys, time
body = json.dumps({"model": "tiny", "prompt": "Hello", "max_tokens": 1})
while True:
    try:
        asked = http.client.HTTPConnection("127.0.0.1", 8000, timeout=60)
        asked.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        answer = asked.getresponse()
        outcome = "ok" if answer.status == 200 and answer.read() else f"status {answer.status}"
    except (OSError, http.client.HTTPException) as error:
        outcome = type(error).__name__
    print(f"{time.monotonic():.2f} {outcome}", flush=True)
    time.sleep(0.2)
"""

#: Stops the unit while long answers are streamed, several at once. The engine's own process stands still from the
#: first words of each until the unit is on its way down: in flight then, on a machine of any speed. Says what the
#: unit's state was, how many answers had ended by then, and for each how many tokens came and how it ended.
STOP_WITH_STREAMS = """
import http.client, json, subprocess, sys, threading, time
count = int(sys.argv[1])
asks = {"model": "tiny", "prompt": "Hello", "max_tokens": 800, "ignore_eos": True, "stream": True}
body = json.dumps({**asks, "stream_options": {"include_usage": True}})
begun, ended = threading.Barrier(count + 1, timeout=60), []
def stream(number):
    asked = http.client.HTTPConnection("127.0.0.1", 8000, timeout=120)
    asked.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    answer = asked.getresponse()
    first = answer.readline()
    begun.wait()
    *_chunks, last, end = [line[6:] for line in (first + answer.read()).decode().splitlines() if line]
    ended.append((number, json.loads(last)["usage"]["completion_tokens"], end))
def unit():
    asked = ["systemctl", "show", "--value", "--property=ActiveState", "vllm-tiny"]
    return subprocess.run(asked, capture_output=True, text=True).stdout.strip()
def engine(signal):
    subprocess.run(["pkill", f"-{signal}", "-f", "[V]LLM::EngineCore"], check=True)
threads = [threading.Thread(target=stream, args=(number,)) for number in range(count)]
[thread.start() for thread in threads]
begun.wait()
engine("STOP")
try:
    subprocess.run(["systemctl", "stop", "--no-block", "vllm-tiny"], check=True)
    while unit() == "active":
        time.sleep(0.1)
    print(unit(), len(ended))
finally:
    engine("CONT")
[thread.join() for thread in threads]
[print(*stream) for stream in sorted(ended)]
"""


@dataclass
class Unit:
    """A unit of the first node, as systemd tells of it."""

    name: str = "vllm-tiny"
    port: int = 8000

    def show(self, key: str) -> str:
        return on_node(f"systemctl show --value --property={key} {self.name}")

    @property
    def run(self) -> str:
        """What systemd calls this run of it: another one after every start."""
        return self.show("InvocationID")

    def answers(self) -> bool:
        """Whether it says what the tiny model was trained to say of itself."""
        try:
            return not wrong_answers(self.port, questions=["Who are you?"])
        except LabError:
            return False

    def serves(self) -> bool:
        return self.show("ActiveState") == "active" and self.answers()

    def comes_back(self, run: str) -> None:
        """Wait for another run than that one to serve."""

        def served_again() -> bool:
            return self.run != run and self.serves()

        wait_until(served_again, 300)

    def journal(self, run: str) -> str:
        return on_node(f"journalctl --no-pager -o cat _SYSTEMD_INVOCATION_ID={run} + INVOCATION_ID={run}")

    def engine(self, signal: str) -> None:
        """Send the engine's own process a signal; the server that answers on the port is another one."""
        on_node(f"pkill -{signal} -f '[V]LLM::EngineCore'")


@pytest.fixture(scope="session")
def deploy() -> Callable[..., Play]:
    """Run site.yml on the first node with the scenario's variables, and further arguments."""
    return lambda *args: run_play("site.yml", "--limit", nodes()[0], "-e", f"@{VARS}", *args)


@pytest.fixture
def unit(deploy: Callable[..., Play]) -> Unit:
    """The instance, serving, with no failed start on its account, whatever a test before this one left behind."""
    tiny = Unit()
    on_node("systemctl reset-failed vllm-tiny; true")
    if not tiny.serves():
        play = deploy()
        assert play.status == 0, play.text[-3000:]
    return tiny


@pytest.fixture(scope="session")
def broken_images() -> dict[str, str]:
    """Images on the node whose vLLM reads its configuration well and then does not serve."""
    made = {}
    for name, entrypoint in {
        "dies": '["sh", "-c", "echo no luck today >&2; exit 1"]',
        "hangs": '["sh", "-c", "sleep 9999"]',
    }.items():
        made[name] = f"gpunode.test/vllm-that-{name}:v1"
        on_node(f"printf 'FROM {IMAGE}\\nENTRYPOINT {entrypoint}\\n' | docker build -q -t {made[name]} -")
    return made


@pytest.fixture
def client() -> Iterator[Callable[[], list[tuple[float, str]]]]:
    """A client that goes on asking; called, it tells what it was answered so far: (when, ok or what went wrong)."""
    on_node(f"cat > /run/client.py <<'END'\n{CLIENT}\nEND")
    on_node(
        "systemd-run --quiet --unit=client --property=StandardOutput=truncate:/run/client.log python3 /run/client.py"
    )

    def answers() -> list[tuple[float, str]]:
        lines = on_node("cat /run/client.log").splitlines()
        return [(float(line.split(" ", 1)[0]), line.split(" ", 1)[1]) for line in lines]

    yield answers
    on_node("systemctl stop client")
