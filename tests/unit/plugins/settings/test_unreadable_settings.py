# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""settings_check: all that cannot be read, in one message, and no secret."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible import context
from ansible.errors import AnsibleActionFail
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.gpunode.llm.plugins.action.settings_check import ActionModule
from ansible_collections.gpunode.llm.plugins.plugin_utils import values
from ansible_collections.gpunode.llm.tests.unit import as_ansible

ROLES = Path(__file__).resolve().parents[4] / "roles"


def run(parted: list[Any] | None = None, **variables: Any) -> dict[str, Any]:
    play = SimpleNamespace(serial=parted or [])
    templar = Templar(loader=DataLoader(), variables=variables)
    made = as_ansible.action(ActionModule, {}, templar=templar, get_play=lambda: play)
    result: dict[str, Any] = made.run(task_vars=variables)
    return result


def test_valid_settings_pass() -> None:
    result = run(
        vllm_api_keys="one,two",
        huggingface_update="true",
        docker_version="",
        vllm_port="9000",
        vllm_restart_limit=4,
        docker_users=None,
        bystander=["anything"],
    )
    assert (result["changed"], result["findings"]) == (False, [])


def test_all_that_cannot_be_read_is_named_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = {
        "huggingface_update": "ture",
        "huggingface_distribution": "sed",
        "vllm_api_keys": {"sk-secret": 1},
        "vllm_restart_limit": trust_as_template("{{ limit }}"),
        "limit": "four",
        "vllm_env": trust_as_template("{{ ansible_facts.env }}"),
        "docker_packages": True,
    }
    with pytest.raises(AnsibleActionFail) as refused:
        run(**wrong)
    assert str(refused.value) == "5 problems found; nothing was changed."
    output = capsys.readouterr().out
    assert "huggingface_update must be true or false, not 'ture'." in output
    assert "huggingface_distribution must be one of hub, seed, not 'sed'." in output
    assert "vllm_restart_limit must be a whole number such as 4, not 'four'." in output
    assert "docker_packages must be a list such as [one, two] or one,two, not True." in output
    assert "sk-secret" not in output


def refused(capsys: pytest.CaptureFixture[str], **variables: Any) -> list[str]:
    """The numbered sentences that these variables are refused with."""
    with pytest.raises(AnsibleActionFail):
        run(**variables)
    _head, *lines = capsys.readouterr().out.strip().splitlines()
    return [line.partition(". ")[2] for line in lines]


def test_every_variable_may_have_its_default() -> None:
    """Those of the roles that every play of site.yml has, as templates of facts that it does not have yet."""
    found = {}
    for path in sorted(ROLES.glob("*/defaults/main.yml")):
        found |= yaml.safe_load(path.read_text(encoding="utf-8"))
    assert len(found) > 100
    assert run(**{name: trusted(value) for name, value in found.items()})["findings"] == []


def trusted(value: Any) -> Any:
    return trust_as_template(value) if isinstance(value, str) else value


LATER = [
    {"vllm_port": "{{ ansible_facts['port'] }}"},
    {"vllm_port": "{{ base }}", "base": "{{ hostvars['gpu-2'].vllm_port }}"},
    {"vllm_host": "{{ ansible_facts.default_ipv4.address }}"},
    {"huggingface_home": "{{ vllm_cache_dir }}/hub"},
    {"huggingface_home": "{{ mine | default('/srv') }}"},
    {"vllm_env": {"HOME": "{{ ansible_env.HOME }}"}},
    {"docker_version": "{{ preflight_plan.version }}"},
    {"huggingface_token": "{{ lookup('ansible.builtin.file', '/nowhere') }}"},
]


@pytest.mark.parametrize("variables", LATER, ids=str)
def test_what_follows_from_what_comes_later_passes(variables: dict[str, Any]) -> None:
    assert run(**{name: deep(value) for name, value in variables.items()})["findings"] == []


def deep(value: Any) -> Any:
    return {key: trust_as_template(item) for key, item in value.items()} if isinstance(value, dict) else trusted(value)


UNKNOWN = [
    (
        {"vllm_port": "{{ my_prot }}", "my_port": 9000},
        "vllm_port is a template of my_prot, which is not a variable: did you mean my_port?",
    ),
    ({"vllm_host": "{{ nowhere }}"}, "vllm_host is a template of nowhere, which is not a variable."),
    (
        {"vllm_image": "{{ registry }}/vllm", "registry": "{{ regstry_host }}"},
        "vllm_image is a template of regstry_host, which is not a variable.",
    ),
    ({"model": "{{ modell_of_site }}"}, "model is a template of modell_of_site, which is not a variable."),
    ({"nodes_at_a_time": "{{ waves }}"}, "nodes_at_a_time is a template of waves, which is not a variable."),
    ({"level": "{{ how_much }}"}, "level is a template of how_much, which is not a variable."),
    ({"vllm_env": {"A": "{{ nowhere }}"}}, "vllm_env is a template of nowhere, which is not a variable."),
    (
        {"vllm_extra_models": "{{ site.modells }}", "site": {}},
        "vllm_extra_models is a template that cannot be resolved",
    ),
]


@pytest.mark.parametrize(
    ("variables", "message"), UNKNOWN, ids=lambda value: "" if isinstance(value, str) else str(value)
)
def test_a_template_of_an_unknown_name_is_refused(
    variables: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A default() behind it would take it for a variable that is not set."""
    (sentence,) = refused(capsys, **{name: deep(value) for name, value in variables.items()})
    assert sentence.startswith(message)


@pytest.mark.parametrize("value", ["two", "0", "-1", "120%", "50 %", [1, "many"], 0.5])
def test_nodes_at_a_time_is_numbers_and_shares(value: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (sentence,) = refused(capsys, nodes_at_a_time=value)
    assert sentence.startswith(
        "nodes_at_a_time must be numbers of nodes or shares of them, such as 1, 25% or 1,10,25%, not "
    )
    for good in (1, "1", "25%", "1,10,25%", [1, "100%"]):
        assert run(nodes_at_a_time=good)["findings"] == []


def test_nodes_that_an_inventory_separates_too_late_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Ansible parts the nodes before it reads an inventory's variables: all of them changed at the same time."""
    with pytest.raises(AnsibleActionFail):
        run(["100%"], nodes_at_a_time=1)
    assert "1. nodes_at_a_time is set in the inventory, but it is needed before" in capsys.readouterr().out
    for parted, value in ((["1"], 1), (["1", "25%"], "1, 25%"), (["100%"], None), (["100%"], ""), ([], 1)):
        assert run(parted, nodes_at_a_time=value)["findings"] == []


def test_names_and_values_are_refused_together(capsys: pytest.CaptureFixture[str]) -> None:
    problems = refused(
        capsys, vllm_prt=9000, vllm_port="abc", gateway_enabled="maybe", docker_mine=1, other_variables=["docker_mi*"]
    )
    assert sorted(problems, reverse=True) == [
        "vllm_prt is not a variable of this collection: did you mean vllm_port? "
        "If another role reads it, name it in other_variables.",
        "vllm_port must be a whole number such as 8000, not 'abc'.",
        "gateway_enabled must be true or false, not 'maybe'.",
    ]


@pytest.mark.parametrize(
    ("extra", "count"),
    [
        ("gpus=8xH100", 1),
        ("gpus=8xH100 max_model_len=32K vllm_port=9000", 2),
        ('{"gpus": "8xH100", "json": "plan.json"}', 2),
        ("@vars.yml", 0),
        ("model=8b nodes_at_a_time=1", 0),
    ],
)
def test_a_variable_of_another_playbook_on_the_command_line_is_refused(
    extra: str, count: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(context, "CLIARGS", {"extra_vars": (extra,), "args": ("gpunode.llm.site",)})
    problems = refused(capsys) if count else run()["findings"]
    assert len(problems) == count
    assert not count or problems[0].startswith(
        "gpus is a variable of gpunode.llm.plan and gpunode.llm.bundle; gpunode.llm.site does not"
    )
    monkeypatch.setattr(context, "CLIARGS", {"extra_vars": (extra,), "args": ("gpunode.llm.site", "theirs.yml")})
    assert run()["findings"] == []


def test_an_empty_answer_of_a_survey_is_the_default() -> None:
    assert [values.typed(name, "") for name in ("vllm_port", "vllm_rollback", "level", "vllm_objective")] == [
        8000,
        True,
        "unit",
        None,
    ]
