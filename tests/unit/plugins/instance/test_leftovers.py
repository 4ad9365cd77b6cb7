# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What belongs to no service is told, and nobody else's is."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.instance import leftovers as instance_leftovers, names
from ansible_collections.gpunode.llm.plugins.module_utils.instance.record import MARK, Record
from ansible_collections.gpunode.llm.plugins.module_utils.instance.status import Unit


def test_jobs_that_go_on_and_jobs_that_failed() -> None:
    units = [
        Unit("active", "running", name="gpunode-weights-a.service"),
        Unit("active", "exited", name="gpunode-weights-done.service"),
        Unit("failed", "failed", name="gpunode-pull-b.service"),
        Unit("inactive", name="gpunode-pull-c.service"),
        Unit("active", "running", name="gpunode-tune-8b.service"),
        Unit("failed", "failed", name="gpunode-benchmark-8b.service"),
        Unit("active", "running", name="gpunode-gateway.service"),
        Unit("active", name="docker.service"),
    ]
    assert instance_leftovers.jobs(units) == [
        {"kind": "job", "name": "gpunode-weights-a.service"},
        {"kind": "failed_job", "name": "gpunode-pull-b.service"},
        {"kind": "job", "name": "gpunode-tune-8b.service"},
        {"kind": "failed_job", "name": "gpunode-benchmark-8b.service"},
    ]


def test_units_of_candidates_that_no_tune_runs_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance_leftovers, "TRIAL_UNITS", str(tmp_path / "vllm-*-tune-trial.service"))
    for name in ("vllm-a-tune-trial.service", "vllm-a.service"):
        (tmp_path / name).touch()
    left = [{"kind": "trial", "name": "vllm-a-tune-trial.service"}]
    ended = [
        Unit("failed", name="gpunode-tune-a.service"),
        Unit("active", "running", name="gpunode-benchmark-a.service"),
    ]
    assert instance_leftovers.trials(ended) == left
    assert instance_leftovers.trials([*ended, Unit("active", "running", name="gpunode-tune-a.service")]) == []


def test_the_unit_of_candidates_is_found_by_its_name() -> None:
    assert fnmatch(f"/run/systemd/system/{names.unit_of(names.trial_of('8b'))}", instance_leftovers.TRIAL_UNITS)


def test_what_was_fetched_and_no_unit_names() -> None:
    served = [Record("a", "vllm-a.service", "image:2", "org/a"), Record("b", "vllm-b.service", "image:2")]
    noted = {"images": ["image:1", "image:2"], "models": ["org/a", "org/b"]}
    assert instance_leftovers.brought(noted, served) == [
        {"kind": "image", "name": "image:1"},
        {"kind": "model", "name": "org/b"},
    ]
    assert instance_leftovers.brought({}, served) == []
    adapted = [replace(served[0], beside=("org/b",)), *served[1:]]
    assert {"kind": "model", "name": "org/b"} not in instance_leftovers.brought(noted, adapted)


def test_files_of_instances_that_are_gone(tmp_path: Path) -> None:
    config, cache, kept = (tmp_path / name for name in ("config", "cache", "kept"))
    for name in ("a.yaml", "a.keys.yaml", "a.json", "gone.yaml", "gone.json", "gone.keys.yaml", "gone.env", "gone.txt"):
        config.mkdir(exist_ok=True)
        (config / name).write_text(f"# {MARK}. A change here lasts\n")
    (config / "theirs.yaml").write_text("a: 1\n")
    for folder in (cache, kept):
        for name in ("a", "a.new", "gone"):
            (folder / name).mkdir(parents=True)
    found = instance_leftovers.paths(["a"], [str(config)], str(cache), str(kept))
    assert [leftover["name"] for leftover in found] == [
        *(str(config / f"gone.{end}") for end in ("env", "json", "keys.yaml", "yaml")),
        str(cache / "gone"),
        str(kept / "gone"),
    ]
    assert {leftover["kind"] for leftover in found} == {"file"}
    assert instance_leftovers.paths([], [], str(tmp_path / "none"), str(tmp_path / "none")) == []
