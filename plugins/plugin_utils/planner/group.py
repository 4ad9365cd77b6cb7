# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One engine over several nodes: which nodes form its group, what vLLM is told on each, and whether their plans agree.

Tensor parallelism stays inside a node, and pipeline stages lie across nodes. Rank 0 is the head, which has the API; the
engine of every other node is headless.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ..values import read
from .catalog import ModelSpec
from .memory import Parallel, even_cut

#: vLLM's own default, from which the engines of a node count on.
MASTER_PORT = 29501
#: No engine spans more.
MOST_NODES = 64
#: What an engine without an API does not have; vLLM refuses the last one there.
OF_THE_HEAD = ("host", "port", "api-server-count")
#: Between two stages a token is two vectors of 2 bytes each (IntermediateTensors: hidden_states, residual).
VECTORS_BYTES = 2 * 2
#: Speeds of a link that the advice names, in Gbit/s.
LINKS = (10, 100)
PARTITION = "VLLM_PP_LAYER_PARTITION"
KEYS = ("nodes", "rank", "head", "addresses", "interface", "hcas")


@dataclass(frozen=True)
class NodeGroup:
    """Nodes in their order, and which of them this one is. ``interface`` and ``hcas`` are this node's own."""

    nodes: tuple[str, ...]
    rank: int = 0
    addresses: tuple[str, ...] = ()
    interface: str = ""
    hcas: tuple[str, ...] = ()

    @property
    def node(self) -> str:
        """The name of this node."""
        return self.nodes[self.rank]


@dataclass(frozen=True)
class Joined:
    """The place of an engine's part in its group, as an instance shows it."""

    size: int
    rank: int
    head: str
    #: Empty for GPUs that were only described. Addresses are empty until the nodes were asked for them.
    nodes: tuple[str, ...]
    addresses: tuple[str, ...]
    master_port: int
    interface: str
    hcas: tuple[str, ...]
    #: Layers of each pipeline stage, the head's first.
    layers: tuple[int, ...]
    #: Bytes that a full step sends from one stage to the next.
    step_bytes: int
    #: Whether the planner chose the number of nodes.
    decided: bool = False


class Grouped(Protocol):
    """The parts of a requested instance that are needed here (`request.InstanceRequest`)."""

    @property
    def name(self) -> str: ...
    @property
    def model(self) -> ModelSpec: ...
    @property
    def nodes(self) -> int | None: ...
    @property
    def nodes_decided(self) -> bool: ...
    @property
    def group(self) -> NodeGroup | None: ...
    @property
    def tp(self) -> int | None: ...
    @property
    def pp(self) -> int | None: ...
    @property
    def dp(self) -> int | None: ...
    @property
    def gpu_share(self) -> float | str | None: ...
    @property
    def variables(self) -> Mapping[str, str]: ...
    def option(self, name: str, default: Any = None) -> Any: ...


# -- reading ----------------------------------------------------------------------------------------------------------
def read_group(value: Any) -> NodeGroup | None:
    """Read the option `group`; None for an empty dictionary. Raises ValueError if it contradicts itself."""
    try:
        given: Mapping[str, Any] = read("group", value, {"type": "dict", "required": True})
    except ValueError:
        raise ValueError(f"group must be a dictionary of {', '.join(KEYS)}, not {value!r}.") from None
    if not given:
        return None
    unknown = [key for key in given if key not in KEYS]
    if unknown:
        raise ValueError(f"group has an unknown key {unknown[0]!r}: it takes {', '.join(KEYS)}.")
    nodes = _texts("nodes", given.get("nodes"))
    if not nodes or len(set(nodes)) < len(nodes):
        raise ValueError(f"group: nodes must list the names of nodes, each once, not {given.get('nodes')!r}.")
    rank = str(given.get("rank") or 0)
    if not rank.isdecimal() or int(rank) >= len(nodes):
        raise ValueError(f"group: rank must be a whole number from 0 to {len(nodes) - 1}, not {given['rank']!r}.")
    addresses = tuple(map(_address, _texts("addresses", given.get("addresses"))))
    head = given.get("head")
    if addresses and (len(addresses) != len(nodes) or len(set(addresses)) < len(addresses)):
        raise ValueError(
            f"group: {len(nodes)} nodes need an address each, all different, and these are {', '.join(addresses)}."
        )
    if head and (not addresses or _address(head) != addresses[0]):
        raise ValueError(f"group: head must be the first of the addresses, not {head!r}.")
    interface = str(given.get("interface") or "")
    return NodeGroup(nodes, int(rank), addresses, interface, _texts("hcas", given.get("hcas")))


def _texts(what: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value or [], (list, tuple)):
        raise ValueError(f"group: {what} must be a list, not {value!r}.")
    return tuple(str(item) for item in value or ())


def _address(value: Any) -> str:
    """An address at which other nodes reach this one."""
    try:
        address = ipaddress.ip_address(str(value).strip())
    except ValueError:
        raise ValueError(f"group: an address of a node must be an IP address, not {str(value)!r}.") from None
    if address.is_loopback or address.is_unspecified or address.is_multicast:
        raise ValueError(f"group: other nodes do not reach a node at {address}: give the address that they do.")
    return str(address)


# -- which nodes ------------------------------------------------------------------------------------------------------
def formed(request: Grouped, count: int) -> NodeGroup:
    """The nodes of this engine: so many after each other of the play's. Raises ValueError if its group is not full.

    Without a group there are no names: a plan for GPUs that were only described.
    """
    group = request.group
    if group is None:
        return NodeGroup(())
    first = group.rank // count * count
    nodes, total = group.nodes[first : first + count], len(group.nodes)
    if len(nodes) < count:
        there = f"the play has {'one' if total == 1 else total}: {', '.join(group.nodes)}"
        whole = total // count
        groups = f", which make {whole} group{'s' * (whole > 1)}, and {_listed(nodes)} left over" if whole else ""
        raise ValueError(
            f"{request.name} takes {count} nodes for each engine (vllm_nodes_per_engine), and {there}{groups}: run the"
            f" play with a multiple of {count} nodes, or list those of an engine in vllm_engine_nodes."
        )
    return replace(group, nodes=nodes, rank=group.rank - first, addresses=group.addresses[first : first + count])


def not_full(request: Grouped) -> list[str]:
    """A finding if the play has too few nodes for the group of this one."""
    try:
        formed(request, request.nodes or 1)
    except ValueError as error:
        return [str(error)]
    return []


def _listed(names: Sequence[str]) -> str:
    return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'}"


def available(request: Grouped) -> int:
    """How many nodes an engine could take."""
    return len(request.group.nodes) if request.group else 1


# -- what is refused --------------------------------------------------------------------------------------------------
def problems(request: Grouped) -> list[str]:
    """Findings about options that an engine over several nodes cannot have."""
    nodes = request.nodes or 1
    if nodes == 1:
        return []
    found = []
    if (request.dp or 1) > 1:
        found.append(
            f"data_parallel_size {request.dp} makes replicas, and an engine over {nodes} nodes is one: leave it out;"
            f" each further {nodes} nodes of the play are another engine."
        )
    if request.gpu_share is not None:
        found.append(f"an engine over {nodes} nodes has whole GPUs: leave out gpu_share.")
    if request.pp and request.pp % nodes:
        found.append(
            f"{request.pp} pipeline stages (pipeline_parallel_size) cannot be divided over {nodes} nodes: set a"
            f" multiple of {nodes}, or leave it out."
        )
    backend = request.option("distributed-executor-backend", "mp")
    if backend != "mp":
        found.append(f"distributed-executor-backend {backend} is not for nodes: leave it out, they need no Ray.")
    return [f"{request.name}: {sentence}" for sentence in found]


def cut_of(variables: Mapping[str, str]) -> tuple[int, ...]:
    """The layers of each stage that the user sets; empty if vLLM cuts them."""
    return tuple(int(part) for part in variables.get(PARTITION, "").split(",") if part.strip())


def read_partition(text: str) -> str:
    """Read the user's layers of each stage. Raises ValueError if they are none."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise ValueError(f"{PARTITION} in env must list the layers of each stage, such as 62,64, not {text!r}.")
    return ",".join(parts)


def stage_problem(request: Grouped, spread: Parallel) -> str:
    """Why a model cannot be cut into these stages, whatever memory there is; empty if it can."""
    sized = request.model.sized
    if sized.kind == "figures":
        return (
            "a model that is planned by its figures has no pipeline stages, since it is not known how its layers divide"
        )
    if not sized.stages:
        over = f", so it cannot span {spread.nodes} nodes" if spread.nodes > 1 else ""
        return f"vLLM has no pipeline stages for {sized.name}{over}"
    if spread.pp > sized.layers:
        return f"{sized.layers} layers cannot be split into {spread.pp} stages"
    if spread.cut and (len(spread.cut) != spread.pp or sum(spread.cut) != sized.layers):
        return (
            f"{PARTITION} has {sum(spread.cut)} layers in {len(spread.cut)} stages, and the model has {sized.layers} in"
            f" {spread.pp}"
        )
    return ""


def across(spread: Parallel, gpus: int) -> str:
    """Why tensor parallelism cannot be wider than a node; empty if it is not."""
    if spread.nodes == 1 or spread.tp <= gpus:
        return ""
    return (
        f"TP {spread.tp} would exchange every layer between nodes of {gpus} GPUs, which only RDMA is fast enough for:"
        f" TP stays inside a node (vllm_tensor_parallel_size up to {gpus}), and stages lie across"
    )


# -- what vLLM is told ------------------------------------------------------------------------------------------------
def joined(request: Grouped, spread: Parallel, order: int, step: int) -> Joined | None:
    """The place of this node's engine in its group; None for an engine on one node. ``order``: of the node's groups."""
    if spread.nodes == 1:
        return None
    group = formed(request, spread.nodes)
    sized = request.model.sized
    return Joined(
        size=spread.nodes,
        rank=group.rank,
        head=group.addresses[0] if group.addresses else "",
        nodes=group.nodes,
        addresses=group.addresses,
        master_port=MASTER_PORT + order,
        interface=group.interface,
        hcas=group.hcas,
        layers=spread.cut or even_cut(sized.layers, spread.pp),
        step_bytes=step * sized.hidden_size * VECTORS_BYTES,
        decided=request.nodes_decided,
    )


def options(group: Joined | None) -> dict[str, Any]:
    """vLLM's options for a rank; null removes what a headless one does not have."""
    if group is None:
        return {}
    told: dict[str, Any] = {
        "nnodes": group.size,
        "node-rank": group.rank,
        "master-addr": group.head or None,
        "master-port": group.master_port,
    }
    return {**told, "headless": True, **dict.fromkeys(OF_THE_HEAD)} if group.rank else told


def environment(group: Joined | None, device: str) -> dict[str, str]:
    """The environment of a rank: its own address, and what its traffic takes. "=" makes NCCL take no longer name."""
    if group is None:
        return {}
    address = group.addresses[group.rank] if group.addresses else ""
    told = {"VLLM_HOST_IP": address, "GLOO_SOCKET_IFNAME": group.interface}
    if device == "cuda":
        told["NCCL_SOCKET_IFNAME"] = group.interface and f"={group.interface}"
        told["NCCL_IB_HCA"] = ",".join(group.hcas) and f"={','.join(group.hcas)}"
    return {name: value for name, value in told.items() if value}


def note(group: Joined | None, spread: Parallel) -> str:
    """What the user should know of the nodes and the link between them; empty for an engine on one node."""
    if group is None:
        return ""
    times = " and ".join(f"{group.step_bytes * 8 / speed / 1e9:.2g} s at {speed} Gbit/s" for speed in LINKS)
    cut = " and ".join(map(str, group.layers))
    chosen = "one node is too small, so it runs" if group.decided else "it runs"
    who = f" ({', '.join(group.nodes)})" if group.nodes else ""
    return (
        f"{chosen} over {group.size} nodes{who}: TP {spread.tp} inside each, stages of {cut}"
        f" layers across. A full step sends {group.step_bytes / 1e6:.3g} MB from stage to stage, {times}: Ethernet of"
        " 25 Gbit/s is enough for that, and RDMA is used where there is any. The traffic between the nodes is not"
        " encrypted, so it belongs into a private network."
    )


class Planned(Protocol):
    """The parts of an instance that are needed here (`instance.Instance`)."""

    @property
    def name(self) -> str: ...
    @property
    def group(self) -> Joined | None: ...


def nameless(instances: Sequence[Planned]) -> list[str]:
    """Findings about engines over several nodes that are to be served on nodes of which nobody knows the names."""
    return [
        f"{instance.name} runs over {instance.group.size} nodes, and their names are not given (vllm_group):"
        " gpunode.llm.site fills it from the inventory."
        for instance in instances
        if instance.group and not instance.group.nodes
    ]


# -- whether the plans of a group agree -------------------------------------------------------------------------------
def differences(plans: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Findings about nodes of a group whose plans do not fit each other. ``plans``: serving_plan's results by node."""
    found: list[str] = []
    for node, answer in plans.items():
        for instance in _of(answer):
            group = instance.get("group")
            if group and group["rank"] == 0 and node in group["nodes"]:
                others = [other for other in group["nodes"] if other != node]
                found += _of_group(instance, node, others, plans)
    return list(dict.fromkeys(found))


def _of(answer: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return (answer.get("plan") or {}).get("instances") or ()


def _of_group(
    head: Mapping[str, Any], node: str, others: Sequence[str], plans: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Findings about each node of a group, against its head. A node that has no plan tells by itself why."""
    found = []
    for other in (other for other in others if plans.get(other, {}).get("plan")):
        mine = next((instance for instance in _of(plans[other]) if instance["name"] == head["name"]), None)
        gpus = [_gpus(plans[which]) for which in (node, other)]
        if mine is None:
            found.append(
                f"{head['name']} runs over {' and '.join(head['group']['nodes'])}, and {other} does not serve it: give"
                " both the same models, or list the nodes of each engine in vllm_engine_nodes."
            )
        elif gpus[0] != gpus[1]:
            found.append(
                f"{head['name']}: {node} has {gpus[0]}, and {other} {gpus[1]}: an engine over several nodes needs the"
                " same GPUs on each."
            )
        else:
            found += [f"{head['name']}: {sentence}" for sentence in _against(head, mine, node, other)]
    return found


def _gpus(answer: Mapping[str, Any]) -> str:
    """The GPUs of a node in words: 8x NVIDIA H100 80GB HBM3."""
    names = [str(gpu["name"]) for gpu in answer.get("gpus") or () if not gpu.get("lost")]
    return " and ".join(f"{names.count(name)}x {name}" for name in sorted(set(names))) or "no GPU"


#: Options that each rank has its own of.
OWN_OPTIONS = ("node-rank", "headless", *OF_THE_HEAD)
#: What two plans of one engine must share beside the options, and what to do where they do not.
SHARED = {
    "image": "set vllm_image",
    "revision": "name it by its commit, ORG/NAME@REVISION",
    "port": "set port in models",
}


def _against(head: Mapping[str, Any], mine: Mapping[str, Any], node: str, other: str) -> list[str]:
    """What differs between the head's plan and another node's."""
    group = mine.get("group") or {}
    for what in ("size", "nodes", "addresses", "master_port", "layers"):
        if group.get(what) != head["group"][what]:
            return [
                f"the plans of {node} and {other} differ in the {what} of the group ({head['group'][what]} and"
                f" {group.get(what)}): set vllm_nodes_per_engine and vllm_engine_nodes alike on both."
            ]
    found = [
        f"{what} is {head[what]} on {node} and {mine[what]} on {other}: {remedy}."
        for what, remedy in SHARED.items()
        if head[what] != mine[what]
    ]
    names = [name for name in {**head["config"], **mine["config"]} if name not in OWN_OPTIONS]
    found += [
        f"{name} is {head['config'].get(name)} on {node} and {mine['config'].get(name)} on {other}: set it alike."
        for name in names
        if head["config"].get(name) != mine["config"].get(name)
    ]
    return found
