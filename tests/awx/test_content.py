# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/awx.yml by the real awx.awx modules, which check each argument, and an API that keeps what they send."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator

import pytest
from api import Awx, Server
from content import CHECKOUT, CONTENT


def apply(url: str) -> str:
    env = {
        **os.environ,
        "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
        "CONTROLLER_HOST": url,
        "CONTROLLER_OAUTH_TOKEN": "a-token",
    }
    done = subprocess.run(
        ["ansible-playbook", "-i", "localhost,", "playbooks/awx.yml", "-e", '{"awx_credentials": ["ours", "hub"]}'],
        cwd=CHECKOUT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def awx() -> Iterator[Awx]:
    """An AWX to which the playbook was applied, twice: the second time nothing may be written."""
    with Server() as server:
        for name in ("ours", "hub"):
            server.awx.make("credentials", {"name": name})
        apply(server.url)
        server.awx.writes.clear()
        result = apply(server.url)
        assert server.awx.writes == [], result
        assert "changed=0" in result
        yield server.awx


def test_the_job_templates_run_playbooks_that_are_there(awx: Awx) -> None:
    templates = awx.objects["job_templates"].values()
    credentials = [awx.named("credentials", name)["id"] for name in ("ours", "hub")]
    assert [t["name"] for t in templates] == [t["name"] for t in CONTENT["awx_job_templates"]]
    for template in templates:
        assert (CHECKOUT / template["playbook"]).is_file()
        assert template["use_fact_cache"] is True
        assert awx.links[f"{template['url']}credentials/"] == credentials


ASKING = [template for template in CONTENT["awx_job_templates"] if "survey" in template]


@pytest.mark.parametrize("template", ASKING, ids=lambda template: template["name"])
def test_a_template_asks_its_survey(awx: Awx, template: dict) -> None:
    assert awx.surveys[template["name"]] == CONTENT["awx_surveys"][template["survey"]]
    assert awx.named("job_templates", template["name"])["survey_enabled"] is True


def test_the_credential_type_injects_a_file_and_its_name(awx: Awx) -> None:
    """Word for word: neither side's Jinja has touched the other's."""
    made = awx.named("credential_types", "Hugging Face")
    assert made["injectors"] == {"file": {"template": "{{ token }}"}, "env": {"HF_TOKEN_PATH": "{{ tower.filename }}"}}
    assert [f["id"] for f in made["inputs"]["fields"] if f["secret"]] == ["token"]
    variables = json.loads(awx.named("inventories", "GPU nodes")["variables"])
    assert variables["huggingface_token"].startswith("{{ lookup(")


def test_nothing_is_served_before_the_approval(awx: Awx) -> None:
    nodes = {node["identifier"]: node for node in awx.objects["workflow_job_template_nodes"].values()}
    after = {name: awx.links.get(f"{node['url']}success_nodes/", []) for name, node in nodes.items()}
    assert after == {"plan": [nodes["approve"]["id"]], "approve": [nodes["serve"]["id"]], "serve": []}
    (approval,) = awx.objects["workflow_approval_templates"].values()
    assert nodes["approve"]["unified_job_template"] == approval["id"]
    assert nodes["serve"]["unified_job_template"] == awx.named("job_templates", "LLM serve")["id"]
    (workflow,) = awx.objects["workflow_job_templates"].values()
    assert awx.surveys[workflow["name"]] == CONTENT["awx_surveys"]["serve"]
