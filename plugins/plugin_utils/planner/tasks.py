# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The task of a model, as vLLM determines it (ModelConfig._get_runner_type, get_pooling_task).

generate, or a task of a pooling model: embed, rerank (a classification with one label, which scores pairs), classify,
and pooling for tasks without their own route (labels of tokens, rewards).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...module_utils.programs.vllm_wait import GENERATE
from .architecture import Architecture
from .catalog import ModelSpec

__all__ = ["GENERATE", "task_of"]
#: The file that marks a model of sentence-transformers for vLLM, with any architecture.
MODULES = "modules.json"
#: Endings of the architectures of pooling models that may not be in the catalogue.
CLASSIFIES = ("ForSequenceClassification", "ClassificationModel")
POOLS = ("ForTokenClassification", "ForRewardModel", "ForRewardModeling", "RewardModel")
EMBEDS = ("EmbeddingModel", "ForTextEncoding")


def task_of(model: ModelSpec, options: Mapping[str, Any]) -> str:
    """The task of a model.

    Args:
        options: vLLM's runner, convert and hf-overrides, as far as they are set.
    """
    overrides = options.get("hf-overrides")
    overrides = overrides if isinstance(overrides, Mapping) else {}
    names = overrides.get("architectures") or [model.architecture.name]
    name, convert = str(names[0]), options.get("convert")
    if not _pools(model, name, options):
        return GENERATE
    if convert == "classify" or name.endswith(CLASSIFIES):
        return "rerank" if _labels(model, overrides) == 1 else "classify"
    return "pooling" if name.endswith(POOLS) and convert != "embed" else "embed"


def _pools(model: ModelSpec, name: str, options: Mapping[str, Any]) -> bool:
    """Whether it has a pooler instead of the head that generates tokens."""
    runner = options.get("runner")
    if runner not in (None, "auto"):
        return bool(runner == "pooling")
    if options.get("convert") in ("embed", "classify") or MODULES in model.files:
        return True
    known = model.architecture
    listed = isinstance(known, Architecture) and known.task == "pooling" and name == known.name
    return listed or name.endswith((*CLASSIFIES, *POOLS, *EMBEDS))


def _labels(model: ModelSpec, overrides: Mapping[str, Any]) -> int:
    """How many labels a classification has: by the tokens that it is made from, else by config.json."""
    tokens = overrides.get("classifier_from_token") or ()
    softmax = overrides.get("method") == "from_2_way_softmax" or overrides.get("is_original_qwen3_reranker")
    if tokens:
        return 1 if softmax else len(tokens)
    known = model.architecture
    own = known.labels if isinstance(known, Architecture) else 2
    return len(overrides.get("id2label") or ()) or int(overrides.get("num_labels") or own)
