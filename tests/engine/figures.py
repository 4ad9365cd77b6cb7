# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs inside a release's environment: what vLLM itself says that a model takes, without a GPU and without weights.

Reads a JSON list of cases from stdin, each {"repo_id", "config": config.json, "hf_quant_config"?, "tensor_parallel",
"board"?: a name of _board.BOARDS}, and prints one JSON line for each. The model is built on torch's meta device, one
process each. Its parameters are counted, its layers are asked for their KVCacheSpecs, and the engine's own planning is
asked what MEMORY bytes for the KV cache of one GPU hold: the figures that it logs as "GPU KV cache size".
"""

from __future__ import annotations

import collections
import contextlib
import functools
import json
import os
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_LOGGING_LEVEL", "CRITICAL")
os.environ["VLLM_CACHE_ROOT"] = (
    tempfile.mkdtemp()
)  # it keeps what it finds out of a model's class, here on another board

import torch
from _board import GIB, Shapes, pretend

# The product asks an image in the same way.
sys.path.append(str(Path(__file__).resolve().parents[2] / "plugins" / "module_utils" / "image"))
import engine_figures

MEMORY = 40 * GIB
LENGTHS = (8192, 32768)
SECONDS = 180


def plain(value: Any) -> Any:
    """A field of a specification as JSON has it."""
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    return value if isinstance(value, (int, str, float)) else str(value)


#: What tells one kind of KV cache from another, as far as a specification has it.
FIELDS = (
    "num_kv_heads",
    "head_size",
    "head_size_v",
    "dtype",
    "sliding_window",
    "attention_chunk_size",
    "shapes",
    "dtypes",
    "mamba_type",
    "cache_dtype_str",
    "tokens_per_state",
    "state_content_bytes",
    "page_size_padded",
    "num_speculative_blocks",
    "num_prefill_checkpoint_blocks",
)


#: What needs no word.
USUAL = {"tokens_per_state": (None, 1, -1), "num_speculative_blocks": (None, 0)}


def kind(spec: Any) -> dict[str, Any]:
    figures = {"kind": type(spec).__name__, "block_tokens": spec.block_size, "block_bytes": spec.page_size_bytes}
    if hasattr(spec, "kv_cache_specs"):  # layers of one type and of several sizes
        return {**figures, "of": kinds(spec.kv_cache_specs.values())}
    found = ((name, getattr(spec, name, None)) for name in FIELDS)
    return {**figures, **{name: plain(value) for name, value in found if value not in USUAL.get(name, (None,))}}


def kinds(specs: Any) -> list[dict[str, Any]]:
    """Equal specifications once, with the number of layers."""
    count = collections.Counter(json.dumps(kind(spec)) for spec in specs)
    return [{**json.loads(figures), "layers": layers} for figures, layers in count.items()]


def engine_config(case: dict[str, Any], folder: Path) -> Any:
    from vllm.engine.arg_utils import EngineArgs
    from vllm.usage.usage_lib import UsageContext

    # Code that a repository brings is never run: what vLLM and transformers do not know cannot be built.
    config = {key: value for key, value in case["config"].items() if key != "auto_map"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if "hf_quant_config" in case:
        (folder / "hf_quant_config.json").write_text(json.dumps(case["hf_quant_config"]), encoding="utf-8")
    size = case["tensor_parallel"]
    arguments = EngineArgs(
        model=str(folder),
        skip_tokenizer_init=True,
        load_format="dummy",
        enforce_eager=True,
        allow_deprecated_quantization=True,
        tensor_parallel_size=size,
        **{"distributed_executor_backend": "external_launcher" if size > 1 else None, **case.get("options", {})},
    )
    return arguments.create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER)


def build(config: Any, size: int) -> Any:
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.platforms import current_platform

    with set_current_vllm_config(config):
        engine_figures.join(size)
        torch.set_default_dtype(config.model_config.dtype)
        with torch.device("meta"), Shapes():
            model = initialize_model(config)
    current_platform.update_block_size_for_backend(config)
    return model


def groups_of(config: Any) -> tuple[dict[str, Any], Any]:
    """Each layer's specification and the groups that the engine makes of them, as its core does at the start."""
    from vllm.config import set_current_vllm_config
    from vllm.distributed.kv_transfer.kv_connector.utils import get_current_attn_backends
    from vllm.v1.attention.backends.utils import get_supported_kv_cache_layouts, resolve_kv_cache_layout
    from vllm.v1.core.kv_cache_planning import get_global_kv_cache_groups
    from vllm.v1.core.single_type_kv_cache_manager import register_all_kvcache_specs
    from vllm.v1.worker.gpu.attn_utils import get_kv_cache_spec

    with set_current_vllm_config(config):
        register_all_kvcache_specs(config)
        specs = get_kv_cache_spec(config)
        layouts = get_supported_kv_cache_layouts(get_current_attn_backends(config))
        resolve_kv_cache_layout(config, [[layout.name for layout in layouts]], list(specs.values()))
        return specs, get_global_kv_cache_groups(config, [dict(specs)])


def room(config: Any, specs: Any, groups: Any, length: int) -> dict[str, Any]:
    """What MEMORY holds of requests of this length."""
    from vllm.v1.core import kv_cache_planning, kv_cache_utils

    config.model_config.max_model_len = length
    try:
        made = kv_cache_planning.get_kv_cache_configs(config, [dict(specs)], [MEMORY], groups)
    except ValueError as error:
        return {"max_model_len": length, "refused": str(error).partition(" Try ")[0]}
    whole = kv_cache_utils.generate_scheduler_kv_cache_config(made)
    tokens, requests = kv_cache_utils.get_kv_cache_capacity(config, whole)
    return {"max_model_len": length, "blocks": whole.num_blocks, "tokens": tokens, "requests": round(requests, 4)}


def planned(config: Any, specs: Any, groups: Any) -> dict[str, Any]:
    """The engine's arithmetic over the groups."""
    from vllm.v1.core import kv_cache_planning
    from vllm.v1.core.kv_cache_config_builder import get_kv_cache_config_builder

    builder = get_kv_cache_config_builder(config)
    longest = config.model_config.max_model_len
    block = kv_cache_planning._pool_bytes_per_block_from_builder(builder, config, groups)
    needed = functools.partial(kv_cache_planning._max_memory_usage_bytes_from_groups, builder, config, groups)
    lengths = sorted({min(length, longest) for length in (*LENGTHS, longest)})
    rooms = []
    for length in lengths:
        config.model_config.max_model_len = length
        rooms.append({**room(config, specs, groups, length), "request_bytes": needed()})
    config.model_config.max_model_len = longest
    fits = kv_cache_planning._estimate_max_model_len_from_groups(builder, config, groups, MEMORY - block)
    return {"memory_bytes": MEMORY, "pool_block_bytes": block, "longest_that_fits": fits, "room": rooms}


def figures(case: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        config = engine_config(case, Path(folder))
        model = build(config, case["tensor_parallel"])
    types: collections.Counter[str] = collections.Counter()
    for parameter in model.parameters():
        types[str(parameter.dtype).removeprefix("torch.")] += parameter.numel() * parameter.element_size()
    specs, groups = groups_of(config)
    figures = {
        "weights_bytes": sum(types.values()),
        "weights_by_type": dict(types),
        "buffers_bytes": sum(buffer.numel() * buffer.element_size() for buffer in model.buffers()),
        "max_model_len": config.model_config.max_model_len,
        "tokens_in_flight": config.max_in_flight_tokens,
        "runner": config.model_config.runner_type,
        "prefix_caching": config.cache_config.enable_prefix_caching,
        "mamba_cache_mode": config.cache_config.mamba_cache_mode,
        "layout": config.cache_config.kv_cache_layout,
        "kv": kinds(specs.values()),
    }
    if groups:
        made = [{"layers": len(item.layer_names), **kind(item.kv_cache_spec)} for item in groups]
        count = collections.Counter(map(json.dumps, made))
        figures["groups"] = [{**json.loads(item), "groups": number} for item, number in count.items()]
        figures.update(planned(config, specs, groups))
    return figures


def reason(error: BaseException) -> str:
    """The engine's words, without paths of this machine."""
    text = re.sub(r"/\S*/|\btmp\w{8}\b", "", str(error)) or type(error).__name__
    return " ".join(text.split())[:400]


def apart(what: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run it in a process of its own: vLLM builds one model in one."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(SECONDS)
        try:
            figures = what()
        except BaseException as error:  # whatever a model's code raises is the answer
            traceback.print_exc()
            figures = {"cannot": reason(error)}
        with os.fdopen(writer, "w", encoding="utf-8") as out:
            json.dump(figures, out)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as answer:
        text = answer.read()
    status = os.waitpid(child, 0)[1]
    return json.loads(text) if text else {"cannot": f"the process ended with status {status}"}


def main() -> None:
    cases = json.load(sys.stdin)
    out = os.dup(1)
    with contextlib.redirect_stdout(sys.stderr), os.fdopen(out, "w", encoding="utf-8") as answers:
        os.dup2(2, 1)  # whatever vLLM prints must not come between
        library = pretend(cases[0].get("board", "h100"))
        import vllm.engine.arg_utils
        import vllm.model_executor.model_loader.utils
        import vllm.v1.worker.gpu.attn_utils

        for case in cases:
            named = {"repo_id": case["repo_id"], "vllm": vllm.__version__.split("+")[0]}
            named.update(board=case.get("board", "h100"), tensor_parallel=case["tensor_parallel"])
            print(json.dumps({**named, **apart(functools.partial(figures, case))}), file=answers, flush=True)
        del library


if __name__ == "__main__":
    main()
