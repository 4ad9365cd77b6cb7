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
