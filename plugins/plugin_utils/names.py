# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of variables: which are misspelt, which are another playbook's, and which nobody knows."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, TemplateSyntaxError, nodes

from . import values

#: What our roles and playbooks register, set or compute: known to a later play of the same run. A test keeps the list.
OUTCOMES = frozenset(
    (
        "docker_apt_source",
        "docker_changed",
        "docker_mirror",
        "docker_registry",
        "docker_repository",
        "docker_rpm_source",
        "docker_wanted",
        "gateway_changed",
        "gateway_findings",
        "gateway_needs",
        "huggingface_access",
        "huggingface_fetch_seconds",
        "huggingface_pruned",
        "huggingface_seed",
        "huggingface_seed_offer",
        "huggingface_seed_secret",
        "huggingface_verified",
        "huggingface_weights",
        "node_instances",
        "nvidia_container_toolkit_apt_source",
        "nvidia_container_toolkit_changed",
        "nvidia_container_toolkit_mirror",
        "nvidia_container_toolkit_repository",
        "nvidia_container_toolkit_rpm_source",
        "nvidia_container_toolkit_wanted",
        "preflight_check",
        "preflight_plan",
        "vllm_changed",
        "vllm_engine_key",
        "vllm_left",
        "vllm_plan",
        "vllm_planned",
        "vllm_ready",
        "vllm_removed",
        "vllm_status",
        "vllm_took",
        "weights_address",
        "weights_plan",
    )
)
#: Names of the releases before 1.0, and what to set in their place.
RENAMED = {
    "preflight_model": "model",
    "preflight_models": "models",
    "preflight_gpus": "vllm_gpus",
    "preflight_options": "a variable for each option, such as vllm_port",
    "preflight_gather_facts": "vllm_plan_gather_facts",
    "preflight_lock_timeout_s": "node_lock_timeout_s",
    "preflight_huggingface_client": "huggingface_pip_index_url and huggingface_venv",
    "preflight_huggingface_elsewhere": "preflight_hub_elsewhere",
    **{
        f"preflight_huggingface_{name}": f"huggingface_{name}"
        for name in ("ca_path", "endpoint", "environment", "home", "source", "token", "token_path", "update")
    },
}
#: The variable that lists what is others'.
OTHERS = "other_variables"
#: The variable that parts the nodes of a play.
WAVES = "nodes_at_a_time"
#: A shorter name is near to too many.
LONG = 8
#: A word with fewer letters begins too many.
SHORT = 3
#: What Jinja and Ansible know in every template, beside variables.
GLOBALS = frozenset((*Environment().globals, "lookup", "query", "q", "now", "undef", "omit", "vars"))
#: Roots of what is known only once the node was asked, or another host.
LATER = ("ansible_", "hostvars")
PARSER = Environment()


@lru_cache(maxsize=1)
def prefixes() -> tuple[str, ...]:
    """What names of ours begin with."""
    return (*(f"{path.parents[1].name}_" for path in values.HOME.glob("roles/*/defaults/main.yml")), "node_lock_")


@lru_cache(maxsize=1)
def _squeezed() -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Our longer names without their underscores, and the same without one letter more."""
    whole = {_squeeze(name): name for name in values.options() if "_" in name and len(name) >= LONG}
    return whole, {short: name for text, name in whole.items() for short in _one_less(text)}


def _squeeze(name: str) -> str:
    return name.replace("_", "").casefold()


def _one_less(text: str) -> Iterator[str]:
    return (text[:at] + text[at + 1 :] for at in range(len(text)))


def meant(name: str) -> str:
    """The variable of ours whose name is the nearest, or nothing."""
    known = values.options()
    whole, shorter = _squeezed()
    text = _squeeze(name)
    near = whole.get(text) or shorter.get(text) or next((whole[less] for less in _one_less(text) if less in whole), "")
    if near or not name.startswith(prefixes()):
        return near
    prefix = next(prefix for prefix in prefixes() if name.startswith(prefix))
    rest = name.removeprefix(prefix)
    ours = {item.removeprefix(prefix): item for item in known if item.startswith(prefix)}
    (close,) = difflib.get_close_matches(rest, ours, n=1, cutoff=0.6) or ("",)
    begun = max((part for part in ours if len(part) >= SHORT and rest.startswith(part)), key=len, default="")
    return ours.get(close or begun) or next((item for item in known if item.endswith(f"_{rest}")), "")


def misspelt(names: Iterable[str], others: Sequence[str]) -> list[str]:
    """A sentence for each name that looks like one of ours and that neither we know nor others claim."""
    known = values.options()
    found, strangers = [], []
    for name in names:
        ours = name.startswith(prefixes())
        if name in RENAMED:
            found.append(f"{name} is no longer read: set {RENAMED[name]}.")
            continue
        if name in known or name in OUTCOMES or not (ours or _may_be_near(name)):
            continue
        near = meant(name)
        if not (ours or near) or any(fnmatchcase(name, other) for other in others):
            continue
        if near:
            found.append(f"{name} is no variable of this collection: did you mean {near}? {_way_out(name)}")
        else:
            strangers.append(name)
    if strangers:
        listed = f"{', '.join(sorted(strangers))} {'are no variables' if strangers[1:] else 'is no variable'}"
        found.append(f"{listed} of this collection, and near to none. {_way_out(*strangers)}")
    return found


def _may_be_near(name: str) -> bool:
    return len(name) >= LONG and not name.startswith(("_", *LATER))


def _way_out(*names: str) -> str:
    return f"If another role reads {'them' if names[1:] else 'it'}, name {'them' if names[1:] else 'it'} in {OTHERS}."


def misplaced(given: Iterable[str], playbooks: Collection[str]) -> list[str]:
    """A sentence for each variable of other playbooks that was given to these."""
    takers = values.playbooks()
    taken = {name for playbook in playbooks for name in takers.get(playbook, ())}
    found = []
    for name in given:
        theirs = [playbook for playbook, names in takers.items() if name in names]
        if theirs and name not in taken:
            own = next((long for long in (f"vllm_{name}", f"huggingface_{name}") if long in values.options()), "")
            found.append(
                f"{name} is a variable of {_listed(theirs)}, and {_listed(playbooks)} would not read it"
                + (f": did you mean {own}?" if own else ".")
            )
    return found


def _listed(playbooks: Iterable[str]) -> str:
    return " and ".join(f"gpunode.llm.{playbook}" for playbook in playbooks)


def played(arguments: Iterable[str]) -> list[str]:
    """The playbooks of this collection that were called by name or by path; nothing where there is any other one."""
    found = []
    for argument in arguments:
        path = Path(argument)
        if argument.startswith("gpunode.llm."):
            name = argument.removeprefix("gpunode.llm.").removesuffix(".yml")
        elif path.resolve().parent in (values.HOME, values.HOME / "playbooks"):
            name = path.stem
        else:
            name = ""
        if name not in values.playbooks():
            return []
        found.append(name)
    return found


def roots(value: Any, known: Mapping[str, Any], seen: set[str] | None = None) -> set[str]:
    """The names that a value is a template of, and those that these are templates of."""
    seen = set() if seen is None else seen
    for text in _templates(value):
        for name in _free(text) - seen - GLOBALS:
            seen.add(name)
            roots(known.get(name), known, seen)
    return seen


def _free(text: str) -> set[str]:
    """The names that a template reads and does not set itself; none of one that Ansible will refuse."""
    try:
        # A backslash means itself, as in a play.
        found = list(PARSER.parse(text.replace("\\", "\\\\")).find_all(nodes.Name))
    except TemplateSyntaxError:
        return set()
    return {node.name for node in found if node.ctx == "load"} - {node.name for node in found if node.ctx == "store"}


def _templates(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _templates(item)
    elif isinstance(value, str) and ("{{" in value or "{%" in value):
        yield value


def unknown(names: Collection[str], known: Mapping[str, Any]) -> set[str]:
    """Those that are no variable now, and will be none later."""
    ours = values.options().keys() | OUTCOMES
    return {name for name in names if name not in known and name not in ours and not name.startswith(LATER)}


def unresolved(name: str, value: Any, error: str, known: Mapping[str, Any]) -> str:
    """A sentence about a template that cannot be worked out; nothing where what it follows from comes later."""
    undefined = re.search(r"'(\w+)' is undefined", error)
    if undefined:
        missing = unknown([undefined[1]], known)
        near = difflib.get_close_matches(undefined[1], {*known} - {name} - roots(value, known), n=1)
        hint = f": did you mean {near[0]}?" if near else "."
        return f"{name} is a template of {undefined[1]}, which is no variable{hint}" if missing else ""
    ours = values.options()
    later = any(root.startswith(LATER) or (root not in known and root in ours) for root in roots(value, known))
    return "" if later else f"{name} is a template that cannot be worked out: {error.rstrip('.')}."
