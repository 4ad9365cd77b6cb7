# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The answer of preflight_check: what this node says of itself, and what others say where it has to ask them.

Who has to be asked is decided here, and who asks is handed in: a node that has everything asks nobody, and needs none
of the code that speaks to a network.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from ..docker import container_gpus, daemon as docker_daemon, engine as docker_engine
from ..hub import snapshot as hub_snapshot, token as hub_token
from ..instance import known
from ..node import asked as node_asked
from ..packages.managers import MANAGERS
from . import checks as preflight_checks

Params = Mapping[str, Any]
Runner = Callable[[Sequence[str]], Tuple[int, str, str]]
Which = Callable[[str], Optional[str]]

NOTHING = preflight_checks.HubCheck((), {})


@dataclass(frozen=True)
class Found:
    """What others than the node said. ``linked``: weights get a second name on the node and take no room."""

    findings: Sequence[str] = ()
    hub: preflight_checks.HubCheck = NOTHING
    linked: bool = False


@dataclass(frozen=True)
class Asks:
    """What only others than the node can tell.

    ``snapshots``: of these the hub is asked. ``repositories``: those that may have to be written. ``images``: those
    that are missing. ``token``: whether the hub has to know a token that the node does not have.
    """

    snapshots: Sequence[hub_snapshot.Snapshot] = ()
    repositories: Sequence[Params] = ()
    images: Sequence[str] = ()
    token: bool = False

    def __bool__(self) -> bool:
        return bool(self.snapshots or self.repositories or self.images or self.token)


Elsewhere = Callable[[Asks], Found]


def answer(params: Params, run: Runner, which: Which, elsewhere: Elsewhere) -> Tuple[Dict[str, Any], List[str]]:
    """What the module returns, and what it warns of.

    Raises:
        ValueError: an image, a repository or a folder cannot be what it is said to be; a sentence.
    """
    docker, against, warnings = docker_here(params, run, which)
    images = preflight_checks.image_needs(params["instances"], params["image_bytes"], run, which("docker") or "")
    said = elsewhere(asks(params, docker, [need.name for need in images], run))
    weights = preflight_checks.weights_needs(params["instances"], params["home"], said.hub.trees, said.linked)
    findings = [*against_images(params), *platform(params), *said.hub.findings, *said.findings]
    findings += preflight_checks.check_cache(params["instances"], params["home"])
    findings += [*room(params, [*weights, *images], run), *against]
    instances = preflight_checks.assign(params["instances"], seeders(params))
    told: Dict[str, Any] = {
        "findings": findings,
        "instances": preflight_checks.pin(instances, params["home"], said.hub.trees),
        "account": said.hub.account,
        "bytes_to_write": sum(need.bytes for need in [*weights, *images]),
        **preflight_checks.told_needs([*weights, *images], [params["home"], docker_daemon.data_root()]),
        "settled": settled(params, weights, images),
    }
    if params["toolkit"] is not None:
        server = str(docker.get("server_version") or "")
        told["settled"]["toolkit"] = container_gpus.settled(params["toolkit"], server, run, which)
    if params["docker"] is not None:
        told["docker"] = docker
    return told, warnings


#: What is kept of a question: with what speaks to others, secrets stay out of it.
KEPT = (
    *("instances", "skip", "home", "update", "remove_unlisted", "image_bytes", "source", "token_path", "elsewhere"),
    *("gateway", "docker", "toolkit", "repositories", "platform", "supported"),
)


def question(params: Params) -> node_asked.Question:
    """What is kept of it, for `again`."""
    token = node_asked.sha256(params["token"].strip()) if params["token"] else ""
    return {**{name: params[name] for name in KEPT}, "registry": params["registry"] is not None, "token": token}


def again(asked: node_asked.Asked) -> Dict[str, Any]:
    """The answer to what was kept, where nobody else has to be asked."""
    token = hub_token.read(asked.params["token_path"])
    if asked.params["token"] not in ("", node_asked.sha256(token)):
        raise node_asked.CannotTell("the token is another")
    registry: Any = {} if asked.params["registry"] else None
    params = {**asked.params, "token": token if asked.params["token"] else None, "registry": registry}
    told, warnings = answer(params, asked.run_command, asked.get_bin_path, _nobody)
    if warnings:
        raise node_asked.CannotTell(warnings[0])
    return told


def _nobody(asks: Asks) -> Found:
    if asks:
        raise node_asked.CannotTell("others have to be asked")
    return Found()


def against_images(params: Params) -> List[str]:
    return preflight_checks.check_images(params["instances"])


def platform(params: Params) -> List[str]:
    asked = "platform" not in params["skip"] and params["platform"]
    return preflight_checks.check_platform(params["platform"], params["supported"]) if asked else []


def room(params: Params, needs: Sequence[preflight_checks.Need], run: Runner) -> List[str]:
    """What stands against the plan for want of disk, or of a port."""
    findings: List[str] = []
    if "disk" not in params["skip"]:
        findings += preflight_checks.check_disk(needs)
    if "ports" not in params["skip"]:
        going = (
            preflight_checks.making_room(known.instances(), params["instances"]) if params["remove_unlisted"] else {}
        )
        findings += preflight_checks.check_ports(params["instances"], run, going=going)
        findings += preflight_checks.check_gateway(params["gateway"], run, known.gateway_listens())
    return findings


def asks(params: Params, docker: Mapping[str, Any], missing: Sequence[str], run: Runner) -> Asks:
    """What only others can tell: of the rest the node knows enough."""
    skip = params["skip"]
    repositories = [] if "repositories" in skip else owed(params["repositories"], docker, run)
    images = missing if "registry" not in skip and params["registry"] is not None else []
    if "hub" in skip or only_follows(params):
        return Asks((), repositories, images)
    snapshots = [
        snapshot
        for snapshot in from_hub(params)
        if not hub_snapshot.look(params["home"], snapshot).complete or (params["update"] and not snapshot.pinned)
    ]
    return Asks(snapshots, repositories, images, not params["source"] and token_is_new(params))


def owed(repositories: Sequence[Params], docker: Mapping[str, Any], run: Runner) -> List[Params]:
    """The repositories that something is to be fetched from, or that are to be written otherwise."""
    stays = docker.get("works", False) and not docker.get("ours", False)
    due = []
    for entry in repositories:
        here, wanted = MANAGERS[entry["manager"]], entry["options"]
        if not ((entry.get("unless_docker") and stays) or here.kept(wanted) or here.settled(wanted, run)):
            due.append(entry)
    return due


def token_is_new(params: Params) -> bool:
    return bool(params["token"]) and params["token"].strip() != hub_token.read(params["token_path"])


def settled(params: Params, weights: Sequence[Any], images: Sequence[Any]) -> Dict[str, bool]:
    """What the roles need not be asked for. A token that others can read is not settled."""
    token = hub_token.current(params["token_path"], params["token"])
    token = token or bool(params["source"]) or only_follows(params)
    return {"weights": not weights and token and not params["update"], "images": not images}


def seeders(params: Params) -> Dict[Tuple[str, str], str]:
    return {(one["repo_id"], one["revision"]): one["seeder"] for one in params["elsewhere"]}


def from_hub(params: Params) -> List[hub_snapshot.Snapshot]:
    """What this node has to have from the hub."""
    wanted, elsewhere = hub_snapshot.parse_snapshots(params["instances"]), seeders(params)
    return [one for one in wanted if (one.repo_id, one.revision) not in elsewhere]


def only_follows(params: Params) -> bool:
    """Whether hub and token are none of this node's business."""
    return bool(params["elsewhere"]) and not from_hub(params)


def docker_here(params: Params, run: Runner, which: Which) -> Tuple[Dict[str, Any], List[str], List[str]]:
    """The Docker of this node, what stands against it, and what to know of it."""
    asked = params["docker"]
    if asked is None:
        # Whether it stays says whether its repository is wanted.
        wanted = bool(params["repositories"]) or params["toolkit"] is not None
        return (docker_engine.describe({}, run, which) if wanted else {}), [], []
    docker = docker_engine.describe(asked, run, which)
    sockets = docker_engine.rootless_sockets()
    warnings = []
    if sockets and not docker["works"]:
        warnings.append(
            f"A user's rootless Docker is on this node ({', '.join(sockets)}) and stays as it is: what runs here needs"
            " root's own Docker, started by docker.service, which comes beside it."
        )
    toolkit = params["toolkit"] or {"keep": True, "require_cdi": True}
    # A Docker that gives GPUs by the older runtime alone need not know CDI.
    keep_docker = asked["keep"] and toolkit["require_cdi"] and not docker["ours"]
    keep_toolkit = toolkit["keep"] and not any(map(os.path.exists, docker_engine.TOOLKIT_SOURCES))
    return docker, preflight_checks.check_docker(docker, params["instances"], keep_docker, keep_toolkit), warnings
