# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check `vllm serve` options against the list of the release."""

from __future__ import annotations

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

#: Options that change memory use in ways that the planner does not model.
UNCOUNTED = (
    "kv-cache-memory-bytes",
    "num-gpu-blocks-override",
    "cpu-offload-gb",
    "quantization",
    "speculative-config",
    "enable-lora",
    "block-size",
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


def typed_args(args: Mapping[str, Any], engine: EngineSpec) -> dict[str, Any]:
    """Convert the text of numeric options to numbers. Unreadable values stay, and check_args rejects them."""
    return {name: _typed_arg(name, value, engine) for name, value in args.items()}


def _typed_arg(name: str, value: Any, engine: EngineSpec) -> Any:
    """Convert text for options of these four types only; vLLM takes any other as text."""
    flag = engine.spellings.get(name)
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
            problem = _wrong_type(name, flag.type, value)
            findings += [problem] if problem else []
        if name in engine.deprecated:
            warnings.append(f"{name} is deprecated in vLLM {engine.version}: {engine.deprecated[name]}.")
        if name in UNCOUNTED:
            warnings.append(f"{name} changes the memory left for the KV cache; this plan does not account for it.")
    return findings, warnings
