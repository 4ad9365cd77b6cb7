# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which node of a play fetches a model from the hub, and which take it from that node.

Two questions, asked by playbooks/site.yml. Before access is checked: ``seeders``, from the nodes' plans. After it:
``share``, from what preflight found, where each instance that will come from another node carries that node's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..module_utils.hub.snapshot import Snapshot, at_commit, parse_snapshots

Instance = Mapping[str, Any]


def seeders(plans: Mapping[str, Sequence[Instance]], node: str) -> list[dict[str, Any]]:
    """What this node takes from others. The first node of the play that lists a snapshot is its seeder.

    The same files are meant: a node that leaves out fewer of them fetches for itself.
    """
    first: dict[Snapshot, str] = {}
    for name, instances in plans.items():
        for snapshot in parse_snapshots(instances):
            first.setdefault(replace(snapshot, branch=""), name)
    own = [replace(snapshot, branch="") for snapshot in parse_snapshots(plans.get(node, []))]
    return [
        {"repo_id": one.repo_id, "revision": one.revision, "seeder": first[one]} for one in own if first[one] != node
    ]


def failure(results: Sequence[Mapping[str, Any]]) -> str:
    """The message of the first result that failed or has findings; empty if there is none."""
    for result in results:
        if result.get("findings"):
            return " ".join(result["findings"])
        if result.get("failed"):
            return str(result.get("msg") or "")
    return ""


@dataclass(frozen=True)
class Share:
    """What a node does about its weights. ``fetch``: what it has or downloads itself. ``receive``: what it takes from
    which seeder. ``serve``, ``receivers``: what it hands to whom, in this play."""

    fetch: Sequence[Instance]
    receive: Sequence[Mapping[str, Any]]
    serve: Sequence[Instance]
    receivers: Sequence[str]


def share(checks: Mapping[str, Mapping[str, Any]], node: str, update: bool) -> tuple[Sequence[Instance], Share]:
    """A node's instances, each pinned to a commit, and its part. ``checks``: what preflight found of every node."""
    found = {name: check["instances"] for name, check in checks.items() if "instances" in check}
    pinned = {name: [_pinned(one, found, update) for one in instances] for name, instances in found.items()}
    lacking = [name for name in found if not checks[name]["settled"]["weights"]]
    mine = pinned.get(node, [])
    asked = {name: {_asked(one) for one in pinned[name] if one.get("seeder") == node} for name in lacking}
    names = dict.fromkeys(one["seeder"] for one in mine if one.get("seeder"))
    return [_plain(one) for one in mine], Share(
        fetch=[_plain(one) for one in mine if not one.get("seeder")],
        receive=[{"seeder": n, "instances": [_plain(one) for one in mine if one.get("seeder") == n]} for n in names],
        serve=[_plain(one) for one in mine if any(_asked(one) in wanted for wanted in asked.values())],
        receivers=[name for name, wanted in asked.items() if wanted],
    )


def _pinned(instance: Instance, found: Mapping[str, Sequence[Instance]], update: bool) -> Instance:
    """What comes from a seeder is the commit that the seeder has: only it has asked the hub what a branch stands for.

    A node that has recorded a commit stays with it, as it does with a hub.
    """
    for one in found.get(str(instance.get("seeder")), []):
        if _asked(one) == _asked(instance) and one.get("branch") and (update or not instance.get("branch")):
            return at_commit(instance, str(one["revision"]), str(one["branch"]))
    return instance


def _asked(instance: Instance) -> tuple[str, str]:
    return instance["repo_id"], instance.get("branch") or instance.get("revision") or "main"


def _plain(instance: Instance) -> Instance:
    return {key: value for key, value in instance.items() if key != "seeder"}
