# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which node of a play fetches a model from the hub, and which take it from that node.

playbooks/site.yml calls ``seeders`` with the nodes' plans before access is checked, and ``share`` with preflight's
results after it. There each instance whose weights come from another node has that node's name in ``seeder``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...module_utils.hub.snapshot import Snapshot, at_commit, beside, parse_snapshots, repositories

Instance = Mapping[str, Any]


def seeders(plans: Mapping[str, Sequence[Instance]], node: str) -> list[dict[str, Any]]:
    """What this node downloads from others. The first node of the play that lists a snapshot is its seeder.

    A seeder must have the same files: a node with other ``ignore_patterns`` downloads for itself.
    """
    first: dict[Snapshot, str] = {}
    for name, instances in plans.items():
        for snapshot in parse_snapshots(instances):
            first.setdefault(replace(snapshot, branch=""), name)
    own = [replace(snapshot, branch="") for snapshot in parse_snapshots(plans.get(node, []))]
    return [
        {"repo_id": snapshot.repo_id, "revision": snapshot.revision, "seeder": first[snapshot]}
        for snapshot in own
        if first[snapshot] != node
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
    """What a node does about its weights. ``fetch``: instances that it has or downloads itself. ``receive``: instances
    by seeder. ``serve``: instances that it serves to the nodes ``receivers`` in this play."""

    fetch: Sequence[Instance]
    receive: Sequence[Mapping[str, Any]]
    serve: Sequence[Instance]
    receivers: Sequence[str]


def share(checks: Mapping[str, Mapping[str, Any]], node: str, update: bool) -> tuple[Sequence[Instance], Share]:
    """A node's instances, each pinned to a commit, and its share. ``checks``: preflight's result of every node."""
    listed = {name: check["instances"] for name, check in checks.items() if "instances" in check}
    pinned = {name: [_pinned(instance, listed, update) for instance in instances] for name, instances in listed.items()}
    lacking = [name for name in listed if not checks[name]["settled"]["weights"]]
    apart = {name: list(_apart(instances)) for name, instances in pinned.items()}
    mine = apart.get(node, [])
    requested = {
        name: {_snapshot(instance) for instance in apart[name] if instance.get("seeder") == node} for name in lacking
    }
    names = dict.fromkeys(instance["seeder"] for instance in mine if instance.get("seeder"))
    return [_plain(instance) for instance in pinned.get(node, [])], Share(
        fetch=[_plain(instance) for instance in mine if not instance.get("seeder")],
        receive=[
            {"seeder": n, "instances": [_plain(instance) for instance in mine if instance.get("seeder") == n]}
            for n in names
        ],
        serve=[
            _plain(instance) for instance in mine if any(_snapshot(instance) in wanted for wanted in requested.values())
        ],
        receivers=[name for name, wanted in requested.items() if wanted],
    )


def _apart(instances: Sequence[Instance]) -> Iterator[Instance]:
    """Each model, adapter and draft by itself: another node may have the one and not the other."""
    for repository in repositories(instances):
        yield {key: value for key, value in repository.items() if key not in ("lora", "draft")}


def _pinned(instance: Instance, listed: Mapping[str, Sequence[Instance]], update: bool) -> Instance:
    """Pin an instance to the commit of its seeder: only the seeder has resolved the branch at the hub.

    A node that has recorded a commit keeps it, as it does with a hub, unless ``update`` is set.
    """
    for other in listed.get(str(instance.get("seeder")), []):
        if _snapshot(other) == _snapshot(instance) and other.get("branch") and (update or not instance.get("branch")):
            return at_commit(instance, str(other["revision"]), str(other["branch"]))
    return instance


def _snapshot(instance: Instance) -> tuple[str, str]:
    return instance["repo_id"], instance.get("branch") or instance.get("revision") or "main"


def _plain(instance: Instance) -> Instance:
    plain = {key: value for key, value in instance.items() if key != "seeder"}
    return beside(plain, _plain)
