# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the planner takes. Each option is defined once, as a variable of the entry point `plan` of the role vllm.

``roles/vllm/meta/argument_specs.yml`` says its name, type, default, choices and description. From there follow the
options of serving_plan and serving_matrix, their documentation, how a value is read, and which variables a play hands
over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from .. import values

PREFIX = "vllm_"
#: Variables of the entry point that are no options of an engine: whoever plans asks for these by itself.
OF_THE_ROLE = ("api_keys", "gpus", "models", "plan_gather_facts", "plan_lock_timeout_s")
#: What is no variable of its own, but follows from one.
API_KEY_SET: Mapping[str, Any] = {
    "description": "Whether clients will need an API key. Without one only a loopback address is accepted.",
    "type": "bool",
    "default": False,
}
#: Types that an action reads itself. All else is text to it: the planner's own readers say more than "is no number".
READ_BY_ACTIONS = ("bool", "dict", "list")


@lru_cache(maxsize=1)
def definitions() -> Mapping[str, values.Option]:
    """Each option by its name, without `vllm_` before it."""
    variables = values.specification("roles/vllm")["plan"]["options"]
    found = {name.removeprefix(PREFIX): option for name, option in variables.items()}
    return {name: option for name, option in found.items() if name not in OF_THE_ROLE}


def argument_spec() -> dict[str, Any]:
    """The options as an action's own."""
    found: dict[str, Any] = {"api_key_set": {"type": API_KEY_SET["type"], "default": API_KEY_SET["default"]}}
    for name, option in definitions().items():
        found[name] = {"type": option["type"]} if option["type"] in READ_BY_ACTIONS else {"type": "str"}
        if option["type"] in READ_BY_ACTIONS:
            found[name]["default"] = option.get("default")
    return {**found, "from_variables": {"type": "bool", "default": False}}


def of_variables(given: Mapping[str, Any], known: Mapping[str, Any], template: Callable[[Any], Any]) -> dict[str, Any]:
    """What a task does not say, by the variables of the play. Raises ValueError for one that cannot be read."""
    names = {name: PREFIX + name for name in definitions() if given.get(name) is None and PREFIX + name in known}
    found = {name: values.typed(variable, template(known[variable])) for name, variable in names.items()}
    return {name: value for name, value in found.items() if value is not None}


def documentation() -> str:
    """The options as a documentation fragment: what a description says of a variable, it says of the option."""
    options = {
        **{name: _documented(option) for name, option in definitions().items()},
        "api_key_set": API_KEY_SET,
        "from_variables": {
            "description": [
                "Take each option of an engine that the task does not set from the variable of the role "
                "P(gpunode.llm.vllm#role), such as C(vllm_port) for O(port).",
            ],
            "type": "bool",
            "default": False,
        },
    }
    return json.dumps({"options": options})


def _documented(option: values.Option) -> dict[str, Any]:
    texts = option["description"] if isinstance(option["description"], list) else [option["description"]]
    there = {key: value for key, value in option.items() if key != "default" or value is not None}
    closed = {"choices": values.choices(option)} if "choices" in option else {}
    return {**there, **closed, "description": [_by_option(text) for text in texts]}


def _by_option(text: str) -> str:
    """`O(vllm_engine)` is `O(engine)` there; a variable that is no option is a word."""
    return re.sub(
        rf"O\({PREFIX}(\w+)\)",
        lambda found: f"O({found[1]})" if found[1] in definitions() else f"C({PREFIX}{found[1]})",
        text,
    )
