# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules benchmark and tune around their jobs: started once, attached to by the same order, and taken once."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.gpunode.llm.plugins.module_utils.benchmark import run as benchmark_run
from ansible_collections.gpunode.llm.plugins.module_utils.benchmark.measure import BenchmarkError
from ansible_collections.gpunode.llm.plugins.module_utils.instance.record import Files, Record
from ansible_collections.gpunode.llm.plugins.modules import benchmark, tune
from ansible_collections.gpunode.llm.tests.unit.plugins.benchmark import jobs

UNIT = "gpunode-benchmark-8b"
STATES = {
    "absent": ("not-found", "inactive", "dead"),
    "running": ("loaded", "active", "running"),
    "succeeded": ("loaded", "active", "exited"),
    "failed": ("loaded", "failed", "failed"),
}


class Systemd(jobs.Node):
    """Units by their names; what starts runs."""

    def __init__(self) -> None:
        super().__init__()
        self.states: dict[str, str] = {}

    def __call__(self, argv: Sequence[str], **named: Any) -> tuple[int, str, str]:
        name = argv[2].removesuffix(".service") if len(argv) > 2 else ""
        if argv[:2] == ["systemctl", "show"] and name.startswith("gpunode-"):
            load, active, sub = STATES[self.states.get(name, "absent")]
            self.ran.append(list(argv))
            return 0, f"LoadState={load}\nActiveState={active}\nSubState={sub}\nResult=signal\nInvocationID=aa\n", ""
        if argv[0] == "systemd-run":
            self.states[argv[1].removeprefix("--unit=")] = "running"
        if argv[:2] == ["systemctl", "stop"]:
            self.states.pop(name, None)
        if argv[0] == "journalctl" and "--sync" not in argv:
            return 0, "killed by somebody\n", ""
        return super().__call__(argv, **named)

    @property
    def starts(self) -> int:
        return len([argv for argv in self.ran if argv[0] == "systemd-run"])


@pytest.fixture
def node() -> Systemd:
    return Systemd()


@pytest.fixture
def order(tmp_path: Path) -> dict[str, Any]:
    return {**jobs.common(tmp_path / "job"), "kind": "benchmark"}


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., str]:
    return partial(benchmark_run.start, root=str(tmp_path))


@pytest.fixture
def wait(tmp_path: Path, node: Systemd) -> Callable[..., tuple[bool, str, list[str]]]:
    return partial(benchmark_run.wait, node, seconds=0, root=str(tmp_path))


# -- the job ----------------------------------------------------------------------------------------------------------
def test_a_job_is_a_unit_with_all_that_it_needs(
    start: Callable[..., str], node: Systemd, order: dict[str, Any], tmp_path: Path
) -> None:
    assert start(node, "benchmark", order, "sk-one") == "started"
    (command,) = [argv for argv in node.ran if argv[0] == "systemd-run"]
    folder = tmp_path / UNIT
    assert command[command.index("--") + 1 :] == [
        *(sys.executable, "-m", "ansible_collections.gpunode.llm.plugins.module_utils.benchmark", str(folder)),
    ]
    assert f"--property=RequiresMountsFor={order['results']}" in command
    assert not [word for word in command if "ExecStopPost" in word or "sk-one" in word]
    assert json.loads((folder / "job.json").read_text()) == order
    assert ((folder / "secret").read_text(), (folder / "secret").stat().st_mode & 0o777) == ("sk-one", 0o600)
    assert (folder / "work").is_dir()
    assert Path(order["results"]).is_dir()
    assert not (folder / "put-back.json").exists()
    program = "ansible_collections/gpunode/llm/plugins/module_utils/benchmark/client.py"
    assert (folder / "code" / program).exists()


def test_a_tune_puts_back_what_served_however_it_ends(start: Callable[..., str], node: Systemd, tmp_path: Path) -> None:
    order = jobs.tuned(tmp_path / "job")
    assert start(node, "tune", order) == "started"
    (command,) = [argv for argv in node.ran if argv[0] == "systemd-run"]
    folder = tmp_path / "gpunode-tune-8b"
    (stop,) = [word for word in command if "ExecStopPost" in word]
    assert stop.endswith(f" -m ansible_collections.gpunode.llm.plugins.module_utils.benchmark.trial {folder}")
    assert json.loads((folder / "put-back.json").read_text()) == order["put_back"]
    assert not (folder / "secret").exists()


def test_the_same_order_attaches_and_another_one_is_refused(
    start: Callable[..., str], node: Systemd, order: dict[str, Any]
) -> None:
    start(node, "benchmark", order)
    again = {**order, "runs": [{**order["runs"][0], "seed": 8}], "busy": True}
    assert start(node, "benchmark", again) == "running"
    other = {**order, "runs": [{**order["runs"][0], "name": "chat"}]}
    with pytest.raises(BenchmarkError, match=f"Another benchmark of 8b runs.*systemctl stop {UNIT}"):
        start(node, "benchmark", other)
    assert node.starts == 1


def test_the_result_of_a_lost_controller_is_that_of_the_same_order_alone(
    start: Callable[..., str], node: Systemd, order: dict[str, Any]
) -> None:
    start(node, "benchmark", order)
    node.states[UNIT] = "succeeded"
    assert start(node, "benchmark", order) == "ended"
    other = {**order, "label": "another"}
    assert start(node, "benchmark", other) == "started"
    assert node.starts == 2
    node.states[UNIT] = "failed"
    assert start(node, "benchmark", other) == "started"


def test_progress_and_results(
    start: Callable[..., str],
    wait: Callable[..., tuple[bool, str, list[str]]],
    node: Systemd,
    order: dict[str, Any],
    tmp_path: Path,
) -> None:
    start(node, "benchmark", order)
    assert wait("benchmark", "8b") == (False, "benchmark of 8b: starting", [])
    folder = tmp_path / UNIT
    (folder / "status.json").write_text('{"line": "guide: measuring 16 at once"}')
    assert wait("benchmark", "8b")[:2] == (False, "guide: measuring 16 at once")
    kept = tmp_path / "one.json"
    kept.write_text('{"id": "one"}')
    (folder / "results").write_text(f"{kept}\n")
    node.states[UNIT] = "succeeded"
    assert wait("benchmark", "8b") == (True, "guide: measuring 16 at once", [str(kept)])
    assert benchmark_run.loaded([str(kept)]) == [{"id": "one"}]
    assert not folder.exists()
    assert node.states == {}


@pytest.mark.parametrize(
    ("state", "status", "said"),
    [
        ("failed", '{"error": "vllm-8b has 3 requests"}', "^vllm-8b has 3 requests$"),
        ("absent", '{"line": "measuring"}', "The benchmark of 8b was stopped: killed by somebody"),
        ("failed", "", "The benchmark of 8b was stopped: killed by somebody"),
    ],
)
def test_a_job_that_failed(
    start: Callable[..., str],
    wait: Callable[..., tuple[bool, str, list[str]]],
    node: Systemd,
    order: dict[str, Any],
    tmp_path: Path,
    state: str,
    status: str,
    said: str,
) -> None:
    start(node, "benchmark", order)
    (tmp_path / UNIT / "status.json").write_text(status)
    node.states[UNIT] = state
    with pytest.raises(BenchmarkError, match=said):
        wait("benchmark", "8b")


def test_a_job_whose_log_is_empty_says_how_it_ended(
    wait: Callable[..., tuple[bool, str, list[str]]], node: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.states[UNIT] = "failed"
    monkeypatch.setattr(benchmark_run.units_job, "log_tail", lambda *_args, **_named: [])
    with pytest.raises(BenchmarkError, match="was stopped: signal"):
        wait("benchmark", "8b")


# -- what is measured -------------------------------------------------------------------------------------------------
def a_record(tmp_path: Path, **more: Any) -> Record:
    files = Files(config="/etc/vllm/8b.yaml", environment=str(tmp_path / "8b.env"))
    given = {"image": jobs.IMAGE, "model": "org/8b", "revision": "abc", "served": "8b", "gpus": (jobs.GPU,)}
    return Record("8b", "vllm-8b.service", **{**given, "files": files, **more})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Record]:
    """The node's instances."""
    (tmp_path / "8b.env").write_text("# comment\nVLLM_USE_X=1\nVLLM_API_KEY=sk-one\nHF_HOME=/x\nno line\nOMP_NUM=4\n")
    records = [a_record(tmp_path)]
    monkeypatch.setattr(benchmark_run.known, "instances", lambda: records)
    return records


def test_only_what_generates_is_measured(here: list[Record], tmp_path: Path) -> None:
    assert benchmark_run.instance("8b").name == "8b"
    with pytest.raises(BenchmarkError, match="This node has no instance 70b; it has 8b. Serve it with site.yml first."):
        benchmark_run.instance("70b")
    here[:] = [a_record(tmp_path, task="embed")]
    with pytest.raises(BenchmarkError, match="8b serves embed"):
        benchmark_run.instance("8b")
    here.clear()
    with pytest.raises(BenchmarkError, match="it has none"):
        benchmark_run.instance("8b")


def test_what_a_record_says_of_an_instance_has_no_secret(here: list[Record]) -> None:
    assert benchmark_run.about(here[0]) == {
        "name": "8b",
        "model": {"repo_id": "org/8b", "revision": "abc", "served": "8b", "instance": "8b"},
        "environment": {"VLLM_USE_X": "1", "OMP_NUM": "4"},
    }


def test_the_target_is_the_engine_or_the_gateway(here: list[Record]) -> None:
    own = benchmark_run.target(here[0], {})
    assert (own.container, own.port, own.base_url, own.engine_url) == ("vllm-8b", 8000, "", "http://127.0.0.1:8000")
    front = benchmark_run.target(here[0], {"base_url": "https://127.0.0.1:443/8b", "insecure": True})
    assert (front.base_url, front.insecure) == ("https://127.0.0.1:443/8b", True)


# -- the modules ------------------------------------------------------------------------------------------------------
@pytest.fixture
def ask(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    node: Systemd,
    tmp_path: Path,
    here: list[Record],
) -> Callable[..., dict[str, Any]]:
    monkeypatch.setattr(AnsibleModule, "run_command", lambda _self, argv, **_named: node(argv))
    for name in ("start", "wait", "under_way"):
        monkeypatch.setattr(benchmark_run, name, partial(getattr(benchmark_run, name), root=str(tmp_path)))
    monkeypatch.setattr(tune.benchmark_measure, "look", lambda target: node.fails.get("metrics", ""))

    said: list[str] = []
    monkeypatch.setattr(AnsibleModule, "warn", lambda _self, text, **_named: said.append(text))

    def run(module: Any, check: bool = False, **options: Any) -> dict[str, Any]:
        said.clear()
        given = {"name": "8b", "wait_s": 0, "results": str(tmp_path / "kept"), **options}
        with patch_module_args({**given, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            module.main()
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return {**answer, "said": list(said)}

    return run


def ended(node: Systemd, tmp_path: Path, unit: str, result: dict[str, Any]) -> None:
    """The job's end, with a result."""
    (tmp_path / "kept" / "one.json").write_text(json.dumps(result))
    (tmp_path / unit / "results").write_text(f"{tmp_path / 'kept' / 'one.json'}\n")
    node.states[unit] = "succeeded"


def test_a_benchmark_is_started_and_taken(ask: Callable[..., Any], node: Systemd, tmp_path: Path) -> None:
    first = ask(benchmark, runs=[jobs.RUN])
    assert (first["done"], first["resume"], first["changed"]) == (False, {"started": True}, False)
    ended(node, tmp_path, UNIT, {"id": "one"})
    last = ask(benchmark, runs=[jobs.RUN], resume=first["resume"])
    assert (last["done"], last["records"], last["paths"]) == (True, [{"id": "one"}], [str(tmp_path / "kept/one.json")])
    assert last["said"] == []
    assert node.starts == 1


def test_an_older_result_is_said_to_be_one(ask: Callable[..., Any], node: Systemd, tmp_path: Path) -> None:
    ask(benchmark, runs=[jobs.RUN])
    ended(node, tmp_path, UNIT, {"id": "one"})
    answer = ask(benchmark, runs=[jobs.RUN])
    assert answer["records"] == [{"id": "one"}]
    assert answer["said"] == [benchmark_run.AGAIN.format(what="The benchmark of 8b")]


def test_in_check_mode_a_benchmark_looks_alone(ask: Callable[..., Any], node: Systemd) -> None:
    assert ask(benchmark, check=True, runs=[jobs.RUN])["records"] == []
    assert node.starts == 0
    failed = ask(benchmark, check=True, name="70b", runs=[jobs.RUN])
    assert (failed["failed"], failed["done"]) == (True, True)
    assert failed["msg"].startswith("This node has no instance 70b")


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A trial in place, whose files a play has just written."""
    files = {name: str(tmp_path / f"trial.{name}") for name in ("config", "environment", "unit", "record")}
    for path in files.values():
        Path(path).write_text("{}")
    monkeypatch.setattr(tune, "BELOW", str(tmp_path))
    return {
        **{"name": "8b-tune-trial", "unit": "vllm-8b-tune-trial.service", "container": "vllm-8b-tune-trial"},
        **{"host": "127.0.0.1", "port": 8000, "gpus": [jobs.GPU], "in_place_of": "vllm-8b.service"},
        **{"files": {**files, "cache": "/var/cache/vllm/8b"}, "config": {"max-model-len": 4096}},
    }


AXES = {"max-num-seqs": [jobs.choice("max-num-seqs", 128)]}


def job_of(tmp_path: Path) -> dict[str, Any]:
    order: dict[str, Any] = json.loads((tmp_path / "gpunode-tune-8b" / "job.json").read_text())
    return order


def test_a_tune_is_started_and_taken(
    ask: Callable[..., Any], node: Systemd, trial: dict[str, Any], tmp_path: Path
) -> None:
    node.own_state = "active"
    given = {"trial": trial, "axes": AXES, "runs": [jobs.RUN], "budget_minutes": 5}
    first = ask(tune, **given)
    assert (first["done"], first["resume"]) == (False, {"started": True})
    order = job_of(tmp_path)
    assert (order["budget_s"], order["target"]["container"]) == (300, "vllm-8b-tune-trial")
    assert order["target"]["env_file"] == trial["files"]["environment"]
    assert order["engine"]["env"] == {"VLLM_USE_X": "1", "OMP_NUM": "4"}
    assert (order["trial"]["in_place"], order["trial"]["own_unit"]) == (True, "vllm-8b.service")
    back = order["put_back"]
    assert (back["was_active"], back["client"]) == (True, "gpunode-benchmark-8b-tune-trial")
    # The compile cache is that of what serves.
    assert back["files"] == [trial["files"][name] for name in ("config", "environment", "unit", "record")]
    ended(node, tmp_path, "gpunode-tune-8b", {"id": "one"})
    assert ask(tune, **given, resume=first["resume"])["tune"] == {"id": "one"}
    assert all(Path(path).exists() for path in back["files"])


def test_a_tune_reads_power_limits_if_it_changes_them(
    ask: Callable[..., Any], trial: dict[str, Any], tmp_path: Path
) -> None:
    axes = {"power-limit": [{"name": "500 W", "power_limit_w": 500}]}
    ask(tune, trial=trial, axes=axes, runs=[jobs.RUN])
    assert job_of(tmp_path)["put_back"]["power_limits"] == job_of(tmp_path)["power_limits"] == {jobs.GPU: 700.0}


def test_a_tune_does_not_cut_off_clients(ask: Callable[..., Any], node: Systemd, trial: dict[str, Any]) -> None:
    node.fails["metrics"] = "vllm:num_requests_running 2.0\n"
    given = {"trial": trial, "axes": AXES, "runs": [jobs.RUN]}
    for check in (True, False):
        answer = ask(tune, check=check, **given)
        assert answer["msg"].startswith(
            "vllm-8b has 2 requests of its clients, which a tune in its place would cut off"
        )
        assert Path(trial["files"]["unit"]).exists() is check
    assert node.starts == 0
    # Beside them it does no harm, and a user may want it all the same.
    assert not ask(tune, **{**given, "busy": True})["done"]


def test_a_tune_beside_what_serves_asks_nobody(ask: Callable[..., Any], node: Systemd, trial: dict[str, Any]) -> None:
    node.fails["metrics"] = "vllm:num_requests_running 2.0\n"
    answer = ask(tune, trial={**trial, "in_place_of": ""}, axes=AXES, runs=[jobs.RUN])
    assert answer["done"] is False


def test_files_of_a_running_tune_stay(ask: Callable[..., Any], trial: dict[str, Any]) -> None:
    given = {"trial": trial, "runs": [jobs.RUN]}
    ask(tune, **given, axes=AXES)
    other = ask(tune, **given, axes={"max-num-seqs": [jobs.choice("max-num-seqs", 64)]})
    assert other["msg"].startswith("Another tune of 8b runs")
    assert Path(trial["files"]["unit"]).exists()


def test_the_tune_of_a_lost_controller_is_taken_and_leaves_nothing(
    ask: Callable[..., Any], node: Systemd, trial: dict[str, Any], tmp_path: Path
) -> None:
    given = {"trial": trial, "axes": AXES, "runs": [jobs.RUN]}
    ask(tune, **given)
    ended(node, tmp_path, "gpunode-tune-8b", {"id": "one"})
    answer = ask(tune, **given)
    assert answer["tune"] == {"id": "one"}
    assert answer["said"] == [benchmark_run.AGAIN.format(what="The tune of 8b")]
    assert not Path(trial["files"]["unit"]).exists()


def test_a_tune_under_way_is_taken_up_before_a_room_is_looked_for(
    ask: Callable[..., Any], node: Systemd, trial: dict[str, Any], tmp_path: Path
) -> None:
    """It holds the room itself: another look finds another one, or none."""
    given = {"axes": AXES, "runs": [jobs.RUN]}
    none = ask(tune, **given, attach=True)
    assert (none["tune"], none["done"], node.starts) == ({}, True, 0)
    ask(tune, **given, trial={**trial, "port": 18000, "in_place_of": ""})
    same = ask(tune, **{**given, "runs": [{**jobs.RUN, "seed": 9}]}, attach=True)
    assert same["done"] is False, same
    other = ask(tune, **given, attach=True, objective="latency")
    assert other["msg"].startswith("Another tune of 8b runs")
    ended(node, tmp_path, "gpunode-tune-8b", {"id": "one"})
    answer = ask(tune, **given, attach=True)
    assert (answer["tune"], len(answer["said"]), node.starts) == ({"id": "one"}, 1, 1)


def test_a_killed_tune_is_none_to_take_up(ask: Callable[..., Any], node: Systemd, trial: dict[str, Any]) -> None:
    given = {"axes": AXES, "runs": [jobs.RUN]}
    ask(tune, **given, trial=trial)
    node.states["gpunode-tune-8b"] = "failed"
    assert ask(tune, **given, attach=True)["tune"] == {}


def test_in_check_mode_a_tune_looks_alone(ask: Callable[..., Any], node: Systemd, trial: dict[str, Any]) -> None:
    answer = ask(tune, check=True, trial=trial, axes=AXES, runs=[jobs.RUN])
    assert (answer["tune"], answer["done"], node.starts) == ({}, True, 0)
    assert Path(trial["files"]["unit"]).exists()


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"runs": [{**jobs.RUN, "seed": 9}]}, True),
        ({"runs": [{**jobs.RUN, "repeats": 9}]}, True),
        ({"runs": [{**jobs.RUN, "goals": {"ttft_ms": 1.0}}]}, False),
        ({"runs": [{**jobs.RUN, "rows": ["{}"]}]}, False),
        ({"objective": "latency"}, False),
        ({"environment": {}}, False),
        ({"quality": {"shots": 8}}, False),
        ({"axes": {}}, True),
    ],
)
def test_what_makes_another_question(tmp_path: Path, change: dict[str, Any], same: bool) -> None:
    order = jobs.tuned(tmp_path)
    assert (tune.question({**order, **change}) == tune.question(order)) is same
