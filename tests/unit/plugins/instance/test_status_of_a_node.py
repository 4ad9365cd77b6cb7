# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module against a server that answers, one that answers nothing in time, and none."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.instance import known
from ansible_collections.gpunode.llm.plugins.modules import vllm_status

KEY = "a-key"
UNIT = """[Service]
ExecStart=/usr/bin/docker run --device=nvidia.com/gpu=0 image
TimeoutStartSec=300
[X-gpunode]
Instance=a
Image=image:1
Model=org/a
Config={folder}/a.yaml
Environment={folder}/a.env
Host=127.0.0.1
Port={port}
Served=org/a
"""


class Server:
    """As much of an engine as is asked. ``late``: a completion does not come; ``works``: tokens do."""

    def __init__(self, late: bool = False, works: bool = False) -> None:
        engine, self.received = self, []
        self.late, self.works, self.tokens, self.ended = late, works, 10, threading.Event()
        self.requests = 0

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_args: object) -> None:
                pass

            def do_GET(self) -> None:
                engine.received.append((self.path, self.headers.get("Authorization")))
                engine.tokens += engine.works
                models = json.dumps({"data": [{"id": "org/a"}]})
                metrics = f'vllm:num_requests_running{{engine="0"}} 3.0\nvllm:generation_tokens_total {engine.tokens}\n'
                metrics += f"vllm:request_success_total {engine.requests}\n"
                self.answer({"/v1/models": models, "/metrics": metrics}.get(self.path, ""))

            def do_POST(self) -> None:
                engine.received.append((self.path, self.headers.get("Authorization")))
                engine.requests += 1
                if engine.late:
                    engine.ended.wait(20)
                self.answer(json.dumps({"choices": [{"text": "x"}]}))

            def answer(self, text: str) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def server() -> Iterator[Callable[..., Server]]:
    made: list[Server] = []

    def start(**how: bool) -> Server:
        made.append(Server(**how))
        return made[-1]

    yield start
    for engine in made:
        engine.ended.set()
        engine.http.shutdown()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_status, "SAMPLE_S", 0.02)


def instance(folder: Path, port: int) -> vllm_status.Instance:
    (folder / "a.env").write_text(f"VLLM_API_KEY={KEY}\n")
    (folder / "a.yaml").write_text("model: org/a\nrevision: abc\n")
    unit = folder / "vllm-a.service"
    unit.write_text(UNIT.format(folder=folder, port=port))
    (record,) = known.instances([str(folder)], [])
    return vllm_status.Instance(record)


def test_a_serving_engine(tmp_path: Path, server: Callable[..., Server]) -> None:
    engine = server()
    serving = instance(tmp_path, engine.http.server_port)
    serving.ask(2)
    assert serving.answer.ready
    assert serving.load.running == 3
    assert serving.revision() == "abc"
    assert serving.url() == f"http://127.0.0.1:{engine.http.server_port}/v1"
    assert {key for _path, key in engine.received} == {f"Bearer {KEY}"}


def test_its_own_completion_is_not_among_what_is_worked_off(tmp_path: Path, server: Callable[..., Server]) -> None:
    engine = server(works=True)
    serving = instance(tmp_path, engine.http.server_port)
    serving.ask(2)
    assert serving.rates.requests == 0
    assert serving.rates.generation_tokens > 0
    looks = ["/metrics", "/metrics", "/health", "/v1/models", "/v1/completions", "/metrics"]
    assert [path for path, _key in engine.received] == looks


@pytest.mark.parametrize("works", [True, False])
def test_a_late_engine_is_busy_or_hung(tmp_path: Path, server: Callable[..., Server], works: bool) -> None:
    serving = instance(tmp_path, server(late=True, works=works).http.server_port)
    serving.ask(1)
    assert not serving.answer.ready
    assert serving.works is works


def test_a_missing_engine(tmp_path: Path) -> None:
    serving = instance(tmp_path, 1)
    serving.ask(1)
    assert (serving.answer.ready, serving.load, serving.works, serving.rates) == (False, None, False, None)


def test_an_unreadable_key_is_reported(tmp_path: Path) -> None:
    serving = instance(tmp_path, 1)
    (tmp_path / "a.env").unlink()
    serving.ask(1)
    assert serving.answer.refused
    assert "environment file cannot be read" in serving.answer.detail


class Module:
    """A node without Docker and GPUs, where systemd shows what it is told to."""

    def __init__(self, folder: Path, names: list[str], shown: str) -> None:
        self.params = {"unit_dir": str(folder), "names": names, "docker": "/none", "wait_s": 1}
        self.shown = shown

    def get_bin_path(self, name: str) -> str | None:
        return "timeout" if name == "timeout" else None

    def run_command(self, argv: list[str]) -> tuple[int, str, str]:
        assert argv[:3] == ["timeout", "--kill-after=5", "20"]
        if argv[3] == "journalctl":
            return 0, json.dumps({"INVOCATION_ID": "r", "MESSAGE": "CUDA out of memory"}), ""
        return 0, self.shown, ""

    def sha256(self, path: str) -> str:
        return path

    def exit_json(self, **result: object) -> None:
        raise SystemExit(json.dumps(result))


def run(monkeypatch: pytest.MonkeyPatch, module: Module) -> dict[str, object]:
    monkeypatch.setattr(vllm_status, "AnsibleModule", lambda **_spec: module)
    with pytest.raises(SystemExit) as ended:
        vllm_status.main()
    return json.loads(str(ended.value))


def test_a_row_of_one_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    instance(tmp_path, 1)
    (tmp_path / "vllm-theirs.service").write_text("[Service]\n")
    docker = "Id=docker.service\nActiveState=active\n\n"
    shown = f"{docker}Id=vllm-a.service\nActiveState=failed\nSubState=failed\nResult=signal\n"
    result = run(monkeypatch, Module(tmp_path, [], shown))
    assert result["docker_runs"] is True
    (row,) = result["instances"]
    assert (row["name"], row["state"], row["healthy"]) == ("a", "failed", False)
    assert row["detail"] == "it ended (signal). The GPU's memory is full."
    assert (row["model"], row["revision"], row["image"], row["gpus"]) == ("org/a", "abc", "image:1", [0])
    assert result["gpu_message"]
    assert (row["requests_per_s"], row["gpu_power_w"], row["gpu_utilization_percent"]) == (None, None, None)
    assert (result["front"], result["front_since_s"], result["front_listens"]) == ("", None, [])


def test_the_front_and_what_is_left_over_are_args(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gpunode-gateway.service").write_text("[X-gpunode]\nListens=0.0.0.0 443, 127.0.0.1 9113\n")
    front = "Id=gpunode-gateway.service\nLoadState=loaded\nActiveState=active\nSubState=running\n"
    job = "Id=gpunode-pull-x.service\nActiveState=failed\n"
    monkeypatch.setattr(vllm_status.node_brought, "read", lambda _path: {"images": ["image:0"], "models": []})
    result = run(monkeypatch, Module(tmp_path, [], f"{front}\n{job}"))
    assert (result["front"], result["front_listens"]) == ("active/running", ["0.0.0.0 443", "127.0.0.1 9113"])
    assert {"kind": "failed_job", "name": "gpunode-pull-x.service"} in result["leftovers"]
    assert {"kind": "image", "name": "image:0"} in result["leftovers"]
    assert run(monkeypatch, Module(tmp_path, ["b"], job))["leftovers"] == []


def test_others_are_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    instance(tmp_path, 1)
    assert run(monkeypatch, Module(tmp_path, ["b"], ""))["instances"] == []


def test_a_rank_without_an_api_is_not_asked(tmp_path: Path) -> None:
    record = instance(tmp_path, 1).record
    rank = vllm_status.Instance(replace(record, group={"rank": 1, "nodes": ["n1", "n2"]}))
    rank.ask(1)
    assert (rank.answer.ready, rank.answer.detail) == (True, "it is a part of the engine on n1")
    assert (rank.url(), rank.load) == ("", None)
