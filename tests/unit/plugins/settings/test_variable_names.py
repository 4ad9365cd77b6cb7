# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of variables: what is misspelt is found with what was meant, and what is others' is left alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpunode.llm.plugins.plugin_utils import names, values

CHECKOUT = Path(__file__).resolve().parents[4]
PLAYBOOKS = CHECKOUT / "playbooks"
MISSPELT = {
    "vllm_max_modellen": "vllm_max_model_len",
    "vllm_max_len": "vllm_max_model_len",
    "vllm_prt": "vllm_port",
    "vllm_hosts": "vllm_host",
    "vllm_api_key": "vllm_api_keys",
    "vllm_extra_arg": "vllm_extra_args",
    "vllm_extra_model": "vllm_extra_models",
    "vllm_objektive": "vllm_objective",
    "vllm_tensor_parallel": "vllm_tensor_parallel_size",
    "vllm_gpu_memory_utilisation": "vllm_gpu_memory_utilization",
    "vllm_rolback": "vllm_rollback",
    "vllm_enviroment": "vllm_env",
    "huggingface_tokn": "huggingface_token",
    "hugging_face_token": "huggingface_token",
    "huggingface_endpont": "huggingface_endpoint",
    "huggingface_distrubution": "huggingface_distribution",
    "docker_user": "docker_users",
    "docker_deamon_config": "docker_daemon_config",
    "docker_keep_exsting": "docker_keep_existing",
    "nvidia_container_toolkit_versoin": "nvidia_container_toolkit_version",
    "gateway_enable": "gateway_enabled",
    "gatway_enabled": "gateway_enabled",
    "gateway_key": "gateway_keys",
    "preflight_skips": "preflight_skip",
    "nodes_at_time": "nodes_at_a_time",
    "node_lock_timeout": "node_lock_timeout_s",
    "vlm_port": "vllm_port",
    "vllm_home": "huggingface_home",
}


@pytest.mark.parametrize(("wrong", "right"), MISSPELT.items())
def test_a_misspelt_name_is_refused_with_a_suggestion(wrong: str, right: str) -> None:
    (message,) = names.misspelt([wrong], [])
    assert message.startswith(f"{wrong} is not a variable of this collection: did you mean {right}?")


def test_no_name_of_ours_is_misspelt() -> None:
    assert names.misspelt([*values.options(), *names.OUTCOMES, "__vllm_anything"], []) == []


#: What AWX gives each job, what Ansible gives each play, and what inventories have.
OF_OTHERS = [
    "awx_job_id",
    "awx_job_launch_type",
    "awx_job_template_id",
    "awx_job_template_name",
    "awx_inventory_id",
    "awx_inventory_name",
    "awx_project_revision",
    "awx_project_scm_branch",
    "awx_user_id",
    "awx_user_name",
    "awx_user_email",
    "awx_workflow_job_id",
    "awx_workflow_job_name",
    "awx_execution_node",
    "tower_job_id",
    "tower_user_name",
    "ansible_host",
    "ansible_user",
    "ansible_docker_extra_args",
    "groups",
    "group_names",
    "hostvars",
    "inventory_hostname",
    "inventory_hostname_short",
    "inventory_file",
    "playbook_dir",
    "play_hosts",
    "omit",
    "environment",
    "role_path",
    "ntp_server",
    "site_name",
    "status_file",
    "model_dir",
    "log_dir",
    "modeler",
    "objectives",
    "backup_level",
]


def test_what_others_have_is_left_alone() -> None:
    assert names.misspelt(OF_OTHERS, []) == []


def test_a_stranger_with_a_prefix_of_ours_is_refused_until_it_is_named() -> None:
    (message,) = names.misspelt(["docker_zfs_pool", "docker_quux"], [])
    assert message == (
        "docker_quux, docker_zfs_pool are not variables of this collection, and resemble none. If another role reads"
        " them, name them in other_variables."
    )
    assert names.misspelt(["docker_zfs_pool", "docker_user", "nodes_at_time"], ["docker_*", "nodes_at_time"]) == []


def found_in(value: Any) -> Iterator[str]:
    """Names that a task or a file of vars gives values to."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from [item] if key in ("register", "loop_var") and isinstance(item, str) else []
            yield from item if key in ("vars", "ansible.builtin.set_fact") and isinstance(item, dict) else []
            yield from found_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from found_in(item)


def test_what_plays_of_ours_know_is_listed() -> None:
    """Or the next play of the same run would take it for misspelt."""
    files = [
        *PLAYBOOKS.rglob("*.yml"),
        *(p for f in ("tasks", "handlers") for p in CHECKOUT.glob(f"roles/*/{f}/*.yml")),
    ]
    found = {name for path in files for name in found_in(yaml.safe_load(path.read_text(encoding="utf-8")))}
    for path in CHECKOUT.glob("roles/*/vars/*.yml"):
        found |= set(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    public = {name for name in found if not name.startswith("__")}
    assert public - set(values.options()) == names.OUTCOMES


def strings(value: Any, key: str = "") -> Iterator[str]:
    """Every template of a YAML file; a condition is one without its braces."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from strings(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item, key)
    elif isinstance(value, str) and "{{" in value:
        yield value
    elif isinstance(value, str) and key in ("when", "that"):
        yield f"{{{{ {value} }}}}"


def read_by(path: Path, seen: set[Path]) -> set[str]:
    """The names that a playbook reads, and what it imports."""
    seen.add(path)
    text = path.read_text(encoding="utf-8")
    found = {name for item in strings(yaml.safe_load(text)) for name in names.roots(item, {})}
    for name in re.findall(r"(?:import|include)_tasks: ([\w/]+\.yml)", text):
        file = next(folder / name for folder in (path.parent, PLAYBOOKS) if (folder / name).exists())
        found |= read_by(file, seen) if file not in seen else set()
    return found


@pytest.mark.parametrize("name", sorted(values.playbooks()))
def test_a_playbook_is_specified_by_what_it_reads(name: str) -> None:
    """Its own variables alone; those of roles stand with them."""
    own = {key for taken in values.playbooks().values() for key in taken}
    assert read_by(PLAYBOOKS / f"{name}.yml", set()) & own | {"other_variables"} == values.playbooks()[name]


@pytest.mark.parametrize(
    ("given", "playbooks", "message"),
    [
        (
            ["gpus"],
            ["site"],
            "gpus is a variable of gpunode.llm.plan and gpunode.llm.bundle; gpunode.llm.site does",
        ),
        (["max_model_len"], ["site"], "did you mean vllm_max_model_len?"),
        (["update"], ["site", "status"], "gpunode.llm.site and gpunode.llm.status do not read it: did you mean"),
        (["model"], ["teardown"], "gpunode.llm.teardown does not read it"),
    ],
)
def test_a_variable_of_another_playbook_is_refused(given: list[str], playbooks: list[str], message: str) -> None:
    (sentence,) = names.misplaced(given, playbooks)
    assert message in sentence


def test_a_variable_that_one_of_the_playbooks_reads_is_fine() -> None:
    given = ["model", "json", "status_fail", "vllm_port", "their_own"]
    assert names.misplaced(given, ["site", "status"]) == []


@pytest.mark.parametrize(
    ("arguments", "called"),
    [
        (["gpunode.llm.site", str(PLAYBOOKS / "status.yml")], ["site", "status"]),
        ([str(CHECKOUT / "site.yml")], ["site"]),
        (["/srv/theirs/site.yml"], []),
        ([str(CHECKOUT / "site.yml"), "theirs.yml"], []),
        (["other.collection.site"], []),
    ],
)
def test_which_playbooks_were_called(arguments: list[str], called: list[str]) -> None:
    assert names.played(arguments) == called


def test_a_name_of_before_is_refused_with_the_one_to_set() -> None:
    """Every one of them: it would be passed over without a word."""
    for old, new in names.RENAMED.items():
        assert names.misspelt([old], []) == [f"{old} is no longer read: set {new}."]
        assert old not in values.options()
        ours = [word for word in re.findall(r"\w+", new) if "_" in word or word in ("model", "models")]
        assert ours
        assert set(ours) <= set(values.options())
