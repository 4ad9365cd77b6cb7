# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for every role: its defaults are its specification, in keys, values and types, and its pages are there."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

CHECKOUT = Path(__file__).resolve().parents[3]
ROLES = sorted(path.parent.parent.name for path in CHECKOUT.glob("roles/*/defaults/main.yml"))
#: For the other roles alone: nobody sets anything of it.
INTERNAL = ["packages"]
# What a default of each type may be; a template stands for any.
TYPES = {
    "str": str,
    "path": str,
    "bool": bool,
    "int": int,
    "float": (int, float),
    "list": list,
    "dict": dict,
    "raw": object,
}


def read(role: str, path: str) -> dict:
    return yaml.safe_load((CHECKOUT / "roles" / role / path).read_text(encoding="utf-8"))


def options(role: str) -> list[tuple[str, str, dict]]:
    entries = read(role, "meta/argument_specs.yml")["argument_specs"]
    return [(entry, name, option) for entry, spec in entries.items() for name, option in spec["options"].items()]


@pytest.mark.parametrize("role", ROLES)
def test_keys_and_values(role: str) -> None:
    """Of an entry point besides main the specification may name fewer, and more that have no default."""
    defaults = read(role, "defaults/main.yml")
    assert {name: option.get("default") for entry, name, option in options(role) if entry == "main"} == defaults
    for entry, name, option in options(role):
        assert option.get("default") == defaults.get(name), (entry, name)


@pytest.mark.parametrize("role", ROLES + INTERNAL)
def test_every_entry_point_is_there_and_described(role: str) -> None:
    for entry, spec in read(role, "meta/argument_specs.yml")["argument_specs"].items():
        assert (CHECKOUT / "roles" / role / "tasks" / f"{entry}.yml").exists(), entry
        assert spec["short_description"], entry
        for name, option in spec["options"].items():
            assert option["description"], (entry, name)
            assert option["type"], (entry, name)


@pytest.mark.parametrize("role", ROLES + INTERNAL)
def test_a_role_has_metadata(role: str) -> None:
    """Galaxy shows it; one spelling of the systems' files serves all roles."""
    meta = read(role, "meta/main.yml")
    assert meta["dependencies"] == []
    assert meta["galaxy_info"]["description"]
    assert meta["galaxy_info"]["platforms"]
    files = {path.name for path in (CHECKOUT / "roles" / role / "vars").glob("*.yml")}
    assert files <= {"main.yml", "Debian.yml", "RedHat.yml"}


def test_every_role_is_one_of_these() -> None:
    assert sorted(path.name for path in (CHECKOUT / "roles").iterdir()) == sorted(ROLES + INTERNAL)


def test_every_role_takes_away_what_it_put_there() -> None:
    """preflight changes nothing, and packages does it for the others."""
    assert [role for role in ROLES if not (CHECKOUT / f"roles/{role}/tasks/teardown.yml").exists()] == ["preflight"]
    (play,) = yaml.safe_load((CHECKOUT / "playbooks/teardown.yml").read_text(encoding="utf-8"))
    roles = [task.get(f"ansible.builtin.{how}_role") for task in play["tasks"] for how in ("import", "include")]
    assert {role["name"].rpartition(".")[2] for role in roles if role} == {*ROLES} - {"preflight"}


def test_an_internal_role_is_internal() -> None:
    for role in INTERNAL:
        for entry, spec in read(role, "meta/argument_specs.yml")["argument_specs"].items():
            assert "internal" in f"{spec['short_description']} {spec['description']}".lower(), entry
            assert all(name.startswith(f"__{role}_") for name in spec["options"]), entry
        (refusal,) = yaml.safe_load((CHECKOUT / f"roles/{role}/tasks/main.yml").read_text(encoding="utf-8"))
        assert refusal["gpunode.llm.refuse"]["msg"]


@pytest.mark.parametrize("role", ROLES)
def test_types(role: str) -> None:
    for entry, name, option in options(role):
        value = option.get("default")
        fits = value is None or "{{" in str(value) or isinstance(value, TYPES[option["type"]])
        # Python's bool is an int, too.
        assert fits, (entry, name, value)
        assert option["type"] == "bool" or not isinstance(value, bool), (entry, name, value)
        assert ("elements" in option) == (option["type"] == "list"), (entry, name)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_accepts_its_own_defaults(role: str) -> None:
    """By Ansible's own check: null was none of the choices of vllm_device."""
    for entry, spec in read(role, "meta/argument_specs.yml")["argument_specs"].items():
        given = {name: option["default"] for name, option in spec["options"].items() if "default" in option}
        unset = {name: None for name, option in spec["options"].items() if not option.get("required")} | given
        required = {name: {} for name, option in spec["options"].items() if option.get("required")}
        plain = {name: value for name, value in unset.items() if "{{" not in str(value)}
        empty = {"list": [], "bool": False}
        samples = {name: empty.get(spec["options"][name]["type"], value) for name, value in required.items()}
        validated = ArgumentSpecValidator(spec["options"]).validate({**plain, **samples})
        assert validated.error_messages == [], entry


@pytest.mark.parametrize("role", ROLES)
def test_public_names_begin_with_the_role(role: str) -> None:
    assert [name for _entry, name, _option in options(role) if not name.startswith(f"{role}_")] == []


@pytest.mark.parametrize("role", ROLES)
def test_it_has_a_page_and_the_readme_names_it(role: str) -> None:
    assert (CHECKOUT / "roles" / role / "README.md").exists()
    assert f"(roles/{role})" in (CHECKOUT / "README.md").read_text(encoding="utf-8")


#: Paths of one file each. Of a folder that goes, ansible.builtin.file shows all that is in it with --diff.
FILES = (
    "/run/systemd/system/nginx.service",
    "/run/gpunode/docker-settings-due",
    "{{ __gateway_acme_note }}",
    "{{ __gateway_marker }}",
    "{{ __logs_node_archive }}",
)
#: Where each of several paths is a file.
ONLY_FILES = (
    "Remove the key and the repository",
    "Remove the records of certbot and keepalived",
    "Remove the records of nginx and its Lua",
    "Remove the driver's files",
)


def tasks_of(found: object) -> list[dict]:
    """All tasks of a file, those in blocks too."""
    listed = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
    inner = ("tasks", "pre_tasks", "post_tasks", "handlers", "block", "rescue", "always")
    return [task for item in listed for task in [item, *(t for key in inner for t in tasks_of(item.get(key)))]]


def test_packages_are_installed_held_and_removed_in_one_role() -> None:
    """Each of its own had the same options, the same comment, and in the end other ones."""
    modules = {
        *(f"ansible.builtin.{name}" for name in ("apt", "dnf", "package", "dpkg_selections", "yum_repository")),
        *(f"gpunode.llm.{name}" for name in ("apt_source", "rpm_source")),
    }
    pages = [*CHECKOUT.glob("roles/*/tasks/*.yml"), *CHECKOUT.glob("playbooks/**/*.yml")]
    users = {
        (page.parents[1].name, module)
        for page in pages
        for task in tasks_of(yaml.safe_load(page.read_text(encoding="utf-8")))
        for module in modules & set(task)
    }
    assert {role for role, _module in users} == {"packages"}
    assert {module for _role, module in users} >= {
        "ansible.builtin.apt",
        "ansible.builtin.dnf",
        "gpunode.llm.apt_source",
    }


def test_only_preflight_asks_what_preflight_asks() -> None:
    """The role huggingface had it ask a hub for a token, with everything else left out."""
    users = {
        page.parents[1].name
        for page in [*CHECKOUT.glob("roles/*/tasks/*.yml"), *CHECKOUT.glob("playbooks/**/*.yml")]
        for task in tasks_of(yaml.safe_load(page.read_text(encoding="utf-8")))
        if "gpunode.llm.preflight_check" in task
    }
    assert users == {"preflight"}


def test_no_listing_of_a_folder_that_goes_is_in_a_diff() -> None:
    """A teardown with --diff had more than three thousand lines, most of them names in a virtual environment."""
    pages = [*CHECKOUT.glob("roles/*/*/*.yml"), *CHECKOUT.glob("playbooks/**/*.yml")]
    tasks = [task for page in pages for task in tasks_of(yaml.safe_load(page.read_text(encoding="utf-8")))]
    removals = [
        (task, path)
        for task in tasks
        if (path := task.get("ansible.builtin.file", {}).get("path"))
        and task["ansible.builtin.file"].get("state") == "absent"
    ]
    assert len(removals) > len(FILES)
    assert [
        task["name"]
        for task, path in removals
        if path not in FILES and task["name"] not in ONLY_FILES and task.get("diff") is not False
    ] == []
