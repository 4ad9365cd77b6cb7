# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of a node's instances are not in the list of what it is to serve: they go on serving until somebody says so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .catalog_files import load_catalog
from .request import read_request

#: What removes them.
REMEDY = "-e vllm_remove_unlisted=true removes"


def listed(models: Sequence[Any], extra_models: Mapping[str, Any] | None = None) -> frozenset[str] | None:
    """The names of the instances of a list of models; None where there is none, or one that cannot be read."""
    if not models:
        return None
    try:
        request = read_request({"models": list(models)}, load_catalog(extra_models))
    except ValueError:
        return None
    return None if len(request.instances) < len(models) else frozenset(one.name for one in request.instances)


def unlisted(here: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Those that are on the node and not wanted."""
    return sorted(set(here) - set(wanted))


def sentence(names: Sequence[str]) -> str:
    """What to say of them at the end of a play; empty where there are none."""
    if not names:
        return ""
    if len(names) == 1:
        return f"{names[0]} is no longer listed and stays: {REMEDY} it."
    return f"{', '.join(names[:-1])} and {names[-1]} are no longer listed and stay: {REMEDY} them."
