# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""daemon.json: what stays, what changes, what a reload is enough for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.docker import daemon as docker_daemon

NVIDIA = {"runtimes": {"nvidia": {"args": [], "path": "nvidia-container-runtime"}}}


@pytest.mark.parametrize(
    ("base", "wanted", "merged"),
    [
        ({}, {}, {}),
        ({"debug": True}, {}, {"debug": True}),
        ({}, NVIDIA, NVIDIA),
        ({"runtimes": {"kata": {"path": "k"}}}, NVIDIA, {"runtimes": {"kata": {"path": "k"}, **NVIDIA["runtimes"]}}),
        ({"log-opts": {"a": "1", "b": "2"}}, {"log-opts": {"b": "3"}}, {"log-opts": {"a": "1", "b": "3"}}),
        ({"dns": ["1.1.1.1"]}, {"dns": ["9.9.9.9"]}, {"dns": ["9.9.9.9"]}),
        ({"debug": True, "dns": []}, {"debug": None}, {"dns": []}),
        ({"log-opts": {"a": "1"}}, {"log-opts": {"a": None}}, {"log-opts": {}}),
        ({"log-opts": None}, {"log-opts": {"a": "1"}}, {"log-opts": {"a": "1"}}),
        ({}, {"absent": None, "deep": {"absent": None}}, {"deep": {}}),
    ],
)
def test_merge(base: dict, wanted: dict, merged: dict) -> None:
    kept = json.dumps(base)
    assert docker_daemon.merge(base, wanted) == merged
    assert json.dumps(base) == kept
    assert docker_daemon.merge(merged, wanted) == merged


@pytest.mark.parametrize("odd", ["text", [], 1, True])
def test_a_value_in_place_of_a_dictionary_is_refused(odd: object) -> None:
    with pytest.raises(ValueError, match=r"^c is (a text|a list|a number|true or false), but must be a dictionary$"):
        docker_daemon.merge({"a": {"b": {"c": odd}}}, {"a": {"b": {"c": {"d": 1}}}})


def test_order_of_keys_stays() -> None:
    merged = docker_daemon.merge({"z": 1, "a": 2}, {"a": 3, "m": 4})
    assert docker_daemon.dump(merged) == '{\n    "z": 1,\n    "a": 3,\n    "m": 4\n}\n'


@pytest.mark.parametrize("text", ["", "  \n", "{}"])
def test_load_nothing(text: str) -> None:
    assert docker_daemon.load(text) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1, column 2"),
        ("[]", "not a JSON object"),
        ('"x"', "not a JSON object"),
        ("{'a': 1}", "line 1, column 2"),
        ('{"a": 1,}', "a comma before a closing bracket, in line 1"),
        ('{"a": [1,\n 2,\n]\n}', "a comma before a closing bracket, in line"),
        ('{\n  // ours\n  "a": 1}', "a comment, which JSON does not allow, in line 2"),
        ('{\n  "a": 1 # ours\n}', "a comment, which JSON does not allow, in line 2"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key c occurs twice"),
        ('{"a": 1} {"b": 2}', "line 1, column 10"),
    ],
)
def test_load_refuses(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        docker_daemon.load(text)


@pytest.mark.parametrize(
    ("before", "after", "keys", "restart"),
    [
        ({}, {}, [], False),
        ({}, NVIDIA, ["runtimes"], False),
        ({"debug": True}, {}, ["debug"], False),
        ({}, {**NVIDIA, "features": {"cdi": True}}, ["features", "runtimes"], False),
        ({"data-root": "/a"}, {"data-root": "/b"}, ["data-root"], True),
        ({}, {"log-opts": {}, "labels": []}, ["labels", "log-opts"], True),
    ],
)
def test_what_changed(before: dict, after: dict, keys: list[str], restart: bool) -> None:
    found = docker_daemon.changed_keys(before, after)
    assert (found, docker_daemon.needs_restart(found)) == (keys, restart)


def test_a_broken_file_is_reported_with_the_place(tmp_path: Path) -> None:
    file = tmp_path / "daemon.json"
    assert docker_daemon.read(str(file)) == ("", {})
    file.write_text('{"a": 1,\n oops}')
    with pytest.raises(ValueError, match=r"daemon\.json is not valid JSON.*line 2"):
        docker_daemon.read(str(file))


def test_a_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    file = tmp_path / "daemon.json"
    file.write_bytes('{"labels": ["büro"]}'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"daemon\.json is not UTF-8 text, .* byte 15 is 0xfc"):
        docker_daemon.read(str(file))
    file.write_bytes(b'\xef\xbb\xbf{"debug": true}')
    assert docker_daemon.read(str(file))[1] == {"debug": True}


def test_a_folder_instead_of_a_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{tmp_path} cannot be read: Is a directory"):
        docker_daemon.read(str(tmp_path))


@pytest.mark.parametrize(
    ("rc", "expected", "refused"),
    [
        (0, "configuration OK", False),
        (1, "unable to configure the Docker daemon with file {}: unknown keys", True),
        (125, "unknown flag: --validate\nSee 'dockerd --help'.", False),
    ],
)
def test_dockerd_has_the_last_word(rc: int, expected: str, refused: bool) -> None:
    def run(argv: list[str]) -> tuple[int, str, str]:
        assert argv == ["/usr/bin/dockerd", "--validate", "--config-file", "/tmp/x.json"]
        return rc, "", expected.format("/tmp/x.json")

    message = docker_daemon.refusal(run, "/usr/bin/dockerd", "/tmp/x.json", "/etc/docker/daemon.json")
    assert bool(message) == refused
    assert "/tmp/x.json" not in message


def move(source: str, target: str) -> None:
    Path(source).rename(target)


@pytest.fixture(autouse=True)
def due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_daemon, "DUE", str(tmp_path / "run" / "due"))


def test_land_keeps_the_mode(tmp_path: Path) -> None:
    file = tmp_path / "etc" / "daemon.json"
    docker_daemon.land(move, docker_daemon.stage("{}"), str(file), True)
    assert (file.stat().st_mode & 0o777, file.read_text()) == (0o644, "{}")
    file.chmod(0o600)
    docker_daemon.land(move, docker_daemon.stage("{ }"), str(file), True)
    assert (file.stat().st_mode & 0o777, file.read_text()) == (0o600, "{ }")


@pytest.mark.parametrize("there", [True, False])
def test_land_goes_through_a_link(tmp_path: Path, there: bool) -> None:
    real, file = tmp_path / "site" / "docker.json", tmp_path / "daemon.json"
    if there:
        real.parent.mkdir()
        real.write_text("{}")
        real.chmod(0o640)
    file.symlink_to("site/docker.json")
    docker_daemon.land(move, docker_daemon.stage("{ }"), str(file), True)
    assert file.is_symlink()
    assert (real.read_text(), real.stat().st_mode & 0o777) == ("{ }", 0o640 if there else 0o644)


@pytest.mark.parametrize(
    ("restarts", "pending"),
    [
        ([], ""),
        ([True], "restarted"),
        ([False], "reloaded"),
        ([True, False], "restarted"),
        ([False, True], "restarted"),
    ],
)
def test_what_is_due_outlives_a_play_that_is_stopped(tmp_path: Path, restarts: list[bool], pending: str) -> None:
    for restart in restarts:
        docker_daemon.land(move, docker_daemon.stage("{}"), str(tmp_path / "daemon.json"), restart)
    assert docker_daemon.due() == pending
