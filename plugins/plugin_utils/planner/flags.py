# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of `vllm serve` against the release's own list: what it does not know it must not be given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..values import read, size
from .catalog import EngineSpec, near

#: Options that follow from the plan. Given by hand they would contradict it.
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
#: A configuration file is readable and is shown in diffs.
SECRET = {"api-key": "vllm_api_keys", "hf-token": "huggingface_token"}

#: Options that change how much memory is left, in ways that the prediction does not follow.
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
        return f"vLLM {engine.version} has no option {name} any more: {engine.removed[name]}."
    guesses = near(name, engine.spellings)
    meant = f" Did you mean {' or '.join(guesses)}?" if guesses else ""
    return f"vLLM {engine.version} has no option {name}.{meant}"


def _is_number(value: Any, *kinds: type) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


#: Which values a type of option takes, and how that is said.
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
    """A user's own options with numbers for their text. What cannot be read stays, and check_args refuses it."""
    return {name: _typed_arg(name, value, engine) for name, value in args.items()}


def _typed_arg(name: str, value: Any, engine: EngineSpec) -> Any:
    """Only text of these types is read: all other text is text to vLLM as well."""
    flag = engine.spellings.get(name)
    if flag is None or flag.type not in ("bool", "int", "float", "size") or not isinstance(value, str):
        return value
    try:
        return size(value) if flag.type == "size" else read(name, value, {"type": flag.type, "required": True})
    except ValueError:
        return value


def check_args(extra_args: Mapping[str, Any], engine: EngineSpec) -> tuple[list[str], list[str]]:
    """Findings and warnings about a user's own options."""
    findings: list[str] = []
    warnings: list[str] = []
    for name, value in extra_args.items():
        flag = engine.spellings.get(name)
        if name in SECRET:
            findings.append(f"{name} does not belong into vllm_extra_args, which all can read: use {SECRET[name]}.")
        elif name in PLANNED:
            findings.append(f"{name} follows from the plan: set {PLANNED[name]} instead of vllm_extra_args.")
        elif flag is None:
            findings.append(_unknown(name, engine))
        elif value is not None:
            problem = _wrong_type(name, flag.type, value)
            findings += [problem] if problem else []
        if name in engine.deprecated:
            warnings.append(f"{name} is deprecated in vLLM {engine.version}: {engine.deprecated[name]}.")
        if name in UNCOUNTED:
            warnings.append(f"{name} changes the memory that is left for KV cache, and this plan does not count it.")
    return findings, warnings
