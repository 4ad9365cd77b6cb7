# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`-e`, surveys and `set_stats` send text: each variable is read before it is used, and means what its value does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpunode.llm.plugins.plugin_utils import _gateway, _values
from jinja2 import Environment, nodes

CHECKOUT = Path(__file__).resolve().parents[3]
OWN = yaml.safe_load((CHECKOUT / "playbooks/meta/argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]
#: A playbook asks whether a text is there, and nothing more of it.
TEXTS = {
    name for entry in OWN.values() for name, option in entry["options"].items() if option["type"] in ("str", "path")
}
#: Those whose text and value may differ.
READ = {name for name, option in _values.options().items() if _values.is_read(option)} - TEXTS
#: Filters that read text themselves.
READERS = ("gpunode.llm.typed", "gpunode.llm.gateway_key_findings")
#: Dictionaries whose values are read where they are taken apart: by gateway_plan, and as options of preflight_options.
TAKEN_APART = ("__gateway_settings", "__site_gateway", "preflight_options")
CONDITIONS = ("when", "that", "failed_when", "changed_when", "until")
PARSER = Environment()
FOLDERS = ("tasks", "handlers", "vars", "templates")
FILES = sorted(
    path
    for where in ("playbooks", *(f"roles/*/{folder}" for folder in FOLDERS))
    for path in CHECKOUT.glob(f"{where}/**/*")
    if path.suffix in (".yml", ".j2") and path.parent.name != "meta"
)


def raw_names(node: nodes.Node) -> Iterator[str]:
    """Names of variables that are used before anything has read them."""
    if isinstance(node, nodes.Filter) and node.name in READERS:
        read = node.node
        while isinstance(read, nodes.Filter) and read.name in ("default", "ansible.builtin.default"):
            read = read.node
        if isinstance(read, nodes.Name):
            if node.name == "gpunode.llm.typed":
                assert [arg.as_const() for arg in node.args] == [read.name], f"{read.name} is read as another one"
            return
    if isinstance(node, nodes.Name) and node.ctx == "load" and node.name in READ:
        yield node.name
    if isinstance(node, nodes.Test) and node.name == "defined":
        return
    for child in node.iter_child_nodes():
        yield from raw_names(child)


def texts(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every text of a YAML file with the keys that lead to it."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from texts(item, (*path, str(key)))
    elif isinstance(value, list):
        for item in value:
            yield from texts(item, path)
    elif isinstance(value, str):
        yield path, value


def handed_on(path: tuple[str, ...], text: str) -> bool:
    """Whether a value goes whole and as it is to a role's variable, or a single one to a module, which reads it."""
    match = re.fullmatch(r"{{ (\w+)(?: \| default\([^|]*\))? }}", text)
    if not match:
        return False
    single = _values.options()[match[1]]["type"] not in ("list", "dict")
    return path[-1] in _values.options() or any(key in TAKEN_APART for key in path) or (single and "vars" not in path)


def used_raw(path: Path) -> list[str]:
    """What of a file uses a variable that may still be text."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".j2":
        return sorted(set(raw_names(PARSER.parse(text))))
    in_role = path.relative_to(CHECKOUT).parts[0] == "roles"
    found = []
    for keys, value in texts(yaml.safe_load(text)):
        source = f"{{{{ {value} }}}}" if keys and keys[-1] in CONDITIONS and "{{" not in value else value
        names = set(raw_names(PARSER.parse(source)))
        if names and not (any(key in TAKEN_APART for key in keys) if in_role else handed_on(keys, value)):
            found += [f"{name}, in {'.'.join(keys[-3:])}" for name in sorted(names)]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_a_variable_is_read_before_it_is_used(path: Path) -> None:
    """vars/main.yml of the role has `__NAME: "{{ NAME | gpunode.llm.typed('NAME') }}"`; all else of it takes __NAME."""
    assert used_raw(path) == []


def test_the_look_for_raw_uses_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.CHECKOUT", tmp_path)
    task = tmp_path / "roles" / "vllm" / "tasks" / "main.yml"
    task.parent.mkdir(parents=True)
    task.write_text("- when: vllm_rollback | bool and not vllm_env\n  loop: '{{ vllm_docker_args }}'\n")
    assert used_raw(task) == ["vllm_env, in when", "vllm_rollback, in when", "vllm_docker_args, in loop"]
    template = task.with_suffix(".j2")
    template.write_text("{% for name in vllm_api_keys %}{{ vllm_env | dictsort }}{% endfor %}")
    assert used_raw(template) == ["vllm_api_keys", "vllm_env"]


def test_one_specification_says_what_a_variable_is() -> None:
    seen: dict[str, str] = {}
    files = [CHECKOUT / "playbooks/meta/argument_specs.yml", *sorted(CHECKOUT.glob("roles/*/meta/argument_specs.yml"))]
    for path in files:
        for entry in yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"].values():
            for name, option in (entry.get("options") or {}).items():
                assert _values.options()[name] == option, name
                assert seen.setdefault(name, str(path)) == str(path), f"{name} stands in two places"


def test_the_gateway_reads_all_its_settings() -> None:
    own = yaml.safe_load((CHECKOUT / "roles/gateway/vars/main.yml").read_text())["__gateway_settings"]
    assert set(own) == set(_gateway.READERS)
    assert own == {key: f"{{{{ gateway_{key} }}}}" for key in own}
