# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was brought is known until it is gone, and the note of it goes with the last of it."""

from __future__ import annotations

import json

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.gpunode.llm.plugins.module_utils.node import brought as node_brought
from ansible_collections.gpunode.llm.plugins.module_utils.units import job as units_job
from ansible_collections.gpunode.llm.plugins.modules import brought, image_pull

IMAGE = "vllm/vllm-openai:v0.33.0"


@pytest.fixture
def ask(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(node_brought, "PATH", str(tmp_path / "gpunode" / "brought.json"))

    def run(module=brought, check_mode=False, **options):
        options = {"path": node_brought.PATH, **options} if module is brought else options
        with patch_module_args({**options, "_ansible_check_mode": check_mode}), pytest.raises(SystemExit):
            module.main()
        return json.loads(capsys.readouterr().out)

    return run


def test_names_are_noted_once_and_struck_out_one_by_one(ask, tmp_path):
    assert ask(images=["b:1", "a:1", ""], models=["org/name"])["changed"] is True
    assert ask(images=["a:1"])["changed"] is False
    result = ask()
    assert (result["changed"], result["images"], result["models"]) == (False, ["a:1", "b:1"], ["org/name"])
    assert ask(state="absent", images=["a:1", "never:1"])["images"] == ["b:1"]
    ask(state="absent", images=["b:1"], models=["org/name"])
    assert list((tmp_path / "gpunode").iterdir()) == []


def test_check_mode_reports_and_writes_nothing(ask, tmp_path):
    result = ask(check_mode=True, images=["a:1"])
    assert (result["changed"], result["images"], result["diff"]["after"]) == (True, ["a:1"], "a:1\n")
    assert not (tmp_path / "gpunode").exists()


@pytest.mark.parametrize("text", ["", "[]", '{"images": 3}', "{"])
def test_an_unreadable_note_is_reported(ask, tmp_path, text):
    (tmp_path / "gpunode").mkdir()
    (tmp_path / "gpunode" / "brought.json").write_text(text)
    result = ask()
    assert result["failed"] is True
    assert "brought.json should be JSON with the lists images and models, but is not" in result["msg"]


@pytest.mark.parametrize("here", [True, False])
def test_an_image_is_noted_before_it_is_fetched_and_one_that_was_there_is_not(ask, tmp_path, monkeypatch, here):
    docker = tmp_path / "docker"
    docker.write_text(f"#!/bin/sh\n{'echo [{}]' if here else 'echo No such image >&2; exit 1'}\n")
    docker.chmod(0o755)
    monkeypatch.setattr(image_pull.AnsibleModule, "get_bin_path", lambda *_given: str(docker))
    monkeypatch.setattr(
        image_pull.docker_image, "parse_inspect", lambda *_given: image_pull.docker_image.Present("id", "", 1)
    )
    monkeypatch.setattr(units_job, "look", lambda *_given: units_job.JobState("absent"))
    noted = []

    def start(*_given):
        noted.extend(node_brought.read(node_brought.PATH)["images"])
        raise units_job.JobError("as if the play died here")

    monkeypatch.setattr(units_job, "start_or_attach", start)
    ask(image_pull, image=IMAGE)
    assert noted == ([] if here else [IMAGE])
    assert node_brought.read(node_brought.PATH)["images"] == noted
