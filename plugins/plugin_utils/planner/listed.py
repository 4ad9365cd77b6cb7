# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find a node's instances that are no longer in its list of models. They keep serving until the user removes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .catalog_files import load_catalog
from .named import called, not_in_catalog
from .request import instance_name, read_request

#: The command-line option that removes them.
REMEDY = "-e vllm_remove_unlisted=true removes"


def listed(models: Sequence[Any], extra_models: Mapping[str, Any] | None = None) -> frozenset[str] | None:
    """Names of the instances of a list of models; None if the list is empty or cannot be read."""
    if not models:
        return None
    try:
        catalog = load_catalog(extra_models)
        # Such a model need not be known to tell what its instance is called.
        named = {model["name"] for model in not_in_catalog(models, catalog)}
        items = [dict(item) if isinstance(item, Mapping) else {"model": item} for item in models]
        names = [_name(item) for item in items if item.get("model") in named]
        known = [item for item in items if item.get("model") not in named]
        names += [request.name for request in read_request({"models": known}, catalog).instances] if known else []
    except ValueError:
        return None
    return None if len(names) < len(models) else frozenset(names)


def _name(item: Mapping[str, Any]) -> str:
    return instance_name(item.get("name") or called(str(item["model"])))


def unlisted(present: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Names of instances that are on the node but not wanted, sorted."""
    return sorted(set(present) - set(wanted))


def sentence(names: Sequence[str]) -> str:
    """The notice about them at the end of a play; empty if there are none."""
    if not names:
        return ""
    if len(names) == 1:
        return f"{names[0]} is no longer listed and stays: {REMEDY} it."
    return f"{', '.join(names[:-1])} and {names[-1]} are no longer listed and stay: {REMEDY} them."
