# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Roles know their own business: whose name a variable is, and that each has a home.

What one role needs of another, that one offers under a public name in its vars, and a playbook joins them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpunode.llm.plugins.plugin_utils import names, values

CHECKOUT = Path(__file__).resolve().parents[3]
ROLES = sorted(path.name for path in (CHECKOUT / "roles").iterdir())
#: Of no role: another role calls its entry points, whose parameters are private names.
SHARED = "packages"
#: A variable of another role in a role's file, and why it may stand there.
ALLOWED = {
    ("bundle/templates/vars.yml.j2", "vllm_image"): "it writes variables for site.yml, which is what a bundle is for",
    ("vllm/vars/main.yml", "huggingface_home"): "a key of what vllm_service takes",
}
#: What Ansible gives every play, beside all that begins with `ansible_`.
MAGIC = {"group_names", "groups", "hostvars", "inventory_hostname", "playbook_dir", "role_path", "vars"}
CONDITIONS = ("when", "that", "failed_when", "changed_when", "until")
FOLDERS = ("defaults", "handlers", "tasks", "templates", "vars")
KNOWN = {*values.options(), *names.OUTCOMES}
#: What awx.yml reads from files of its own.
CONTENT = {
    name
    for path in (CHECKOUT / "awx").glob("*.yml")
    for name in re.findall(r"(?m)^(\w+):", path.read_text(encoding="utf-8"))
}


def pages(role: str) -> list[Path]:
    home = CHECKOUT / "roles" / role
    return sorted(path for folder in FOLDERS for path in (home / folder).rglob("*") if path.suffix in (".yml", ".j2"))


def text_of(path: Path) -> str:
    """Without comments, and without names of plugins."""
    return re.sub(r"(?m)(^|\s)#.*$|gpunode\.llm\.\w+", "", path.read_text(encoding="utf-8"))


def strangers(role: str, text: str) -> set[str]:
    """Variables in a role's text that are another's."""
    others = [other for other in ROLES if other not in (role, SHARED)]
    words = set(re.findall(r"(?<![\w./-])\w+\b(?!\()", text))
    public = {word for word in words & KNOWN if word.startswith(tuple(f"{other}_" for other in others))}
    return public | {word for word in words if word.startswith(tuple(f"__{other}_" for other in others))}


@pytest.mark.parametrize("role", ROLES)
def test_a_role_names_no_variable_of_another(role: str) -> None:
    own = {path: strangers(role, text_of(path)) for path in pages(role)}
    found = {(str(path.relative_to(CHECKOUT / "roles")), name) for path, hits in own.items() for name in hits}
    mine = {pair for pair in ALLOWED if pair[0].startswith(f"{role}/")}
    assert found - mine == set()
    assert mine - found == set(), "no longer needed"


def test_strangers_are_found() -> None:
    text = "a: '{{ vllm_port }} {{ __docker_state }} {{ huggingface_home }}'\nb: [vllm_unknown, /srv/vllm_port]"
    assert strangers("huggingface", text) == {"vllm_port", "__docker_state"}


def strings(value: Any, key: str = "") -> Iterator[str]:
    """Every template of a YAML file; a condition is one without its braces."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from strings(item, str(name))
    elif isinstance(value, list):
        for item in value:
            yield from strings(item, key)
    elif isinstance(value, str):
        yield f"{{{{ {value} }}}}" if key in CONDITIONS and "{{" not in value else value


def read_names(path: Path) -> set[str]:
    """The variables that a file reads."""
    text = path.read_text(encoding="utf-8")
    templates = [text] if path.suffix == ".j2" else strings(yaml.safe_load(text))
    return {name for item in templates for name in names.roots(item, {})}


EVERY = [*(CHECKOUT / "playbooks").glob("*.yml"), *(CHECKOUT / "playbooks/tasks").glob("*.yml")]


@pytest.mark.parametrize(
    "path",
    sorted([*EVERY, *(page for role in ROLES for page in pages(role))]),
    ids=lambda path: str(path.relative_to(CHECKOUT)),
)
def test_every_variable_that_is_read_has_a_home(path: Path) -> None:
    """In some role's specification, in the playbooks' own, or among what they register and set."""
    assert homeless(path) - (CONTENT if path.stem == "awx" else set()) == set()


def homeless(path: Path) -> set[str]:
    return {name for name in read_names(path) - MAGIC - KNOWN if not name.startswith(("__", "ansible_"))}


def test_a_variable_without_a_home_is_found(tmp_path: Path) -> None:
    page = tmp_path / "main.yml"
    page.write_text("- name: X\n  when: vllm_port and mine\n  vars: {a: '{{ yours | default(ansible_host) }}'}\n")
    assert homeless(page) == {"mine", "yours"}


def test_a_playbook_reads_no_private_name_of_a_role() -> None:
    private = {
        name
        for role in ROLES
        for page in pages(role)
        for name in re.findall(r"(?m)^(__\w+):|register: (__\w+)", page.read_text(encoding="utf-8"))
        for name in name
        if name
    }
    assert len(private) > 50
    for path in EVERY:
        # What a playbook hands to an internal role is that role's parameter.
        read = {name for name in read_names(path) & private if not name.startswith(f"__{SHARED}_")}
        assert read == set(), path.name
