# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write awx/surveys.yml, what each job template asks, from the catalogue and the specifications of the variables."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parents[1]
PAGE = CHECKOUT / "awx" / "surveys.yml"
# Lets this be run from a checkout as it is.
runpy.run_path(str(CHECKOUT / "tests" / "unit" / "conftest.py"))

from ansible_collections.gpunode.llm.plugins.plugin_utils import values
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog_files import load_catalog

HEAD = """---
# Made by `make surveys` from the catalogue and the variables' specifications. Every answer reaches a play as text.
# A question without a default that is left empty leaves the matter to the inventory and the planner.
"""


class Indented(yaml.SafeDumper):
    """Lists as this project indents them."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def said(variable: str) -> str:
    """What a variable's specification says of it, as plain text."""
    text = values.options()[variable]["description"]
    return re.sub(r"[A-Z]\(([^)#]*)(#\w+)?\)", r"\1", text if isinstance(text, str) else " ".join(text))


def of(variable: str, name: str) -> dict[str, Any]:
    """A question about a variable, as its specification has it."""
    option = values.options()[variable]
    choices = ["false", "true"] if option["type"] == "bool" else values.choices(option)
    default = option.get("default")
    return question(variable, name, said(variable), choices, "" if default is None else str(default).lower())


def question(
    variable: str, name: str, about: str, choices: list[str] | None = None, default: str = ""
) -> dict[str, Any]:
    """A question as AWX keeps it; one with a default must be answered."""
    made: dict[str, Any] = {
        "variable": variable,
        "question_name": name,
        "question_description": about,
        "type": "multiplechoice" if choices else "text",
        "required": bool(default),
    }
    if choices:
        made["choices"] = choices
    else:
        made |= {"min": 0, "max": 64}
    return made | ({"default": default} if default else {})


def surveys() -> dict[str, Any]:
    """All surveys by the key under which content.yml names them."""
    models = list(load_catalog().models)
    options = [of("vllm_objective", "What the GPUs are spread for"), of("vllm_max_model_len", "Context")]
    plan = [
        question("model", "Model", said("model"), ["all", *models], "all"),
        question("gpus", "GPUs", "To plan for GPUs that nobody has yet, such as 8xH100. Empty: the nodes' own."),
        *options,
    ]
    serve = [question("model", "Model", said("model"), models, models[0]), *options]
    level = of("level", "Level")
    fail = of("status_fail", "Fail where something does not serve")
    spec = {"plan": plan, "serve": serve, "status": [fail], "teardown": [level]}
    return {name: {"name": "", "description": "", "spec": questions} for name, questions in spec.items()}


def page() -> str:
    written_out = json.loads(json.dumps(surveys()))  # or what two surveys share would be an anchor and its alias
    return HEAD + yaml.dump({"awx_surveys": written_out}, Dumper=Indented, sort_keys=False, width=120)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
