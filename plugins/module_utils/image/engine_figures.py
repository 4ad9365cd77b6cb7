# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask an image's vLLM about a configuration: whether it takes it, and what the model needs on each GPU.

Runs inside a container of the image, with the image's Python: ``engine_figures.py CONFIG``. The model is built on
torch's meta device, so it needs no weights and no memory for them.

Exit code 2: vLLM's parser refuses the configuration, and stderr ends with its sentence. Otherwise the last line on
stdout is JSON: ``weights_bytes`` (int: all parameters of one GPU), ``request_bytes`` (int: the KV cache of one request
as long as the context, by the layers' own KVCacheSpecs; null if the engine chooses the context) and ``max_model_len``
(int) and ``device`` (str: cuda or cpu, what it sees), or ``cannot`` (str: why the engine could not be asked).
"""

from __future__ import annotations

import json
import sys
from typing import Any

#: The context that the engine chooses by the memory it finds.
AUTO = -1


def parsed(path: str) -> Any:
    """The options of ``vllm serve --config``. Exits with 2 if the parser refuses them."""
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser(prog="vllm")
    ServeSubcommand().subparser_init(parser.add_subparsers(dest="subparser"))
    return parser.parse_args(["serve", "--config", path])


def engine_config(options: Any) -> Any:
    """The engine's own configuration of one rank. Raises ValueError for a layout that one process cannot stand for."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext

    arguments = AsyncEngineArgs.from_cli_args(options)
    if arguments.pipeline_parallel_size > 1:
        raise ValueError("the stages of a pipeline are not built here")
    if arguments.quantization:
        raise ValueError("weights that the engine quantises when it loads them have their size only then")
    replicas, arguments.data_parallel_size = arguments.data_parallel_size, 1
    arguments.load_format = "dummy"
    arguments.enforce_eager = True
    if arguments.tensor_parallel_size > 1:
        arguments.distributed_executor_backend = "external_launcher"
    config = arguments.create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER)
    if replicas > 1 and config.model_config.is_moe:
        raise ValueError("experts that replicas share are not built here")
    return config


def join(size: int) -> None:
    """Form a group of ranks of which only this one exists."""
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore
    from vllm.distributed import parallel_state

    dist.init_process_group("fake", rank=0, world_size=size, store=FakeStore())
    new_group, new_parallel = dist.new_group, parallel_state.init_model_parallel_group
    dist.new_group = lambda ranks=None, **_more: new_group(ranks, backend="fake")

    def alone(*args: Any, **more: Any) -> Any:
        return new_parallel(*args, **{**more, "use_message_queue_broadcaster": False, "use_device_communicator": False})

    parallel_state.init_model_parallel_group = alone
    parallel_state.init_distributed_environment(
        world_size=size, rank=0, local_rank=0, distributed_init_method="env://", backend="fake"
    )
    parallel_state.initialize_model_parallel(size, 1)


def built(config: Any) -> Any:
    """The model without its weights."""
    import torch
    from vllm.model_executor.model_loader.utils import initialize_model

    join(config.parallel_config.tensor_parallel_size)
    torch.set_default_dtype(config.model_config.dtype)
    with torch.device("meta"):
        return initialize_model(config)


def request_bytes(config: Any) -> int:
    """Bytes of KV cache that one request of the longest context takes on one GPU."""
    from vllm.config import get_layers_from_vllm_config
    from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase

    layers = get_layers_from_vllm_config(config, AttentionLayerBase).values()
    specs = (layer.get_kv_cache_spec(config) for layer in layers)
    return sum(spec.max_memory_usage_bytes(config) for spec in specs if spec is not None)


def figures(options: Any) -> dict[str, Any]:
    """What the engine says that the model needs on one GPU."""
    from vllm.config import set_current_vllm_config
    from vllm.platforms import current_platform

    chosen = options.max_model_len == AUTO
    if chosen:
        options.max_model_len = None
    config = engine_config(options)
    with set_current_vllm_config(config):
        model = built(config)
        return {
            "weights_bytes": sum(item.numel() * item.element_size() for item in model.parameters()),
            "request_bytes": None if chosen else request_bytes(config),
            "max_model_len": config.model_config.max_model_len,
            "device": current_platform.device_type,
        }


def answer(options: Any) -> dict[str, Any]:
    """Its figures, or why there are none."""
    try:
        return figures(options)
    except Exception as error:  # whatever a model's code or another release raises
        return {"cannot": " ".join(f"{type(error).__name__}: {error}".split())[:400]}


def main() -> None:
    sys.stdout.write(json.dumps(answer(parsed(sys.argv[1]))) + "\n")


if __name__ == "__main__":
    main()
