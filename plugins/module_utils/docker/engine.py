# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Docker engine and the NVIDIA tools say of themselves."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Callable, List, Tuple

from ..programs import diagnosis

FIRST_WITH_CDI = (25, 0)
FIRST_WITH_CDI_ON = (28, 3)
#: The first nvidia-ctk that sets Docker up for CDI (``runtime configure --cdi.enabled``).
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
        """Whether it does so without being told."""
        return release(self.server) >= FIRST_WITH_CDI_ON


def release(version: str) -> Tuple[int, ...]:
    """(26, 1, 5) from 26.1.5+dfsg1; nothing from nothing."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def parse_version(answer: str) -> Engine:
    """The engine in ``docker version --format '{{json .}}'``; its Server is null where none answers."""
    try:
        said: Any = json.loads(answer)
    except ValueError:
        return Engine()

    client, server = ((said or {}).get(half) or {} for half in ("Client", "Server"))
    return Engine(
        client=str(client.get("Version") or ""),
        server=str(server.get("Version") or ""),
        context=str(client.get("Context") or ""),
        platform=str((server.get("Platform") or {}).get("Name") or ""),
        components=tuple(str(part.get("Name")) for part in server.get("Components") or []),
    )


@dataclass(frozen=True)
class Roots:
    """What the Docker that answers hangs on: ``service`` where docker.service started it, ``snap`` where snap's did."""

    service: bool = True
    snap: bool = False
    rootless: bool = False
    elsewhere: str = ""


#: Dockers on which nothing here can run: when it is that one, what it is, and what helps. The first is said.
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
    """Why this Docker can be neither kept nor replaced, in one sentence with the remedy; empty where it can."""
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
    """1.20.0 from ``nvidia-ctk --version``; nothing from what says no version."""
    found = re.search(r"version (\d+(?:\.\d+)+)", answer)
    return found.group(1) if found else ""


def cdi_trouble(server: str) -> str:
    """Why a Docker of this version does not do for GPUs; empty where it does, or where none answers."""
    if not server or Engine(server=server).knows_cdi:
        return ""
    return (
        f"Docker {server} on this node knows no CDI, by which containers get their GPUs here; Docker 25 is the first"
        " that does. Upgrade it, or let the docker role replace it with docker_keep_existing: false."
    )


def toolkit_trouble(version: str) -> str:
    """Why a toolkit of this version does not do; empty where it does, or is of a version that nobody can tell."""
    if not version or release(version) >= FIRST_TOOLKIT:
        return ""
    first = ".".join(map(str, FIRST_TOOLKIT))
    return (
        f"The NVIDIA Container Toolkit {version} on this node is too old: {first} is the first that gives Docker's"
        " containers GPUs by name (CDI). Upgrade it, or have the newest put in its place with"
        " nvidia_container_toolkit_keep_existing: false."
    )


def gpu_uuids(listing: str) -> List[str]:
    """The GPUs of ``nvidia-smi -L``, without their MIG parts."""
    return re.findall(r"^GPU \d+: .*\(UUID: (GPU-[^)]+)\)", listing, re.MULTILINE)


def proof_failure(said: str) -> str:
    """The cause of a failed container and what to do about it, with its own words."""
    lines = said.splitlines()
    found = diagnosis.diagnose([*lines, " ".join(said.split())])
    why = str(found) if found else "it did not run"
    return diagnosis.sentences(f"A container sees no GPU: {why}", f"It said: {' '.join(said.split())[-400:]}")
