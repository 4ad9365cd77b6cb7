# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs inside a release's environment: what vLLM says that each pipeline stage of a model takes on one GPU.

Reads a JSON list of cases from stdin, each {"config": config.json, "tensor_parallel", "pipeline_parallel", "rank",
"partition"?: VLLM_PP_LAYER_PARTITION}, and prints the list of answers: {"weights_bytes", "cached_layers"} or
{"cannot"}. The model is built on torch's meta device, one process each, in a group of ranks of which only this one is.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from _board import Shapes, pretend
from figures import apart, engine_config


def join(tensor: int, pipeline: int, rank: int) -> None:
    """Form a group of ranks of which only this one exists."""
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore
    from vllm.distributed import parallel_state

    size = tensor * pipeline
    dist.init_process_group("fake", rank=rank, world_size=size, store=FakeStore())
    new_group, new_parallel = dist.new_group, parallel_state.init_model_parallel_group
    dist.new_group = lambda ranks=None, **_more: new_group(ranks, backend="fake")

    def alone(*args: Any, **more: Any) -> Any:
        return new_parallel(*args, **{**more, "use_message_queue_broadcaster": False, "use_device_communicator": False})

    parallel_state.init_model_parallel_group = alone
    parallel_state.init_distributed_environment(
        world_size=size, rank=rank, local_rank=0, distributed_init_method="env://", backend="fake"
    )
    parallel_state.initialize_model_parallel(tensor, pipeline)


def stage(case: dict[str, Any]) -> dict[str, Any]:
    from vllm.config import get_layers_from_vllm_config, set_current_vllm_config
    from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
    from vllm.model_executor.model_loader.utils import initialize_model

    tensor, pipeline = case["tensor_parallel"], case["pipeline_parallel"]
    if case.get("partition"):
        os.environ["VLLM_PP_LAYER_PARTITION"] = case["partition"]
    node = {"nnodes": pipeline, "node_rank": case["rank"] // tensor, "master_addr": "10.0.0.1"}
    options = {"pipeline_parallel_size": pipeline, "distributed_executor_backend": None, **node}
    with tempfile.TemporaryDirectory() as folder:
        config = engine_config({**case, "options": options}, Path(folder))
        with set_current_vllm_config(config):
            join(tensor, pipeline, case["rank"])
            torch.set_default_dtype(config.model_config.dtype)
            with torch.device("meta"), Shapes():
                model = initialize_model(config)
    return {
        "weights_bytes": sum(item.numel() * item.element_size() for item in model.parameters()),
        "cached_layers": len(get_layers_from_vllm_config(config, AttentionLayerBase)),
    }


def main() -> None:
    cases = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        library = pretend("h100")
        import vllm.engine.arg_utils
        import vllm.model_executor.model_loader.utils  # noqa: F401

        answers = [apart(functools.partial(stage, case)) for case in cases]
        del library
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
