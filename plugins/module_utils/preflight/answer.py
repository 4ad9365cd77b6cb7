# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The answer of preflight_check: the node's own state, and what other hosts say if they must be asked.

This file decides which hosts must be asked; the function that asks them is passed in. A node that has everything asks
nobody, and does not load the network code.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from ..docker import container_gpus, daemon as docker_daemon, engine as docker_engine
from ..hub import snapshot as hub_snapshot, token as hub_token
from ..instance import known
from ..node import questions as node_questions
from ..packages.managers import MANAGERS
from . import checks as preflight_checks

Params = Mapping[str, Any]
Runner = Callable[[Sequence[str]], Tuple[int, str, str]]
Which = Callable[[str], Optional[str]]

NOTHING = preflight_checks.HubCheck((), {})


@dataclass(frozen=True)
class Found:
    """Answers of other hosts. ``linked``: weights are hard-linked on the node and need no space."""

    findings: Sequence[str] = ()
    hub: preflight_checks.HubCheck = NOTHING
    linked: bool = False


@dataclass(frozen=True)
class Asks:
    """The questions for other hosts.

    ``snapshots``: to ask the hub about. ``repositories``: those that may be written. ``images``: the missing ones.
    ``token``: whether to check a token that the node does not have yet.
    """

    snapshots: Sequence[hub_snapshot.Snapshot] = ()
    repositories: Sequence[Params] = ()
    images: Sequence[str] = ()
    token: bool = False

    def __bool__(self) -> bool:
        return bool(self.snapshots or self.repositories or self.images or self.token)


Elsewhere = Callable[[Asks], Found]


def answer(params: Params, run: Runner, which: Which, elsewhere: Elsewhere) -> Tuple[Dict[str, Any], List[str]]:
    """The module's result and its warnings.

    Raises:
        ValueError: an image, a repository or a folder is invalid; a sentence.
    """
    docker, against, warnings = docker_here(params, run, which)
    images = preflight_checks.image_needs(params["instances"], params["image_bytes"], run, which("docker") or "")
    reply = elsewhere(asks(params, docker, [need.name for need in images], run))
    weights = preflight_checks.weights_needs(params["instances"], params["home"], reply.hub.trees, reply.linked)
    findings = [*against_images(params), *platform(params), *reply.hub.findings, *reply.findings]
    findings += preflight_checks.check_cache(params["instances"], params["home"])
    findings += [*room(params, [*weights, *images], run), *against]
    instances = preflight_checks.assign(params["instances"], seeders(params))
    result: Dict[str, Any] = {
        "findings": findings,
        "instances": preflight_checks.pin(instances, params["home"], reply.hub.trees),
        "account": reply.hub.account,
        "bytes_to_write": sum(need.bytes for need in [*weights, *images]),
        **preflight_checks.downloads([*weights, *images], [params["home"], docker_daemon.data_root()]),
        "settled": settled(params, weights, images),
    }
    if params["toolkit"] is not None:
        server = str(docker.get("server_version") or "")
        result["settled"]["toolkit"] = container_gpus.settled(params["toolkit"], server, run, which)
    if params["docker"] is not None:
        result["docker"] = docker
    return result, warnings


#: The parameters that are kept for the next play. Those for other hosts are left out, and with them the secrets.
KEPT = (
    *("instances", "skip", "home", "update", "remove_unlisted", "image_bytes", "source", "token_path", "elsewhere"),
    *("gateway", "docker", "toolkit", "repositories", "platform", "supported"),
)


def question(params: Params) -> node_questions.Question:
    """What to keep of the question, for `again`."""
    token = node_questions.sha256(params["token"].strip()) if params["token"] else ""
    return {**{name: params[name] for name in KEPT}, "registry": params["registry"] is not None, "token": token}


def again(kept: node_questions.KeptQuestion) -> Dict[str, Any]:
    """Answer the kept question, unless other hosts must be asked."""
    token = hub_token.read(kept.params["token_path"])
    if kept.params["token"] not in ("", node_questions.sha256(token)):
        raise node_questions.CannotTell("the token has changed")
    registry: Any = {} if kept.params["registry"] else None
    params = {**kept.params, "token": token if kept.params["token"] else None, "registry": registry}
    result, warnings = answer(params, kept.run_command, kept.get_bin_path, _nobody)
    if warnings:
        raise node_questions.CannotTell(warnings[0])
    return result


def _nobody(asks: Asks) -> Found:
    if asks:
        raise node_questions.CannotTell("other hosts must be asked")
    return Found()


def against_images(params: Params) -> List[str]:
    return preflight_checks.check_images(params["instances"])


def platform(params: Params) -> List[str]:
    checked = "platform" not in params["skip"] and params["platform"]
    return preflight_checks.check_platform(params["platform"], params["supported"]) if checked else []


def room(params: Params, needs: Sequence[preflight_checks.Need], run: Runner) -> List[str]:
    """Problems with disk space and ports."""
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
    """The questions that only other hosts can answer."""
    skip = params["skip"]
    repositories = [] if "repositories" in skip else pending_repositories(params["repositories"], docker, run)
    images = missing if "registry" not in skip and params["registry"] is not None else []
    if "hub" in skip or only_follows(params):
        return Asks((), repositories, images)
    snapshots = [
        snapshot
        for snapshot in from_hub(params)
        if not hub_snapshot.look(params["home"], snapshot).complete or (params["update"] and not snapshot.pinned)
    ]
    return Asks(snapshots, repositories, images, not params["source"] and token_is_new(params))


def pending_repositories(repositories: Sequence[Params], docker: Mapping[str, Any], run: Runner) -> List[Params]:
    """The repositories that the play may download from or write."""
    stays = docker.get("works", False) and not docker.get("ours", False)
    pending = []
    for entry in repositories:
        here, wanted = MANAGERS[entry["manager"]], entry["options"]
        if not ((entry.get("unless_docker") and stays) or here.kept(wanted) or here.settled(wanted, run)):
            pending.append(entry)
    return pending


def token_is_new(params: Params) -> bool:
    return bool(params["token"]) and params["token"].strip() != hub_token.read(params["token_path"])


def settled(params: Params, weights: Sequence[Any], images: Sequence[Any]) -> Dict[str, bool]:
    """Which roles have nothing to do. A token file that others can read counts as not done."""
    token = hub_token.current(params["token_path"], params["token"])
    token = token or bool(params["source"]) or only_follows(params)
    return {"weights": not weights and token and not params["update"], "images": not images}


def seeders(params: Params) -> Dict[Tuple[str, str], str]:
    return {(row["repo_id"], row["revision"]): row["seeder"] for row in params["elsewhere"]}


def from_hub(params: Params) -> List[hub_snapshot.Snapshot]:
    """The snapshots that this node downloads from the hub."""
    wanted, elsewhere = hub_snapshot.parse_snapshots(params["instances"]), seeders(params)
    return [snapshot for snapshot in wanted if (snapshot.repo_id, snapshot.revision) not in elsewhere]


def only_follows(params: Params) -> bool:
    """Whether this node gets all weights from a seeder, so that it needs neither hub nor token."""
    return bool(params["elsewhere"]) and not from_hub(params)


def docker_here(params: Params, run: Runner, which: Which) -> Tuple[Dict[str, Any], List[str], List[str]]:
    """The Docker of this node, the problems with it, and warnings."""
    options = params["docker"]
    if options is None:
        # Its repository is needed only if this Docker is replaced.
        wanted = bool(params["repositories"]) or params["toolkit"] is not None
        return (docker_engine.describe({}, run, which) if wanted else {}), [], []
    docker = docker_engine.describe(options, run, which)
    sockets = docker_engine.rootless_sockets()
    warnings = []
    if sockets and not docker["works"]:
        warnings.append(
            f"A user's rootless Docker is on this node ({', '.join(sockets)}). It stays as it is. The engines"
            " need root's own Docker, started by docker.service, which is installed beside it."
        )
    toolkit = params["toolkit"] or {"keep": True, "require_cdi": True}
    # Only CDI needs Docker 25; the older NVIDIA runtime works without it.
    keep_docker = options["keep"] and toolkit["require_cdi"] and not docker["ours"]
    keep_toolkit = toolkit["keep"] and not any(map(os.path.exists, docker_engine.TOOLKIT_SOURCES))
    return docker, preflight_checks.check_docker(docker, params["instances"], keep_docker, keep_toolkit), warnings
