# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs inside a release's environment: print every option of `vllm serve` as JSON."""

from __future__ import annotations

import argparse
import json
import re
import sys

from vllm.entrypoints.cli.serve import ServeSubcommand
from vllm.envs import environment_variables
from vllm.utils.argparse_utils import FlexibleArgumentParser

TYPES = {
    "int": "int",
    "human_readable_int": "size",
    "human_readable_int_or_auto": "size",
    "float": "float",
    "loads": "json",
    "parse_dataclass": "json",
    "union_dict_and_str": "json",
}


def kind(action: argparse.Action) -> str:
    if action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction):
        return "bool"
    if action.nargs in ("+", "*"):
        return "list"
    convert = action.type
    while getattr(convert, "__closure__", None):  # vLLM wraps a type to make it optional
        convert = convert.__closure__[0].cell_contents
    return TYPES.get(getattr(convert, "__name__", ""), "str")


def plain(default: object, of: str) -> object:
    """A default that a YAML file can hold; objects that vLLM builds itself are left out."""
    if default == argparse.SUPPRESS or of == "json":
        return None
    if isinstance(default, (list, tuple, set, frozenset)):
        items = sorted(default) if isinstance(default, (set, frozenset)) else list(default)
        return items if all(isinstance(item, (str, int, float)) for item in items) else None
    value = getattr(default, "value", default)  # an enumeration's member
    return value if isinstance(value, (str, int, float, bool)) else None


def main() -> None:
    sys.argv.append("--help")  # or vLLM leaves the descriptions out, and with them what is deprecated
    subparsers = FlexibleArgumentParser(prog="vllm").add_subparsers(dest="subparser")
    parser = ServeSubcommand().subparser_init(subparsers)
    flags = {}
    # By what is accepted, not by what help shows: --no-enable-x works beside --disable-x.
    spellings: dict[argparse.Action, list[str]] = {}
    for option, action in parser._option_string_actions.items():
        if option.startswith("--"):
            spellings.setdefault(action, []).append(option[2:])
    for action, names in spellings.items():
        names.sort(key=lambda name: "--" + name != action.option_strings[0])
        if action.dest != "help":
            of = kind(action)
            flags[names[0]] = [of, plain(action.default, of), *([names[1:]] if names[1:] else [])]
    deprecated = sorted(
        action.option_strings[0][2:]
        for action in spellings
        if action in parser._deprecated or re.search(r"\b(is|are) deprecated\b", action.help or "", re.I)
    )
    described = {
        "flags": dict(sorted(flags.items())),
        "deprecated": deprecated,
        "environment": sorted(environment_variables),
    }
    json.dump(described, sys.stdout)


if __name__ == "__main__":
    main()
