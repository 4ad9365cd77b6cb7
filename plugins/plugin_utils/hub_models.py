# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Models that the catalogue does not have: who is asked for them, and the catalogue that has them.

The node asks the hub in the round trip that reads its GPUs. Where GPUs are given and no node is asked, the same module
is called for this alone: a play for no node is one for localhost.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible import constants

from ..module_utils.node import files, lock
from .planner.catalog import Catalog, Draft
from .planner.catalog_files import load_catalog
from .planner.fetched import chosen
from .planner.named import adapters, adapters_requested, drafts_requested, entries, not_in_catalog

#: The options of an action that plans.
OPTIONS: Mapping[str, Any] = {"hub": {"type": "dict", "default": {}}, "hub_token": {"type": "str", "no_log": True}}
#: Their documentation, as a documentation fragment has it.
DOCUMENTED: Mapping[str, Any] = {
    "hub": {
        "description": [
            "How to ask the hub about models that are not in the catalogue. The keys are C(endpoint), C(home), "
            "C(source), C(token_path), C(ca_path) and C(update), as M(gpunode.llm.model_info) takes them. Other keys "
            "are ignored.",
            "The node asks the hub, with the environment of the task, in the call that reads its GPUs. With O(gpus) "
            "there is an extra call for this.",
        ],
        "type": "dict",
        "default": {},
    },
    "hub_token": {"description": "The token for these requests to the hub.", "type": "str"},
}
#: The keys of `hub` that model_info takes; the rest is for others.
HUB = ("ca_path", "endpoint", "home", "source", "token_path", "update")
#: The module that answers, in place of one that asks no hub.
MODULE = "gpunode.llm.model_info"


def known(options: Mapping[str, Any]) -> Catalog:
    """The catalogue with the user's own entries and presets."""
    extra = (options["extra_models"], options["extra_gpus"], options["extra_engines"])
    return load_catalog(*extra, presets_dir=str(options.get("presets_dir") or ""))


def question(models: Sequence[Any], options: Mapping[str, Any], catalog: Catalog) -> dict[str, Any]:
    """The options of model_info for models that the catalogue does not have, adapters and drafts; empty without any.

    Raises ValueError for a name that no repository can have.
    """
    beside = [*_adapters(models, options), *_drafts(models, options, catalog)]
    wanted = list({entry["name"]: entry for entry in (*not_in_catalog(models, catalog), *beside)}.values())
    if not wanted:
        return {}
    return {**access(options), "models": wanted}


def access(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of model_info that say how to ask the hub."""
    hub = {name: options["hub"][name] for name in HUB if options["hub"].get(name) not in (None, "")}
    return {**hub, **({"token": options["hub_token"]} if options["hub_token"] else {})}


def with_answers(options: Mapping[str, Any], described: Mapping[str, Any], catalog: Catalog) -> Catalog:
    """The catalogue with the models that were asked for. Raises ValueError, with a line for each that is none."""
    wanted = options["models"] or [options.get("model")]
    names = {entry["name"] for entry in _adapters(wanted, options)}
    drafted = [entry["name"] for entry in _drafts(wanted, options, catalog)]
    by_name = adapters({name: answer for name, answer in described.items() if name in names})
    answers = {name: _named(name, answer) if name in drafted else answer for name, answer in described.items()}
    models = entries({name: answer for name, answer in answers.items() if name not in names}, catalog)
    more = known({**options, "extra_models": {**(options["extra_models"] or {}), **models}}) if models else catalog
    drafts = {name: Draft(chosen(more.models[name]), described[name]["config"]) for name in drafted}
    return replace(more, adapters=by_name, drafts=drafts) if by_name or drafts else more


def _named(draft: str, answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """An answer about a draft: that the hub cannot be reached does not say for what, and the model may need no hub."""
    if answer.get("kind") != "unreachable":
        return answer
    return {**answer, "refused": f"The draft {draft} is not known here (vllm_speculative): {answer['refused']}"}


def _drafts(models: Sequence[Any], options: Mapping[str, Any], catalog: Catalog) -> list[dict[str, str]]:
    return drafts_requested({"models": models, "speculative": options.get("speculative")}, catalog)


def _adapters(models: Sequence[Any], options: Mapping[str, Any]) -> list[dict[str, str]]:
    return adapters_requested({"models": models, "lora": options.get("lora")})


def shared(described: Mapping[str, Any]) -> dict[str, Any]:
    """The answers of one node; where it does not reach the hub, those of another node of this run that did.

    With the weights handed from node to node only the first one needs a way out. The others learn that they have none
    long after it has its answer.
    """
    own = {name: answer for name, answer in described.items() if "refused" not in answer and "folder" not in answer}
    others: dict[str, Any] = {}
    place = Path(constants.DEFAULT_LOCAL_TMP) / "gpunode-models.json"
    # Each fork of this run has a node, and many have their answers at the same time.
    with suppress(OSError, ValueError), lock.alone(place.parent):
        others = json.loads(files.text_of(place) or "{}")
        if own.keys() - others.keys():
            files.write_atomically(place, json.dumps({**others, **own}), power_cut=False)
    return {
        name: others.get(name, answer) if answer.get("kind") == "unreachable" else answer
        for name, answer in described.items()
    }
