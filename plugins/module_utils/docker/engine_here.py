# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Docker engine of this node: docker_info's answer, which preflight_check gives as well."""

from __future__ import annotations

import getpass
import glob
import grp
import os
import pwd
from typing import Any, Callable, Dict, Mapping, Optional, Sequence, Tuple

from ..node import commands, files as node_files
from ..node.commands import Runner
from ..packages import apt_here
from . import daemon_file, engine as docker_engine

Which = Callable[[str], Optional[str]]

MARKERS = ["/etc/apt/sources.list.d/docker.sources", "/etc/yum.repos.d/docker-ce.repo"]
#: Where one of these is, the toolkit is the role's own, at the role's version.
TOOLKIT_SOURCES = [
    "/etc/apt/sources.list.d/nvidia-container-toolkit.sources",
    "/etc/yum.repos.d/nvidia-container-toolkit.repo",
]
CONFIG = "/etc/docker/daemon.json"
SNAP = "snap.docker.dockerd.service"
PROPERTIES = ("LoadState", "ActiveState", "UnitFileState", "DropInPaths")
OWN_SOCKETS = ("unix:///var/run/docker.sock", "unix:///run/docker.sock")


def describe(asked: Mapping[str, Any], run: Runner, which: Which) -> Dict[str, Any]:
    """``asked`` holds the options of docker_info; those that are left out are its defaults."""
    docker, systemctl = which("docker"), which("systemctl")
    found, units = engine(run, docker), shown(run, systemctl)
    names = asked.get("users")
    return {
        "works": found.works,
        "server_version": found.server,
        "client_version": found.client,
        "ours": any(is_ours(marker) for marker in asked.get("markers") or MARKERS),
        "obstacle": docker_engine.obstacle(found, roots(run, docker, found, units if systemctl else None)),
        "toolkit_version": toolkit(run, which("nvidia-ctk")),
        "service": service(units[0]),
        "config_settled": config_settled(asked.get("config_path") or CONFIG, asked.get("config") or {}),
        "settings_due": daemon_file.due(),
        "packages_settled": bool(asked.get("apt")) and apt_here.settled(asked["apt"], run),
        **users(login() if names is None else names, asked.get("group") or "docker"),
    }


def engine(run: Runner, docker: Optional[str]) -> docker_engine.Engine:
    if not docker:
        return docker_engine.Engine()
    # Exits 1 where no server answers, and tells of the client all the same.
    _rc, out, _err = run([docker, "version", "--format", "{{json .}}"])
    return docker_engine.parse_version(out)


def shown(run: Runner, systemctl: Optional[str]) -> Tuple[Dict[str, str], Dict[str, str]]:
    """What systemd says of docker.service, and of the one that snap's Docker has."""
    said = commands.shown(run(commands.show(PROPERTIES, "docker.service", SNAP))[1]) if systemctl else []
    ours, snaps = [*said, {}, {}][:2]
    return ours, snaps


def service(said: Mapping[str, str]) -> Dict[str, Any]:
    return {
        "known": said.get("LoadState") == "loaded",
        "active": said.get("ActiveState") == "active",
        "enabled": said.get("UnitFileState") == "enabled",
        "drop_ins": said.get("DropInPaths", "").split(),
    }


def roots(
    run: Runner, docker: Optional[str], found: docker_engine.Engine, units: Optional[Tuple[Mapping[str, str], ...]]
) -> docker_engine.Roots:
    """What the Docker that answers hangs on. Where that is docker.service, nothing further is asked."""
    # Without systemd nobody can tell; that there is none is said elsewhere.
    ours, snaps = units or ({"LoadState": "loaded", "ActiveState": "active"}, {})
    started = ours.get("LoadState") == "loaded" and ours.get("ActiveState") not in ("inactive", "failed")
    elsewhere = sent_to(run, docker, found)
    rootless = False
    if docker and found.works and (elsewhere or not started):
        rootless = "name=rootless" in run([docker, "info", "--format", "{{json .SecurityOptions}}"])[1]
    return docker_engine.Roots(started, snaps.get("LoadState") == "loaded", rootless, elsewhere)


def sent_to(run: Runner, docker: Optional[str], found: docker_engine.Engine) -> str:
    """Where root's docker command is sent, if not to the node's own socket; a unit would not be sent there."""
    host = os.environ.get("DOCKER_HOST") or ""
    if docker and not host and found.context not in ("", "default"):
        host = run([docker, "context", "inspect", "--format", "{{.Endpoints.docker.Host}}", found.context])[1].strip()
    return "" if host in ("", *OWN_SOCKETS) else host


def rootless_sockets() -> Sequence[str]:
    """The sockets of Dockers that run as somebody's own."""
    return sorted(glob.glob("/run/user/*/docker.sock"))


def toolkit(run: Runner, nvidia_ctk: Optional[str]) -> str:
    """The version of the NVIDIA Container Toolkit that is here; empty where none is, or where it does not say."""
    return docker_engine.toolkit_version(run([nvidia_ctk, "--version"])[1]) if nvidia_ctk else ""


def is_ours(marker: str) -> bool:
    return "gpunode.llm" in node_files.text_of(marker)


def config_settled(path: str, wanted: Dict[str, Any]) -> bool:
    """A file that cannot be read is not settled: whoever merges into it says what is wrong with it."""
    try:
        _text, here = daemon_file.read(path)
        return daemon_file.merged(path, here, wanted) == here
    except ValueError:
        return False


def login() -> Sequence[str]:
    """Whoever came in, before becoming root; root needs no group."""
    name = os.environ.get("SUDO_USER") or getpass.getuser()
    return [] if name == "root" else [name]


def users(names: Sequence[str], group: str) -> Dict[str, Any]:
    unknown, missing, members, gid = [], [], [], None
    try:
        entry = grp.getgrnam(group)
        members, gid = entry.gr_mem, entry.gr_gid
    except KeyError:
        pass
    for name in names:
        try:
            primary = pwd.getpwnam(name).pw_gid
        except KeyError:
            unknown.append(name)
            continue
        if name not in members and primary != gid:
            missing.append(name)
    return {"group_exists": gid is not None, "users_missing": missing, "users_unknown": unknown}
