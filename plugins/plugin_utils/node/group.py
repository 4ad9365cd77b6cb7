# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rank of an engine that runs over several nodes, as a service of its node: what it shares with the other ranks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from ...module_utils.instance import names
from ..planner import group as planner_group

#: Variables that each rank has its own of. All others must be the same on every node.
OWN_VARIABLES = ("VLLM_HOST_IP", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "NCCL_IB_HCA")
#: Where RDMA adapters are; a container gets all of it.
RDMA = "/dev/infiniband"
#: Seconds that a start of a rank waits less than systemd lets it: it is to end by itself.
MARGIN_S = 20


def of(instance: Mapping[str, Any]) -> Mapping[str, Any]:
    """The group of an instance of a plan; empty if it runs on one node."""
    return instance.get("group") or {}


def rank_of(instance: Mapping[str, Any]) -> int:
    """Its place in its group; 0 also for an engine on one node, which has its own head."""
    return int(of(instance).get("rank") or 0)


def is_headless(instance: Mapping[str, Any]) -> bool:
    """Whether it has no API: another node has the head of its engine."""
    return rank_of(instance) > 0


def digest(image: str, config: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    """A digest of all that the ranks of an engine must have in common; it holds no secret."""
    options = {name: config[name] for name in sorted(config) if name not in planner_group.OWN_OPTIONS}
    variables = {name: str(environment[name]) for name in sorted(environment) if name not in OWN_VARIABLES}
    text = json.dumps([image, options, variables], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def recorded(
    instance: Mapping[str, Any], config: Mapping[str, Any], environment: Mapping[str, Any], docker: str
) -> dict[str, Any] | None:
    """The group as the record of an instance has it, where programs of the node read it; None for one node."""
    group, name = of(instance), str(instance["name"])
    if not group or instance.get("first"):
        return None
    return {
        "size": int(group["size"]),
        "rank": rank_of(instance),
        "nodes": list(group["nodes"]),
        "addresses": list(group["addresses"]),
        "port": int(group["master_port"]) + names.PEER_PORTS,
        "state": names.group_state(names.unit_of(name)),
        "unit": names.peer_unit(name),
        "unit_file": f"{names.UNIT_DIR}/{names.peer_unit(name)}",
        "docker": docker,
        "digest": digest(str(instance.get("image") or ""), config, environment),
    }


def devices(instance: Mapping[str, Any]) -> list[str]:
    """The devices of its node that it needs for the traffic between nodes."""
    return [RDMA] if of(instance).get("hcas") else []


# -- what the playbook hands from node to node ------------------------------------------------------------------------
def place(hosts: Sequence[str], node: str, listed: Sequence[str] = ()) -> dict[str, Any]:
    """The nodes that an engine of this one may run over, as the planner takes them."""
    nodes = list(listed or hosts)
    return {"nodes": nodes, "rank": nodes.index(node)} if node in nodes else {}


def _links(instance: Mapping[str, Any], links: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What each node of its group told of its network; empty if one of them did not."""
    known = [links.get(node) or {} for node in of(instance)["nodes"]]
    return known if all(link.get("address") for link in known) else []


def joined(instances: Sequence[Mapping[str, Any]], links: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The instances of a plan, those over several nodes with the addresses of the nodes and with this one's network.

    ``links``: what node_link_info returned, by node. Raises ValueError for addresses that other nodes do not reach.
    """
    return [_joined(instance, links) if of(instance) else instance for instance in instances]


def _joined(instance: Mapping[str, Any], links: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    known = _links(instance, links)
    if not known:
        return instance
    here, group = known[rank_of(instance)], of(instance)
    addresses = [str(link["address"]) for link in known]
    told = {"nodes": list(group["nodes"]), "rank": rank_of(instance), "head": addresses[0], "addresses": addresses}
    told |= {"interface": str(here["interface"]), "hcas": list(here["hcas"])}
    planner_group.read_group(told)
    whole = planner_group.Joined(**{**group, **told})
    config = {**instance["config"], **planner_group.options(whole)}
    return {
        **instance,
        # Not asdict(): it deep-copies lazy values of templates, which refuse that.
        "group": {part.name: getattr(whole, part.name) for part in fields(whole)},
        "config": {name: value for name, value in config.items() if value is not None},
        "env": {**planner_group.environment(whole, str(instance["device"])), **instance["env"]},
    }


def missing(
    instances: Sequence[Mapping[str, Any]],
    here: Sequence[str],
    later: Sequence[str] = (),
    ready: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[str]:
    """Why an engine of these instances cannot run now: nodes of its group that are not at it.

    ``here``: the nodes that the play works on now. ``later``: those whose turn comes later (nodes_at_a_time).
    ``ready``: what units_settled returned, by node; a node that has nothing to do has ended its play.
    """
    found = []
    here = [*here, *(node for node, state in (ready or {}).items() if state.get("settled"))]
    for instance in filter(of, instances):
        nodes = of(instance)["nodes"]
        cut = [node for node in nodes if node not in here and node in later]
        gone = [node for node in nodes if node not in here and node not in later]
        begin = f"{instance['name']} runs over {_all(nodes)}"
        if cut:
            found.append(
                f"{begin}, and nodes_at_a_time comes to {_all(cut)} later: set it to a multiple of {len(nodes)}, or"
                " leave it out."
            )
        elif gone:
            found.append(f"{begin}, and the play does not go on with {_all(gone)}: see its message, or --limit.")
    return found


def _all(names: Sequence[str]) -> str:
    *some, last = names
    return f"{', '.join(some)} and {last}" if some else last


def other_images(instances: Sequence[Mapping[str, Any]], pulled: Mapping[str, Any], node: str) -> list[str]:
    """Findings about images of one name that are not the same on all nodes of a group.

    ``pulled``: the results of image_pull, by node. Docker's stores know an image by its digest or an ID of their own.
    """
    found = []
    for instance in filter(of, instances):
        image, nodes = str(instance["image"]), of(instance)["nodes"]
        ids = {name: _ids(pulled.get(name) or [], image) for name in nodes}
        others = [name for name in nodes if ids[name] and ids.get(node) and not ids[name] & ids[node]]
        found += [
            f"{instance['name']}: {image} is another image on {other} than on {node}: name it by its digest, or pull it"
            " again on both."
            for other in others
        ]
    return found


def _ids(results: Sequence[Mapping[str, Any]], image: str) -> set[str]:
    of_image = [result for result in results if result.get("image") == image]
    return {str(result[key]) for result in of_image for key in ("image_id", "digest") if result.get(key)}


def proofs(
    instances: Sequence[Mapping[str, Any]], links: Mapping[str, Mapping[str, Any]], due_only: bool = True
) -> list[dict[str, Any]]:
    """What network_proof takes for each network that is not proved yet; each node of a group has the same ones.

    A network is known by its nodes with their addresses, interfaces and adapters, and is proved once.
    """
    found: dict[str, dict[str, Any]] = {}
    for instance in filter(of, instances):
        known = _links(instance, links)
        network = [[link["address"], link["interface"], link["hcas"]] for link in known]
        key = hashlib.sha256(json.dumps(network).encode()).hexdigest()[:16]
        if known and not (due_only and all(link.get("proved") == key for link in known)):
            found.setdefault(key, {"key": key, "name": str(instance["name"]), **_proof(instance, known)})
    return list(found.values())


def _proof(instance: Mapping[str, Any], known: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rank, gpus = rank_of(instance), instance.get("gpu_uuids") or instance.get("gpu_indices") or [""]
    return {
        "image": instance["image"],
        "head": known[0]["address"],
        "port": int(of(instance)["master_port"]) + 2 * names.PEER_PORTS,
        "rank": rank,
        "size": len(known),
        "address": known[rank]["address"],
        "interface": known[rank]["interface"],
        "hcas": known[rank]["hcas"],
        "gpu": str(gpus[0]),
        # Where no floor is set: what a network of 1 Gbit/s does not reach, and what RDMA exceeds by far.
        "floor_gbit_s": 20.0 if all(link["hcas"] for link in known) and gpus[0] != "" else 1.0,
    }
