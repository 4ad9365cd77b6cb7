# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Refuse a model that would silently take the place of another one on the node, since both end in the same name.

An instance is called by the last part of its repository, and two organisations may use that. A key of the catalogue
stands for whatever its entry says, so its instance follows the entry to another repository.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from .catalog import Catalog
from .messages import siblings
from .request import HostRequest, InstanceRequest


def problems(host_request: HostRequest, on_node: Mapping[str, str], catalog: Catalog) -> list[str]:
    """A finding for each model whose name is another one's.

    Args:
        on_node: the repository or folder of each instance that the node has, by its name; empty where unknown.
    """
    if host_request.remove_unlisted:  # what is not listed goes, by the user's word
        return []
    listed = Counter(one.name for one in host_request.instances)  # two of one name are a finding of their own
    return [
        f"{one.name} serves {on_node[one.name]} on this node, and {one.model.repo_id} would take its place: write"
        f" models: [{{model: {one.model.key}, name: NAME}}] with another name to serve both, or with {one.name} to"
        " replace it."
        for one in host_request.instances
        if listed[one.name] == 1 and _by_chance(one) and not _same(one, on_node.get(one.name, ""), catalog)
    ]


def _by_chance(request: InstanceRequest) -> bool:
    """Whether the name comes from a repository or a folder."""
    return "/" in request.model.key and not request.named


def _same(request: InstanceRequest, other: str, catalog: Catalog) -> bool:
    """Whether the instance on the node serves this model, or may be taken to, where its model is not known."""
    others = request.weights in ("smaller", "fastest") and not request.model.missing
    smaller = siblings(request.model, catalog) if others else []
    known = {model.repo_id.rstrip("/").casefold() for model in (request.model, *smaller)}
    return not other or other.rstrip("/").casefold() in known
