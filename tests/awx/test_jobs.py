# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""AWX's jobs as AWX runs them: by ansible-runner, in a private folder, answers as text and the credential as
a file, on one fresh node of the lab; then what AWX would show is read back.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ansible_runner
import pytest
from content import CHECKOUT, CONTENT

LAB = CHECKOUT / "tests" / "lab" / "lab"
NODE = os.environ.get("MOLECULE_NODE", "awx")
# The one that the lab's hub lets in.
TOKEN = "hf_lab_good"
PLAYBOOKS = {template["survey"]: template["playbook"] for template in CONTENT["awx_job_templates"]}
SURVEYS = CONTENT["awx_surveys"]


@dataclass(frozen=True)
class Job:
    """What AWX keeps of a job."""

    status: str
    folder: Path

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(page.read_text()) for page in (self.folder / "job_events").glob("*.json")]

    def messages(self, kind: str) -> list[Any]:
        """The messages of tasks that ended so, as the events hold them."""
        results = [event["event_data"]["res"] for event in self.events if event["event"] == kind]
        return [result["msg"] for result in results if "msg" in result]

    @property
    def lines(self) -> list[str]:
        """What its page in AWX shows."""
        return (self.folder / "stdout").read_text(encoding="utf-8").splitlines()

    @property
    def facts(self) -> dict[str, Any]:
        """The fact cache's only page. Since ansible-core 2.19 it is called s1_NODE and holds the facts as a text."""
        (page,) = (self.folder / "fact_cache").iterdir()
        assert page.name.removeprefix("s1_") == NODE
        kept = json.loads(page.read_text())
        return json.loads(kept["__payload__"]) if "__payload__" in kept else kept


def on_node(script: str) -> None:
    subprocess.run([LAB, "ssh", NODE, f"sudo {script}"], check=True)


def inventory() -> tuple[str, str]:
    """The lab's node as AWX lists it, with the variables of awx/content.yml; and the key that its credential holds."""
    done = subprocess.run(
        ["ansible-inventory", "-i", "inventories/lab", "--list", "--export"],
        cwd=CHECKOUT,
        env={**os.environ, "GPUNODE_LAB_NODES": NODE, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=True,
    )
    listed = json.loads(done.stdout)
    hosts = listed["_meta"]["hostvars"]
    key = Path(hosts[NODE].pop("ansible_ssh_private_key_file")).read_text()
    listed["all"]["vars"] |= CONTENT["awx_inventory"]["variables"]
    return json.dumps(listed), key


def folder_of_a_job(folder: Path, answers: dict[str, str]) -> None:
    """AWX's private data folder: project, inventory script, ssh key, answers that are no templates, credential."""
    for name in ("env", "inventory"):
        (folder / name).mkdir(parents=True)
    (folder / "project").symlink_to(CHECKOUT)
    listed, key = inventory()
    script = folder / "inventory" / "hosts"
    script.write_text(f"#!/usr/bin/env python3\nprint({listed!r})\n")
    script.chmod(0o700)
    credential = folder / "env" / "tmp_hugging_face"
    credential.write_text(TOKEN)
    injected = CONTENT["awx_credential_type"]["injectors"]["env"]
    environment = {name: value.replace("{{ tower.filename }}", str(credential)) for name, value in injected.items()}
    environment |= {"ANSIBLE_HOST_KEY_CHECKING": "False", "ANSIBLE_INVENTORY_UNPARSED_FAILED": "True"}
    request = {**answers, "awx_job_id": "7", "awx_job_template_name": "LLM"}
    (folder / "env" / "extravars").write_text("".join(f"{k}: !unsafe {json.dumps(v)}\n" for k, v in request.items()))
    (folder / "env" / "envvars").write_text(json.dumps(environment))
    (folder / "env" / "ssh_key").write_text(key)


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Job]]:
    """Launch a job template on the one node; afterwards no file that any job left holds the token."""
    subprocess.run([LAB, "node", NODE, "--board", "h100x1"], check=True)
    jobs = tmp_path_factory.mktemp("jobs")

    def start(survey: str, **answers: str) -> Job:
        # What nobody answered is the survey's default, or an empty text.
        request = {question["variable"]: question.get("default", "") for question in SURVEYS[survey]["spec"]}
        folder = jobs / f"{len(list(jobs.iterdir()))}-{survey}"
        folder_of_a_job(folder, request | answers)
        done = ansible_runner.run(
            private_data_dir=str(folder), playbook=PLAYBOOKS[survey], ident="job", quiet=True, rotate_artifacts=0
        )
        shutil.rmtree(folder / "env")
        return Job(done.status, folder / "artifacts" / "job")

    yield start
    subprocess.run([LAB, "remove", NODE], check=True)
    kept = [page for page in jobs.rglob("*") if page.is_file() and not page.is_symlink()]
    assert kept
    assert [page for page in kept if TOKEN.encode() in page.read_bytes()] == []


def test_plan(launch: Callable[..., Job]) -> None:
    job = launch("plan")
    assert job.status == "successful", (job.folder / "stdout").read_text()
    lines = job.lines
    assert any(line.split()[:2] in (["70b", "yes"], ["70b", "no"]) for line in lines), lines


def test_a_wrong_answer_is_one_sentence(launch: Callable[..., Job]) -> None:
    job = launch("serve", model="9b")
    assert job.status == "failed"
    (head,) = job.messages("runner_on_failed")
    assert head == "1 problem found; nothing was changed."
    lines = [line for line in job.lines if "1. Model '9b' is not in the catalogue. Did you mean 8b?" in line]
    assert len(lines) == 1


def test_serve(launch: Callable[..., Job]) -> None:
    job = launch("serve", model="tiny")
    assert job.status == "successful", (job.folder / "stdout").read_text()
    assert job.facts["ansible_distribution"] == "Debian"
    assert (job.folder / "rc").read_text() == "0"
    plan = [line.strip().partition("  ")[0] for line in job.lines]
    assert plan.index("layout") < plan.index("restart") < plan.index("download") < plan.index(f"{NODE}: it answers")
    assert [line for line in job.lines if line.startswith("  curl -s http://127.0.0.1:8000/v1/chat/completions ")]
    assert [line for line in job.lines if line.startswith("  from openai import OpenAI; ")]
    # It says what it was trained to say.
    subprocess.run([LAB, "ask", NODE], check=True)


def test_status(launch: Callable[..., Job]) -> None:
    job = launch("status")
    assert job.status == "successful", (job.folder / "stdout").read_text()
    assert [NODE, "tiny", "serving"] in [line.split()[:3] for line in job.lines], job.lines


def test_status_fails_where_it_shall_with_the_cause(launch: Callable[..., Job]) -> None:
    on_node("systemctl stop vllm-tiny")
    job = launch("status", status_fail="true")
    assert job.status == "failed"
    (sentence,) = job.messages("runner_on_failed")
    assert sentence.startswith("tiny: it was stopped")


def test_teardown(launch: Callable[..., Job]) -> None:
    job = launch("teardown", level="weights")
    assert job.status == "successful", (job.folder / "stdout").read_text()
    left = subprocess.run([LAB, "ssh", NODE, "ls /etc/systemd/system/vllm-*"], capture_output=True, check=False)
    assert left.returncode != 0
