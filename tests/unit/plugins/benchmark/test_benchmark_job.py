# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The job on the node: what it measures, what it keeps, and that what served before is started at its end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.benchmark import (
    __main__ as benchmark_main,
    search,
)
from ansible_collections.gpunode.llm.plugins.module_utils.benchmark.measure import BenchmarkError
from ansible_collections.gpunode.llm.plugins.module_utils.benchmark.quality import Quality, QualityError
from ansible_collections.gpunode.llm.plugins.plugin_utils.benchmark import kept, record
from ansible_collections.gpunode.llm.tests.unit.plugins.benchmark import jobs

IDLE = "vllm:num_requests_running 0.0\n"
ASKED = {"requirements": "/q/requirements.txt", "questions": "/q/questions.jsonl", "shots": 8, "index": {}}


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the engine's /metrics says."""
    says = {"metrics": IDLE}
    monkeypatch.setattr(benchmark_main.benchmark_measure, "look", lambda target: says["metrics"])
    return says


@pytest.fixture(autouse=True)
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The files of a trial lie below it."""
    monkeypatch.setattr(benchmark_main.benchmark_trial, "RUN", f"{tmp_path}/")


def good(right: int) -> Quality:
    """So many of 200 questions were answered right."""
    return Quality("gsm8k_cot", 200, right / 200, 0.03, "a" * 64, "b" * 64, "1" * right + "0" * (200 - right))


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """How the questions are answered, one after the other; an exception is raised."""
    given: list[Any] = []

    def measure(_run: object, harness: Any, endpoint: Any, folder: str) -> Quality:
        assert (harness.docker, harness.shots) == ("/usr/bin/docker", 8)
        assert not endpoint.env_file or "OPENAI_API_KEY=sk-one" in Path(endpoint.env_file).read_text()
        answer = given.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(benchmark_main.benchmark_quality, "prepare", lambda *_args: None)
    monkeypatch.setattr(benchmark_main.benchmark_quality, "stop", lambda *_args: None)
    monkeypatch.setattr(benchmark_main.benchmark_quality, "measure", measure)
    return given


def listed(folder: Path) -> list[dict[str, Any]]:
    """The results that the job names to the module."""
    return [json.loads(Path(path).read_text()) for path in (folder / "results").read_text().split()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The job's folder; the results lie beside it."""
    home = tmp_path / "job"
    home.mkdir()
    return home


# -- a benchmark ------------------------------------------------------------------------------------------------------
def test_a_record_is_one_that_the_controller_reads_and_reports(folder: Path) -> None:
    runs = [jobs.RUN, {**jobs.RUN, "name": "chat", "goals": {"ttft_ms": 500.0}}]
    job = jobs.benchmark(folder, jobs.Node(), runs=runs, label="before")
    job.benchmark()
    first, second = found = listed(folder)
    for one in found:
        record.checked(one, "it")
    assert (first["id"], second["id"]) == ("20261126T233502Z-gpu01-8b-guide", "20261126T233503Z-gpu01-8b-chat")
    assert (first["node"]["name"], first["through"], first["label"]) == ("gpu01", "loopback", "before")
    assert first["engine"]["options"] == {"max-model-len": 4096}
    assert (first["engine"]["image_digest"], first["engine"]["env"]) == (jobs.DIGEST, {"VLLM_A": "1"})
    assert (second["goals"], second["profile"]["headline"]) == ({"ttft_ms": 500.0}, 16)
    made = kept.made(found, None)
    assert any(name.endswith(".html") for name in made.files)
    assert made.lines


def test_clients_are_not_disturbed(folder: Path, engine: dict[str, str]) -> None:
    engine["metrics"] = "vllm:num_requests_running 2.0\nvllm:num_requests_waiting 1.0\n"
    with pytest.raises(BenchmarkError, match="vllm-8b has 3 requests of its clients.*-e benchmark_busy=true"):
        jobs.benchmark(folder, jobs.Node()).benchmark()
    assert not (folder / "results").exists()
    jobs.benchmark(folder, jobs.Node(), busy=True).benchmark()
    assert len(listed(folder)) == 1


def test_the_key_is_that_of_the_gateway_and_then_gone(folder: Path) -> None:
    (folder / "secret").write_text("sk-front\n")
    plain = jobs.common(folder)
    target = {**plain["target"], "base_url": "https://127.0.0.1/8b", "insecure": True}
    job = jobs.benchmark(folder, jobs.Node(), target=target)
    job.benchmark()
    assert job.measurement.asked[0][2] == "sk-front"
    assert not (folder / "secret").exists()
    assert listed(folder)[0]["through"] == "front"


def test_its_questions_are_asked_of_the_engine_with_its_own_key(folder: Path, answers: list[Any]) -> None:
    answers.append(good(150))
    jobs.benchmark(folder, jobs.Node(), quality=ASKED).benchmark()
    assert listed(folder)[0]["quality"] == asdict(good(150))
    assert not (folder / "questions.env").exists()


def test_an_engine_without_a_key_is_asked_without_one(folder: Path, answers: list[Any]) -> None:
    answers.append(good(150))
    job = jobs.benchmark(folder, jobs.Node(), quality=ASKED)
    (folder / "8b.env").write_text("")
    job.benchmark()
    assert listed(folder)[0]["quality"]["score"] == 0.75


def test_progress_is_told_to_the_journal_and_the_module(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs.benchmark(folder, jobs.Node()).tell("guide: measuring 16 at once")
    assert capsys.readouterr().out == "guide: measuring 16 at once\n"
    assert json.loads((folder / "status.json").read_text()) == {"line": "guide: measuring 16 at once"}


# -- a tune -----------------------------------------------------------------------------------------------------------
def by_sequences(options: Mapping[str, Any]) -> float:
    return {128: 0.7, 512: 1.4}.get(options.get("max-num-seqs", 0), 1.0)


def started(node: jobs.Node) -> list[str]:
    return [line.partition("start ")[2] for line in node.lines("systemctl start")]


def test_a_tune_finds_the_best_and_starts_what_served_before(folder: Path) -> None:
    node = jobs.Node()
    job = jobs.tune(folder, node)
    job.measurement.speed = by_sequences
    job.tune()
    (tune,) = listed(folder)
    record.checked(tune, "it")
    names = [row["name"] for row in tune["candidates"]]
    assert names == ["base", "max-num-seqs=128", "max-num-seqs=512"]
    assert (tune["best"], tune["ended"], tune["baseline"]) == ("max-num-seqs=512", "complete", "base")
    assert [row["wins"] for row in tune["candidates"]] == [False, False, True]
    assert {row["state"] for row in tune["candidates"]} == {"measured"}
    assert tune["engine"]["options"] == {"max-model-len": 4096}
    assert (tune["node"]["name"], tune["model"]["instance"]) == ("gpu01", "8b")
    assert started(node)[-1] == "vllm-8b.service"
    # Somebody may stop it until the result is taken: the job's unit then starts nothing again.
    assert not (folder / "put-back.json").exists()
    made = kept.made([tune], None)
    assert any(name.endswith(".html") for name in made.files)


def test_what_fails_is_kept_with_its_reason(folder: Path) -> None:
    job = jobs.tune(folder, jobs.Node())

    def speed(options: Mapping[str, Any]) -> float:
        return jobs.failing(options) if options.get("max-num-seqs") == 512 else 1.0

    job.measurement.speed = speed
    job.tune()
    (tune,) = listed(folder)
    assert [(row["state"], row["why"]) for row in tune["candidates"]][-1] == (
        "failed",
        "The client failed: no answer",
    )
    assert tune["best"] == "base"
    record.checked(tune, "it")


def test_what_answers_with_errors_has_failed(folder: Path) -> None:
    job = jobs.tune(folder, jobs.Node())

    def change(point: dict[str, Any]) -> None:
        if job.measurement.options().get("max-num-seqs") == 128:
            point.update(failed=3, errors=["out of memory"])

    job.measurement.change = change
    job.tune()
    rows = {row["name"]: row for row in listed(folder)[0]["candidates"]}
    assert (rows["max-num-seqs=128"]["state"], rows["max-num-seqs=128"]["score"]) == ("failed", None)
    assert rows["max-num-seqs=128"]["why"] == "12 of 4000 requests failed: out of memory"
    assert benchmark_main.unanswered([{"failed": 0, "requests": 8, "errors": []}]) == "0 of 8 requests failed"


def test_without_a_baseline_nothing_wins(folder: Path) -> None:
    node = jobs.Node()
    job = jobs.tune(folder, node)
    job.measurement.speed = jobs.failing
    with pytest.raises(BenchmarkError, match="What serves could not be measured.*The client failed: no answer"):
        job.tune()
    assert started(node)[-1] == "vllm-8b.service"


def test_goals_that_nothing_keeps_are_said(folder: Path) -> None:
    node = jobs.Node()
    job = jobs.tune(folder, node, objective="goodput", runs=[{**jobs.RUN, "goals": {"ttft_ms": 1.0}}])
    job.measurement.change = lambda point: point.update(goodput_requests_per_s=0.0)
    with pytest.raises(BenchmarkError, match="no request keeps to the goals at 16 at once.*benchmark_goals"):
        job.tune()
    assert started(node)[-1] == "vllm-8b.service"


def test_what_served_before_may_not_start(folder: Path) -> None:
    node = jobs.Node()
    node.fails["start vllm-8b.service"] = "its start failed"
    with pytest.raises(BenchmarkError, match="but vllm-8b.service does not start again: its start failed"):
        jobs.tune(folder, node).tune()
    # The job's unit tries again.
    assert (folder / "put-back.json").exists()


def test_somebody_who_starts_it_meanwhile_ends_the_tune(folder: Path) -> None:
    node = jobs.Node()
    job = jobs.tune(folder, node)

    def speed(options: Mapping[str, Any]) -> float:
        if "max-num-seqs" in options:
            node.own_state = "active"
            jobs.failing(options)
        return 1.0

    job.measurement.speed = speed
    with pytest.raises(benchmark_main.Interrupted, match="vllm-8b.service was started meanwhile"):
        job.tune()
    # The candidate is measured when the tune goes on.
    text = (folder.parent / "kept" / "8b-tune.json").read_text()
    assert [row["name"] for row in json.loads(text)["candidates"]] == ["base"]
    assert json.loads(text)["ended"] == "running"


def test_a_tune_goes_on_where_it_was_cut_off(folder: Path) -> None:
    job = jobs.tune(folder, jobs.Node(), budget_s=0.0)
    job.tune()
    (tune,) = listed(folder)
    # The baseline and one candidate are measured in any case.
    assert ([row["name"] for row in tune["candidates"]], tune["ended"]) == (["base", "max-num-seqs=128"], "budget")
    again = jobs.tune(folder, jobs.Node())
    again.tune()
    assert [run[0]["name"] for _target, run, _key in again.measurement.asked] == ["guide"]
    assert [row["name"] for row in listed(folder)[0]["candidates"]][-1] == "max-num-seqs=512"
    assert listed(folder)[0]["ended"] == "complete"
    # What is complete is begun anew, as is another question, and what another release wrote.
    assert jobs.tune(folder, jobs.Node()).kept == {}
    path = folder.parent / "kept" / "8b-tune.json"
    cut_off = {**json.loads(path.read_text()), "ended": "running"}
    path.write_text(json.dumps(cut_off))
    assert len(jobs.tune(folder, jobs.Node()).kept) == 3
    assert jobs.tune(folder, jobs.Node(), question="else").kept == {}
    path.write_text(json.dumps({**cut_off, "schema": 2}))
    assert jobs.tune(folder, jobs.Node()).kept == {}


def test_the_previous_best_is_measured_first(folder: Path) -> None:
    job = jobs.tune(folder, jobs.Node(), previous={"max-num-seqs": "max-num-seqs=512"})
    job.measurement.speed = by_sequences
    job.tune()
    assert [row["name"] for row in listed(folder)[0]["candidates"]][1] == "max-num-seqs=512"


def test_the_best_of_the_last_tune_is_measured_first(folder: Path) -> None:
    for _time in range(2):
        job = jobs.tune(folder, jobs.Node())
        job.measurement.speed = by_sequences
        job.tune()
    (tune,) = listed(folder)
    assert [row["name"] for row in tune["candidates"]][1] == "max-num-seqs=512"
    assert tune["previous"] == {"max-num-seqs": "max-num-seqs=512"}
    # One that goes on has the same order, though its own best is another one until then.
    path = folder.parent / "kept" / "8b-tune.json"
    path.write_text(json.dumps({**tune, "ended": "running", "best": "base"}))
    assert jobs.tune(folder, jobs.Node()).previous == tune["previous"]
    path.write_text("[]")
    assert jobs.tune(folder, jobs.Node()).previous == {}


def test_a_power_limit_is_set_and_set_back_and_the_record_has_the_nodes_own(folder: Path) -> None:
    node, limits = jobs.Node(), {jobs.GPU: 700.0}
    axes = {"power-limit": [{"name": "500 W", "power_limit_w": 500}]}
    note = {**jobs.tuned(folder)["put_back"], "power_limits": limits}
    job = jobs.tune(folder, node, axes=axes, power_limits=limits, put_back=note)
    job.tune()
    set_to = [line.rpartition("=")[2] for line in node.lines("--power-limit=")]
    assert set_to == ["700", "500", "700"]
    assert listed(folder)[0]["node"]["gpus"][0]["power_limit_w"] == 700.0


# -- and its answers --------------------------------------------------------------------------------------------------
AXES = {"kv-cache-dtype": [jobs.choice("kv-cache-dtype", "fp8", exact=False)], **jobs.tuned(Path("/x"))["axes"]}


def faster(options: Mapping[str, Any]) -> float:
    return 1.5 if options.get("kv-cache-dtype") else 1.0


def test_what_answers_worse_cannot_win(folder: Path, answers: list[Any]) -> None:
    answers += [good(180), good(120)]
    job = jobs.tune(folder, jobs.Node(), axes=AXES, quality=ASKED)
    job.measurement.speed = faster
    job.tune()
    rows = {row["name"]: row for row in listed(folder)[0]["candidates"]}
    # Those with the same numbers are not asked.
    assert answers == []
    assert rows["kv-cache-dtype=fp8"]["state"] == search.REFUSED
    assert rows["kv-cache-dtype=fp8"]["why"]
    assert rows["kv-cache-dtype=fp8"]["quality"]["score"] == 0.6
    assert listed(folder)[0]["best"] == "base"
    record.checked(listed(folder)[0], "it")


def test_what_answers_as_well_can(folder: Path, answers: list[Any]) -> None:
    answers += [good(180), good(179), good(179), good(179)]
    job = jobs.tune(folder, jobs.Node(), axes=AXES, quality=ASKED)
    job.measurement.speed = faster
    job.tune()
    assert listed(folder)[0]["best"].startswith("kv-cache-dtype=fp8")


def test_answers_that_do_not_come_are_a_reason(folder: Path, answers: list[Any]) -> None:
    answers += [good(180), QualityError("no answer in time")]
    job = jobs.tune(folder, jobs.Node(), axes={"kv-cache-dtype": AXES["kv-cache-dtype"]}, quality=ASKED)
    job.tune()
    (_base, row) = listed(folder)[0]["candidates"]
    assert (row["state"], row["why"]) == ("failed", "no answer in time")


# -- the program ------------------------------------------------------------------------------------------------------
def test_the_program_says_why_it_failed(
    folder: Path, engine: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    engine["metrics"] = "vllm:num_requests_running 1.0\n"
    (folder / "job.json").write_text(json.dumps({**jobs.common(folder), "kind": "benchmark"}))
    assert benchmark_main.main(str(folder)) == 1
    status = json.loads((folder / "status.json").read_text())
    assert status["error"].startswith("vllm-8b has 1 requests")
    assert status["error"] in capsys.readouterr().err


def test_the_program_does_either(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    monkeypatch.setattr(benchmark_main.Job, "benchmark", lambda job: done.append(job.plain["kind"]))
    monkeypatch.setattr(benchmark_main.Tune, "tune", lambda job: done.append(job.plain["kind"]))
    for plain in ({**jobs.common(folder), "kind": "benchmark"}, jobs.tuned(folder)):
        (folder / "job.json").write_text(json.dumps(plain))
        assert benchmark_main.main(str(folder)) == 0
    assert done == ["benchmark", "tune"]
