# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write docs/settings.schema.json, by which an editor knows every variable: python docs/settings_schema.py"""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
PAGE = CHECKOUT / "docs" / "settings.schema.json"
# Lets this be run from a checkout as it is.
runpy.run_path(str(CHECKOUT / "tests" / "unit" / "conftest.py"))

from ansible_collections.gpunode.llm.plugins.module_utils.node.schema import numbered
from ansible_collections.gpunode.llm.plugins.plugin_utils import names, values

plain = runpy.run_path(str(CHECKOUT / "docs" / "settings.py"))["plain"]

#: Words for truth values, as typed() reads them.
WORDS = [word for lower in values.TRUE + values.FALSE for word in (lower, lower.capitalize(), lower.upper())]
#: What a value of each type may look like. Text counts as well, where it reads as such a value.
DEFINITIONS: dict[str, Any] = {
    "bool": {"enum": [True, False, 0, 1, *dict.fromkeys(WORDS)]},
    "int": {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": r"^\s*[+-]?[0-9]{1,18}\s*$"}]},
    "float": {"anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^\s*[+-]?[0-9.]+([eE][+-]?[0-9]+)?\s*$"}]},
    "str": {"type": ["string", "number"]},
    "path": {"type": "string"},
    "dict": {"type": ["object", "string"]},
    "list": {"type": ["array", "string"]},
    "raw": {},
    # Its value is known only in a play.
    "template": {"type": "string", "pattern": r"\{[{%]"},
    "nothing": {"enum": [None, *values.NOTHING]},
}


def named(name: str) -> dict[str, Any]:
    return {"$ref": f"#/definitions/{name}"}


def form(option: values.Option) -> dict[str, Any]:
    """What a value looks like that is no template."""
    kind = option["type"]
    if kind == "list" and option["elements"] != "raw":
        element = {"type": option["elements"], **{key: option[key] for key in ("choices", "options") if key in option}}
        return {"type": ["array", "string"], "items": {"anyOf": [form(element), named("template")]}}
    if kind != "list" and "choices" in option:
        return {"enum": values.choices(option)}
    if kind == "dict" and "options" in option:
        own = {name: described(item) for name, item in option["options"].items()}
        return {"type": ["object", "string"], "properties": own, "additionalProperties": False}
    return named(kind)


def described(option: values.Option) -> dict[str, Any]:
    """What a value may be, with what an editor shows of it."""
    shown = {"default": option["default"]} if option.get("default") is not None else {}
    nothing = [named("nothing")] if values.may_be_null(option) else []
    return {
        "description": plain(option["description"]),
        **shown,
        "anyOf": [form(option), named("template"), *nothing],
    }


def schema() -> dict[str, Any]:
    """Of a file of variables. Names that begin as ours do and that nobody knows are misspelt."""
    known = values.options()
    beginnings = "|".join(sorted(names.prefixes()))
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Variables of gpunode.llm",
        **numbered({}),
        "definitions": DEFINITIONS,
        "type": "object",
        "properties": {name: described(known[name]) for name in sorted(known)},
        "propertyNames": {"anyOf": [{"enum": sorted(known)}, {"not": {"pattern": f"^({beginnings})"}}]},
    }


def page() -> str:
    return json.dumps(schema(), indent=1) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
