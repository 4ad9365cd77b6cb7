# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Models x GPUs x engine release -> what to run. Arithmetic and rules only: no host, no network, no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ansible_collections.gpunode.llm.plugins.module_utils._gpu import NodeGpus
from ansible_collections.gpunode.llm.plugins.plugin_utils._boards import Host, numbered, read_host
from ansible_collections.gpunode.llm.plugins.plugin_utils._catalog import Catalog, EngineSpec, Image, version_key
from ansible_collections.gpunode.llm.plugins.plugin_utils._choice import Choice, weight_only
from ansible_collections.gpunode.llm.plugins.plugin_utils._flags import check_args, hyphened
from ansible_collections.gpunode.llm.plugins.plugin_utils._memory import (
    GIB,
    Parallel,
    kv_bytes_per_token,
    weights_bytes,
)
from ansible_collections.gpunode.llm.plugins.plugin_utils._pack import Packing, Seat, pack
from ansible_collections.gpunode.llm.plugins.plugin_utils._request import InstanceRequest, Request
from ansible_collections.gpunode.llm.plugins.plugin_utils._words import does_not_fit, no_gpus, not_together

COMPAT = "VLLM_ENABLE_CUDA_COMPATIBILITY"


@dataclass(frozen=True)
class Instance:
    """One engine to run. Its field names are a contract with the roles and with users."""

    name: str
    model: str
    repo_id: str
    revision: str | None
    image: str
    device: str
    gpu_indices: tuple[int, ...]
    tensor_parallel_size: int
    pipeline_parallel_size: int
    data_parallel_size: int
    max_model_len: int
    weights_gib_per_gpu: float
    kv_cache_tokens: int
    config: Mapping[str, Any]
    env: Mapping[str, str]
    host: str
    port: int
    served_model_name: str
    weights_bytes: int
    gated: bool
    ignore_patterns: tuple[str, ...]
    start_timeout_s: int
    shm_size: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What a host runs, what to know about it, and what was not chosen and why."""

    instances: tuple[Instance, ...]
    warnings: tuple[str, ...] = ()
    rejected: tuple[Mapping[str, str], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as an action returns it."""
        plain: dict[str, Any] = asdict(self)
        return plain


@dataclass(frozen=True)
class Outcome:
    """A plan, or the sentences that say why there is none."""

    plan: Plan | None
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settled:
    """An instance before it is written down: what was chosen, on the CPU or on which GPUs."""

    wish: InstanceRequest
    port: int
    image: str
    context: int
    kv_tokens: int
    weights_gib: float
    spread: Parallel = field(default_factory=Parallel)
    replicas: int = 1
    indices: tuple[int, ...] = ()
    batched_tokens: int | None = None
    kv_dtype: str = "auto"
    warnings: tuple[str, ...] = ()


def _driver_serves(image: Image, driver: str, env: Mapping[str, str]) -> bool:
    if not driver or version_key(driver) >= version_key(image.min_driver):
        return True
    return env.get(COMPAT) == "1" and version_key(driver)[0] in image.compat_branches


def pick_image(wish: InstanceRequest, engine: EngineSpec, driver: str) -> tuple[str, list[str], list[str]]:
    """The image for a device and a driver, with findings and warnings."""
    images = [image for image in engine.images if image.device == wish.device]
    env = {**wish.model.env, **wish.env}
    if wish.image:
        images = [image for image in images if image.image == wish.image] or [Image(wish.image, wish.device)]
    for place, image in enumerate(images):
        if not image.min_driver or _driver_serves(image, driver, env):
            older = f"The driver ({driver}) is older than {images[0].image} needs ({images[0].min_driver}): taking {image.image}."
            return image.image, [], [older] if place else []
    if not images:
        return "", [f"vLLM {engine.version} has no image for {wish.device} in the catalogue: set `image`."], []
    needs = " or ".join(f"{image.min_driver} ({image.image})" for image in images)
    compat = ", ".join(map(str, images[0].compat_branches))
    hint = f", or set {COMPAT}=1 in env with a data-centre driver of branch {compat}" if compat else ""
    return images[0].image, [f"The NVIDIA driver is {driver}, and the image needs at least {needs}: upgrade it{hint}."], []


def _config(settled: Settled, engine: EngineSpec) -> dict[str, Any]:
    """vLLM's own configuration file. Later layers win; a null takes an option out."""
    wish, spread = settled.wish, settled.spread
    planned: dict[str, Any] = {
        "model": wish.model.repo_id,
        "revision": wish.model.revision,
        "served-model-name": list(_served(wish)),
        "host": "0.0.0.0",  # inside the container; the address that is published is the instance's host
        "port": settled.port,
        "tensor-parallel-size": spread.tp,
        "pipeline-parallel-size": spread.pp if spread.pp > 1 else None,
        "data-parallel-size": settled.replicas if settled.replicas > 1 else None,
        "max-model-len": settled.context,
        "kv-cache-dtype": settled.kv_dtype if settled.kv_dtype != "auto" else None,
        "max-num-batched-tokens": settled.batched_tokens,
    }
    if wish.device == "cuda":
        planned["gpu-memory-utilization"] = wish.gpu_memory_utilization or engine.gpu_memory_utilization
    if wish.model.tool_call_parser:
        planned |= {"enable-auto-tool-choice": True, "tool-call-parser": wish.model.tool_call_parser}
    extra = {hyphened(key): value for key, value in wish.extra_args.items()}
    merged = {**planned, **engine.config, **wish.model.vllm, **extra}
    return {key: value for key, value in merged.items() if value is not None}


def _served(wish: InstanceRequest) -> tuple[str, ...]:
    """Clients know the repository's name; people type the short one."""
    return wish.served_model_name or tuple(dict.fromkeys((wish.model.repo_id, wish.name)))


def _env(settled: Settled, engine: EngineSpec, catalog: Catalog, timeout: int) -> dict[str, str]:
    env = {**engine.env, "VLLM_ENGINE_READY_TIMEOUT_S": str(timeout)}
    if settled.wish.device == "cpu":
        env["VLLM_CPU_KVCACHE_SPACE"] = str(catalog.policy.cpu_kv_cache_gib)
    return {**env, **settled.wish.model.env, **settled.wish.env}


def _instance(settled: Settled, engine: EngineSpec, catalog: Catalog) -> Instance:
    wish = settled.wish
    size = weights_bytes(wish.model)
    timeout = catalog.policy.start_base_s + size // catalog.policy.load_bytes_per_s
    return Instance(
        name=wish.name,
        model=wish.model.key,
        repo_id=wish.model.repo_id,
        revision=wish.model.revision,
        image=settled.image,
        device=wish.device,
        gpu_indices=settled.indices,
        tensor_parallel_size=settled.spread.tp,
        pipeline_parallel_size=settled.spread.pp,
        data_parallel_size=settled.replicas,
        max_model_len=settled.context,
        weights_gib_per_gpu=round(settled.weights_gib, 2),
        kv_cache_tokens=settled.kv_tokens,
        config=_config(settled, engine),
        env=_env(settled, engine, catalog, timeout),
        host=wish.host,
        port=settled.port,
        served_model_name=_served(wish)[0],
        weights_bytes=size,
        gated=wish.model.gated,
        ignore_patterns=wish.model.ignore_patterns,
        start_timeout_s=timeout,
        shm_size=catalog.policy.shm_size[wish.device],
        warnings=settled.warnings,
    )


def _ports(request: Request) -> dict[str, int]:
    """The port of each instance: its own, else the next free one, in the order of the names."""
    taken = {wish.port for wish in request.instances if wish.port}
    ports: dict[str, int] = {}
    following = request.port
    for wish in request.instances:
        while wish.port is None and following in taken:
            following += 1
        ports[wish.name] = wish.port or following
        taken.add(ports[wish.name])
    return ports


def _on_cpu(wish: InstanceRequest, port: int, image: str, catalog: Catalog) -> Settled:
    space = {**wish.model.env, **wish.env}.get("VLLM_CPU_KVCACHE_SPACE", str(catalog.policy.cpu_kv_cache_gib))
    per_token = kv_bytes_per_token(wish.model.shapes, Parallel(), wish.kv_cache_dtype or "auto")
    tokens = int(float(space) * GIB // per_token)
    context = wish.max_model_len or min(wish.model.context, int(tokens * (1 - catalog.policy.calibration_error)))
    return Settled(wish, port, image, context, tokens, weights_bytes(wish.model) / GIB)


def _shorter(choice: Choice, seat: Seat) -> list[str]:
    """What the default context gave up, and how to get it back."""
    full = seat.wish.model.context
    if seat.wish.max_model_len or choice.context >= full:
        return []
    wider = [way for way in seat.options.fitting if way.context >= full]
    cure = f" {min(wider, key=lambda way: way.gpus)} would hold it (objective: context)." if wider else ""
    return [f"The context is {choice.context} of the model's {full}: {choice.fit.kv_tokens} tokens of KV cache fit.{cure}"]


def _about(seat: Seat) -> list[str]:
    """What to know about a choice that works."""
    choice, bench = seat.choice, seat.bench
    notes = _shorter(choice, seat)
    notes += [note for note in (weight_only(bench),) if note]
    if choice.kv_dtype.startswith("fp8") and not seat.wish.kv_cache_dtype:
        notes.append("The KV cache is kept in FP8, since in BF16 this context would not fit: answers may differ slightly.")
    if choice.spread.tp > bench.group.spec.nvlink_domain:
        notes.append(f"{choice.spread} spans GPUs that no NVLink joins: each layer's exchange goes over PCIe.")
    idle = len(bench.group.indices) - choice.gpus
    if idle and bench.wish.gpu_indices:
        notes.append(f"{idle} of the GPUs named in gpu_indices stay idle.")
    return notes


def _idle(host: Host, packing: Packing) -> list[str]:
    """GPUs that nobody got."""
    used = {index for seat in packing.seats for index in seat.indices}
    notes = []
    for group in host.groups:
        idle = [index for index in group.indices if index not in used]
        if idle and packing.seats:
            mixed = " An engine spans GPUs of one kind only." if len(host.groups) > 1 else ""
            notes.append(f"{numbered(idle)} ({group.name}) {'stays' if len(idle) == 1 else 'stay'} idle.{mixed}")
    return notes


def _unseated(packing: Packing, host: Host, engine: EngineSpec, catalog: Catalog) -> list[str]:
    findings = list(packing.pinned)
    findings += [does_not_fit(wish, host.groups, engine, catalog) for wish in packing.alone]
    if packing.together:
        findings.append(not_together(packing.together, host))
    return findings


def _too_long(wish: InstanceRequest) -> list[str]:
    if wish.max_model_len is None or wish.max_model_len <= wish.model.context:
        return []
    return [
        f"{wish.name}: max_model_len {wish.max_model_len} is beyond the model's own context of {wish.model.context}; "
        f"set it to {wish.model.context} or less."
    ]


def _seated(
    request: Request, host: Host, engine: EngineSpec, catalog: Catalog
) -> tuple[Packing, list[str]]:
    """GPUs for everybody who wants some."""
    wishes = [wish for wish in request.instances if wish.device == "cuda"]
    if not wishes:
        return Packing(), []
    if not host.groups:
        return Packing(), [*host.blocked, *(no_gpus(wish, engine, catalog) for wish in wishes)]
    packing = pack(wishes, host.groups, engine, catalog.policy)
    problems = _unseated(packing, host, engine, catalog)
    return packing, [*(host.blocked if problems else ()), *problems]


def _settle(
    request: Request, packing: Packing, images: Mapping[str, str], catalog: Catalog
) -> list[Settled]:
    ports = _ports(request)
    seats = {seat.wish.name: seat for seat in packing.seats}
    settled = []
    for wish in request.instances:
        port, image = ports[wish.name], images[wish.name]
        if wish.device == "cpu":
            settled.append(_on_cpu(wish, port, image, catalog))
            continue
        seat = seats[wish.name]
        choice = seat.choice
        settled.append(
            Settled(
                wish, port, image, choice.context, choice.fit.kv_tokens * choice.replicas, choice.fit.weights_gib,
                choice.spread, choice.replicas, seat.indices, choice.batched_tokens, choice.kv_dtype, tuple(_about(seat)),
            )
        )  # fmt: skip
    return settled


def _rejected(seats: Sequence[Seat]) -> tuple[Mapping[str, str], ...]:
    return tuple(
        {"instance": seat.wish.name, "choice": way.choice, "reason": way.reason}
        for seat in seats
        for way in seat.options.rejected
    )


def make_plan(request: Request, node: NodeGpus, catalog: Catalog) -> Outcome:
    """Decide what runs where. Every reason against it is found, not only the first."""
    engine = request.engine
    host = read_host(node, catalog, request.own_prefix)
    findings, warnings = list(request.findings), list(host.warnings)
    images: dict[str, str] = {}
    for wish in request.instances:
        images[wish.name], wrong, notes = pick_image(wish, engine, host.driver_version)
        bad_args, old_args = check_args(wish.extra_args, engine)
        findings += [*wrong, *bad_args, *_too_long(wish)]
        warnings += [*notes, *old_args]
    readable = not any(_too_long(wish) for wish in request.instances) and request.instances
    packing, problems = _seated(request, host, engine, catalog) if readable else (Packing(), [])
    findings += problems
    if findings:
        return Outcome(None, tuple(dict.fromkeys(findings)))
    settled = _settle(request, packing, images, catalog)
    used_gpus = any(item.indices for item in settled)
    warnings += [*(host.blocked if used_gpus else ()), *_idle(host, packing)]
    warnings += [f"{item.wish.name}: {note}" for item in settled for note in item.warnings]
    instances = tuple(_instance(item, engine, catalog) for item in settled)
    return Outcome(Plan(instances, tuple(dict.fromkeys(warnings)), _rejected(packing.seats)))
