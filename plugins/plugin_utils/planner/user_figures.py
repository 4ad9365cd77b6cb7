# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model that the planner cannot size, planned from the two figures that its user gives, or left to the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .architecture import EVEN, FULL, Architecture, CacheLayers, Part, Unsized, Whole
from .catalog import ModelSpec
from .memory import shaped_bytes
from .quantization import Storage, WeightFormat, plain
from .read_quantization import Unreadable

#: Spellings of "the engine decides", as vLLM takes them.
AUTO = ("auto", "-1")
GIVEN = plain(WeightFormat("given", "weights", 16, "7.5"))


def is_auto(value: Any) -> bool:
    """Whether a context is left to the engine."""
    return str(value).strip().lower() in AUTO


def _architecture(model: ModelSpec, weights: int, kv_bytes: int) -> Architecture:
    """One part and one cache of the given sizes. Each GPU keeps the whole cache: how it divides is not known."""
    known = model.architecture
    # The given weights are of one part, which replicas do not share.
    wholes = tuple(replace(whole, experts=False) for whole in known.wholes) if isinstance(known, Architecture) else ()
    if isinstance(known, Unsized) and known.heads:
        wholes = (Whole("attention heads", known.heads),)
    return Architecture(
        name=known.name,
        kind="figures",
        layers=1,
        hidden_size=0,
        inner_size=0,
        context=known.context,
        parts=(Part("weights", weights, 1, split=EVEN, linear=False, element=1),),
        cache=(CacheLayers(FULL, (0,), 1, kv_bytes, 0, element=1),) if kv_bytes else (),
        wholes=wholes,
        lora=known.lora if isinstance(known, Architecture) else True,
    )


def with_figures(model: ModelSpec, options: Mapping[str, Any], auto: bool) -> tuple[ModelSpec, bool]:
    """The model with the user's figures, and whether the engine decides its context.

    Raises ValueError, with what is missing, for a model that cannot be planned with what is given.
    """
    weights = options.get("weights_bytes") or model.weights_bytes
    kv_bytes = options.get("kv_bytes_per_token") or model.kv_bytes_per_token
    # A model that stays what it is keeps what was counted of it.
    same = (weights, kv_bytes) == (model.weights_bytes, model.kv_bytes_per_token)
    given = model if same else replace(model, weights_bytes=weights, kv_bytes_per_token=kv_bytes)
    if not model.missing:
        if not kv_bytes:
            return given, False
        weights = weights or shaped_bytes(model)
    gone = isinstance(model.architecture, Unsized) and model.architecture.gone
    refused = isinstance(model.weights, Unreadable) and model.weights.refused
    if gone or refused:
        raise ValueError(f"{model.key}: {model.missing}.")
    if not weights or not (kv_bytes or auto):
        raise ValueError(f"{model.key}: {model.missing or 'only one figure was given'}. {_lacking(weights, kv_bytes)}")
    stored = model.weights if isinstance(model.weights, Storage) else GIVEN
    given = replace(given, architecture=_architecture(model, weights, kv_bytes or 0), weights=stored)
    return given, not kv_bytes


def _lacking(weights: int | None, kv_bytes: int | None) -> str:
    """Which of the two figures must be set, and where they come from."""
    lacking = []
    if not weights:
        lacking.append("vllm_weights_bytes (the sum of the sizes of its *.safetensors)")
    if not kv_bytes:
        lacking.append("vllm_kv_bytes_per_token (bytes of KV cache of one token, all layers of one GPU together)")
    auto = "; with vllm_max_model_len: auto the engine decides the context by itself" if not kv_bytes else ""
    return f"It is planned with {' and '.join(lacking)}{auto}."
