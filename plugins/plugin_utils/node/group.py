# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rank of an engine that runs over several nodes, as a service of its node: what it shares with the other ranks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ...module_utils.instance import names

#: Options and variables that each rank has its own of. All others must be the same on every node.
OWN_OPTIONS = ("node-rank", "headless", "host", "port", "api-server-count")
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
    options = {name: config[name] for name in sorted(config) if name not in OWN_OPTIONS}
    variables = {name: str(environment[name]) for name in sorted(environment) if name not in OWN_VARIABLES}
    text = json.dumps([image, options, variables], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def recorded(
    instance: Mapping[str, Any], config: Mapping[str, Any], environment: Mapping[str, Any]
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
        "digest": digest(str(instance.get("image") or ""), config, environment),
    }


def devices(instance: Mapping[str, Any]) -> list[str]:
    """The devices of its node that it needs for the traffic between nodes."""
    return [RDMA] if of(instance).get("hcas") else []
