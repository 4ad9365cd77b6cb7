# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a node can run a plan. Each check returns problems as sentences; none changes anything."""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Callable, Iterable, Mapping, Sequence

from ..docker.daemon import data_root
from ..docker.engine import cdi_trouble, toolkit_trouble
from ..docker.image import parse_reference
from ..hub.snapshot import Snapshot, at_commit, beside, bytes_here, look, parse_snapshots, repositories, wanted_bytes
from ..instance import names
from ..instance.record import Record
from ..node import commands, network, words
from ..node.commands import Runner
from ..tls.certificate import ends_within, pair_trouble

Instance = Mapping[str, Any]

#: Space to leave free on every filesystem, for logs and for files that a running service writes.
RESERVE = 1_000_000_000


@dataclass(frozen=True)
class Need:
    """Bytes that will be written below a path."""

    path: str
    bytes: int
    purpose: str
    name: str = ""


@dataclass(frozen=True)
class Filesystem:
    """``device`` identifies the filesystem; ``path`` is the nearest folder that exists."""

    device: int
    path: str
    free: int


def filesystem(path: str) -> Filesystem:
    """The filesystem that would hold this path, which may not exist yet."""
    folder = os.path.realpath(path)
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    shown = os.statvfs(folder)
    return Filesystem(os.stat(folder).st_dev, folder, shown.f_bavail * shown.f_frsize)


def check_disk(needs: Iterable[Need], where: Callable[[str], Filesystem] = filesystem) -> list[str]:
    """Add up the needs on each filesystem, and compare each sum with the free space."""
    groups: dict[int, tuple[Filesystem, list[Need]]] = {}
    for need in needs:
        if need.bytes > 0:
            disk = where(need.path)
            groups.setdefault(disk.device, (disk, []))[1].append(need)
    findings = []
    for disk, together in groups.values():
        total = sum(need.bytes for need in together) + RESERVE
        if total > disk.free:
            parts = " and ".join(f"{words.size(n.bytes)} for {n.purpose} in {n.path}" for n in together)
            findings.append(
                f"Too little disk space: {words.size(total)} are needed ({parts}, {words.size(RESERVE)} to leave free),"
                f" but the filesystem of {disk.path} has {words.size(disk.free)} free. Make room, or move the"
                " folder to a larger filesystem."
            )
    return findings


def downloads(
    needs: Iterable[Need], roots: Iterable[str], where: Callable[[str], Filesystem] = filesystem
) -> dict[str, Any]:
    """What will be downloaded, and the free space before that on the filesystem of each root."""
    fetched = [need for need in needs if need.bytes > 0]
    disks: dict[int, dict[str, Any]] = {}
    for path in dict.fromkeys([*roots, *(need.path for need in fetched)]):
        volume = where(path)
        disk = disks.setdefault(volume.device, {"paths": [], "free": volume.free, "bytes": 0})
        disk["paths"].append(path)
        disk["bytes"] += sum(need.bytes for need in fetched if need.path == path)
    fetch = [{"kind": "image" if need.name else "weights", "bytes": need.bytes} for need in fetched]
    return {"fetch": fetch, "disks": list(disks.values())}


def weights_needs(
    instances: Sequence[Instance],
    home: str,
    trees: Mapping[Snapshot, tuple[str, Sequence[Any]]],
    linked: bool = False,
) -> list[Need]:
    """The weights to download: exact if the hub gave its listing, else the plan's estimate.

    ``linked``: weights on the node are hard-linked and need no space.
    """
    planned = {
        (repository["repo_id"], repository.get("revision") or "main"): int(repository.get("weights_bytes") or 0)
        for repository in repositories(instances)
    }
    needs = []
    for snapshot in parse_snapshots(instances):
        present = look(home, snapshot)
        if present.complete:
            continue
        if snapshot in trees:
            commit, tree = trees[snapshot]
            missing = wanted_bytes(snapshot, tree) - bytes_here(home, snapshot, commit, tree)
        else:
            missing = planned[(snapshot.repo_id, snapshot.revision)] - present.bytes
        needs.append(Need(home, 0 if linked else max(0, missing), f"the weights of {snapshot.repo_id}"))
    return needs


def check_cache(instances: Sequence[Instance], home: str) -> list[str]:
    """Whether an engine's container can see the weights: it gets only the cache, so a link that leads out is dead."""
    return list(dict.fromkeys(filter(None, (look(home, snapshot).outside for snapshot in parse_snapshots(instances)))))


def pin(
    instances: Sequence[Instance], home: str, trees: Mapping[Snapshot, tuple[str, Sequence[Any]]]
) -> list[Instance]:
    """The instances, each pinned to the commit of its branch: the one on the node, else the hub's."""
    pinned = []
    for instance in instances:
        if instance.get("folder"):
            pinned.append(instance)
            continue
        # What is beside it is at a commit already.
        requested = parse_snapshots([instance])[0]
        known = next((commit for snapshot, (commit, _tree) in trees.items() if same(snapshot, requested)), "")
        commit = known or look(home, requested).commit
        if requested.pinned or not commit:
            pinned.append(instance)
            continue
        pinned.append(at_commit(instance, commit, requested.revision))
    return pinned


def assign(instances: Sequence[Instance], seeders: Mapping[tuple[str, str], str]) -> list[Instance]:
    """The instances; those that another node serves carry its name as ``seeder``, and so does what is beside them."""

    def one(entry: Instance) -> Instance:
        seeder = "" if entry.get("folder") else seeders.get((entry["repo_id"], entry.get("revision") or "main"))
        return {**entry, "seeder": seeder} if seeder else entry

    return [beside(one(instance), one) for instance in instances]


def same(one: Snapshot, other: Snapshot) -> bool:
    return (one.repo_id, one.revision) == (other.repo_id, other.revision)


def check_images(instances: Sequence[Instance]) -> list[str]:
    """Reject image names that change, such as latest, even if Docker has an image with that name."""
    findings = []
    for image in sorted({str(i["image"]) for i in instances if i.get("image")}):
        try:
            parse_reference(image)
        except ValueError as refusal:
            findings.append(f"{refusal}.")
    return findings


def image_needs(instances: Sequence[Instance], sizes: Mapping[str, Any], run: Runner, docker: str) -> list[Need]:
    """The images that are not on the node. Their size is unknown before the pull, so a round figure is used."""
    root = data_root()
    needs = []
    images = {str(i["image"]): str(i.get("device") or "cuda") for i in instances if i.get("image")}
    for image, device in sorted(images.items()):
        if docker and commands.inspected(run, docker, "image", "{{.Id}}", image):
            continue
        needs.append(Need(root, int(sizes.get(device) or 0), f"the image {image}", image))
    return needs


def check_docker(
    docker: Mapping[str, Any], instances: Sequence[Instance], keep_docker: bool, keep_toolkit: bool
) -> list[str]:
    """Whether the node's Docker, as docker_info describes it, is usable; for GPUs also the parts that stay."""
    findings = [str(docker["obstacle"])]
    if any(instance.get("gpu_indices") for instance in instances):
        findings.append(cdi_trouble(str(docker["server_version"])) if keep_docker else "")
        findings.append(toolkit_trouble(str(docker["toolkit_version"])) if keep_toolkit else "")
    return [finding for finding in findings if finding]


def making_room(here: Iterable[Record], instances: Sequence[Instance]) -> dict[int, str]:
    """port -> unit that uses it, for units on the node that are no longer listed and will be removed."""
    listed = {str(instance["name"]) for instance in instances}
    return {record.port: record.unit for record in here if record.port is not None and record.name not in listed}


def has_api(instance: Instance) -> bool:
    """Whether it listens for clients: a rank above 0 of an engine over several nodes does not."""
    return bool(instance.get("port")) and not (instance.get("group") or {}).get("rank")


def _runs(unit: str, run: Runner) -> bool:
    state = run(["systemctl", "is-active", unit])[1].strip()
    return state in ("active", "activating", "deactivating", "reloading")


def _check_group_ports(instance: Instance, run: Runner, free: Callable[[str, int], bool]) -> list[str]:
    """Check the ports on which the ranks of an engine over several nodes meet: vLLM's, on its head, and our own."""
    group, name = instance.get("group") or {}, str(instance["name"])
    if not group.get("addresses"):
        return []
    address, meets = str(group["addresses"][group["rank"]]), int(group["master_port"])
    ports = {meets + names.PEER_PORTS: names.peer_unit(name), **({} if group["rank"] else {meets: names.unit_of(name)})}
    return [
        f"Port {port} of {address} is in use, but not by {unit}, and the nodes of {name} meet there:"
        f" `ss -ltnp 'sport = :{port}'` on the node names it. Stop it."
        for port, unit in ports.items()
        if not free(address, port) and not _runs(unit, run)
    ]


def check_ports(
    instances: Sequence[Instance],
    run: Runner,
    free: Callable[[str, int], bool] = network.port_is_free,
    going: Mapping[int, str] = MappingProxyType({}),
) -> list[str]:
    """Check that each port is free, or used by its own service, or by a service that will be removed."""
    taken = [i for i in instances if has_api(i) and not free(str(i.get("host") or "0.0.0.0"), int(i["port"]))]
    findings = [finding for i in instances for finding in _check_group_ports(i, run, free)]
    for instance in taken:
        unit, address = f"vllm-{instance['name']}.service", f"{instance.get('host')}:{instance['port']}"
        # A starting container uses its port long before its unit is active.
        holders = [unit, *([going[int(instance["port"])]] if int(instance["port"]) in going else [])]
        if any(_runs(holder, run) for holder in holders):
            continue
        findings.append(
            f"Port {instance['port']} of {instance.get('host')} is in use, but not by {unit}:"
            f" `ss -ltnp 'sport = :{instance['port']}'` on the node names it. Stop it, or set another port than"
            f" {address}."
        )
    return findings


def check_gateway(
    gateway: Mapping[str, Any],
    run: Runner,
    holds: Iterable[tuple[str, int]],
    free: Callable[[str, int], bool] = network.port_is_free,
) -> list[str]:
    """Check that the gateway can bind its ports and use the operator's certificate. ``holds``: what it has now."""
    findings = []
    up = bool(gateway) and run(["systemctl", "is-active", "--quiet", names.GATEWAY_UNIT])[0] == 0
    held = set(holds) if up else set()
    for address in gateway.get("listens") or []:
        host, port = str(address["host"]), int(address["port"])
        if (host, port) in held or free(host, port):
            continue
        findings.append(
            f"The gateway cannot listen on {host}:{port}: the port is in use, or the address is not one of this"
            f" node. `ss -ltnp 'sport = :{port}'` on the node shows who uses the port."
        )
    findings += _check_router(gateway.get("router") or [], run, free)
    certificate, key = str(gateway.get("certificate") or ""), str(gateway.get("certificate_key") or "")
    if certificate:
        trouble = pair_trouble(certificate, key)
        if not trouble and ends_within(certificate, 0, run):
            trouble = f"{certificate} has expired"
        findings += [f"{trouble}; the gateway needs a certificate and its key on the node."] if trouble else []
    return findings


def _check_router(listens: Iterable[Mapping[str, Any]], run: Runner, free: Callable[[str, int], bool]) -> list[str]:
    """Check that the router can bind its ports, unless it runs already."""
    taken = [(str(one["host"]), int(one["port"])) for one in listens if not free(str(one["host"]), int(one["port"]))]
    if not taken or any(run(["systemctl", "is-active", "--quiet", unit])[0] == 0 for unit in names.ROUTER_UNITS):
        return []
    return [
        f"The router cannot listen on {host}:{port}: the port is in use. `ss -ltnp 'sport = :{port}'` on the node shows"
        " who uses the port; router_port and its three neighbours set the router's."
        for host, port in taken
    ]


def check_platform(platform: Mapping[str, Any], supported: Mapping[str, Any]) -> list[str]:
    """``platform``: the node's facts; ``supported``: versions per distribution, architectures, and the init system."""
    findings = []
    name, version = str(platform.get("distribution")), str(platform.get("version"))
    versions = [str(v) for v in supported["distributions"].get(name, [])]
    if version not in versions:
        known = ", ".join(f"{n} {' '.join(map(str, v))}" for n, v in supported["distributions"].items())
        findings.append(f"{name} {version} is not supported. Supported: {known}.")
    architecture = str(platform.get("architecture"))
    if architecture not in supported["architectures"]:
        known = ", ".join(supported["architectures"])
        findings.append(f"The architecture {architecture} is not supported. Supported: {known}.")
    if platform.get("service_mgr") != "systemd":
        findings.append(f"The init system of the node is {platform.get('service_mgr')}; its services need systemd.")
    return findings


@dataclass(frozen=True)
class HubCheck:
    """The hub's answers. ``trees``: commit and listing of each available revision."""

    findings: Sequence[str]
    trees: Mapping[Snapshot, tuple[str, Sequence[Any]]]
    account: str = ""
