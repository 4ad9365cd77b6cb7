# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an option of the planner stands, and which of these places a checkout has forgotten.

Its definition is a variable of the entry point `plan` in roles/vllm/meta/argument_specs.yml. Two more places are
written by hand: its default with the reason, and the field that the planner's code uses. All else follows from the
definition.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import yaml

DEFINITION = "roles/vllm/meta/argument_specs.yml"
DEFAULTS = "roles/vllm/defaults/main.yml"
REQUEST = "plugins/plugin_utils/planner/request.py"
OPTIONS = "plugins/plugin_utils/planner/options.py"


def constant(path: Path, name: str) -> Any:
    """A constant of a module, without importing it: a copy may be broken."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return ast.literal_eval(node.value)
    raise AssertionError(f"{path} has no {name}")


def fields(path: Path) -> set[str]:
    """The options that an engine's request has a field for, by their own names."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (request,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "InstanceRequest")
    named = {item.target.id for item in request.body if isinstance(item, ast.AnnAssign)}
    long = {short: name for name, short in constant(path, "SHORT").items()}
    return {long.get(name, name) for name in named}


def complaints(checkout: Path) -> list[str]:
    """A sentence for each place in which an option is not, though it is in another."""
    entries = yaml.safe_load((checkout / DEFINITION).read_text(encoding="utf-8"))["argument_specs"]
    of_the_role = {f"vllm_{name}" for name in constant(checkout / OPTIONS, "OF_THE_ROLE")}
    defined = {name.removeprefix("vllm_") for name in entries["plan"]["options"].keys() - of_the_role}
    defaults = {
        name.removeprefix("vllm_") for name in yaml.safe_load((checkout / DEFAULTS).read_text(encoding="utf-8"))
    }
    used = fields(checkout / REQUEST)
    of_the_host = set(constant(checkout / REQUEST, "OF_THE_HOST"))
    # Of one entry of `models` alone, or what the planner itself adds.
    own = {
        "name",
        "named",
        "model",
        "served_model_name",
        "gpu_indices",
        "engine",
        "engine_decides_context",
        "stretched",
        "nodes_decided",
        "preset",
        "faster",
    }
    return [
        *(f"{name} has no default in {DEFAULTS}" for name in sorted(defined - defaults)),
        *(f"{name} is no field of InstanceRequest in {REQUEST}" for name in sorted(defined - used - of_the_host)),
        *(f"{name} is not defined in {DEFINITION}" for name in sorted((used - own | of_the_host) - defined)),
    ]
