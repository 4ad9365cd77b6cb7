# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check `vllm serve` options against the list of the release."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from ..values import read, size
from .catalog import EngineSpec, near

#: Options that the plan sets, and the variable to use instead. In extra_args they would contradict the plan.
PLANNED = {
    "model": "model",
    "revision": "`revision` of the model in vllm_extra_models",
    "served-model-name": "served_model_name in models",
    "host": "vllm_host",
    "port": "vllm_port",
    "tensor-parallel-size": "vllm_tensor_parallel_size",
    "pipeline-parallel-size": "vllm_pipeline_parallel_size",
    "data-parallel-size": "vllm_data_parallel_size",
    "max-model-len": "vllm_max_model_len",
    "gpu-memory-utilization": "vllm_gpu_memory_utilization",
    "kv-cache-dtype": "vllm_kv_cache_dtype",
}
#: Secrets, and the variable to use instead: the configuration file is world-readable and appears in diffs.
SECRET = {"api-key": "vllm_api_keys", "hf-token": "huggingface_token"}

#: Options that an engine of this plan cannot have, and why.
ONE_NODE = "is for an engine over several nodes, and the plan is for one"
ONE_GROUP = "is for replicas that are started one by one, and the plan starts all of them together"
CONTRADICTING = {
    **dict.fromkeys(("nnodes", "node-rank", "master-addr", "headless"), ONE_NODE),
    **dict.fromkeys(("data-parallel-size-local", "data-parallel-address", "data-parallel-start-rank"), ONE_NODE),
    **dict.fromkeys(("data-parallel-rank", "data-parallel-external-lb", "data-parallel-hybrid-lb"), ONE_GROUP),
    "prefill-context-parallel-size": "takes GPUs that the plan does not give the engine",
    "config": "names a file in place of the one that the plan writes",
    "uds": "takes the port away on which the plan has clients and checks",
}
#: vLLM's least values.
LEAST = {
    **dict.fromkeys(("max-num-seqs", "max-num-batched-tokens", "max-num-active-seqs", "block-size", "max-loras"), 1),
    **dict.fromkeys(("max-num-queued-reqs", "max-num-queued-tokens", "long-prefill-token-threshold"), 0),
}
#: What hf-overrides may set that the plan reads, or that takes no memory.
COUNTED = {
    *("architectures", "text_config", "max_position_embeddings", "rope_parameters", "rope_scaling", "rope_theta"),
    *("classifier_from_token", "is_original_qwen3_reranker", "method", "id2label", "label2id", "num_labels"),
}
DTYPES = ("auto", "half", "float16", "bfloat16", "float", "float32")
FP16, BF16, FP32 = ("half", "float16"), "bfloat16", ("float", "float32")
#: Options that change memory use in ways that the planner does not model.
UNCOUNTED = (
    "kv-cache-memory-bytes",
    "num-gpu-blocks-override",
    "cpu-offload-gb",
    "quantization",
    "speculative-config",
    "enable-lora",
    "block-size",
    "decode-context-parallel-size",
)


def _unknown(name: str, engine: EngineSpec) -> str:
    if name in engine.removed:
        return f"vLLM {engine.version} no longer has the option {name}: {engine.removed[name]}."
    guesses = near(name, engine.spellings)
    meant = f" Did you mean {' or '.join(guesses)}?" if guesses else ""
    return f"vLLM {engine.version} has no option {name}.{meant}"


def _is_number(value: Any, *kinds: type) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


#: For each option type: a check of the value, and the words for what it accepts.
TYPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "bool": (lambda value: isinstance(value, bool), "true or false"),
    "int": (lambda value: _is_number(value, int), "a whole number"),
    "size": (lambda value: _is_number(value, int), "a whole number, or one such as 32k or 32K"),
    "float": (lambda value: _is_number(value, int, float), "a number"),
    "json": (lambda value: isinstance(value, (Mapping, list, str)), "a dictionary or a list"),
}


def _wrong_type(name: str, kind: str, value: Any) -> str | None:
    fits, wanted = TYPES.get(kind, (lambda _value: True, ""))
    return None if fits(value) else f"{name} takes {wanted}, not {value!r}."


def _wrong_value(name: str, value: Any) -> str | None:
    """Why vLLM refuses a value of the right type."""
    if name in LEAST and value < LEAST[name]:
        return f"{name} must be at least {LEAST[name]}, not {value}."
    if name == "dtype" and value not in DTYPES:
        return f"dtype must be one of {', '.join(DTYPES)}, not {value!r}."
    if name == "hf-overrides" and not isinstance(value, Mapping):
        return f"hf-overrides must be a dictionary, or one in JSON, not {value!r}."
    return None


def _contradicting(name: str, value: Any, default: Any) -> str | None:
    """Why an option cannot stand beside the plan; as it is by default it may."""
    if name not in CONTRADICTING or value in (None, False, default):
        return None
    return f"{name} {CONTRADICTING[name]}: leave it out of vllm_extra_args."


def typed_args(args: Mapping[str, Any], engine: EngineSpec) -> dict[str, Any]:
    """Convert the text of numeric options to numbers. Unreadable values stay, and check_args rejects them."""
    return {name: _typed_arg(name, value, engine) for name, value in args.items()}


def _typed_arg(name: str, value: Any, engine: EngineSpec) -> Any:
    """Convert text for options of these four types, and what the plan reads; vLLM takes any other as text."""
    flag = engine.spellings.get(name)
    if name == "hf-overrides" and isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            return value
    if flag is None or flag.type not in ("bool", "int", "float", "size") or not isinstance(value, str):
        return value
    try:
        return size(value) if flag.type == "size" else read(name, value, {"type": flag.type, "required": True})
    except ValueError:
        return value


def check_args(extra_args: Mapping[str, Any], engine: EngineSpec) -> tuple[list[str], list[str]]:
    """Findings and warnings about the user's options."""
    findings: list[str] = []
    warnings: list[str] = []
    for name, value in extra_args.items():
        flag = engine.spellings.get(name)
        if name in SECRET:
            findings.append(
                f"{name} is a secret, and vllm_extra_args is written to a world-readable file: use {SECRET[name]}."
            )
        elif name in PLANNED:
            findings.append(f"{name} is set by the plan: use {PLANNED[name]} instead of vllm_extra_args.")
        elif flag is None and engine.unplanned:
            continue
        elif flag is None:
            findings.append(_unknown(name, engine))
        elif value is not None:
            problem = _wrong_type(name, flag.type, value) or _wrong_value(name, value)
            problem = problem or _contradicting(name, value, flag.default)
            findings += [problem] if problem else []
        if name in engine.deprecated:
            warnings.append(f"{name} is deprecated in vLLM {engine.version}: {engine.deprecated[name]}.")
        if name in UNCOUNTED:
            warnings.append(f"{name} changes the memory left for the KV cache; this plan does not account for it.")
        if name == "hf-overrides" and isinstance(value, Mapping) and (own := sorted(map(str, value.keys() - COUNTED))):
            warnings.append(
                f"hf-overrides sets {', '.join(own)}, and the plan counts the model as its config.json has it."
            )
        if name == "dtype" and value in FP32:
            warnings.append("dtype float32 doubles weights and KV cache; this plan does not account for it.")
    return findings, warnings
