# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for the whole collection: the action group is complete, and an option of the planner is defined once."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import option_places
import pytest
import yaml
from ansible_collections.gpunode.llm.plugins.action.serving_matrix import OPTIONS as MATRIX_OPTIONS
from ansible_collections.gpunode.llm.plugins.action.serving_plan import OPTIONS
from ansible_collections.gpunode.llm.plugins.doc_fragments import planning
from ansible_collections.gpunode.llm.plugins.modules import preflight_check, serving_matrix, serving_plan
from ansible_collections.gpunode.llm.plugins.plugin_utils import hub_models
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner import options as planner_options, request
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog_files import load_catalog

CHECKOUT = Path(__file__).resolve().parents[2]
FILTERS = "ansible_collections.gpunode.llm.plugins.filter"
#: These decide on the controller; what they ask of a node they ask through gpu_info.
ON_THE_CONTROLLER = {
    *(
        "benchmark_report",
        "gateway_key",
        "plan_shown",
        "refuse",
        "serving_matrix",
        "serving_plan",
        "settings_check",
        "show",
    ),
}
#: What the two modules take beside the options that are variables, and what stands for one instance alone.
OF_THE_MODULES = {"api_key_set", "from_variables"}
OF_ONE_INSTANCE = {"name", "model", "served_model_name", "gpu_indices"}


def read(path: str) -> Any:
    return yaml.safe_load((CHECKOUT / path).read_text(encoding="utf-8"))


def test_the_action_group_holds_every_module_that_works_on_a_node() -> None:
    group = read("meta/runtime.yml")["action_groups"]["node"]
    modules = {path.stem for path in (CHECKOUT / "plugins" / "modules").glob("[a-z]*.py")}
    assert modules > ON_THE_CONTROLLER
    assert group == sorted(modules - ON_THE_CONTROLLER)


#: The modules that are meant for playbooks of users.
PUBLIC = {
    *("apt_source", "daemon_json", "docker_info", "endpoint_ready", "gpu_info", "gpu_proof", "hf_cache_info"),
    *("hf_cache_prune", "hf_snapshot", "hf_token", "image_pull", "rpm_source", "self_signed_certificate"),
    *("serving_matrix", "serving_plan", "vllm_status"),
}


def test_a_module_is_public_or_documented_as_internal() -> None:
    texts = {path.stem: path.read_text(encoding="utf-8") for path in (CHECKOUT / "plugins/modules").glob("[a-z]*.py")}
    assert {name for name, text in texts.items() if "- gpunode.llm.internal\n" not in text} == PUBLIC


def test_every_option_of_the_plan_is_where_it_must_be() -> None:
    assert option_places.complaints(CHECKOUT) == []


def test_both_modules_of_the_planner_take_and_document_every_option() -> None:
    """What both take has one home: a second text in a module would win over it, and part from the other module's."""
    documented = yaml.safe_load(planning.ModuleDocFragment.DOCUMENTATION)["options"]
    of_planner = planner_options.argument_spec()
    assert set(of_planner) == {*planner_options.definitions(), *OF_THE_MODULES}
    assert set(documented) == {*of_planner, *hub_models.OPTIONS}
    for module, takes in ((serving_plan, OPTIONS), (serving_matrix, MATRIX_OPTIONS)):
        own = set(yaml.safe_load(module.DOCUMENTATION)["options"])
        assert own & set(documented) == set()
        assert own | set(documented) == set(takes)
        for name, option in hub_models.OPTIONS.items():
            assert takes[name] == option
            assert [option.get(key) for key in ("type", "default")] == [
                documented[name].get(key) for key in ("type", "default")
            ]
    assert set(request.readers()) == {*planner_options.definitions(), *OF_ONE_INSTANCE} - set(request.OF_THE_HOST)


def test_the_plan_and_the_table_of_what_fits_take_the_same_variables() -> None:
    """A GPU that vllm_extra_gpus describes was unknown to plan.yml; vllm_env did not reach the planner."""
    (plan,) = read("roles/vllm/tasks/plan.yml")
    *settings, fit = read("playbooks/tasks/fit.yml")
    roles = [task["ansible.builtin.import_role"] for task in settings]
    assert {(role["name"], role["tasks_from"]) for role in roles} == {
        ("gpunode.llm.vllm", "settings"),
        ("gpunode.llm.huggingface", "settings"),
    }
    for args in (plan["gpunode.llm.serving_plan"], fit["gpunode.llm.serving_matrix"]):
        assert args["from_variables"] is True
        assert {"api_key_set", "hub", "hub_token"} <= args.keys()


def with_option(home: Path, *places: str) -> None:
    """A copy of the collection with a made-up option in these places."""
    for folder in ("catalog", "meta", "playbooks", "plugins", "roles"):
        shutil.copytree(CHECKOUT / folder, home / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKOUT / "galaxy.yml", home)
    made_up = {
        option_places.DEFINITION: (
            "      vllm_host:\n",
            "      vllm_frobs:\n        description: How many frobs.\n"
            "        type: int\n        default: 3\n      vllm_host:\n",
        ),
        option_places.DEFAULTS: ("vllm_port: 8000\n", "vllm_port: 8000\n\n# How many frobs.\nvllm_frobs: 3\n"),
        option_places.REQUEST: ("    port: int | None = None\n", "    port: int | None = None\n    frobs: int = 0\n"),
    }
    for place in places:
        path = home / place
        old, new = made_up[place]
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, place
        path.write_text(text.replace(old, new), encoding="utf-8")


#: As the playbooks call it, whose settings_check reads text.
ROLE = {"name": "gpunode.llm.vllm", "tasks_from": "plan", "rolespec_validate": False}
PLACES = (option_places.DEFINITION, option_places.DEFAULTS, option_places.REQUEST)


@pytest.mark.parametrize("forgotten", PLACES)
def test_a_new_option_is_in_three_files_and_each_that_was_forgotten_is_named(forgotten: str, tmp_path: Path) -> None:
    with_option(tmp_path, *(place for place in PLACES if place != forgotten))
    (message,) = option_places.complaints(tmp_path)
    assert message.startswith("frobs ")
    assert message.endswith(f" in {forgotten}")


def test_a_new_option_in_three_files_is_documented_and_reaches_the_planner(tmp_path: Path) -> None:
    """As a play hands it over: nothing else names it."""
    home = tmp_path / "ansible_collections" / "gpunode" / "llm"
    with_option(home, *PLACES)
    assert option_places.complaints(home) == []
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "tasks": [
            {
                "ansible.builtin.import_role": ROLE,
                "vars": {"vllm_models": ["8b"], "vllm_gpus": "1xH100"},
            },
            {"gpunode.llm.refuse": {"findings": "{{ vllm_plan.findings }}"}},
        ],
    }
    (tmp_path / "play.yml").write_text(json.dumps([play]), encoding="utf-8")
    env = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(tmp_path), "ANSIBLE_LOCAL_TEMP": str(tmp_path)}

    def output_of(program: str, *args: str) -> str:
        line = [sys.executable, "-m", "ansible.cli." + program, *args]
        done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    assert "How many frobs." in output_of("doc", "gpunode.llm.serving_plan")
    assert "failed=0" in output_of("playbook", "play.yml", "-e", "vllm_frobs=4")
    for wrong, words in (("many", "vllm_frobs must be a whole number such as 3"), ("0", "vllm_frobs must be between")):
        assert words in output_of("playbook", "play.yml", "-e", f"vllm_frobs={wrong}")


def test_an_image_takes_the_same_room_in_a_plan_and_in_preflight() -> None:
    assert load_catalog().policy.image_disk_bytes == read("roles/preflight/defaults/main.yml")["preflight_image_bytes"]


class Taken(Exception):
    """What a module says that it takes."""


def spec_of(module: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The argument spec that a module's main() hands to Ansible."""

    def takes(argument_spec: dict[str, Any], **_more: Any) -> None:
        raise Taken(argument_spec)

    monkeypatch.setattr(module, "AnsibleModule", takes)
    with pytest.raises(Taken) as taken:
        module.main()
    spec: dict[str, Any] = taken.value.args[0]
    return spec


def test_preflight_takes_what_the_roles_offer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that the one end has and the other lacks ends a play that no unit test runs."""
    spec = spec_of(preflight_check, monkeypatch)
    (task,) = read("roles/preflight/tasks/check.yml")
    assert set(task["gpunode.llm.preflight_check"]) <= set(spec)
    for role, value, option in (
        ("docker", "docker_wanted", "docker"),
        ("docker", "docker_registry", "registry"),
        ("nvidia_container_toolkit", "nvidia_container_toolkit_wanted", "toolkit"),
    ):
        assert set(read(f"roles/{role}/vars/main.yml")[value]) <= set(spec[option]["options"]), value
    specified = read("roles/preflight/meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    for role, value, variable in (
        ("docker", "docker_wanted", "preflight_docker"),
        ("huggingface", "huggingface_access", "preflight_hub"),
        ("gateway", "gateway_needs", "preflight_gateway"),
    ):
        # A play adds the ports of the router.
        elsewhere = {"router"} if role == "gateway" else set()
        assert set(read(f"roles/{role}/vars/main.yml")[value]) == set(specified[variable]["options"]) - elsewhere, value
    hub = set(specified["preflight_hub"]["options"]) - {"environment"}
    assert hub <= set(spec)


def test_filters_are_few_files_and_each_is_documented_as_it_is_called() -> None:
    """Ansible loads every file of filters at each look-up. The documentation beside them it reads on demand."""
    folder = CHECKOUT / "plugins" / "filter"
    files = sorted(path.stem for path in folder.glob("*.py"))
    assert files == ["plans", "quoting", "values"]
    known: dict[str, Any] = {}
    for file in files:
        known |= importlib.import_module(f"{FILTERS}.{file}").FilterModule().filters()
    assert sorted(known) == sorted(path.stem for path in folder.glob("*.yml"))
    for name, function in known.items():
        documented = read(f"plugins/filter/{name}.yml")["DOCUMENTATION"]
        assert documented["name"] == name
        (_input, *options) = inspect.signature(function).parameters
        assert list(documented["options"]) == ["_input", *options], name


def routes() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = read("meta/runtime.yml")["plugin_routing"]["modules"]
    return found


def test_every_module_that_returns_done_has_the_polling_action() -> None:
    watched = {
        path.stem
        for path in (CHECKOUT / "plugins" / "modules").glob("[a-z]*.py")
        if re.search(r"\bdone=|WAITING", path.read_text(encoding="utf-8"))
    }
    handed = {name for name, to in routes().items() if to.get("action_plugin") == "gpunode.llm.endpoint_ready"}
    own = {
        path.stem for path in (CHECKOUT / "plugins" / "action").glob("*.py") if "(WatchingAction)" in path.read_text()
    }
    assert len(watched) > 5
    assert handed | own == watched


def test_each_name_in_the_routes_leads_to_its_module(tmp_path: Path) -> None:
    """Also where the plugin that calls it has another name, and where the module has got a new one."""
    names = ["endpoint_ready", *routes()]
    # Refused by the module itself, so nothing else happens.
    tasks = [{f"gpunode.llm.{name}": {"no_such_option": 1}, "ignore_errors": True} for name in names]
    play = {"hosts": "localhost", "gather_facts": False, "tasks": tasks}
    (tmp_path / "play.yml").write_text(json.dumps([play]), encoding="utf-8")
    env = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / "collections"), "ANSIBLE_LOCAL_TEMP": str(tmp_path)}
    line = [sys.executable, "-m", "ansible.cli.playbook", "-vvv", "play.yml"]
    done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    called = re.findall(r"Using module file \S+/modules/(\w+)\.py", done.stdout)
    assert called == [routes().get(name, {}).get("redirect", f"gpunode.llm.{name}").split(".")[-1] for name in names]
    assert f"ignored={len(names)} " in done.stdout
