# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was decided, written down as an instance: vLLM's configuration, its environment, its time to start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .catalog import EngineSpec, Policy
from .memory import Parallel, weights_bytes
from .request import InstanceRequest, Request


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
    gpu_uuids: tuple[str, ...]
    tensor_parallel_size: int
    pipeline_parallel_size: int
    data_parallel_size: int
    max_model_len: int
    model_context: int
    precision: str
    weights_gib_per_gpu: float
    kv_cache_tokens: int
    config: Mapping[str, Any]
    env: Mapping[str, str]
    host: str
    port: int
    port_base: int
    served_model_name: str
    weights_bytes: int
    gated: bool
    ignore_patterns: tuple[str, ...]
    start_timeout_s: int
    shm_size: str
    warnings: tuple[str, ...] = ()


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


def served_names(wish: InstanceRequest) -> tuple[str, ...]:
    """Clients know the repository's name; people type the short one."""
    return wish.served_model_name or tuple(dict.fromkeys((wish.model.repo_id, wish.name)))


def config(settled: Settled, engine: EngineSpec) -> dict[str, Any]:
    """vLLM's own configuration file. Later layers win; a null takes an option out."""
    wish, spread = settled.wish, settled.spread
    planned: dict[str, Any] = {
        "model": wish.model.repo_id,
        "revision": wish.model.revision,
        "served-model-name": list(served_names(wish)),
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
    merged = {**planned, **engine.config, **wish.model.vllm, **wish.extra_args}
    return {key: value for key, value in merged.items() if value is not None}


def start_timeout_s(wish: InstanceRequest, policy: Policy) -> int:
    """How long a start may take: what the user's environment says, else as long as the bytes take to load."""
    own = {**wish.model.env, **wish.env}.get("VLLM_ENGINE_READY_TIMEOUT_S")
    if own is not None:
        return int(own)
    return policy.start_base_s + weights_bytes(wish.model) // policy.load_bytes_per_s


def env(settled: Settled, engine: EngineSpec, policy: Policy, timeout: int) -> dict[str, str]:
    """The engine's environment, which never holds a secret. The user's own has the last word."""
    base = {**engine.env, "VLLM_ENGINE_READY_TIMEOUT_S": str(timeout)}
    if settled.wish.device == "cpu":
        base["VLLM_CPU_KVCACHE_SPACE"] = str(policy.cpu_kv_cache_gib)
    return {**base, **settled.wish.model.env, **settled.wish.env}


def instance(settled: Settled, request: Request, policy: Policy) -> Instance:
    """The instance as roles and users read it."""
    wish, engine = settled.wish, request.engine_of(settled.wish)
    size = weights_bytes(wish.model)
    timeout = start_timeout_s(wish, policy)
    return Instance(
        name=wish.name,
        model=wish.model.key,
        repo_id=wish.model.repo_id,
        revision=wish.model.revision,
        image=settled.image,
        device=wish.device,
        gpu_indices=settled.indices,
        gpu_uuids=(),
        tensor_parallel_size=settled.spread.tp,
        pipeline_parallel_size=settled.spread.pp,
        data_parallel_size=settled.replicas,
        max_model_len=settled.context,
        model_context=wish.model.context,
        precision=wish.model.weights.title,
        weights_gib_per_gpu=round(settled.weights_gib, 2),
        kv_cache_tokens=settled.kv_tokens,
        config=config(settled, engine),
        env=env(settled, engine, policy, timeout),
        host=wish.host,
        port=settled.port,
        port_base=request.port,
        served_model_name=served_names(wish)[0],
        weights_bytes=size,
        gated=wish.model.gated,
        ignore_patterns=wish.model.ignore_patterns,
        start_timeout_s=timeout,
        shm_size=policy.shm_size[wish.device],
        warnings=settled.warnings,
    )
