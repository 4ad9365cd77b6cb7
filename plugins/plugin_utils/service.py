# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An instance of a plan as it is on a node: one value, which templates print and modules receive.

``service`` builds it. Everything else here is a part of that value, or a view of it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..module_utils.instance import names
from ..module_utils.instance.record import START_S, Files, Record, patience_s, start_limit_s
from ..module_utils.node import network
from ..module_utils.programs import vllm_wait
from ..module_utils.programs.gpu import UTILIZATION, label
from .node import group as node_group
from .planner.request import host_address, instance_name
from .quoting import mounts_for

#: Default time for requests in flight to finish at a stop, in seconds.
DRAIN_S = 30
#: Seconds that Docker waits longer than the drain before it kills an engine, and systemd before it kills Docker.
DOCKER_MARGIN_S, STOP_MARGIN_S = 15, 45
#: The first systemd version that can increase the pause between starts, and the factor that it grows to.
GROWING_PAUSE_SINCE, GROWTH = 254, 8
#: The user and group other than root that vLLM's images support.
USER = "2000:0"
LOOPBACK, ANY_ADDRESS = "127.0.0.1", ("0.0.0.0", "::")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPOSITORY = re.compile(r"[A-Za-z0-9._/-]+")


@dataclass(frozen=True)
class Settings:
    """What the role vllm sets for all of its instances; the defaults are the role's. Times are in seconds."""

    config_dir: str = names.CONFIG_DIR
    cache_dir: str = names.CACHE_DIR
    kept_dir: str = names.KEPT_DIR
    huggingface_home: str = "/var/lib/huggingface"
    wait_program: str = "/usr/local/lib/gpunode/vllm-wait.py"
    gpus_program: str = "/usr/local/lib/gpunode/vllm-gpus.py"
    keep_program: str = "/usr/local/lib/gpunode/vllm-keep.sh"
    back_program: str = "/usr/local/lib/gpunode/vllm-back.sh"
    peer_program: str = "/usr/local/lib/gpunode/vllm-peer.py"
    counting_program: str = "/usr/local/lib/gpunode/vllm-usage.py"
    docker_program: str = "/usr/bin/docker"
    drain_timeout_s: int | None = None
    restart_pause_s: int = 15
    restart_limit: int = 4
    start_timeout_s: int | None = None
    gpu_timeout_s: int = 120
    hang_timeout_s: int = 300
    env: Mapping[str, Any] = field(default_factory=dict)
    docker_args: Sequence[str] = ()
    run_as_root: bool = True
    #: Whether the engine counts tokens by client.
    usage: bool = False
    #: Whether there is more than one API key: these need a file of their own.
    several_keys: bool = False
    systemd_version: int = 0

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Settings:
        """Read the settings as templates pass them: a whole number may be text."""
        taken = {item.name: given[item.name] for item in fields(cls) if item.name in given}
        numbers = {name: int(taken[name]) for name in _NUMBERS if taken.get(name) is not None}
        return cls(**{**taken, **numbers})


_NUMBERS = [item.name for item in fields(Settings) if str(item.type).startswith("int")]


@dataclass(frozen=True)
class Times:
    """How long each step of a unit may take, in seconds; 0 if it has no such step."""

    start_s: int
    gpu_s: int
    hang_s: int
    drain_s: int
    #: systemd's time limit of a start.
    limit_s: int
    #: Docker's time limit of a stop, and systemd's.
    docker_stop_s: int
    stop_s: int
    #: The first and the longest pause between an end and the next start.
    pause_s: int
    longest_pause_s: int
    #: systemd gives up after so many failed starts within that time.
    starts: int
    starts_within_s: int
    #: How long the start of a rank waits for the others, and its stop for the head; 0 for an engine on one node.
    meet_s: int = 0
    leave_s: int = 0

    @property
    def patience_s(self) -> int:
        return patience_s(self.limit_s, self.gpu_s)


@dataclass(frozen=True)
class Service:
    """An instance with everything that its unit, its files and its clients need."""

    name: str
    unit: str
    container: str
    served: str
    #: What its model is served for, and what an answer of that is called.
    task: str
    answer: str
    image: str
    #: The repository of its model, and the commit or branch.
    model: str
    revision: str
    #: The repositories of its adapters and of its draft.
    beside: list[str]
    #: For a second instance or a trial, the name of the first one; else empty.
    first: str
    #: For a trial that takes the GPUs of the first one, the unit of that; else empty.
    in_place_of: str
    cpu: bool
    host: str
    port: int
    #: The port that its port was counted from; None if unknown.
    port_base: int | None
    #: Docker's --publish: address, port outside, port inside.
    publish: str
    health_url: str
    #: The names of its GPUs for the container toolkit, and the share of their memory that it uses.
    gpus: list[str]
    gpus_by_uuid: bool
    utilization: float
    #: The units on the same GPU that start before it.
    starts_after: list[str]
    files: Files
    started_from: str
    #: The configuration file of the container: with several keys, a copy that contains all of them.
    mounted_config: str
    #: The folder of the weights, which is the hub's cache or the model's own, and its path in the container.
    weights: str
    weights_target: str
    #: The cache of compiled code; a second instance uses that of the first.
    cache: str
    #: The folders in the cache that must exist if it does not run as root.
    folders: list[str]
    #: The hub's cache and its path in the container, if adapters or a draft are in it and the weights are not.
    cached: str
    cached_target: str
    #: The folders of its weights, adapters and draft as far as they are pinned, so that a check can find them missing.
    snapshots: list[str]
    #: Every path that its unit uses, as RequiresMountsFor= takes them.
    mounts: str
    #: Its user if that is not root, and the folders that it can write to.
    user: str
    home: str
    cache_target: str
    shm_size: str
    config: Mapping[str, Any]
    #: Its environment without secrets.
    environment: Mapping[str, Any]
    #: Where its container has the program that counts tokens by client; empty if none does.
    usage_target: str
    times: Times
    standby_file: str
    gateway_unit: str
    several_keys: bool
    #: Of an engine over several nodes: its group as the record has it, None for others; the devices of the node that it
    #: needs for that; and the unit that keeps it together with the other ranks.
    group: Mapping[str, Any] | None
    devices: list[str]
    peer_unit: str
    peer_folder: str
    peer_started_from: str
    peer_reads: list[str]


def served_name(instance: Mapping[str, Any]) -> str:
    return str(instance.get("served_model_name") or instance["name"])


def task_of(instance: Mapping[str, Any]) -> str:
    """What its model is served for; plans of earlier releases do not say."""
    return str(instance.get("task") or vllm_wait.GENERATE)


def check(instance: Mapping[str, Any]) -> None:
    """Refuse an instance that no unit can be made of; it may not come from the planner.

    Raises ValueError for an invalid name, and for a host that Docker cannot publish on.
    """
    name = str(instance["name"])
    if not instance.get("first") and instance_name(name) != name:
        raise ValueError(f"{name!r} is not a valid name for an instance: use {instance_name(name)!r}.")
    host_address(_host(instance))


def times(instance: Mapping[str, Any], settings: Settings) -> Times:
    """The times of a unit's start and stop, and the limits that follow from them."""
    config = instance.get("config") or {}
    start_s = int(settings.start_timeout_s or instance.get("start_timeout_s") or START_S)
    gpu_s = settings.gpu_timeout_s if _gpus(instance) else 0
    # An engine that sleeps on purpose does not answer either.
    hang_s = 0 if config.get("enable-sleep-mode") or node_group.is_headless(instance) else settings.hang_timeout_s
    drain_s = int(_drain(config, settings)["shutdown-timeout"])
    grows = settings.systemd_version >= GROWING_PAUSE_SINCE
    longest_pause_s = settings.restart_pause_s * (GROWTH if grows else 1)
    stop_s = drain_s + STOP_MARGIN_S
    meet_s = start_limit_s(start_s, gpu_s) - node_group.MARGIN_S if node_group.of(instance) else 0
    # The head of its engine has all that time, and the look at it takes some.
    leave_s = stop_s + node_group.MARGIN_S if node_group.is_headless(instance) else 0
    stop_s = leave_s + node_group.MARGIN_S if leave_s else stop_s
    # The longest attempt: it loads until just before the limit, answers, hangs at once, and stops slowly.
    attempt_s = start_limit_s(start_s, 0) + gpu_s + longest_pause_s + stop_s + 2 * hang_s + meet_s
    return Times(
        start_s=start_s,
        gpu_s=gpu_s,
        hang_s=hang_s,
        drain_s=drain_s,
        limit_s=start_limit_s(start_s, gpu_s),
        docker_stop_s=drain_s + DOCKER_MARGIN_S,
        stop_s=stop_s,
        pause_s=settings.restart_pause_s,
        longest_pause_s=longest_pause_s,
        starts=settings.restart_limit,
        starts_within_s=(settings.restart_limit + 1) * attempt_s,
        meet_s=meet_s,
        leave_s=leave_s,
    )


def files(instance: Mapping[str, Any], settings: Settings) -> Files:
    """The paths of an instance's files. A second one uses the first one's cache, and keeps nothing for a rollback."""
    name, first = str(instance["name"]), str(instance.get("first") or "")
    folder = names.SECOND_DIR if first else settings.config_dir
    return Files(
        config=f"{folder}/{name}.yaml",
        environment=f"{folder}/{name}.env",
        api_keys=f"{folder}/{name}.keys.yaml",
        cache="" if first else f"{settings.cache_dir}/{name}",
        kept="" if first else f"{settings.kept_dir}/{name}",
        unit=f"{names.SECOND_UNIT_DIR if first else names.UNIT_DIR}/{names.unit_of(name)}",
        record=names.record_path(name),
    )


def made(instance: Mapping[str, Any], settings: Settings) -> Service:
    """Build the service of an instance. Raises ValueError if no unit can be made of it."""
    check(instance)
    name, first = str(instance["name"]), str(instance.get("first") or "")
    paths, config = files(instance, settings), instance.get("config") or {}
    return Service(
        **_address_fields(instance),
        **_folder_fields(instance, settings),
        **_started_fields(instance, settings),
        name=name,
        unit=names.unit_of(name),
        container=names.container_of(name),
        served=served_name(instance),
        task=task_of(instance),
        answer=vllm_wait.QUESTIONS[task_of(instance)].title,
        image=str(instance.get("image") or ""),
        model=str(instance.get("repo_id") or ""),
        revision=_revision(instance),
        beside=_repositories_beside(instance),
        first=first,
        in_place_of=names.unit_of(first) if instance.get("in_place") else "",
        cpu=(instance.get("device") or "cuda") == "cpu",
        gpus=_gpus(instance),
        gpus_by_uuid=bool(instance.get("gpu_uuids")),
        utilization=float(config.get("gpu-memory-utilization", UTILIZATION)),
        starts_after=[names.unit_of(str(other)) for other in instance.get("starts_after") or ()],
        files=paths,
        started_from=names.started_from(names.unit_of(name)),
        mounted_config=f"{names.run_dir(names.unit_of(name))}/config.yaml" if settings.several_keys else paths.config,
        snapshots=_snapshots(instance, settings),
        user="" if settings.run_as_root else USER,
        shm_size=str(instance.get("shm_size", "16g")),
        times=times(instance, settings),
        # A trial answers no client.
        standby_file=names.standby_file(first) if first and name == names.second_of(first) else "",
        gateway_unit=names.GATEWAY_UNIT,
        several_keys=settings.several_keys,
    )


def _address_fields(instance: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a service that say where it listens."""
    host, port = _host(instance), int(instance["port"])
    inside = int((instance.get("config") or {}).get("port", port))
    counted = not instance.get("first") and instance.get("port_base") is not None
    return {
        "host": host,
        "port": port,
        "port_base": int(instance["port_base"]) if counted else None,
        "publish": f"{network.bracketed(host)}:{port}:{inside}",
        # Running units contain this text in a comment: another text would restart them.
        "health_url": f"http://{LOOPBACK if host in ANY_ADDRESS else host}:{port}/health",
    }


def _folder_fields(instance: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """The fields of a service that name its folders, on the node and in the container."""
    cache = f"{settings.cache_dir}/{instance.get('first') or instance['name']}"
    hub = f"{settings.huggingface_home}/hub"
    weights = str(instance.get("folder") or hub)
    cached = hub if instance.get("folder") and _beside(instance) else ""
    home = "/root" if settings.run_as_root else "/home/vllm"
    of_files = os.path.dirname(files(instance, settings).config)
    return {
        "weights": weights,
        "weights_target": names.MODEL_TARGET if instance.get("folder") else f"{home}/{names.HUB_TARGET}",
        "cached": cached,
        "cached_target": f"{home}/{names.HUB_TARGET}" if cached else "",
        "cache": cache,
        "folders": [cache + below for below in ("", "/.cache", "/.cache/huggingface", f"/{names.HUB_TARGET}")],
        "mounts": _mounts([weights, *filter(None, [cached]), cache, of_files, settings.kept_dir], settings),
        "home": home,
        "cache_target": f"{home}/.cache/vllm" if settings.run_as_root else home,
    }


def _started_fields(instance: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """What it is started with, and what keeps it together with the other ranks of its engine if it has any."""
    planned, name = instance.get("config") or {}, str(instance["name"])
    counts = settings.usage and not node_group.is_headless(instance)
    config = {
        "shutdown-timeout": DRAIN_S,
        **planned,
        **_drain(planned, settings),
        **(_counting(planned) if counts else {}),
    }
    environment = {**_environment(instance, settings), **(_counted(instance, settings) if counts else {})}
    group = node_group.recorded(instance, config, environment, settings.docker_program)
    return {
        "config": config,
        "environment": environment,
        "usage_target": f"{names.USAGE_FOLDER}/{names.USAGE_MIDDLEWARE.partition('.')[0]}.py" if counts else "",
        "group": group,
        "devices": node_group.devices(instance),
        "peer_unit": group["unit"] if group else "",
        "peer_folder": names.peer_folder(name) if group else "",
        "peer_started_from": names.peer_started_from(name) if group else "",
        # Not its record, which it reads again by itself: it must answer while a rank stops for a change.
        "peer_reads": [settings.peer_program, group["unit_file"]] if group else [],
    }


def _counting(config: Mapping[str, Any]) -> dict[str, Any]:
    """The option that has vLLM load what counts tokens by client. It takes one value in a file."""
    if config.get("middleware"):
        raise ValueError("usage_enabled needs vLLM's option middleware, which extra_args has already: leave out one.")
    return {"middleware": names.USAGE_MIDDLEWARE}


def _counted(instance: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """The environment of what counts tokens by client: where vLLM finds it, and where it keeps its file."""
    own = _environment(instance, settings).get("PYTHONPATH")
    return {
        "PYTHONPATH": f"{names.USAGE_FOLDER}:{own}" if own else names.USAGE_FOLDER,
        "GPUNODE_USAGE_FILE": f"{_folder_fields(instance, settings)['cache_target']}/{names.USAGE_FILE}",
        "GPUNODE_USAGE_MODEL": served_name(instance),
    }


def _host(instance: Mapping[str, Any]) -> str:
    return str(instance.get("host") or LOOPBACK)


def _gpus(instance: Mapping[str, Any]) -> list[str]:
    """GPUs by UUID if containers can request them so: after one is lost, an index may mean another GPU."""
    return [str(uuid) for uuid in instance.get("gpu_uuids") or ()] or [
        label(int(index)) for index in instance.get("gpu_indices") or ()
    ]


def _drain(config: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """The drain time: the role's setting if there is one, else the plan's."""
    planned = config.get("shutdown-timeout", DRAIN_S)
    return {"shutdown-timeout": planned if settings.drain_timeout_s is None else settings.drain_timeout_s}


def _environment(instance: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """Merge the environment; later layers win. The plan's already includes the role's; the start timeout comes last."""
    layers: dict[str, Any] = {
        "HF_HUB_OFFLINE": "1",
        "VLLM_ENGINE_READY_TIMEOUT_S": int(instance.get("start_timeout_s", START_S)),
        "VLLM_NO_USAGE_STATS": "1",
        **settings.env,
        **(instance.get("env") or {}),
    }
    if settings.start_timeout_s is not None:
        layers["VLLM_ENGINE_READY_TIMEOUT_S"] = settings.start_timeout_s
    return layers


def _beside(instance: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Its adapters and its draft."""
    return [*(instance.get("lora") or ()), *filter(None, [instance.get("draft")])]


def _repositories_beside(instance: Mapping[str, Any]) -> list[str]:
    """The repositories of its adapters and its draft."""
    return [str(snapshot["repo_id"]) for snapshot in _beside(instance)]


def _snapshots(instance: Mapping[str, Any], settings: Settings) -> list[str]:
    """The folder of the weights, and those of adapters and a draft."""
    pinned = [(str(instance.get("repo_id") or ""), _revision(instance))]
    pinned += [(str(snapshot["repo_id"]), str(snapshot["revision"])) for snapshot in _beside(instance)]
    return [
        f"{settings.huggingface_home}/hub/models--{repo_id.replace('/', '--')}/snapshots/{commit}"
        for repo_id, commit in pinned
        if _COMMIT.fullmatch(commit) and _REPOSITORY.fullmatch(repo_id)
    ]


def _revision(instance: Mapping[str, Any]) -> str:
    return str((instance.get("config") or {}).get("revision") or "")


def _mounts(folders: Sequence[str], settings: Settings) -> str:
    """The mounts of every path that a unit reads or writes, with those of docker_args."""
    programs = [settings.wait_program, settings.gpus_program, settings.keep_program, settings.back_program]
    return mounts_for([*folders, *programs, settings.docker_program], settings.docker_args)


def record(built: Service) -> Record:
    """The record of an instance, which is stored on the node."""
    return Record(
        name=built.name,
        unit=built.unit,
        image=built.image,
        model=built.model,
        revision=built.revision,
        served=built.served,
        host=built.host,
        port=built.port,
        port_base=built.port_base,
        gpus=tuple(built.gpus),
        timeout_s=built.times.patience_s,
        files=built.files,
        task=built.task,
        beside=tuple(dict.fromkeys(built.beside)),
        group=built.group,
    )


def starts_from(built: Service) -> list[str]:
    """The files that an engine is started from, in the order in which its unit copies them."""
    keys = [built.files.api_keys] if built.several_keys else []
    return [built.files.config, built.files.environment, *keys, built.files.unit]


def to_write(built: Service) -> list[dict[str, Any]]:
    """Its files in the form of rendered_files. The record is the last, since it describes the others."""
    verify, written = "systemd-analyze verify --man=no %s", built.files
    wanted: list[dict[str, Any]] = [
        {"src": "config.yaml.j2", "dest": written.config},
        {"src": "env.j2", "dest": written.environment, "secret": True},
        {"src": "keys.yaml.j2", "dest": written.api_keys, "secret": True, "present": built.several_keys},
        {"src": "vllm.service.j2", "dest": written.unit, "validate": verify},
        *(
            [{"src": "gpunode-peer.service.j2", "dest": built.group["unit_file"], "validate": verify}]
            if built.group
            else []
        ),
        {"src": "record.json.j2", "dest": written.record},
    ]
    return [{**file, "of": built.name} for file in wanted]


def service(instance: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The service as plain data: the fields of Service, and the arguments of each module.

    ``record``: its record's text. ``to_write``: its files, for rendered_files. ``runs``: its unit, for units_ready.
    ``parsed``: its configuration, for vllm_config_check. ``endpoint``: for endpoint_ready. ``second``: the
    unit and files that its second instance may have left, for units_removed. ``peers``: the unit that keeps it together
    with its other ranks, for units_ready, if there is one. ``unpeered``: the same, for units_removed, if there is none.
    """
    settings = Settings.read(given)
    built = made(instance, settings)
    written = record(built)
    started = {"name": built.unit, "image": built.image, "files": starts_from(built)}
    return {
        # Not asdict(): it deep-copies lazy values of templates, which refuse that.
        **{part.name: getattr(built, part.name) for part in fields(built)},
        "files": asdict(built.files),
        "times": asdict(built.times),
        "record": written.text(),
        "to_write": to_write(built),
        "starts_from": started["files"],
        "runs": {**started, "started_from": built.started_from, "container": built.container},
        "parsed": {**started, "config": built.files.config, **_asked(built, instance)},
        "endpoint": written.endpoint,
        "second": _second(instance),
        "peers": _peers(built),
        "unpeered": _unpeered(built),
    }


def _peers(built: Service) -> list[dict[str, Any]]:
    """The unit that keeps a rank together with the others, for units_ready; none for an engine on one node."""
    peer = {"name": built.peer_unit, "files": built.peer_reads, "started_from": built.peer_started_from}
    return [peer] if built.group else []


def _unpeered(built: Service) -> list[dict[str, Any]]:
    """That unit of an engine that ran over several nodes and now runs on one, in the form of units_removed."""
    unit = names.peer_unit(built.name)
    return [] if built.group or built.first else [{"unit": unit, "files": [f"{names.UNIT_DIR}/{unit}"]}]


def _asked(built: Service, instance: Mapping[str, Any]) -> dict[str, Any]:
    """What vllm_config_check needs to ask the engine what the model takes, and the room that the plan has for that."""
    planned = {key: instance[key] for key in ("weights_gib_per_gpu", "kv_cache_gib_per_gpu") if key in instance}
    where = {"weights": built.weights, "weights_target": built.weights_target, "gpus": built.gpus, "cpu": built.cpu}
    return {**where, "cached": built.cached, "cached_target": built.cached_target, "planned": planned}


def _second(instance: Mapping[str, Any]) -> dict[str, Any]:
    """The unit and files that a second instance may have left, in the form of units_removed: the record comes last."""
    name = names.second_of(str(instance["name"]))
    paths = files({"name": name, "first": instance["name"]}, Settings())
    return {"unit": names.unit_of(name), "files": paths.all()}


def second_instances(
    instances: Sequence[Mapping[str, Any]], rooms: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Second instances for those that there is room for: same model and served name, other GPUs and port."""
    by_name = {str(instance["name"]): instance for instance in instances}
    return [
        {
            **by_name[room["name"]],
            "name": names.second_of(room["name"]),
            "first": room["name"],
            "served_model_name": served_name(by_name[room["name"]]),
            "host": LOOPBACK,
            "port": int(room["port"]),
            "gpu_indices": list(room["gpu_indices"]),
            **({"gpu_uuids": list(room["gpu_uuids"])} if by_name[room["name"]].get("gpu_uuids") else {}),
            # Inside its container it listens on the first one's port.
            "config": {"port": int(by_name[room["name"]]["port"]), **by_name[room["name"]].get("config", {})},
        }
        for room in rooms
        # All ranks of an engine over several nodes would have to have a second one at the same time.
        if not node_group.of(by_name[room["name"]])
    ]


def trial_instances(instances: Sequence[Mapping[str, Any]], rooms: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The instances that run the candidates of a tune: beside the first ones if there is room, else in their place."""
    by_name = {str(room["name"]): room for room in rooms}
    beside = {str(second["first"]): second for second in second_instances(instances, rooms)}
    return [
        {
            **(beside.get(str(instance["name"])) or {**instance, "host": LOOPBACK, "first": str(instance["name"])}),
            "name": names.trial_of(str(instance["name"])),
            "served_model_name": served_name(instance),
            "in_place": str(instance["name"]) not in by_name,
        }
        for instance in instances
    ]


def base_url(instance: Mapping[str, Any]) -> str:
    """The URL of an instance on its own node."""
    return vllm_wait.base_url(_host(instance), int(instance["port"]))


_SAID = "Say hello."
#: The route and body that show what a model does, by its task.
EXAMPLES: Mapping[str, tuple[str, dict[str, Any]]] = {
    vllm_wait.GENERATE: (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": _SAID}], "max_tokens": 32},
    ),
    "embed": ("/v1/embeddings", {"input": _SAID}),
    "rerank": ("/v1/rerank", {"query": "What says hello?", "documents": ["Hello.", "Goodbye."]}),
    "classify": ("/classify", {"input": _SAID}),
    "pooling": ("/pooling", {"input": _SAID}),
}


def vllm_curl(instance: Mapping[str, Any], keyed: bool = False) -> str:
    """A shell command that asks an instance on its node. It names the key's variable, not the key."""
    path, body = EXAMPLES[task_of(instance)]
    url = base_url(instance).removesuffix("/v1") + path
    body = {"model": served_name(instance), **body}
    # In double quotes, so that the shell expands the variable.
    key = ' -H "Authorization: Bearer $VLLM_API_KEY"' if keyed else ""
    return f"curl -s {url}{key} -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body))}"
