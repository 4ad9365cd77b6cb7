# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalogue's models: each has the shapes of its own config.json, and what vLLM knows of parsers and options."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.architectures import read_config
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog import ModelSpec
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog_files import (
    HOME,
    _formats,
    _read,
    load_catalog,
    weights_of,
)
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.memory import shaped_bytes
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.quantization import laid_out
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.planning import (
    CATALOG,
    FIXTURES,
    findings,
    one,
    outcome,
)

#: Published config.json files, their fields, by repository.
PUBLISHED: dict[str, dict[str, Any]] = {
    row["repo_id"]: row
    for row in map(json.loads, (FIXTURES / "models" / "configs.jsonl").read_text(encoding="utf-8").splitlines())
}
PARSERS = json.loads((FIXTURES / "vllm" / "parsers-0.33.0.json").read_text(encoding="utf-8"))
FROM_RECIPES = [model for model in CATALOG.models.values() if model.source]


def named(models: list[ModelSpec]) -> Any:
    return pytest.mark.parametrize("model", models, ids=[model.key for model in models])


def test_the_first_tier_is_there() -> None:
    """Those whose own config.json could be read, and that the planner sizes."""
    wanted = {"gpt-oss-20b", "gpt-oss-120b", "qwen3-32b", "gemma-4-31b", "deepseek-v3.2", "3.3-70b", "8b"}
    assert wanted <= CATALOG.models.keys()
    assert len(FROM_RECIPES) >= 20


@named(FROM_RECIPES)
def test_shapes_are_those_of_its_own_config(model: ModelSpec) -> None:
    own = PUBLISHED[model.repo_id]
    assert own["source"] == "config.json"
    architecture = read_config(model.key, own["config"])
    assert model.architecture == architecture
    weights = weights_of(model.key, {"hf_quant_config": own.get("hf_quant_config")}, own["config"], FORMATS)
    stored = laid_out(architecture, weights)
    assert shaped_bytes(model) == round(sum(part.layer_bytes * max(1, len(part.layers)) for part in stored))


FORMATS = _formats(_read(HOME / "weight_formats.yml"))


@named(list(CATALOG.models.values()))
def test_parsers_are_vllms(model: ModelSpec) -> None:
    assert model.tool_call_parser in ("", *PARSERS["tool"])
    assert model.reasoning_parser in ("", *PARSERS["reasoning"])


@named([model for model in CATALOG.models.values() if model.drafts])
def test_what_proposes_tokens_for_it(model: ModelSpec) -> None:
    """With its source, by a method that each release has, and that the planner takes for the model."""
    for draft in model.drafts:
        assert draft.source.startswith("https://")
        assert draft.method == "mtp" or draft.repo_id
        assert all(draft.method in engine.speculative_methods for engine in CATALOG.engines.values())
    if model.drafts[0].method == "mtp":
        made = one("8xB300", model=model.key, speculative="auto", trust_remote_code=True)
        assert made.config["speculative-config"]["num_speculative_tokens"] == model.drafts[0].tokens


def test_the_reasoning_parser_is_written() -> None:
    config = one("1xH100", model="qwen3-32b-fp8").config
    assert (config["reasoning-parser"], config["tool-call-parser"]) == ("qwen3", "hermes")
    assert "reasoning-parser" not in one("1xH100", model="8b").config
    other = one("1xH100", model="qwen3-32b-fp8", extra_args={"reasoning-parser": "deepseek_r1"})
    assert other.config["reasoning-parser"] == "deepseek_r1"


def test_code_of_a_repository_wants_consent() -> None:
    message = findings("8xH200", model="minimax-m2.5")
    assert "MiniMaxAI/MiniMax-M2.5 brings code that would run in the engine: configuration_minimax_m2.py" in message
    assert one("8xH200", model="minimax-m2.5", trust_remote_code=True).config["trust-remote-code"] is True


@pytest.mark.parametrize("model", [model for model in CATALOG.models.values() if model.device == "cuda"])
def test_every_model_is_served_somewhere(model: ModelSpec) -> None:
    made = outcome("8xB300", model=model.key, trust_remote_code=True)
    assert made.plan, made.findings


def test_a_release_before_the_model() -> None:
    old = load_catalog(extra_engines={"0.9.0": {}})
    message = findings("1xH100", old, model="gpt-oss-20b", engine="0.9.0")
    assert "vLLM 0.9.0 does not serve GptOssForCausalLM, but 0.10.1 does" in message
