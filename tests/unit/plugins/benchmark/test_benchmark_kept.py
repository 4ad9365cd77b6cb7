# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""benchmark_report: records are kept whatever comes, and what is wrong is told before anything is measured."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.utils.display import Display
from ansible_collections.gpunode.llm.plugins.action import benchmark_report
from ansible_collections.gpunode.llm.plugins.modules import benchmark_report as documented
from ansible_collections.gpunode.llm.plugins.plugin_utils.benchmark import plots
from ansible_collections.gpunode.llm.plugins.plugin_utils.refusal import Refusal
from ansible_collections.gpunode.llm.tests.unit import as_ansible
from ansible_collections.gpunode.llm.tests.unit.plugins.benchmark import records

ID = "20261126T231500Z-8b-guide"
EARLIER = records.record("20261101T000000Z-8b-guide")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(Display, "display", lambda _self, text, *_more, **_named: lines.append(text))
    return lines


@pytest.fixture
def earlier(tmp_path: Path) -> str:
    path = tmp_path / "earlier.json"
    path.write_text(json.dumps(EARLIER))
    return str(path)


def run(folder: Path, *given: Any, check_mode: bool = False, no_log: bool = False, **options: Any) -> dict[str, Any]:
    options = {"records": list(given), "dir": str(folder), **options}
    action = as_ansible.action(benchmark_report.ActionModule, options, check_mode=check_mode, no_log=no_log)
    result: dict[str, Any] = action.run(task_vars={})
    return result


def names(result: dict[str, Any]) -> list[str]:
    return [os.path.basename(path) for path in result["files"]]


def test_records_and_reports_are_written_for_others_to_read(tmp_path: Path) -> None:
    mask = os.umask(0o077)
    try:
        result = run(tmp_path / "a" / "b", records.record(), records.tune())
    finally:
        os.umask(mask)
    assert names(result) == [
        f"{ID}.json",
        "20261127T010000Z-8b-tune.json",
        f"{ID}.html",
        *(f"{ID}-{plot}.png" for plot in ("throughput", "per-user", "latency", "power")),
        *("20261127T010000Z-8b-tune.html", "20261127T010000Z-8b-tune-frontier.png"),
    ]
    assert sorted(os.listdir(tmp_path / "a" / "b")) == sorted(names(result))
    assert {os.stat(path).st_mode & 0o777 for path in result["files"]} == {0o644}
    assert json.loads(Path(result["files"][0]).read_text()) == records.record()
    assert result["changed"] is True
    assert result["comparison"] == {}
    assert [line for line in result["text"] if line.startswith("Report: ")] == [
        f"Report: {tmp_path}/a/b/{ID}.html",
        f"Report: {tmp_path}/a/b/20261127T010000Z-8b-tune.html",
    ]
    assert result["text"][0] == "8b, guide, 1x NVIDIA H100 80GB HBM3, vllm 0.33.0:"


def test_in_check_mode_nothing_is_written(tmp_path: Path) -> None:
    result = run(tmp_path / "a", records.record(), check_mode=True)
    assert len(result["files"]) == 6
    assert not (tmp_path / "a").exists()


def test_a_path_is_shown_and_not_written_again(tmp_path: Path, earlier: str) -> None:
    result = run(tmp_path / "a", earlier, records.record())
    assert names(result)[:2] == [f"{ID}.json", "20261101T000000Z-8b-guide.html"]
    assert not (tmp_path / "a" / "20261101T000000Z-8b-guide.json").exists()


def test_nothing_given_is_nothing_done(tmp_path: Path) -> None:
    assert run(tmp_path / "a") == {"changed": False, "files": [], "comparison": {}, "text": []}


def test_a_comparison_is_returned_and_shown(tmp_path: Path, earlier: str) -> None:
    result = run(tmp_path, records.record(points=records.points(1.3)), compare=earlier)
    assert result["comparison"]["verdict"] == "faster"
    assert "Compared with 20261101T000000Z-8b-guide of 2026-11-01T23:15:00Z: faster." in result["text"]
    assert json.loads(json.dumps(result)) == result


def test_of_several_records_the_one_of_the_same_load_is_compared(tmp_path: Path, earlier: str) -> None:
    other = records.record("20261126T231501Z-8b-chat", profile={"name": "chat"})
    second = records.record("20261126T231502Z-9b-guide", model={**records.MODEL, "instance": "9b"})
    result = run(tmp_path, other, second, records.record(points=records.points(1.3)), compare=earlier)
    assert result["comparison"]["verdict"] == "faster"
    assert result["comparison"]["differences"] == []


def test_slower_is_told_and_fails_only_if_asked(tmp_path: Path, earlier: str, shown: list[str]) -> None:
    slower = records.record(points=records.points(0.7), engine=records.engine(**{"max-num-seqs": 64}))
    assert run(tmp_path, slower, compare=earlier)["comparison"]["verdict"] == "slower"
    assert not shown
    with pytest.raises(Refusal) as caught:
        run(tmp_path / "a", slower, compare=earlier, fail_if_slower=True)
    assert str(caught.value).startswith("Slower than 20261101T000000Z-8b-guide beyond noise: ")
    assert str(caught.value).endswith("; 24 more like it.")
    assert (tmp_path / "a" / f"{ID}.html").exists()
    assert any("option max-num-seqs  64 (was not set)" in text for text in shown)
    assert any(f"Report: {tmp_path}/a/{ID}.html" in text for text in shown)
    # Ansible prints what a failure returns as YAML, and the screen has it in words.
    assert set(caught.value.result_contribution) == {"changed", "failed", "files", "msg"}


def test_one_figure_that_is_slower_is_named(tmp_path: Path, earlier: str) -> None:
    points = json.loads(json.dumps(records.points()))
    for point in points[-3:]:
        point["itl_ms"]["p99"] *= 1.5
    with pytest.raises(Refusal) as caught:
        run(tmp_path, records.record(points=points), compare=earlier, fail_if_slower=True)
    assert str(caught.value).endswith("ITL p99 at concurrency 1000 was 378.1 and is 567.2 (+50.0%, noise 2.0%).")


@pytest.mark.parametrize("points", [records.points(), records.points(1.3)], ids=["same", "faster"])
def test_what_is_not_slower_does_not_fail(points: Any, tmp_path: Path, earlier: str) -> None:
    assert run(tmp_path, records.record(points=points), compare=earlier, fail_if_slower=True)["changed"]


def test_what_cannot_be_compared_is_kept_all_the_same(tmp_path: Path, earlier: str, shown: list[str]) -> None:
    with pytest.raises(Refusal, match="its profile is chat, and was guide earlier"):
        run(tmp_path / "a", records.record(profile={"name": "chat"}), compare=earlier)
    assert {f"{ID}.json", f"{ID}.html"} <= set(os.listdir(tmp_path / "a"))
    assert any("8b, chat, 1x NVIDIA" in text for text in shown)
    shown.clear()
    with pytest.raises(Refusal, match="its profile is chat"):
        run(tmp_path / "a", records.record(profile={"name": "chat"}), compare=earlier, no_log=True)
    assert not shown


@pytest.mark.parametrize("check_only", [True, False])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read: No such file"),
        ("{", "it is not JSON"),
        ('{"schema": 2}', "has schema 2, and this release"),
        (json.dumps(records.tune()), "is the record of a tune: name the record of a benchmark"),
        (json.dumps(EARLIER), "was measured with the profile guide, and now chat, long would be"),
    ],
)
def test_a_bad_file_to_compare_with_is_refused_first(
    text: str | None, words: str, check_only: bool, tmp_path: Path
) -> None:
    path = tmp_path / "earlier.json"
    if text is not None:
        path.write_text(text)
    options = {"compare": str(path), "check_only": check_only, "profiles": ["chat", "long"]}
    with pytest.raises(Refusal, match=words) as caught:
        run(tmp_path / "a", records.record(), **options)
    assert str(path) in str(caught.value)
    assert not (tmp_path / "a").exists()


def test_a_check_alone_writes_nothing(tmp_path: Path, earlier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(tmp_path / "a", compare=earlier, check_only=True, profiles=["guide"])
    assert result == {"changed": False, "files": [], "comparison": {}, "text": []}
    assert not (tmp_path / "a").exists()
    monkeypatch.setattr(plots, "MISSING", "The plots are left out.")
    assert run(tmp_path / "a", check_only=True)["text"] == ["The plots are left out."]


def test_a_folder_that_cannot_be_is_refused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refusal, match=f"{tmp_path}/file/a cannot hold reports: {tmp_path}/file is no folder"):
        run(tmp_path / "file" / "a", check_only=True)
    monkeypatch.setattr(os, "access", lambda path, _mode: str(path) != str(tmp_path))
    with pytest.raises(Refusal, match=f"you may not write in {tmp_path}"):
        run(tmp_path / "b" / "c", check_only=True)


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refusal, match=r"/file cannot be written: "):
        run(tmp_path / "file", records.record())


def test_without_matplotlib_the_record_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "MISSING", "The plots are left out.")
    result = run(tmp_path, records.record())
    assert names(result) == [f"{ID}.json", f"{ID}.html"]
    assert result["text"][-2:] == ["The plots are left out.", f"Report: {tmp_path}/{ID}.html"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([records.record(), records.record()], f"2 records have the id {ID}, and one file cannot hold them"),
        ([records.record(), {"a": 1}], "record 2 is no record of a benchmark or a tune"),
        ([{**records.record(), "id": "../a"}], "id must be a name of letters"),
        (["/nowhere/a.json"], "/nowhere/a.json cannot be read"),
        ([5], "record 1 is no record"),
    ],
)
def test_what_is_no_record_is_refused_and_nothing_written(given: list[Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=words):
        run(tmp_path / "a", *given)
    assert not (tmp_path / "a").exists()


def test_every_option_is_documented() -> None:
    options = yaml.safe_load(documented.DOCUMENTATION)["options"]
    assert options.keys() == benchmark_report.OPTIONS.keys()
    for name, option in benchmark_report.OPTIONS.items():
        assert {key: value for key, value in options[name].items() if key != "description"} == option
