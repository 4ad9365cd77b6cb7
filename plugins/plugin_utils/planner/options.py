# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner's options. Each is defined once, as a variable of the entry point `plan` of the role vllm.

``roles/vllm/meta/argument_specs.yml`` gives its name, type, default, choices and description. The options of
serving_plan and serving_matrix, their documentation, the readers of values and the variables that a play passes on are
derived from it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from .. import values

PREFIX = "vllm_"
#: Variables of the entry point that are not options of an engine; the role's tasks read them themselves.
OF_THE_ROLE = (
    "api_keys",
    "engine_nodes",
    "gpus",
    "hub",
    "hub_token",
    "models",
    "plan_driver_comes",
    "plan_gather_facts",
    "plan_lock_timeout_s",
)
#: The option api_key_set, which is derived from the variable vllm_api_keys.
API_KEY_SET: Mapping[str, Any] = {
    "description": "Whether clients will need an API key. Without one only a loopback address is accepted.",
    "type": "bool",
    "default": False,
}
#: Types that the action's argument spec converts. Others arrive as text: the planner's readers give better errors.
READ_BY_ACTIONS = ("bool", "dict", "list", "raw")


@lru_cache(maxsize=1)
def definitions() -> Mapping[str, values.Option]:
    """All options by name, without the prefix `vllm_`."""
    variables = values.specification("roles/vllm")["plan"]["options"]
    defined = {name.removeprefix(PREFIX): option for name, option in variables.items()}
    return {name: option for name, option in defined.items() if name not in OF_THE_ROLE}


def argument_spec() -> dict[str, Any]:
    """The options as an action's argument spec."""
    spec: dict[str, Any] = {"api_key_set": {"type": API_KEY_SET["type"], "default": API_KEY_SET["default"]}}
    for name, option in definitions().items():
        spec[name] = {"type": option["type"]} if option["type"] in READ_BY_ACTIONS else {"type": "str"}
        if option["type"] in READ_BY_ACTIONS:
            spec[name]["default"] = option.get("default")
    return {**spec, "from_variables": {"type": "bool", "default": False}}


def of_variables(given: Mapping[str, Any], known: Mapping[str, Any], template: Callable[[Any], Any]) -> dict[str, Any]:
    """Values for options that the task leaves out, from the play's variables. Raises ValueError if one is invalid."""
    names = {name: PREFIX + name for name in definitions() if given.get(name) is None and PREFIX + name in known}
    options = {name: values.typed(variable, template(known[variable])) for name, variable in names.items()}
    return {name: value for name, value in options.items() if value is not None}


def documentation(beside: Mapping[str, Any]) -> str:
    """The options as a documentation fragment, from the descriptions of the variables, and those ``beside`` them."""
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
        **beside,
    }
    return json.dumps({"options": options})


def _documented(option: values.Option) -> dict[str, Any]:
    texts = option["description"] if isinstance(option["description"], list) else [option["description"]]
    kept = {key: value for key, value in option.items() if key != "default" or value is not None}
    closed = {"choices": values.choices(option)} if "choices" in option else {}
    return {**kept, **closed, "description": [_by_option(text) for text in texts]}


def _by_option(text: str) -> str:
    """Rewrite O(vllm_engine) as O(engine), and a variable that is not an option as C(…)."""
    return re.sub(
        rf"O\({PREFIX}(\w+)\)",
        lambda match: f"O({match[1]})" if match[1] in definitions() else f"C({PREFIX}{match[1]})",
        text,
    )
