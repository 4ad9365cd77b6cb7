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

#: Letters of the name of a model: the path of a folder is the longest.
LONGEST_MODEL = 1024


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
    variable: str, name: str, about: str, choices: list[str] | None = None, default: str = "", longest: int = 64
) -> dict[str, Any]:
    """A question as AWX keeps it; one with a default must be answered. ``longest``: letters of a text."""
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
        made |= {"min": 0, "max": longest}
    return made | ({"default": default} if default else {})


def model(default: str, more: str = "") -> dict[str, Any]:
    """The question for a model. It is a text: AWX takes nothing beside the choices of a question that has some."""
    about = f"{said('model')}{more} The catalogue's keys: {', '.join(load_catalog().models)}."
    return question("model", "Model", about, default=default, longest=LONGEST_MODEL)


def surveys() -> dict[str, Any]:
    """All surveys by the key under which content.yml names them."""
    options = [of("vllm_objective", "What the GPUs are spread for"), of("vllm_max_model_len", "Context")]
    plan = [
        model("all", " `all`: every model of the catalogue."),
        question("gpus", "GPUs", "To plan for GPUs that nobody has yet, such as 8xH100. Empty: the nodes' own."),
        *options,
    ]
    serve = [model(next(iter(load_catalog().models))), *options]
    level = of("level", "Level")
    fail = of("status_fail", "Fail where something does not serve")
    spec = {"plan": plan, "serve": serve, "status": [fail], "teardown": [level]}
    return {name: {"name": "", "description": "", "spec": questions} for name, questions in spec.items()}


def page() -> str:
    written_out = json.loads(json.dumps(surveys()))  # or what two surveys share would be an anchor and its alias
    return HEAD + yaml.dump({"awx_surveys": written_out}, Dumper=Indented, sort_keys=False, width=120)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
