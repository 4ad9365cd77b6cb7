# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every JSON that outlives a play carries the same number, and what an earlier release wrote is still read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpunode.llm.plugins.filter.plans import FilterModule
from ansible_collections.gpunode.llm.plugins.module_utils.bundle.contents import BundleError, Contents
from ansible_collections.gpunode.llm.plugins.module_utils.hub.snapshot import Manifest
from ansible_collections.gpunode.llm.plugins.module_utils.instance.record import Record, gateway_text
from ansible_collections.gpunode.llm.plugins.module_utils.node import brought
from ansible_collections.gpunode.llm.plugins.module_utils.node.schema import SCHEMA, numbered

CHECKOUT = Path(__file__).resolve().parents[2]
MANIFEST = {"repo_id": "org/name", "revision": "0" * 40, "files": {}, "left_out": {}}
CONTENTS: dict[str, Any] = {
    "system": {"distribution": "Debian", "release": "bookworm", "version": "12", "architecture": "x86_64"},
    "files": {},
    "links": {},
}
#: Files in which a text of JSON is made that is no record: what it is instead.
NO_RECORDS = {
    "module_utils/benchmark/client.py": "what the job on the node reads, in /run",
    "module_utils/benchmark/measure.py": "what the client is to measure, in /run",
    "module_utils/benchmark/quality.py": "a task for lm-eval, and what a digest is made of",
    "module_utils/benchmark/run.py": "the job's order, in /run",
    "module_utils/benchmark/trial.py": "the configuration of an engine, in /run",
    "module_utils/bundle/run.py": "the job's order, in /run",
    "module_utils/docker/daemon.py": "Docker's own daemon.json",
    "module_utils/docker/layout.py": "the layout of an image, as OCI and Docker have it",
    "module_utils/hub/progress.py": "how far a job is, in /run",
    "module_utils/hub/run.py": "the job's order, in /run",
    "module_utils/image/all_reduce.py": "an answer to the module that asked",
    "module_utils/image/usage.py": "the engine's own file of requests, a line for each",
    "module_utils/image/engine_figures.py": "an answer to the module that asked",
    "module_utils/image/link_proof.py": "which network was proved, to be proved again where it differs",
    "module_utils/node/lock.py": "who has the node, in /run",
    "module_utils/programs/node_metrics.py": "a label of a series, quoted",
    "module_utils/programs/vllm_peer.py": "how a rank is, in /run and as an answer to other nodes",
    "module_utils/programs/vllm_wait.py": "a question to an engine",
    "module_utils/support/redact.py": "how a secret is written in JSON",
    "modules/vllm_figures_info.py": "what a container reads while it is asked",
    "modules/tune.py": "what a digest is made of",
    "modules/gpu_proof.py": "what a proof was made of, to be made again where it differs",
    "plugin_utils/fleet/series.py": "what a page shows, within its script",
    "plugin_utils/gateway/key_file.py": "what becomes a file of Ansible's variables",
    "plugin_utils/gateway/keys.py": "what the gateway's script looks up, beside the script",
    "plugin_utils/node/group.py": "what a digest is made of",
    "plugin_utils/node/questions.py": "a question as one text, and answers for the rest of a run",
    "plugin_utils/benchmark/winners.py": "variables to copy",
    "plugin_utils/hub_models.py": "answers for the rest of a run",
    "plugin_utils/planner/exact.py": "a question, to find equal ones",
    "plugin_utils/planner/lora.py": "a value of an option of vLLM",
    "plugin_utils/planner/options.py": "documentation",
    "plugin_utils/service.py": "a command to copy",
}


def test_every_json_that_is_written_is_numbered_or_no_record() -> None:
    plugins = CHECKOUT / "plugins"
    writers = {
        str(path.relative_to(plugins)): path.read_text(encoding="utf-8")
        for path in plugins.rglob("*.py")
        if re.search(r"json\.dumps?\(", path.read_text(encoding="utf-8"))
    }
    assert {
        name for name, text in writers.items() if "numbered(" not in text and '"schema": SCHEMA' not in text
    } == set(NO_RECORDS)
    for page in (CHECKOUT / "playbooks").glob("*.yml"):
        for line in page.read_text(encoding="utf-8").splitlines():
            assert "to_nice_json" not in line or "'schema':" in line, page.name


@pytest.mark.parametrize(
    "text",
    [
        Record("8b", "vllm-8b.service").text(),
        gateway_text([]),
        Manifest.read(numbered(MANIFEST)).dump(),
        Contents.load(json.dumps(numbered(CONTENTS))).dump(),
    ],
)
def test_a_record_has_the_number(text: str) -> None:
    assert json.loads(text)["schema"] == SCHEMA == 1


def test_names_of_what_was_brought_have_the_number(tmp_path: Path) -> None:
    path = tmp_path / "brought.json"
    path.write_text('{"images": ["a"], "models": []}')  # by a release that had no number
    brought.note(str(path), models=["org/name"])
    assert json.loads(path.read_text()) == {"schema": SCHEMA, "images": ["a"], "models": ["org/name"]}
    assert brought.read(str(path)) == {"images": ["a"], "models": ["org/name"]}


def test_what_was_written_before_it_was_called_so_is_read() -> None:
    """Every node that was set up by then has such manifests, and hashes none of its files again."""
    assert Manifest.read({"format": 1, **MANIFEST}) == Manifest.read(numbered(MANIFEST))
    assert Contents.load(json.dumps({"format": 1, **CONTENTS})) == Contents.load(json.dumps(numbered(CONTENTS)))


def test_a_newer_form_is_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match="the manifest has schema 2; this release reads schema 1"):
        Manifest.read({**MANIFEST, "schema": 2})
    with pytest.raises(BundleError, match="The bundle has schema 2; this release reads schema 1."):
        Contents.load(json.dumps({**CONTENTS, "schema": 2}))


def test_the_files_for_programs_have_it() -> None:
    assert FilterModule().filters()["vllm_status_report"]({})["schema"] == SCHEMA
    for page, name in (("plan", "__fit"), ("status", "__status_report")):
        (play,) = yaml.safe_load((CHECKOUT / "playbooks" / f"{page}.yml").read_text(encoding="utf-8"))
        (task,) = (task for task in play["tasks"] if task["name"] == f"Write the {page} as JSON")
        content = task["ansible.builtin.copy"]["content"]
        assert content.startswith(f"{{{{ {{'schema': {name}.schema, 'nodes': ")
