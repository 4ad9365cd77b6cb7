# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a model is served for: by its architecture, its files and the options, as vLLM decides it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.instance import Instance
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.planning import one
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.test_named_models import FILES, LLAMA, NAME, catalog

TRANSFORMERS = {**FILES, "modules.json": 300, "1_Pooling/config.json": 200}
RERANKER = {
    "architectures": ["LlamaForSequenceClassification"],
    "classifier_from_token": ["no", "yes"],
    "method": "from_2_way_softmax",
}


def planned(architecture: str, files: dict[str, int] | None = None, **options: Any) -> Instance:
    labels = {"id2label": options.pop("id2label")} if "id2label" in options else {}
    known = catalog(config={**LLAMA, "architectures": [architecture], **labels}, files=files or FILES)
    return one("1xH100", known, models=[{"model": NAME, **options}])


@pytest.mark.parametrize(
    ("architecture", "options", "task"),
    [
        ("LlamaForCausalLM", {}, "generate"),
        ("LlamaForCausalLM", {"files": TRANSFORMERS}, "embed"),
        ("LlamaForCausalLM", {"extra_args": {"runner": "pooling"}}, "embed"),
        ("LlamaForCausalLM", {"extra_args": {"convert": "classify"}}, "classify"),
        ("LlamaForCausalLM", {"files": TRANSFORMERS, "extra_args": {"runner": "generate"}}, "generate"),
        ("LlamaForCausalLM", {"extra_args": {"hf-overrides": RERANKER}}, "rerank"),
        ("LlamaModel", {}, "embed"),
        ("LlamaForSequenceClassification", {}, "classify"),
        ("LlamaForSequenceClassification", {"id2label": {"0": "LABEL_0"}}, "rerank"),
        ("LlamaForSequenceClassification", {"id2label": {"0": "a", "1": "b", "2": "c"}}, "classify"),
        ("LlamaForTokenClassification", {}, "pooling"),
        ("LlamaForRewardModel", {}, "pooling"),
    ],
)
def test_the_task_of_a_model(architecture: str, options: dict[str, Any], task: str) -> None:
    found, own = planned(architecture, **options), options.get("extra_args", {})
    assert found.task == task
    assert found.config.get("runner") == own.get("runner", None if task == "generate" else "pooling")
    assert found.config.get("convert") == own.get("convert")


def test_a_pooling_model_has_no_parsers() -> None:
    parsers = {"tool-call-parser", "enable-auto-tool-choice", "reasoning-parser"}
    chat = one("1xH100", model="qwen3-8b")
    pooled = one("1xH100", models=[{"model": "qwen3-8b", "extra_args": {"runner": "pooling"}}])
    assert parsers <= chat.config.keys()
    assert not parsers & pooled.config.keys()
