# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Docker engine of this node: docker_info's answer, which preflight_check gives as well.

It parses the output of Docker and of the NVIDIA tools.
"""

from __future__ import annotations

import getpass
import glob
import grp
import json
import os
import pwd
import re
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from ..node import commands, files as node_files
from ..node.commands import Runner
from ..packages import apt as packages_apt
from ..programs import diagnosis
from . import daemon as docker_daemon

Which = Callable[[str], Optional[str]]

MARKERS = ["/etc/apt/sources.list.d/docker.sources", "/etc/yum.repos.d/docker-ce.repo"]
#: If one of these files exists, the role installed the toolkit, at the role's version.
TOOLKIT_SOURCES = [
    "/etc/apt/sources.list.d/nvidia-container-toolkit.sources",
    "/etc/yum.repos.d/nvidia-container-toolkit.repo",
]
CONFIG = "/etc/docker/daemon.json"
SNAP = "snap.docker.dockerd.service"
PROPERTIES = ("LoadState", "ActiveState", "UnitFileState", "DropInPaths")
OWN_SOCKETS = ("unix:///var/run/docker.sock", "unix:///run/docker.sock")

FIRST_WITH_CDI = (25, 0)
FIRST_WITH_CDI_ON = (28, 3)
#: The first nvidia-ctk that can configure Docker for CDI (``runtime configure --cdi.enabled``).
FIRST_TOOLKIT = (1, 14, 4)


@dataclass(frozen=True)
class Engine:
    """A Docker engine as ``docker version`` shows it; without a server it does not work."""

    client: str = ""
    server: str = ""
    context: str = ""
    platform: str = ""
    components: Tuple[str, ...] = ()

    @property
    def works(self) -> bool:
        return bool(self.server)

    @property
    def knows_cdi(self) -> bool:
        """Whether containers can be given GPUs by name, which survives systemd's daemon-reload."""
        return release(self.server) >= FIRST_WITH_CDI

    @property
    def cdi_is_on(self) -> bool:
        """Whether it does so by default."""
        return release(self.server) >= FIRST_WITH_CDI_ON


def release(version: str) -> Tuple[int, ...]:
    """(26, 1, 5) from 26.1.5+dfsg1; () from an empty text."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def parse_version(answer: str) -> Engine:
    """The engine in ``docker version --format '{{json .}}'``; its Server is null if none answers."""
    try:
        versions: Any = json.loads(answer)
    except ValueError:
        return Engine()

    client, server = ((versions or {}).get(half) or {} for half in ("Client", "Server"))
    return Engine(
        client=str(client.get("Version") or ""),
        server=str(server.get("Version") or ""),
        context=str(client.get("Context") or ""),
        platform=str((server.get("Platform") or {}).get("Name") or ""),
        components=tuple(str(part.get("Name")) for part in server.get("Components") or []),
    )


@dataclass(frozen=True)
class Roots:
    """How the answering Docker was started: ``service`` by docker.service, ``snap`` by snap's service."""

    service: bool = True
    snap: bool = False
    rootless: bool = False
    elsewhere: str = ""


#: Dockers that cannot run the services: a condition, a description, and the remedy. The first match is reported.
UNFIT: Tuple[Tuple[Callable[[Engine, Roots], bool], str, str], ...] = (
    (
        lambda _docker, roots: roots.snap and not roots.service,
        "comes from snap, which keeps /etc/vllm and the weights out of its sight",
        "`snap remove docker` takes it away with its containers and images, and the next run installs Docker's own",
    ),
    (
        lambda docker, roots: docker.works and (roots.rootless or "rootlesskit" in docker.components),
        "is rootless and belongs to one user ({where})",
        "take DOCKER_HOST, the context or the link at /var/run/docker.sock away from root, and the next run adds"
        " Docker's own beside it",
    ),
    (
        lambda docker, _roots: docker.works and docker.platform.startswith("Docker Desktop"),
        "is Docker Desktop, whose containers run in a virtual machine without the GPUs",
        "remove it, and the next run installs Docker's own",
    ),
    (
        lambda _docker, roots: bool(roots.elsewhere),
        "is somewhere else for root's docker command ({where})",
        "take DOCKER_HOST out of root's environment (/etc/environment, sudo's settings), or set the context back with"
        " `sudo docker context use default`",
    ),
    (
        lambda docker, _roots: docker.works and "Podman Engine" in docker.components,
        "is Podman, which answers at Docker's socket",
        "`systemctl disable --now podman.socket` ends that; remove podman-docker too, and the next run installs"
        " Docker's own",
    ),
    (
        lambda docker, roots: docker.works and not roots.service,
        "answers without docker.service, as one does that was started by hand",
        "end it (`ps -C dockerd -o pid,args` names it), and the next run has Docker's own started",
    ),
)


def obstacle(docker: Engine, roots: Roots) -> str:
    """Why this Docker can be neither kept nor replaced, in one sentence with the remedy; empty if it can."""
    for applies, kind, remedy in UNFIT:
        if applies(docker, roots):
            shown = f" {docker.server}" if docker.server else ""
            which = kind.format(where=roots.elsewhere or "its socket is at /var/run/docker.sock")
            return (
                f"Docker{shown} on this node {which}, and what runs here needs root's own Docker, started by"
                f" docker.service: {remedy}."
            )
    return ""


def toolkit_version(answer: str) -> str:
    """1.20.0 from ``nvidia-ctk --version``; empty without a version."""
    match = re.search(r"version (\d+(?:\.\d+)+)", answer)
    return match.group(1) if match else ""


def cdi_trouble(server: str) -> str:
    """Why this version of Docker cannot be used for GPUs; empty if it can, or if no Docker answers."""
    if not server or Engine(server=server).knows_cdi:
        return ""
    return (
        f"Docker {server} on this node does not support CDI, which containers need to get GPUs; Docker 25 is the"
        " first that does. Upgrade it, or let the docker role replace it with docker_keep_existing: false."
    )


def toolkit_trouble(version: str) -> str:
    """Why this version of the toolkit cannot be used; empty if it can, or if the version is unknown."""
    if not version or release(version) >= FIRST_TOOLKIT:
        return ""
    first = ".".join(map(str, FIRST_TOOLKIT))
    return (
        f"The NVIDIA Container Toolkit {version} on this node is too old: {first} is the first that supports CDI"
        " with Docker. Upgrade it, or replace it by the newest with"
        " nvidia_container_toolkit_keep_existing: false."
    )


def gpu_uuids(listing: str) -> List[str]:
    """The GPUs of ``nvidia-smi -L``, without their MIG parts."""
    return re.findall(r"^GPU \d+: .*\(UUID: (GPU-[^)]+)\)", listing, re.MULTILINE)


def proof_failure(output: str) -> str:
    """The cause of a failed container and the remedy, with the container's output."""
    lines = output.splitlines()
    cause = diagnosis.diagnose([*lines, " ".join(output.split())])
    why = str(cause) if cause else "it did not run"
    return diagnosis.sentences(f"A container sees no GPU: {why}", f"It said: {' '.join(output.split())[-400:]}")


def describe(options: Mapping[str, Any], run: Runner, which: Which) -> Dict[str, Any]:
    """``options``: the options of docker_info; missing ones have its defaults."""
    docker, systemctl = which("docker"), which("systemctl")
    engine, units = ask(run, docker), shown(run, systemctl)
    names = options.get("users")
    return {
        "works": engine.works,
        "server_version": engine.server,
        "client_version": engine.client,
        "ours": any(is_ours(marker) for marker in options.get("markers") or MARKERS),
        "obstacle": obstacle(engine, roots(run, docker, engine, units if systemctl else None)),
        "toolkit_version": toolkit(run, which("nvidia-ctk")),
        "service": service(units[0]),
        "config_settled": config_settled(options.get("config_path") or CONFIG, options.get("config") or {}),
        "settings_due": docker_daemon.due(),
        "packages_settled": bool(options.get("apt")) and packages_apt.settled(options["apt"], run),
        **users(login() if names is None else names, options.get("group") or "docker"),
    }


def ask(run: Runner, docker: Optional[str]) -> Engine:
    if not docker:
        return Engine()
    # Exits 1 if no server answers, but still prints the client.
    _rc, out, _err = run([docker, "version", "--format", "{{json .}}"])
    return parse_version(out)


def shown(run: Runner, systemctl: Optional[str]) -> Tuple[Dict[str, str], Dict[str, str]]:
    """The state of docker.service and of snap's Docker service, from systemd."""
    units = commands.shown(run(commands.show(PROPERTIES, "docker.service", SNAP))[1]) if systemctl else []
    ours, snaps = [*units, {}, {}][:2]
    return ours, snaps


def service(properties: Mapping[str, str]) -> Dict[str, Any]:
    return {
        "known": properties.get("LoadState") == "loaded",
        "active": properties.get("ActiveState") == "active",
        "enabled": properties.get("UnitFileState") == "enabled",
        "drop_ins": properties.get("DropInPaths", "").split(),
    }


def roots(run: Runner, docker: Optional[str], engine: Engine, units: Optional[Tuple[Mapping[str, str], ...]]) -> Roots:
    """How the answering Docker was started. If docker.service runs, nothing else is checked."""
    # Unknown without systemd; preflight reports that it is missing.
    ours, snaps = units or ({"LoadState": "loaded", "ActiveState": "active"}, {})
    started = ours.get("LoadState") == "loaded" and ours.get("ActiveState") not in ("inactive", "failed")
    elsewhere = sent_to(run, docker, engine)
    rootless = False
    if docker and engine.works and (elsewhere or not started):
        rootless = "name=rootless" in run([docker, "info", "--format", "{{json .SecurityOptions}}"])[1]
    return Roots(started, snaps.get("LoadState") == "loaded", rootless, elsewhere)


def sent_to(run: Runner, docker: Optional[str], engine: Engine) -> str:
    """Where root's docker command is sent, if not to the node's own socket; a unit would not be sent there."""
    host = os.environ.get("DOCKER_HOST") or ""
    if docker and not host and engine.context not in ("", "default"):
        host = run([docker, "context", "inspect", "--format", "{{.Endpoints.docker.Host}}", engine.context])[1].strip()
    return "" if host in ("", *OWN_SOCKETS) else host


def rootless_sockets() -> Sequence[str]:
    """The sockets of rootless Dockers."""
    return sorted(glob.glob("/run/user/*/docker.sock"))


def toolkit(run: Runner, nvidia_ctk: Optional[str]) -> str:
    """The version of the NVIDIA Container Toolkit on this node; empty if it is missing or of unknown version."""
    return toolkit_version(run([nvidia_ctk, "--version"])[1]) if nvidia_ctk else ""


def is_ours(marker: str) -> bool:
    return "gpunode.llm" in node_files.text_of(marker)


def config_settled(path: str, wanted: Dict[str, Any]) -> bool:
    """A file that cannot be read is not settled: the module that merges it reports the error."""
    try:
        _text, here = docker_daemon.read(path)
        return docker_daemon.merged(path, here, wanted) == here
    except ValueError:
        return False


def login() -> Sequence[str]:
    """The login user before sudo; root needs no group."""
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
