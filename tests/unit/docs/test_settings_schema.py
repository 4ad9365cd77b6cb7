# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The JSON Schema of the variables says what a play says: it takes what is read, and marks what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ansible_collections.gpunode.llm.plugins.plugin_utils import names, values

CHECKOUT = Path(__file__).resolve().parents[3]
SCHEMA = json.loads((CHECKOUT / "docs" / "settings.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)


def marked(**variables: Any) -> bool:
    return bool(list(VALIDATOR.iter_errors(variables)))


def test_it_is_a_schema_and_has_every_variable() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert SCHEMA["schema"] == 1
    assert set(SCHEMA["properties"]) == set(values.options())


def test_every_default_is_taken() -> None:
    for path in CHECKOUT.glob("roles/*/defaults/main.yml"):
        for name, value in yaml.safe_load(path.read_text(encoding="utf-8")).items():
            assert not marked(**{name: value}), name


@pytest.mark.parametrize(
    "inventory", sorted(CHECKOUT.glob("inventories/example/*_vars/**/*.yml")), ids=lambda path: path.stem
)
def test_the_example_inventory_is_taken(inventory: Path) -> None:
    assert not marked(**(yaml.safe_load(inventory.read_text(encoding="utf-8")) or {}))


#: Values and whether they are marked. What is marked, a play refuses; a play refuses more.
VALUES: list[tuple[str, Any, bool]] = [
    ("vllm_port", 9000, False),
    ("vllm_port", "9000", False),
    ("vllm_port", "{{ base + 1 }}", False),
    ("vllm_port", "many", True),
    ("vllm_port", [9000], True),
    ("vllm_objective", "latency", False),
    ("vllm_objective", None, False),
    ("vllm_objective", "speed", True),
    ("vllm_rollback", "Yes", False),
    ("vllm_rollback", "maybe", True),
    ("vllm_api_keys", ["one"], False),
    ("vllm_api_keys", "one,two", False),
    ("vllm_api_keys", {"one": 1}, True),
    ("docker_proxy", {"https": "http://proxy:3128"}, False),
    ("docker_proxy", {"htps": "http://proxy:3128"}, True),
    ("models", ["8b", {"model": "70b", "port": 9000}], False),
    ("vllm_gpu_memory_utilization", 0.9, False),
    ("vllm_prt", 9000, True),
    ("preflight_model", "8b", True),
    ("anything_else", [{}], False),
]


@pytest.mark.parametrize(("name", "value", "wrong"), VALUES)
def test_it_marks_what_a_play_refuses(name: str, value: Any, wrong: bool) -> None:
    assert marked(**{name: value}) is wrong
    if "{{" in str(value) or name not in values.options():
        assert bool(names.misspelt([name], [])) is (wrong and name not in values.options())
    elif wrong:
        with pytest.raises(ValueError, match=name):
            values.typed(name, value)
    else:
        values.typed(name, value)
