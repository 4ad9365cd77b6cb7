# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A candidate on a node: what is written and started for it, why it does not start, and the way back."""

from __future__ import annotations

import json
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.benchmark import trial
from ansible_collections.gpunode.llm.plugins.module_utils.benchmark.trial import Switch, Trial, TrialError

UNIT, OWN = "vllm-8b-tune-trial.service", "vllm-8b.service"
ENVIRONMENT = "VLLM_API_KEY=secret\nOMP_NUM_THREADS=8\n"
LIMITS = {"GPU-1": 700.0, "GPU-2": 650.0}


class Node:
    """Stands for a node: keeps each command, and answers those that ``answers`` has by their words."""

    def __init__(self, **answers: tuple[int, str, str]) -> None:
        self.answers, self.commands = answers, []

    def __call__(self, argv: Sequence[str]) -> tuple[int, str, str]:
        self.commands.append(" ".join(argv))
        return next((said for word, said in self.answers.items() if word in argv), (0, "", ""))

    def did(self, *words: str) -> list[str]:
        return [command for command in self.commands if any(word in command for word in words)]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for /run."""
    monkeypatch.setattr(trial, "RUN", f"{tmp_path}/run/")
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.fixture
def the_trial(run: Path) -> Trial:
    (run / "trial.env").write_text(ENVIRONMENT, encoding="utf-8")
    config = {"model": "m", "max-num-seqs": 256, "speculative-config": {"method": "ngram"}}
    return Trial(UNIT, OWN, True, f"{run}/trial.yaml", f"{run}/trial.env", config)


def read(path: str) -> Any:
    text = Path(path).read_text(encoding="utf-8")
    assert text.startswith("# A candidate of a tune")
    return json.loads(text.partition("\n")[2])


def test_candidate_is_written_then_started(the_trial: Trial) -> None:
    node = Node()
    switch = Switch(node, the_trial, "")
    switch.start({"max-num-seqs": 512, "speculative-config": None}, {"OMP_NUM_THREADS": "2"})
    assert read(the_trial.config_path) == {"model": "m", "max-num-seqs": 512}
    assert node.commands == [
        "systemctl daemon-reload",
        *(f"systemctl {verb} {UNIT}" for verb in ("stop", "reset-failed", "start")),
    ]


def test_second_candidate_starts_from_what_serves_and_not_from_the_first(the_trial: Trial) -> None:
    switch = Switch(Node(), the_trial, "")
    switch.start({"max-num-seqs": None}, {"A": "1"})
    switch.start({"block-size": 32}, {"B": "2"})
    assert read(the_trial.config_path) == {**the_trial.config, "block-size": 32}
    environment = Path(the_trial.environment_path)
    assert environment.read_text(encoding="utf-8") == f"{ENVIRONMENT}B=2\n"
    assert stat.S_IMODE(environment.stat().st_mode) == 0o600


def test_last_line_of_the_environment_wins() -> None:
    assert trial.environment("A=1\nB=2\n", {"B": "3", "A": "0"}) == "A=1\nB=2\nA=0\nB=3\n"
    assert trial.environment("A=1", {"B": "3"}) == "A=1\nB=3\n"
    assert trial.environment("", {}) == ""


@pytest.mark.parametrize("name", ["config_path", "environment_path"])
def test_files_of_what_serves_are_no_files_of_a_trial(name: str) -> None:
    paths = {"config_path": "/run/a.yaml", "environment_path": "/run/a.env"}
    Trial(UNIT, OWN, True, config={}, **paths)
    with pytest.raises(ValueError, match=r"/etc/vllm/8b.yaml is not: nothing was changed"):
        Trial(UNIT, OWN, True, config={}, **{**paths, name: "/etc/vllm/8b.yaml"})


WORKER = "(EngineCore pid=9) ERROR 11-27 00:00:00 [core.py:1] ValueError: max_num_batched_tokens (1) is too small"
AROUND = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"


@pytest.mark.parametrize(
    ("journal", "why"),
    [
        # What the outer process says of the inner one is no cause.
        (f"loading\n{WORKER}\n{AROUND}\n", "max_num_batched_tokens (1) is too small"),
        ("starting\nit failed somehow\n", "it failed somehow"),
        ("", "Job for the unit failed."),
    ],
)
def test_candidate_that_does_not_start_says_why(the_trial: Trial, journal: str, why: str) -> None:
    node = Node(
        start=(1, "", "Job for the unit failed.\n"),
        show=(0, "InvocationID=abc\n", ""),
        **{"--output=cat": (0, journal, "")},
    )
    with pytest.raises(TrialError) as failed:
        Switch(node, the_trial, "").start({}, {})
    assert why in str(failed.value)
    assert "See root cause" not in str(failed.value)
    # Each candidate has the same unit: what the one before it said is not read.
    assert node.did("--output=cat")[0].endswith(" _SYSTEMD_INVOCATION_ID=abc")


def test_candidate_of_which_nothing_is_known_did_not_start(the_trial: Trial) -> None:
    with pytest.raises(TrialError, match="^it did not start$"):
        Switch(Node(start=(1, "", "")), the_trial, "").start({}, {})


@pytest.mark.parametrize(
    ("state", "runs"),
    [
        ("ActiveState=active\n", True),
        ("ActiveState=activating\n", True),
        ("ActiveState=inactive\n", False),
        ("", False),
    ],
)
def test_instance_that_somebody_started_is_seen(the_trial: Trial, state: str, runs: bool) -> None:
    node = Node(show=(0, state, ""))
    assert Switch(node, the_trial, "").own_runs() is runs
    assert OWN in node.commands[-1]


def note(run: Path, **more: Any) -> Path:
    """A job's folder with what must be put back."""
    files = [str(run / name) for name in ("trial.yaml", "trial.env", "trial.service")]
    for path in files:
        Path(path).write_text("x", encoding="utf-8")
    folder = run / "job"
    folder.mkdir()
    told = {"docker": "docker", "client": "client-8b", "unit": UNIT, "own_unit": OWN, "was_active": True}
    told.update({"files": files, "power_limits": {}}, **more)
    (folder / "put-back.json").write_text(json.dumps(told), encoding="utf-8")
    return folder


def test_putting_back_ends_the_trial_and_starts_what_served(run: Path) -> None:
    folder, node = note(run, power_limits=LIMITS), Node()
    assert trial.put_back(node, str(folder)) == ""
    assert [path.name for path in run.iterdir()] == ["job"]
    assert node.commands == [
        "docker rm --force client-8b",
        f"systemctl stop {UNIT}",
        f"systemctl reset-failed {UNIT}",
        "systemctl daemon-reload",
        "timeout --kill-after=5 30 nvidia-smi --id=GPU-1 --power-limit=700",
        "timeout --kill-after=5 30 nvidia-smi --id=GPU-2 --power-limit=650",
        f"systemctl start --no-block {OWN}",
    ]


def test_putting_back_twice_changes_nothing(run: Path) -> None:
    folder, first, second = note(run), Node(), Node()
    assert trial.put_back(first, str(folder)) == ""
    before = sorted(run.rglob("*"))
    assert trial.put_back(second, str(folder)) == ""
    assert sorted(run.rglob("*")) == before
    assert second.commands == first.commands


def test_putting_back_waits_where_that_is_asked(run: Path) -> None:
    node = Node()
    trial.put_back(node, str(note(run)), wait=True)
    assert node.commands[-1] == f"systemctl start {OWN}"


def test_what_did_not_serve_is_not_started(run: Path) -> None:
    node = Node()
    assert trial.put_back(node, str(note(run, was_active=False))) == ""
    assert node.did(OWN) == []


def test_files_below_run_alone_are_removed(run: Path, tmp_path: Path) -> None:
    served = tmp_path / "8b.yaml"
    served.write_text("served", encoding="utf-8")
    trial.put_back(Node(), str(note(run, files=[str(served), str(run / "trial.yaml")])))
    assert served.exists()
    assert not (run / "trial.yaml").exists()


def test_without_a_note_nothing_is_put_back(tmp_path: Path) -> None:
    node = Node()
    assert trial.put_back(node, str(tmp_path)) == ""
    assert node.commands == []


@pytest.mark.parametrize(("said", "told"), [("no such unit\n", "no such unit"), ("", "systemctl start ended with 5")])
def test_what_does_not_start_again_is_told(run: Path, said: str, told: str) -> None:
    assert trial.put_back(Node(start=(5, "", said)), str(note(run))) == f"{OWN} does not start again: {told}"


@pytest.mark.parametrize(("rc", "told"), [(4, "Insufficient Permissions"), (124, "it did not answer")])
def test_power_limit_that_cannot_be_set_is_told_and_the_others_are_set(rc: int, told: str) -> None:
    node = Node(**{"--id=GPU-1": (rc, "Insufficient Permissions\n", "")})
    with pytest.raises(TrialError, match=f"power limit of GPU-1 to 300 W: {told}"):
        trial.power_limits(node, {"GPU-1": 300.0, "GPU-2": 300.0})
    assert len(node.did("--id=GPU-2")) == 1


def test_what_served_is_started_even_if_a_power_limit_stays(run: Path) -> None:
    node = Node(**{"--id=GPU-2": (4, "", "Insufficient Permissions\n")})
    told = trial.put_back(node, str(note(run, power_limits=LIMITS)))
    assert "GPU-2 to 650 W: Insufficient Permissions" in told
    assert node.commands[-1] == f"systemctl start --no-block {OWN}"


def test_job_that_ends_tells_what_it_could_not_put_back(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(note(run))
    assert trial.main(folder, Node()) == 0
    assert trial.main(folder, Node(start=(1, "", "no such unit\n"))) == 1
    assert capsys.readouterr().err == f"{OWN} does not start again: no such unit\n"


def test_job_without_a_note_ends_well(tmp_path: Path) -> None:
    assert trial.main(str(tmp_path)) == 0
