# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turn a decision into an instance: vLLM's configuration, environment and start time-out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...module_utils.instance.names import MODEL_TARGET
from . import group as node_group, host_cache, lora, speculation
from .catalog import EngineSpec, ModelSpec, Policy
from .memory import Parallel, weights_bytes
from .request import HostRequest, InstanceRequest
from .rope import with_own
from .tasks import GENERATE
from .user_figures import AUTO


@dataclass(frozen=True)
class Instance:
    """One engine to run. Roles and users rely on these field names."""

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
    #: The branch or tag that `revision` was resolved from; the only files to fetch, if any are named; and the folder on
    #: the node that holds the model, in place of a repository.
    branch: str = ""
    allow_patterns: tuple[str, ...] = ()
    folder: str = ""
    #: What the model is served for: generate, embed, rerank, classify or pooling.
    task: str = GENERATE
    #: Memory for the KV cache on the GPU with the most weights.
    kv_cache_gib_per_gpu: float = 0.0
    #: KV cache of one request of the longest context, on that GPU.
    kv_request_bytes: int = 0
    #: The share of its GPU that it has, if it has not all of it; and those on the same GPU that start before it.
    gpu_share: float | None = None
    starts_after: tuple[str, ...] = ()
    #: The LoRA adapters that it serves beside its model, each as a snapshot to fetch with the `name` of the adapter.
    lora: tuple[Mapping[str, Any], ...] = ()
    #: The repository that proposes tokens for it, as a snapshot to fetch.
    draft: Mapping[str, Any] | None = None
    #: What `speculative: auto` would take, in words, where nothing proposes tokens.
    auto_draft: str = ""
    #: GiB of the host's memory that hold KV cache.
    kv_host_gib: int = 0
    #: The preset that was taken, what it gains in words, and what faster weights would give, where they are not served.
    preset: str = ""
    preset_gain: str = ""
    faster_weights: str = ""
    #: Its part of an engine over several nodes; null for an engine on one node.
    group: node_group.Joined | None = None
    warnings: tuple[str, ...] = ()

    @property
    def download_bytes(self) -> int:
        """Bytes of weights to download."""
        return to_download(self.folder, self.weights_bytes, [*self.lora, self.draft])


def to_download(folder: str, weights: int, beside: Iterable[Mapping[str, Any] | None]) -> int:
    """Bytes to download: none of a model that lies in a folder of the node, and those of adapters and a draft."""
    return (0 if folder else weights) + sum(int(fetched["weights_bytes"]) for fetched in beside if fetched)


@dataclass(frozen=True)
class Decision:
    """What was decided for one instance: port, image, context, and its GPUs or the CPU."""

    request: InstanceRequest
    port: int
    image: str
    context: int
    kv_tokens: int
    weights_gib: float
    kv_gib: float
    spread: Parallel = field(default_factory=Parallel)
    replicas: int = 1
    indices: tuple[int, ...] = ()
    batched_tokens: int | None = None
    kv_dtype: str = "auto"
    sequences: int | None = None
    dtype: str = ""  # half on GPUs without BF16
    utilization: float | None = None  # the share of a GPU's memory, on GPUs
    kv_host_gib: int = 0  # of the host's memory, for KV cache
    request_bytes: int = 0  # of KV cache, for one request of the context
    starts_after: tuple[str, ...] = ()
    group: node_group.Joined | None = None
    warnings: tuple[str, ...] = ()


def config(decision: Decision, engine: EngineSpec) -> dict[str, Any]:
    """The content of vLLM's configuration file. Later layers win; null removes an option."""
    request, spread = decision.request, decision.spread
    planned: dict[str, Any] = {
        "model": MODEL_TARGET if request.model.folder else request.model.repo_id,
        "revision": request.model.revision,
        "served-model-name": list(request.served_names),
        # In the container; Docker publishes it on the instance's address. A rank of a group has the node's own network.
        "host": request.host if decision.group else "0.0.0.0",
        "port": decision.port,
        "tensor-parallel-size": spread.tp,
        "pipeline-parallel-size": spread.pp if spread.pp > 1 else None,
        "data-parallel-size": decision.replicas if decision.replicas > 1 else None,
        # Each GPU holds some experts whole where replicas share them, or where TP would cut them between their blocks.
        "enable-expert-parallel": request.expert_parallel(spread.tp, decision.replicas) or None,
        "max-model-len": AUTO[0] if request.engine_decides_context else decision.context,
        "hf-overrides": dict(request.stretched) or None,
        "dtype": decision.dtype or None,
        "kv-cache-dtype": decision.kv_dtype if decision.kv_dtype != "auto" else None,
        "max-num-batched-tokens": decision.batched_tokens,
        "max-num-seqs": decision.sequences,
    }
    if decision.utilization:
        planned["gpu-memory-utilization"] = decision.utilization
    planned |= _of_task(request)
    if request.trust_remote_code:
        planned["trust-remote-code"] = True
    planned |= {**lora.options(request), **speculation.options(request)}
    planned |= host_cache.option(decision.kv_host_gib, decision.replicas)
    merged = {**planned, **engine.config, **request.options, **node_group.options(decision.group)}
    if request.stretched:
        merged["hf-overrides"] = with_own(request.stretched, request.option("hf-overrides"))
    return {key: value for key, value in merged.items() if value is not None}


def _of_task(request: InstanceRequest) -> dict[str, Any]:
    """The parsers of a model that generates, else the runner: vLLM finds by itself what to convert a model to."""
    if request.task != GENERATE:
        return {"runner": "pooling"}
    tools = {"enable-auto-tool-choice": True, "tool-call-parser": request.model.tool_call_parser}
    thoughts = request.model.reasoning_parser
    return {**(tools if request.model.tool_call_parser else {}), "reasoning-parser": thoughts or None}


def start_timeout_s(request: InstanceRequest, policy: Policy) -> int:
    """Seconds that a start may take: from the user's environment, else from the size of the weights."""
    own = request.variables.get("VLLM_ENGINE_READY_TIMEOUT_S")
    if own is not None:
        return int(own)
    return policy.start_base_s + weights_bytes(request.model) // policy.load_bytes_per_s


def env(decision: Decision, engine: EngineSpec, policy: Policy, timeout: int) -> dict[str, str]:
    """The engine's environment, without secrets. The user's values win."""
    base = {**engine.env, "VLLM_ENGINE_READY_TIMEOUT_S": str(timeout)}
    if decision.request.device == "cpu":
        base["VLLM_CPU_KVCACHE_SPACE"] = str(policy.cpu_kv_cache_gib)
    if decision.spread.cut:
        base[node_group.PARTITION] = ",".join(map(str, decision.spread.cut))
    base |= node_group.environment(decision.group, decision.request.device)
    return {**base, **decision.request.variables}


def _model_fields(model: ModelSpec) -> dict[str, Any]:
    """The fields of an instance that describe its model: they do not depend on the node."""
    return {
        "model": model.key,
        "repo_id": model.repo_id,
        "revision": model.revision,
        "branch": model.branch,
        "folder": model.folder,
        "model_context": model.context,
        "precision": model.precision,
        "weights_bytes": weights_bytes(model),
        "gated": model.gated,
        "allow_patterns": model.allow_patterns,
        "ignore_patterns": model.ignore_patterns,
    }


def instance(decision: Decision, host_request: HostRequest, policy: Policy) -> Instance:
    """Build the instance that roles and users read."""
    request, engine = decision.request, host_request.engine_of(decision.request)
    timeout = start_timeout_s(request, policy)
    return Instance(
        **_model_fields(request.model),
        name=request.name,
        image=decision.image,
        device=request.device,
        gpu_indices=decision.indices,
        gpu_uuids=(),
        tensor_parallel_size=decision.spread.tp,
        pipeline_parallel_size=decision.spread.pp,
        data_parallel_size=decision.replicas,
        max_model_len=decision.context,
        weights_gib_per_gpu=round(decision.weights_gib, 2),
        kv_cache_tokens=decision.kv_tokens,
        kv_cache_gib_per_gpu=round(decision.kv_gib, 2),
        kv_request_bytes=decision.request_bytes,
        config=config(decision, engine),
        env=env(decision, engine, policy, timeout),
        host=request.host,
        port=decision.port,
        port_base=host_request.port,
        served_model_name=request.served_names[0],
        start_timeout_s=timeout,
        shm_size=host_cache.shared_memory(policy.shm_size[request.device], decision.kv_host_gib),
        task=request.task,
        gpu_share=request.gpu_share if isinstance(request.gpu_share, float) else None,
        starts_after=decision.starts_after,
        lora=lora.fetched(request),
        draft=speculation.fetched(request),
        auto_draft=speculation.offered(request),
        kv_host_gib=decision.kv_host_gib,
        preset=request.preset.name if request.preset else "",
        preset_gain=request.preset.measured.gain if request.preset else "",
        faster_weights=request.faster,
        group=decision.group,
        warnings=decision.warnings,
    )
