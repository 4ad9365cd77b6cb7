# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write docs/settings.md, every variable on one page, from the specifications: python docs/settings.py"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parents[1]
PAGE = CHECKOUT / "docs" / "settings.md"
PLAYBOOKS = CHECKOUT / "playbooks"
SPEC = PLAYBOOKS / "meta" / "argument_specs.yml"
#: The roles, in the order in which a reader meets them.
ROLES = (
    *("vllm", "huggingface", "gateway", "router", "usage", "monitoring"),
    *("docker", "nvidia_container_toolkit", "nvidia_driver", "preflight", "bundle"),
)
#: The most used settings, by purpose, each with an example. In the file, the first is set and all others are comments.
MOST_SET: dict[str, dict[str, str]] = {
    "What is served": {
        "model": "8b",
        "vllm_max_model_len": "32K",
        "vllm_objective": "latency",
        "vllm_extra_args": "{max-num-seqs: 256}",
    },
    "Who may ask": {
        "vllm_host": "0.0.0.0",
        "vllm_port": "8000",
        "vllm_api_keys": '["{{ vault_vllm_api_key }}"]',
    },
    "A gateway with TLS, instead of the three above": {
        "gateway_enabled": "true",
        "gateway_names": "[llm.example.net]",
        "gateway_keys": '{ada: "{{ vault_gateway_ada }}"}',
    },
    "Weights": {
        "huggingface_token": "\"{{ lookup('ansible.builtin.env', 'HF_TOKEN') }}\"",
        "huggingface_home": "/mnt/weights/huggingface",
        "huggingface_distribution": "seed",
    },
    "Behind mirrors": {
        "docker_apt_url": "https://mirror.example.net/docker/linux/ubuntu",
        "nvidia_container_toolkit_apt_url": "https://mirror.example.net/libnvidia-container/stable/deb/$(ARCH)",
        "vllm_image": "registry.example.net/vllm/vllm-openai:v0.33.0",
        "huggingface_endpoint": "https://hub.example.net",
    },
    "How a run goes": {
        "nodes_at_a_time": "1",
        "node_lock_timeout_s": "600",
        "docker_users": "[ada]",
    },
}
HEAD = """# Every variable

Made from the specifications of the playbooks and the roles by `make docs`; a test keeps it in step. The reasons are in
each role's `defaults/main.yml`, and `ansible-doc -t role gpunode.llm.vllm` prints the same.

## A vars.yml to copy

Copy what you need, and pass the file to every playbook with `-e @vars.yml`; each reads its own settings. Values after
`#` are examples, not the defaults. You can set the same variables in an inventory's `group_vars/all.yml`, or in
`host_vars` for one node; `-e` overrides them. Only `nodes_at_a_time` must be set with `-e`, because Ansible needs it
before it reads an inventory's variables. Put secrets into a vault (`ansible-vault encrypt_string`), never on a command
line.

```yaml
# vars.yml
%s```

If the file begins with the line below, an editor with a YAML language server, such as VS Code with Red Hat's extension,
completes and explains every variable, and marks misspelt names and invalid values:

```yaml
# vars.yml
# yaml-language-server: $schema=https://raw.githubusercontent.com/gpunode/llm/main/docs/settings.schema.json
```

An installed collection has it as `docs/settings.schema.json`, below the folder that `ansible-galaxy collection list`
names. It is a JSON Schema, draft 7, for any other program as well.

## Values from a command line, a survey or `set_stats`

These pass text. Each variable is read by the type in its specification. Invalid values are refused before anything
changes, all in one message, with the name, the value and an example.

| type | how to write it |
| --- | --- |
| a boolean | `true`, `yes`, `on`, `1`; `false`, `no`, `off`, `0` |
| a list | `-e docker_users=ada,grace`, or `[ada, grace]` if an element contains a comma; one word is a list of one |
| a dictionary | `-e vllm_env=A=1,B=2`, or `{A: 1, B: 2}` if a value is not plain text |
| unset | `null` or an empty text, if the variable may be unset |
| the default | an empty text, for a number, a boolean or one of several words |

## Unknown names

Names of this collection begin with %s.
Any other name with such a beginning is refused before anything changes, with a suggestion; so is a name that differs
from a longer one on this page by one letter or by underscores. If a role outside this collection reads the same
inventory, such as geerlingguy.docker, list its names:

```yaml
# group_vars/all.yml
other_variables: [docker_compose_*, docker_install_compose]
```

A variable that only other playbooks read is also refused if it is given directly with `-e`: `-e gpus=8xH100` is for
`plan`, and `site` asks the node. In a file it is accepted, so that one file can be used for all playbooks. A variable
whose value is a template of an unknown name is refused, and does not count as unset.
"""
TABLE = "| name | type | default | |\n| --- | --- | --- | --- |\n"


def plain(description: str | list[str]) -> str:
    """A description without the markup of ansible-doc."""
    text = " ".join(description) if isinstance(description, list) else description
    text = re.sub(r"\b[CVOEM]\(([^)]*)\)", r"`\1`", text)
    return re.sub(r"P\(([^#)]*)#\w+\)", r"`\1`", text)


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def default(option: dict[str, Any]) -> str:
    value = option.get("default")
    if value is None:
        return ""
    shown = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{shown}`" if shown else '`""`'


def row(name: str, option: dict[str, Any], where: str = "") -> str:
    closed = [choice for choice in option.get("choices", ()) if choice is not None]
    kind = " \\| ".join(closed) if closed and option["type"] == "str" else option["type"]
    return f"| `{name}` | {kind} | {cell(default(option))} | {where}{cell(plain(option['description']))} |\n"


def specified(role: str) -> dict[str, dict[str, Any]]:
    """The variables of a role, each once."""
    path = CHECKOUT / "roles" / role / "meta" / "argument_specs.yml"
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"].values()
    return {name: option for entry in entries for name, option in entry["options"].items()}


def handed_over(value: Any) -> Iterator[str]:
    """What the playbooks give to roles themselves."""
    if isinstance(value, dict):
        # A play has them for all of its roles, and a task for one.
        if any(key == "hosts" or key.endswith(("_role", "import_tasks")) for key in value):
            yield from value.get("vars", {})
        for item in value.values():
            yield from handed_over(item)
    elif isinstance(value, list):
        for item in value:
            yield from handed_over(item)


def of_playbooks() -> str:
    """Each of their variables once, with the playbooks that read it."""
    entries = yaml.safe_load(SPEC.read_text(encoding="utf-8"))["argument_specs"]
    readers: dict[str, list[str]] = {}
    options: dict[str, Any] = {}
    for playbook, entry in entries.items():
        for name, option in entry["options"].items():
            readers.setdefault(name, []).append(playbook)
            options[name] = option
    return "".join(row(name, option, f"*{', '.join(readers[name])}*: ") for name, option in options.items())


def of_role(role: str, given: set[str]) -> str:
    """A role's variables: those for users as a table, and in a line what the playbooks hand over."""
    options = specified(role)
    rows = "".join(row(name, option) for name, option in options.items() if name not in given)
    handed = ", ".join(f"`{name}`" for name in options if name in given)
    text = f"\n## {role}\n\n" + (f"{TABLE}{rows}" if rows else "")
    return text + (
        f"\nThe playbooks set these themselves; for whoever calls the role alone: {handed}.\n" if handed else ""
    )


def vars_file() -> str:
    """What most people set, with what each is for."""
    entries = yaml.safe_load(SPEC.read_text(encoding="utf-8"))["argument_specs"].values()
    known = {name: option for entry in entries for name, option in entry["options"].items()}
    known |= {name: option for role in ROLES for name, option in specified(role).items()}
    parts = []
    for title, values in MOST_SET.items():
        parts.append(f"\n# --- {title} ---\n")
        for name, value in values.items():
            about = textwrap.wrap(plain(known[name]["description"]).replace("`", ""), 118)
            parts.append(
                "".join(f"# {line}\n" for line in about) + f"{'' if name == 'model' else '# '}{name}: {value}\n"
            )
    return "".join(parts)


def page() -> str:
    """All of it."""
    texts = [path.read_text(encoding="utf-8") for path in PLAYBOOKS.rglob("*.yml")]
    # What a playbook reads as well, a user may set.
    read = set(re.findall(r"\w+", " ".join(re.findall(r"{{.*?}}", " ".join(texts), re.DOTALL))))
    given = {name for text in texts for name in handed_over(yaml.safe_load(text))} - read
    prefixes = ", ".join(f"`{role}_`" for role in sorted(ROLES))
    text = HEAD % (vars_file(), prefixes)
    text += f"\n## The playbooks\n\n{TABLE}{of_playbooks()}"
    return text + "".join(of_role(role, given) for role in ROLES)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
