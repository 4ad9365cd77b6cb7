# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files land whole, checked, with their mode, or not at all."""

from __future__ import annotations

import json
import os
import stat

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.gpunode.llm.plugins.module_utils.units import files as units_files
from ansible_collections.gpunode.llm.plugins.modules import rendered_files


@pytest.fixture
def run(capsys, tmp_path):
    def call(*files, check=False, secrets=None, pending=None):
        args = {
            "files": [{"src": "x", "mode": "0644", **file} for file in files],
            "secrets": secrets or {},
            "pending": pending,
            "_ansible_check_mode": check,
            "_ansible_remote_tmp": str(tmp_path / "tmp"),
        }
        with patch_module_args(args), pytest.raises(SystemExit):
            rendered_files.main()
        return json.loads(capsys.readouterr().out)

    return call


def test_written_once_then_left_alone(run, tmp_path):
    file = {"dest": str(tmp_path / "new" / "a.yaml"), "content": "a: 1\n", "mode": "0640"}
    assert run(file, check=True)["changed_files"] == [file["dest"]]
    assert not (tmp_path / "new").exists()
    assert run(file)["changed"] is True
    assert (tmp_path / "new" / "a.yaml").read_text() == "a: 1\n"
    assert stat.S_IMODE(os.stat(file["dest"]).st_mode) == 0o640
    assert run(file)["changed"] is False


def test_a_mode_alone_is_a_change(run, tmp_path):
    path = tmp_path / "a"
    path.write_text("x\n")
    path.chmod(0o644)
    assert run({"dest": str(path), "content": "x\n", "mode": "0600"})["changed"] is True
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_absent(run, tmp_path):
    path = tmp_path / "a"
    path.write_text("x\n")
    file = {"dest": str(path), "present": False}
    assert run(file)["changed"] is True
    assert not path.exists()
    assert run(file)["changed"] is False


def test_a_secret_is_written_and_shown_nowhere(run, tmp_path):
    path = str(tmp_path / "a.env")
    result = run({"dest": path, "secret": True, "mode": "0600"}, secrets={path: "KEY=hush-hush\n"})
    assert "hush" not in json.dumps(result)
    with open(path, encoding="utf-8") as stream:
        assert stream.read() == "KEY=hush-hush\n"
    assert "hush" not in json.dumps(run({"dest": path, "secret": True}, secrets={path: "KEY=hush-more\n"}))


def test_a_programs_diff_is_one_line(run, tmp_path):
    """The vLLM role puts more than a thousand lines of them on a node."""
    program = {"dest": str(tmp_path / "a.py"), "content": "x\n" * 467, "template": False}
    (came,) = run(program)["diff"]
    (changed,) = run({**program, "content": "y\n" * 467})["diff"]
    (went,) = run({**program, "present": False})["diff"]
    assert [text.count("\n") for diff in (came, changed, went) for text in (diff["before"], diff["after"])] == [
        *(0, 1),
        *(1, 1),
        *(1, 0),
    ]
    assert came["after"].startswith("(a program of 467 lines, sha256 ")
    assert changed["before"] == came["after"] != changed["after"] == went["before"]
    (text,) = run({"dest": str(tmp_path / "b"), "content": "x\n" * 467})["diff"]
    assert text["after"].count("\n") == 467


@pytest.mark.parametrize("validate", ["/bin/false %s", "/bin/echo complains about %s"])
def test_one_invalid_file_keeps_all_away(run, tmp_path, validate):
    good = {"dest": str(tmp_path / "good"), "content": "x"}
    bad = {"dest": str(tmp_path / "bad.service"), "content": "x", "validate": validate}
    result = run(good, bad)
    assert result["failed"]
    assert str(tmp_path / "bad.service") in result["msg"]
    assert not (tmp_path / "good").exists()
    assert not (tmp_path / "bad.service").exists()


def test_a_check_sees_the_name_that_the_file_will_have(run, tmp_path):
    file = {"dest": str(tmp_path / "a.service"), "content": "x", "validate": "/usr/bin/test -f %s"}
    assert run(file)["changed"] is True
    by_name = "/bin/sh -c 'case $0 in */b.service);; *) exit 1;; esac' %s"
    assert run({"dest": str(tmp_path / "b.service"), "content": "x", "validate": by_name})["changed"] is True


def test_a_file_is_checked_beside_those_that_it_takes_in(run, tmp_path):
    """Also when only the one that is taken in has changed, and the program reads the other."""
    folder = tmp_path / "etc"
    read = {"dest": str(folder / "main"), "content": "x", "validate": "/bin/sh -c 'grep -q good %d/part'"}
    part = {"dest": str(folder / "part"), "content": "good", "validate": "/bin/sh -c 'test -e %d/main && grep good %s'"}
    assert run(read, part)["changed_files"] == [read["dest"], part["dest"]]
    result = run(read, {**part, "content": "bad"})
    assert result["failed"]
    assert (folder / "part").read_text() == "good"
    part = {**part, "content": "very good"}
    assert run(read, part)["changed_files"] == [part["dest"]]


def test_what_is_pending_is_noted_for_a_change_alone(run, tmp_path):
    file = {"dest": str(tmp_path / "a"), "content": "a\n"}
    pending = {"path": str(tmp_path / "run" / "due"), "what": "restarted"}
    run(file, pending=pending, check=True)
    assert not (tmp_path / "run").exists()
    run(file, pending=pending)
    assert (tmp_path / "run" / "due").read_text() == "restarted\n"
    (tmp_path / "run" / "due").unlink()
    run(file, pending=pending)
    assert not (tmp_path / "run" / "due").exists()


def test_what_is_pending_is_there_before_the_files_are(run, tmp_path, monkeypatch):
    """So that a play that dies in between is finished by the next."""
    seen = []
    monkeypatch.setattr(units_files.File, "land", lambda file: seen.append((tmp_path / "due").read_text()))
    run({"dest": str(tmp_path / "a"), "content": "a\n"}, pending={"path": str(tmp_path / "due"), "what": "restarted"})
    assert seen == ["restarted\n"]
