# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for every role: its defaults are its specification, in keys, values and types, and its pages are there."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[3]
ROLES = sorted(path.parent.parent.name for path in CHECKOUT.glob("roles/*/tasks/main.yml"))
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
    "{{ __gateway_certbot_marker }}",
    "{{ __logs_bundle }}",
)
#: Where each of several paths is a file.
ONLY_FILES = ("Remove the key and the repository",)


def tasks_of(found: object) -> list[dict]:
    """All tasks of a file, those in blocks too."""
    listed = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
    inner = ("tasks", "pre_tasks", "post_tasks", "handlers", "block", "rescue", "always")
    return [task for item in listed for task in [item, *(t for key in inner for t in tasks_of(item.get(key)))]]


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
