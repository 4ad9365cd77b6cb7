# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that an image is asked with: what it refuses and prints. tests/engine runs it with the real vLLM."""

from __future__ import annotations

import contextlib
import json
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.image import engine_figures


class Parameter(SimpleNamespace):
    """A tensor of the model."""

    def numel(self) -> int:
        return int(self.number)

    def element_size(self) -> int:
        return int(self.size)


class Layer:
    """A layer with its own specification of the KV cache, or with none."""

    def __init__(self, request_bytes: int | None) -> None:
        self.request_bytes = request_bytes

    def get_kv_cache_spec(self, _config: Any) -> Any:
        if self.request_bytes is None:
            return None
        return SimpleNamespace(max_memory_usage_bytes=lambda _config: self.request_bytes)


class Engine:
    """The part of vLLM that the program calls."""

    def __init__(self, **options: Any) -> None:
        none = {"pipeline_parallel_size": 1, "data_parallel_size": 1, "enable_expert_parallel": False}
        none |= {"quantization": None, "tensor_parallel_size": 1, "max_model_len": 4096}
        self.arguments = SimpleNamespace(**{**none, **options}, create_engine_config=self.create)
        self.experts, self.error, self.refused = False, "", False

    def create(self, usage_context: str) -> Any:
        if self.error:
            raise RuntimeError(self.error)
        assert usage_context == "the server's"
        longest = self.arguments.max_model_len or 131072
        model = SimpleNamespace(is_moe=self.experts, max_model_len=longest)
        return SimpleNamespace(model_config=model)

    def parse(self, arguments: list[str]) -> Any:
        if self.refused:
            raise SystemExit(2)
        assert arguments == ["serve", "--config", "/etc/vllm/config.yaml"]
        return self.arguments


def provide(monkeypatch: pytest.MonkeyPatch, engine: Engine) -> None:
    def module(name: str, **names: Any) -> None:
        made = ModuleType(name)
        vars(made).update(names)
        monkeypatch.setitem(sys.modules, name, made)

    parser = SimpleNamespace(add_subparsers=lambda dest: None, parse_args=engine.parse)
    layers = {"a": Layer(1000), "b": Layer(24), "no attention": Layer(None)}
    module("vllm")
    module("vllm.entrypoints.cli.serve", ServeSubcommand=lambda: SimpleNamespace(subparser_init=lambda _parsers: None))
    module("vllm.utils.argparse_utils", FlexibleArgumentParser=lambda prog: parser)
    module("vllm.engine.arg_utils", AsyncEngineArgs=SimpleNamespace(from_cli_args=lambda options: options))
    module("vllm.platforms", current_platform=SimpleNamespace(device_type="cuda"))
    module("vllm.usage.usage_lib", UsageContext=SimpleNamespace(OPENAI_API_SERVER="the server's"))
    module(
        "vllm.config",
        get_layers_from_vllm_config=lambda _config, _kind: layers,
        set_current_vllm_config=lambda _config: contextlib.nullcontext(),
    )
    module("vllm.model_executor.layers.attention_layer_base", AttentionLayerBase=object)
    parameters = [Parameter(number=10, size=2), Parameter(number=3, size=1)]
    built = SimpleNamespace(parameters=lambda: parameters)
    monkeypatch.setattr(engine_figures, "built", lambda _config: built)
    monkeypatch.setattr(sys, "argv", ["engine_figures.py", "/etc/vllm/config.yaml"])


def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], engine: Engine) -> dict[str, Any]:
    provide(monkeypatch, engine)
    engine_figures.main()
    (line,) = capsys.readouterr().out.splitlines()
    figures: dict[str, Any] = json.loads(line)
    return figures


def test_what_it_prints(monkeypatch, capsys) -> None:
    engine = Engine(data_parallel_size=4, tensor_parallel_size=2)
    figures = {"weights_bytes": 23, "request_bytes": 1024, "max_model_len": 4096, "device": "cuda"}
    assert printed(monkeypatch, capsys, engine) == figures
    made = engine.arguments  # one rank of a group, without weights and without compiling
    assert (made.load_format, made.enforce_eager, made.data_parallel_size) == ("dummy", True, 1)
    assert made.distributed_executor_backend == "external_launcher"


def test_a_context_that_the_engine_chooses_has_no_request(monkeypatch, capsys) -> None:
    shown = printed(monkeypatch, capsys, Engine(max_model_len=engine_figures.AUTO))
    assert shown == {"weights_bytes": 23, "request_bytes": None, "max_model_len": 131072, "device": "cuda"}


@pytest.mark.parametrize(
    ("options", "experts", "message"),
    [
        ({"pipeline_parallel_size": 2}, False, "ValueError: the stages of a pipeline are not built here"),
        (
            {"quantization": "fp8"},
            False,
            "ValueError: weights that the engine quantises when it loads them have their size only then",
        ),
        # With expert parallelism each GPU has some of them whole, and without it a share of each.
        (
            {"data_parallel_size": 2, "enable_expert_parallel": True},
            True,
            "ValueError: experts that replicas share are not built here",
        ),
        ({"data_parallel_size": 2}, True, "ValueError: experts that replicas share are not built here"),
    ],
)
def test_what_one_process_cannot_stand_for(monkeypatch, capsys, options, experts, message) -> None:
    engine = Engine(**options)
    engine.experts = experts
    assert printed(monkeypatch, capsys, engine) == {"cannot": message}


def test_a_group_that_shares_experts_within_one_replica_is_built(monkeypatch, capsys) -> None:
    engine = Engine(tensor_parallel_size=2, enable_expert_parallel=True)
    engine.experts = True
    assert "weights_bytes" in printed(monkeypatch, capsys, engine)


def test_any_exception_of_the_engine_is_one_line(monkeypatch, capsys) -> None:
    engine = Engine()
    engine.error = "no kernel\n  for this" + " and that" * 100
    message = printed(monkeypatch, capsys, engine)["cannot"]
    assert message.startswith("RuntimeError: no kernel for this and that")
    assert len(message) == 400


def test_what_the_parser_refuses_is_its_own_exit(monkeypatch) -> None:
    engine = Engine()
    engine.refused = True
    provide(monkeypatch, engine)
    with pytest.raises(SystemExit) as ended:
        engine_figures.main()
    assert ended.value.code == 2
