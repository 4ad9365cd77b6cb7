# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of variables: find misspelt ones, ones of another playbook, and unknown ones."""

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

#: Names that our roles and playbooks register, set or compute; a later play of the run may use them. A test checks it.
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
        "gateway_token_limits",
        "huggingface_access",
        "huggingface_fetch_seconds",
        "huggingface_pruned",
        "huggingface_seed",
        "huggingface_seed_offer",
        "huggingface_seed_secret",
        "huggingface_verified",
        "huggingface_weights",
        "monitoring_findings",
        "monitoring_here",
        "node_instances",
        "nvidia_container_toolkit_apt_source",
        "nvidia_container_toolkit_changed",
        "nvidia_container_toolkit_mirror",
        "nvidia_container_toolkit_repository",
        "nvidia_container_toolkit_rpm_source",
        "nvidia_container_toolkit_wanted",
        "nvidia_driver_changed",
        "nvidia_driver_plan",
        "nvidia_driver_repository",
        "preflight_check",
        "preflight_plan",
        "router_changed",
        "router_findings",
        "router_here",
        "router_joined",
        "router_left",
        "router_listens",
        "router_replaced",
        "router_upstream",
        "router_workers_file",
        "router_workers_here",
        "usage_changed",
        "usage_info",
        "vllm_changed",
        "vllm_engine_key",
        "vllm_engine_listed",
        "vllm_group_nodes",
        "vllm_left",
        "vllm_link",
        "vllm_plan",
        "vllm_planned",
        "vllm_pulled",
        "vllm_ready",
        "vllm_removed",
        "vllm_status",
        "vllm_took",
        "vllm_trials",
        "weights_address",
        "weights_plan",
    )
)
#: Names of the releases before 1.0, and what to set instead.
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
#: The variable that lists names of other roles.
OTHERS = "other_variables"
#: The variable that splits a play's nodes into batches.
WAVES = "nodes_at_a_time"
#: Shorter names resemble too many others.
LONG = 8
#: Shorter words are the beginning of too many names.
SHORT = 3
#: Names that Jinja and Ansible define in every template.
GLOBALS = frozenset((*Environment().globals, "lookup", "query", "q", "now", "undef", "omit", "vars"))
#: Beginnings of names whose values are known only after a node has answered, or inside a role.
LATER = ("ansible_", "hostvars", "role_path")
PARSER = Environment()


@lru_cache(maxsize=1)
def prefixes() -> tuple[str, ...]:
    """The prefixes of our variables."""
    return (*(f"{path.parents[1].name}_" for path in values.HOME.glob("roles/*/defaults/main.yml")), "node_lock_")


@lru_cache(maxsize=1)
def _squeezed() -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Our longer names without underscores, and the same names with one letter left out."""
    whole = {_squeeze(name): name for name in values.options() if "_" in name and len(name) >= LONG}
    return whole, {short: name for text, name in whole.items() for short in _one_less(text)}


def _squeeze(name: str) -> str:
    return name.replace("_", "").casefold()


def _one_less(text: str) -> Iterator[str]:
    return (text[:at] + text[at + 1 :] for at in range(len(text)))


def meant(name: str) -> str:
    """The most similar name among our variables; empty if none is similar."""
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
    """A sentence for each name that resembles one of ours, is unknown, and is not listed as another role's."""
    known = values.options()
    problems, strangers = [], []
    for name in names:
        ours = name.startswith(prefixes())
        if name in RENAMED:
            problems.append(f"{name} is no longer read: set {RENAMED[name]}.")
            continue
        if name in known or name in OUTCOMES or not (ours or _may_be_near(name)):
            continue
        near = meant(name)
        if not (ours or near) or any(fnmatchcase(name, other) for other in others):
            continue
        if near:
            problems.append(f"{name} is not a variable of this collection: did you mean {near}? {_way_out(name)}")
        else:
            strangers.append(name)
    if strangers:
        are, resemble = ("are not variables", "resemble") if strangers[1:] else ("is not a variable", "resembles")
        listed = f"{', '.join(sorted(strangers))} {are} of this collection, and {resemble} none"
        problems.append(f"{listed}. {_way_out(*strangers)}")
    return problems


def _may_be_near(name: str) -> bool:
    return len(name) >= LONG and not name.startswith(("_", *LATER))


def _way_out(*names: str) -> str:
    return f"If another role reads {'them' if names[1:] else 'it'}, name {'them' if names[1:] else 'it'} in {OTHERS}."


def misplaced(given: Iterable[str], playbooks: Collection[str]) -> list[str]:
    """A sentence for each variable that these playbooks do not read but others do."""
    takers = values.playbooks()
    taken = {name for playbook in playbooks for name in takers.get(playbook, ())}
    problems = []
    for name in given:
        theirs = [playbook for playbook, names in takers.items() if name in names]
        if theirs and name not in taken:
            own = next((long for long in (f"vllm_{name}", f"huggingface_{name}") if long in values.options()), "")
            hint = f": did you mean {own}?" if own else "."
            do = "does" if len(playbooks) == 1 else "do"
            problems.append(f"{name} is a variable of {_listed(theirs)}; {_listed(playbooks)} {do} not read it{hint}")
    return problems


def _listed(playbooks: Iterable[str]) -> str:
    return " and ".join(f"gpunode.llm.{playbook}" for playbook in playbooks)


def played(arguments: Iterable[str]) -> list[str]:
    """The playbooks of this collection among the arguments; empty if there is any other playbook."""
    names = []
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
        names.append(name)
    return names


def roots(value: Any, known: Mapping[str, Any], seen: set[str] | None = None) -> set[str]:
    """The names that a value's templates read, and those that the templates of these names read in turn."""
    seen = set() if seen is None else seen
    for text in _templates(value):
        for name in _free(text) - seen - GLOBALS:
            seen.add(name)
            roots(known.get(name), known, seen)
    return seen


def _free(text: str) -> set[str]:
    """The names that a template reads and does not set; empty for a template with a syntax error."""
    try:
        # A backslash is literal, as in a play.
        used = list(PARSER.parse(text.replace("\\", "\\\\")).find_all(nodes.Name))
    except TemplateSyntaxError:
        return set()
    return {node.name for node in used if node.ctx == "load"} - {node.name for node in used if node.ctx == "store"}


def _templates(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _templates(item)
    elif isinstance(value, str) and ("{{" in value or "{%" in value):
        yield value


def unknown(names: Collection[str], known: Mapping[str, Any]) -> set[str]:
    """The names that are not variables now and will not be later."""
    ours = values.options().keys() | OUTCOMES
    return {name for name in names if name not in known and name not in ours and not name.startswith(LATER)}


def unresolved(name: str, value: Any, error: str, known: Mapping[str, Any]) -> str:
    """A sentence about a template that cannot be resolved; empty if it depends on values that come later."""
    undefined = re.search(r"'(\w+)' is undefined", error)
    if undefined:
        missing = unknown([undefined[1]], known)
        near = difflib.get_close_matches(undefined[1], {*known} - {name} - roots(value, known), n=1)
        hint = f": did you mean {near[0]}?" if near else "."
        return f"{name} is a template of {undefined[1]}, which is not a variable{hint}" if missing else ""
    ours = values.options()
    later = any(root.startswith(LATER) or (root not in known and root in ours) for root in roots(value, known))
    return "" if later else f"{name} is a template that cannot be resolved: {error.rstrip('.')}."
