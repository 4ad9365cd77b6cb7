# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write docs/settings.md from the specification of the playbooks: python docs/settings.py"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parents[1]
PAGE = CHECKOUT / "docs" / "settings.md"
SPEC = CHECKOUT / "playbooks" / "meta" / "argument_specs.yml"
HEAD = """# Settings

Made from `playbooks/meta/argument_specs.yml` by `make docs`; a test keeps it in step. A role's own settings stand in
its `defaults/main.yml`, each with its reason, and `ansible-doc -t role gpunode.llm.vllm` prints them.

## Values from a command line, a survey or `set_stats`

These send text. Each setting is read as its specification says, and what cannot be read is refused before anything
changes, all of it at once, with the name, the value and an example.

| is to be | is written |
| --- | --- |
| a boolean | `true`, `yes`, `on`, `1`; `false`, `no`, `off`, `0` |
| a list | `-e docker_users=ada,grace`, or `[ada, grace]` where an element has a comma; one word is a list of one |
| a dictionary | `-e vllm_env=A=1,B=2`, or `{A: 1, B: 2}` where values are more than text |
| nothing | `null` or no text at all, where a setting may be unset |
"""
TABLE = "| name | type | default | |\n| --- | --- | --- | --- |\n"


def plain(description: str | list[str]) -> str:
    """A description without the markup of ansible-doc."""
    text = " ".join(description) if isinstance(description, list) else description
    text = re.sub(r"\b[CVO]\(([^)]*)\)", r"`\1`", text)
    return re.sub(r"P\(([^#)]*)#\w+\)", r"`\1`", text).replace("|", "\\|")


def default(option: dict[str, Any]) -> str:
    value = option.get("default")
    return "" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def page() -> str:
    """Every playbook with its settings."""
    text = HEAD
    for name, entry in yaml.safe_load(SPEC.read_text(encoding="utf-8"))["argument_specs"].items():
        text += f"\n## {name}.yml\n\n{entry['short_description']}.\n\n{TABLE}"
        for key, option in entry["options"].items():
            text += f"| `{key}` | {option['type']} | {default(option)} | {plain(option['description'])} |\n"
    return text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
