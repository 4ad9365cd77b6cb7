# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The content of a support bundle: commands, files, and the places of secrets."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from typing import Callable, Dict, Iterable, List, Mapping, Sequence, Set, Tuple

from ..instance import names
from . import redact

#: A pattern for the units of instances.
UNITS = f"{names.UNIT_DIR}/{names.UNITS}"
#: And those that keep the ranks of an engine over several nodes together.
PEERS = f"{names.UNIT_DIR}/{names.peer_unit('*')}"
#: The copies that units make at their start.
STARTED_FROM = names.started_from(names.UNITS)
#: The most of each text, in characters, counted from its end.
LIMIT = 8 << 20
RELATED = (
    "docker",
    "containerd",
    "gpunode-cdi",
    "gpunode-cdi-current",
    "gpunode-engines",
    "gpunode-gateway",
    "gpunode-node-exporter",
    "gpunode-node-metrics",
    "gpunode-prometheus",
    "nvidia-persistenced",
    "nvidia-fabricmanager",
    "nvidia-cdi-refresh",
)

#: What Prometheus of this node has of the last hour, where it has one on its usual port: what most questions are about.
KEY_SERIES = (
    '{__name__=~"up|ALERTS|gpunode_.+|node_systemd_unit_state|smg_worker_health|vllm:num_requests_(running|waiting)'
    '|vllm:kv_cache_usage_perc|vllm:num_preemptions_total|vllm:(prompt|generation)_tokens_total"}[1h]'
)
LAST_HOUR = ("curl", "-sfG", "http://127.0.0.1:9090/api/v1/query", "--data-urlencode", f"query={KEY_SERIES}")

#: name in the bundle -> command
COMMANDS: Mapping[str, Sequence[str]] = {
    "system/kernel.txt": ("uname", "-a"),
    "system/uptime.txt": ("uptime",),
    "system/memory.txt": ("free", "-m"),
    "system/disks.txt": ("df", "-hT"),
    "system/inodes.txt": ("df", "-i"),
    "system/block-devices.txt": ("lsblk", "-o", "NAME,SIZE,TYPE,FSTYPE,MOUNTPOINT,ROTA"),
    "system/addresses.txt": ("ip", "-brief", "address"),
    "system/listening.txt": ("ss", "-ltnp"),
    "system/time.txt": ("timedatectl",),
    "system/modules.txt": ("lsmod",),
    "system/python.txt": ("python3", "--version"),
    "system/packages.txt": ("dpkg-query", "-W", "-f=${db:Status-Abbrev} ${Package} ${Version}\n"),
    "system/packages-rpm.txt": ("rpm", "-qa"),
    "system/repositories.txt": ("apt-cache", "policy"),
    "gpu/nvidia-smi.xml": ("nvidia-smi", "-q", "-x"),
    "gpu/topology.txt": ("nvidia-smi", "topo", "-m"),
    "gpu/cdi.txt": ("nvidia-ctk", "cdi", "list"),
    "gpu/toolkit.txt": ("nvidia-ctk", "--version"),
    "gpu/bus.txt": ("lspci", "-nn", "-d", "10de:"),
    "docker/version.txt": ("docker", "version"),
    "docker/info.txt": ("docker", "info"),
    "docker/containers.txt": ("docker", "ps", "--all", "--no-trunc"),
    "docker/images.txt": ("docker", "images", "--digests"),
    "docker/disk.txt": ("docker", "system", "df"),
    "monitoring/last-hour.json": LAST_HOUR,
    "units/failed.txt": ("systemctl", "--failed", "--no-pager"),
    "units/jobs.txt": ("systemctl", "list-jobs", "--no-pager"),
    "journal/kernel.txt": ("journalctl", "--dmesg", "--no-pager", "--lines={lines}"),
}
#: Patterns of files that are included, with secrets removed.
FILES = (
    "/etc/os-release",
    "/etc/docker/daemon.json",
    UNITS,
    f"{names.UNIT_DIR}/{names.UNITS}.d/*",
    f"{names.UNIT_DIR}/docker.service.d/*.conf",
    f"{names.UNIT_DIR}/gpunode-*.service",
    f"{names.CONFIG_DIR}/*.yaml",
    f"{names.CONFIG_DIR}/*.json",
    names.GATEWAY_RECORD,
    "/etc/gpunode/gateway/nginx.conf",
    "/etc/yum.repos.d/docker*.repo",
    "/etc/yum.repos.d/nvidia-container-toolkit*.repo",
    "/etc/apt/sources.list.d/docker.sources",
    "/etc/apt/sources.list.d/nvidia-container-toolkit.sources",
    f"{names.METRICS_DIR}/*.prom",
    names.PROMETHEUS_RULES,
    f"{names.PROMETHEUS_TARGETS}/*.json",
    "/proc/cmdline",
)
#: Files that are reduced to the names of their settings, and how.
BLANKED: Tuple[Tuple[str, Callable[[str], str]], ...] = (
    (f"{names.CONFIG_DIR}/*.env", redact.blanked),
    (f"{names.CONFIG_DIR}/*.keys.yaml", redact.blanked_list),
    ("/etc/docker/*.env", redact.blanked),
)
#: The places of a node's secrets, and how to read each.
SECRETS: Tuple[Tuple[str, Callable[[str], Set[str]]], ...] = (
    (f"{names.CONFIG_DIR}/*.env", redact.of_environment),
    (f"{names.CONFIG_DIR}/*.keys.yaml", redact.of_list),
    # Copies from before a change: the journal may still hold those secrets.
    (f"{names.KEPT_DIR}/*{names.CONFIG_DIR}/*.env", redact.of_environment),
    (f"{names.KEPT_DIR}/*{names.CONFIG_DIR}/*.keys.yaml", redact.of_list),
    (f"{STARTED_FROM}{names.CONFIG_DIR}/*.env", redact.of_environment),
    (f"{STARTED_FROM}{names.CONFIG_DIR}/*.keys.yaml", redact.of_list),
    ("/etc/gpunode/gateway/keys.conf", redact.of_front),
    ("/etc/huggingface/token", redact.of_token),
    ("/root/.cache/huggingface/token", redact.of_token),
    ("/home/*/.cache/huggingface/token", redact.of_token),
    ("/root/.docker/config.json", redact.of_docker_config),
    ("/home/*/.docker/config.json", redact.of_docker_config),
    ("/etc/docker/daemon.json", redact.of_settings),
    ("/etc/docker/*.env", redact.of_environment),
    (f"{names.CONFIG_DIR}/*.yaml", redact.of_settings),
    (f"{names.CONFIG_DIR}/*.json", redact.of_settings),
    (UNITS, redact.of_unit),
    (f"{names.UNIT_DIR}/gpunode-*.service", redact.of_unit),
    (f"{names.UNIT_DIR}/*.service.d/*", redact.of_unit),
    (f"{names.SECOND_UNIT_DIR}/*.service.d/*", redact.of_unit),
    ("/etc/environment", redact.of_environment),
    ("/etc/yum.repos.d/*.repo", redact.of_settings),
    ("/etc/dnf/dnf.conf", redact.of_settings),
    ("/etc/apt/apt.conf", redact.of_urls),
    ("/etc/apt/apt.conf.d/*", redact.of_urls),
    ("/etc/apt/auth.conf", redact.of_apt),
    ("/etc/apt/auth.conf.d/*", redact.of_apt),
    ("/etc/apt/sources.list", redact.of_urls),
    ("/etc/apt/sources.list.d/*", redact.of_urls),
)


@dataclass(frozen=True)
class Surroundings:
    """The node. ``run``: a command's output, both streams; ``find``: paths for a pattern; ``read``: a file's text."""

    run: Callable[[Sequence[str]], str]
    find: Callable[[str], Iterable[str]]
    read: Callable[[str], str]


def secrets(node: Surroundings, further: Mapping[str, Callable[[str], Set[str]]]) -> Set[str]:
    """All secrets on the node. ``further``: files to read in addition to the usual ones."""
    found: Set[str] = set()
    for pattern, reader in [*SECRETS, *further.items()]:
        for path in node.find(pattern):
            text = node.read(path)
            found |= reader(text)
            for named in redact.environment_files(text) if reader is redact.of_unit else ():
                found |= {value for path in node.find(named) for value in redact.of_environment(node.read(path))}
    return found


def unit_commands(units: Sequence[str], lines: int) -> Dict[str, Sequence[str]]:
    """For each unit the commands for its systemd properties and its journal."""
    commands: Dict[str, Sequence[str]] = {}
    for unit in units:
        commands[f"units/{unit}.status.txt"] = ("systemctl", "status", "--no-pager", "--lines=0", "--full", unit)
        commands[f"units/{unit}.show.txt"] = ("systemctl", "show", unit)
        commands[f"journal/{unit}.txt"] = (
            *("journalctl", "--no-pager", "--all", "--output=short-iso-precise", f"--lines={lines}"),
            f"--unit={unit}",
        )
    return commands


def gather(node: Surroundings, units: Sequence[str], lines: int) -> Dict[str, str]:
    """The texts of the bundle, with secrets still in them."""
    texts = {}
    for name, command in {**COMMANDS, **unit_commands(units, lines)}.items():
        texts[name] = node.run([word.replace("{lines}", str(lines)) for word in command])
    blanked = {path: blank for pattern, blank in BLANKED for path in node.find(pattern)}
    for path in sorted({path for pattern in FILES for path in node.find(pattern)} | set(blanked)):
        texts[f"files{path}"] = blanked.get(path, str)(node.read(path))
    return texts


def clean(texts: Mapping[str, str], known: Iterable[str]) -> Dict[str, str]:
    """The texts without secrets, each cut to the limit. Clean before cutting: half a secret would not be recognised."""
    redactor = redact.Redactor(known)
    return {name: redact.tail(redactor.clean(text), LIMIT) for name, text in texts.items()}


def pack(folder: str, texts: Mapping[str, str], now: float) -> bytes:
    """The bundle as a tar.gz with one folder."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as tar:
        for name in sorted(texts):
            data = texts[name].encode("utf-8", "replace")
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size, member.mode, member.mtime = len(data), 0o600, int(now)
            tar.addfile(member, io.BytesIO(data))
    return held.getvalue()


def instance_units(paths: Iterable[str]) -> List[str]:
    """Units whose files are named like ours, and the units that they need."""
    names = {path.rsplit("/", 1)[-1] for path in paths}
    return sorted(name[: -len(".service")] for name in names if name.endswith(".service")) + list(RELATED)
