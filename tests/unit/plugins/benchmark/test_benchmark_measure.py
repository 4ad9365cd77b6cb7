# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One endpoint measured: the client's container, what it leaves, its last words, and what a record says of the node."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.benchmark import gpus, measure
from ansible_collections.gpunode.llm.plugins.module_utils.benchmark.gpus import Sample
from ansible_collections.gpunode.llm.plugins.module_utils.benchmark.measure import BenchmarkError, Measurement, Target

KEY = "sk-secret-of-the-front"
TARGET = Target("8b", "vllm-8b", "vllm/vllm-openai:v0.33.0", "8b", "127.0.0.1", 8000)
FIGURES = {"concurrency": 4, "completed": 3, "errors": [], "output_tokens": 6000, "output_tokens_per_s": 600.0}
POINT = {**FIGURES, "started": 10.0, "ended": 20.0}
DIGEST = "sha256:" + "a" * 64


class Docker:
    """Stands for docker that runs the client: what it prints, how it ends, and what it leaves in its folder."""

    def __init__(self, lines: Sequence[str] = (), rc: int = 0, leaves: dict[str, Any] | None = None) -> None:
        self.stdout, self.rc, self.leaves = [f"{line}\n" for line in lines], rc, leaves or {}
        self.commands: list[list[str]] = []

    def __call__(self, argv: Sequence[str], env: dict[str, str] | None = None, **_pipes: Any) -> Docker:
        self.argv, self.env = list(argv), env or {}
        self.folder = next(word.split("=")[1].split(":")[0] for word in argv if word.endswith("/benchmark/work"))
        self.spec = json.loads(Path(self.folder, "spec.json").read_text(encoding="utf-8"))
        for name, value in self.leaves.items():
            Path(self.folder, name).write_text(json.dumps(value), encoding="utf-8")
        return self

    def run(self, argv: Sequence[str]) -> tuple[int, str, str]:
        self.commands.append(list(argv))
        return 0, "", ""

    def wait(self) -> int:
        return self.rc


Made = Callable[[Docker], Measurement]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def made(tmp_path: Path, said: list[str]) -> Made:
    (tmp_path / "work").mkdir()

    def make(docker: Docker) -> Measurement:
        measurement = Measurement(docker.run, "docker", str(tmp_path), said.append)
        measurement.popen = docker
        return measurement

    return make


def left(*names: str) -> dict[str, Any]:
    return {"engine.json": {"version": "0.33.0", "options": {}}, **dict.fromkeys(names, POINT)}


def test_client_has_no_gpu_no_key_in_its_words_and_no_right(made: Made) -> None:
    docker = Docker(leaves=left())
    made(docker).points(Target(**{**vars(TARGET), "gpus": []}), [], KEY)
    assert KEY not in " ".join(docker.argv)
    assert docker.env["OPENAI_API_KEY"] == KEY
    assert "--env=OPENAI_API_KEY" in docker.argv
    assert KEY not in json.dumps(docker.spec)
    assert not [word for word in docker.argv if word.startswith(("--gpus", "--device", "--runtime", "--privileged"))]
    assert {"--env=NVIDIA_VISIBLE_DEVICES=void", "--cap-drop=ALL", "--security-opt=no-new-privileges"} <= {*docker.argv}


def test_client_is_of_the_engines_image_with_its_files_read_only(made: Made, tmp_path: Path) -> None:
    docker = Docker(leaves=left())
    made(docker).points(TARGET, [], "")
    assert docker.argv[: docker.argv.index(TARGET.image)].count("--pull=never") == 1
    assert "--volumes-from=vllm-8b:ro" in docker.argv
    assert f"--volume={tmp_path}/code:/benchmark/code:ro" in docker.argv
    assert docker.argv[-3:] == ["-m", measure.CLIENT, measure.WORK]
    # One that was left behind has its name.
    assert docker.commands == [["docker", "rm", "--force", "gpunode-benchmark-8b"]]
    assert "--name=gpunode-benchmark-8b" in docker.argv


@pytest.mark.parametrize(
    ("more", "base_url"),
    [
        ({}, "http://127.0.0.1:8000"),
        ({"host": "::"}, "http://[::1]:8000"),
        ({"base_url": "https://front/8b", "insecure": True}, "https://front/8b"),
    ],
)
def test_front_is_asked_and_the_engine_counts(made: Made, more: dict[str, Any], base_url: str) -> None:
    docker = Docker(leaves=left("0-000.json"))
    made(docker).points(Target(**{**vars(TARGET), **more}), [{"name": "chat"}], "")
    assert docker.spec["base_url"] == base_url
    assert docker.spec["metrics_url"] == f"{Target(**{**vars(TARGET), **more}).engine_url}/metrics"
    assert docker.spec["metrics_url"].endswith(":8000/metrics")
    assert docker.spec["insecure"] is bool(more.get("insecure"))
    assert (docker.spec["model"], docker.spec["runs"]) == ("8b", [{"name": "chat"}])


def test_points_are_those_of_each_run_in_order_with_what_the_gpus_did(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sampled:
        def __init__(self, _gpus: Any) -> None:
            self.samples = [Sample(15.0, "GPU-1", 600.0, 1700.0), Sample(25.0, "GPU-1", 9000.0, 1.0)]

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_error: Any) -> None:
            pass

    monkeypatch.setattr(measure.benchmark_gpus, "Sampler", Sampled)
    leaves = left("0-001.json", *(f"{number}-000.json" for number in range(1, 11)))
    leaves["0-000.json"] = {**POINT, "concurrency": 1}
    done = made(Docker(leaves=leaves)).points(TARGET, [{}] * 11, "")
    assert done["engine"] == {"version": "0.33.0", "options": {}}
    assert [[one["concurrency"] for one in points] for points in done["points"]] == [[1, 4], *[[4]] * 10]
    point = done["points"][0][1]
    assert "started" not in point
    assert "ended" not in point
    assert (point["power_w"], point["tokens_per_joule"]) == ({"mean": 600.0, "max": 600.0}, 1.0)


def test_what_an_earlier_client_left_is_not_measured(made: Made, tmp_path: Path) -> None:
    for name in ("0-000.json", "refused.json"):
        (tmp_path / "work" / name).write_text(json.dumps("old"), encoding="utf-8")
    done = made(Docker(leaves=left("0-001.json"))).points(TARGET, [{}], "")
    assert done["points"] == [[{**FIGURES, **gpus.figures([], 0, 1, 1)}]]


@pytest.mark.parametrize(
    ("leaves", "told"),
    [
        ({}, "No request of the profile chat was answered: nothing was asked."),
        ({"1-000.json": {**POINT, "completed": 0, "errors": ["b", "a"]}}, "chat was answered: a; b."),
    ],
)
def test_run_without_an_answer_is_none(made: Made, leaves: dict[str, Any], told: str) -> None:
    docker = Docker(leaves={**left("0-000.json"), **leaves})
    with pytest.raises(BenchmarkError, match=told):
        made(docker).points(TARGET, [{"name": "guide"}, {"name": "chat"}], "")


def test_progress_is_said_and_nothing_else(made: Made, said: list[str]) -> None:
    lines = ["starting the client", "", "WARNING of a library", "chat: warming up with 4 at once, 4 requests"]
    lines += ["  chat: measuring", "shared-prefix: measured 4 at once: 600 tokens/s", "8.b: measuring 4 at once"]
    made(Docker(lines, leaves=left())).points(TARGET, [], "")
    assert said == [lines[0], lines[3], lines[5], lines[6]]


def test_last_words_of_a_client_that_failed_are_told(made: Made) -> None:
    lines = ["starting the client", *(f"line {number}" for number in range(9)), "", "MemoryError: no room", ""]
    with pytest.raises(BenchmarkError) as failed:
        made(Docker(lines, rc=1, leaves=left())).points(TARGET, [], "")
    assert str(failed.value) == "The client failed: line 5 | line 6 | line 7 | line 8 | MemoryError: no room"


def test_client_that_said_nothing_tells_how_it_ended(made: Made) -> None:
    with pytest.raises(BenchmarkError, match=r"^The client failed: it ended with 137, and said nothing$"):
        made(Docker(rc=137)).points(TARGET, [], "")


def test_refusal_of_the_client_is_told_as_it_is(made: Made) -> None:
    refusal = "The longest request of the profile long has 9,216 tokens, and the context that is served has 4,096."
    docker = Docker(["starting the client"], rc=1, leaves={"refused.json": refusal})
    with pytest.raises(BenchmarkError) as failed:
        made(docker).points(TARGET, [], "")
    assert str(failed.value) == refusal


METRICS = 'vllm:num_requests_running{engine="0"} 3.0\nvllm:num_requests_waiting{engine="0"} 2.0\n'


@pytest.mark.parametrize(
    ("answer", "requests"),
    [
        ((200, METRICS), 5),
        ((503, METRICS), 0),
        (ConnectionRefusedError(), 0),
        (http.client.BadStatusLine("x"), 0),
    ],
)
def test_requests_that_an_engine_has(monkeypatch: pytest.MonkeyPatch, answer: Any, requests: int) -> None:
    def ask(_method: str, path: str, *_more: Any) -> Any:
        assert path == "/metrics"
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(measure.vllm_wait, "asker", lambda _host, _port: ask)
    assert measure.busy(measure.look(TARGET)) == requests


@pytest.mark.parametrize(
    ("text", "digest"),
    [
        (f'["vllm/vllm-openai@{DIGEST}"] sha256:{"b" * 64}', DIGEST),
        (f"[] {DIGEST}", DIGEST),
        ("", ""),
    ],
)
def test_image_is_named_by_its_digest(text: str, digest: str) -> None:
    assert measure.image_of(lambda _argv: (0, text, ""), "docker", "image") == digest


def test_cpu_is_named() -> None:
    text = "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Platinum 8480+ \nprocessor\t: 1\nmodel name\t: other\n"
    assert measure.cpu_of(text) == "Intel(R) Xeon(R) Platinum 8480+"
    assert measure.cpu_of("CPU implementer : 0x41\n") == ""


def test_node_is_where_it_was_measured() -> None:
    found = measure.node(lambda _argv: (1, "", ""), [], "gpu01")
    assert found["name"] == "gpu01"
    assert found["cpus"] == os.cpu_count()
    assert found["kernel"] == os.uname().release
    assert (found["gpus"], found["driver"], found["topology"]) == ([], "", "")


@pytest.mark.parametrize(("given", "file", "key"), [("front", True, "front"), (None, True, "own"), (None, False, "")])
def test_key_is_that_of_the_front_or_the_engines_own(tmp_path: Path, given: str | None, file: bool, key: str) -> None:
    path = tmp_path / "8b.env"
    path.write_text("VLLM_API_KEY=own\n", encoding="utf-8")
    target = Target(**{**vars(TARGET), "env_file": str(path) if file else ""})
    assert measure.key_of(target, given) == key
