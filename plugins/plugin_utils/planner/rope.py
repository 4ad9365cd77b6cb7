# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The context length from config.json, as vLLM derives it, and its extension by YaRN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .architecture import Architecture
from .config_fields import Fields, of_a_known_form, text_fields

#: The fields of which vLLM uses the smallest (get_max_model_len_and_key).
LENGTHS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
#: Kinds of scaling that max_position_embeddings has counted in already.
COUNTED = ("default", "su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling", "mrope")
ORIGINAL = "original_max_position_embeddings"
#: The largest factor of YaRN that model cards give.
FARTHEST = 4
#: vLLM's default without a length in config.json.
SILENT = 2048


def _scaling(fields: Fields) -> Mapping[str, Any]:
    scaling = fields.get("rope_parameters", "rope_scaling")
    return scaling if isinstance(scaling, Mapping) else {}


def context_of(fields: Fields) -> int:
    """The context without options: with LongRoPE the trained one, since longer ones spoil answers to short prompts.

    Raises ValueError for a length that is no number.
    """
    scaling = _scaling(fields)
    if str(scaling.get("rope_type", scaling.get("type", ""))) in ("longrope", "su"):
        trained = fields.get(ORIGINAL) or scaling.get(ORIGINAL)
        return min(fields.whole(ORIGINAL, trained), longest_of(fields)) if trained else longest_of(fields)
    return longest_of(fields)


def longest_of(fields: Fields) -> int:
    """The longest context that config.json gives. Raises ValueError for a length that is no number."""
    if fields.get("model_max_length"):
        length = fields.number("model_max_length")
    else:
        lengths = [fields.number(name) for name in LENGTHS if fields.get(name) is not None]
        length = min(lengths, default=SILENT)
    scaling = _scaling(fields)
    kind = str(scaling.get("rope_type", scaling.get("type", "default")))
    gemma3 = "gemma3" in str(fields.get("model_type", default=""))
    if kind in COUNTED or gemma3 or not isinstance(scaling.get("factor"), (int, float)):
        return length
    return fields.whole("the context by rope_scaling", int(length * scaling["factor"]))


def stretch_of(fields: Fields, entry: Mapping[str, Any], nested: bool) -> tuple[tuple[str, Any], ...]:
    """The settings of YaRN for a model whose family is published with it; empty if the context is not extended.

    `yarn` of the allow-list is the length that the family was trained with: factors count from it.
    """
    trained = int(entry.get("yarn") or 0)
    scaling = dict(_scaling(fields))
    kind = str(scaling.get("rope_type", scaling.get("type", "default")))
    if not trained or kind not in ("default", "yarn", "mrope"):
        return ()
    context = context_of(fields)
    original = fields.whole(ORIGINAL, scaling.get(ORIGINAL) or (trained if context < 2 * trained else context))
    kept: dict[str, Any] = {key: scaling[key] for key in ("mrope_section", "mrope_interleaved") if key in scaling}
    theta = fields.get("rope_theta") or scaling.get("rope_theta")
    partial = fields.get("partial_rotary_factor") or scaling.get("partial_rotary_factor")
    kept |= {"rope_theta": theta} if theta else {}
    kept |= {"partial_rotary_factor": partial} if partial else {}
    return (("original", original), ("kept", tuple(sorted(kept.items()))), ("nested", nested))


def yarn(architecture: Architecture, length: int) -> dict[str, Any]:
    """hf-overrides for a context of this length; empty if it is longer than YaRN is published for."""
    known = dict(architecture.stretch)
    if not known or length > known["original"] * FARTHEST:
        return {}
    factor = float(-(-length // known["original"]))
    parameters = {
        "rope_type": "yarn",
        "factor": factor,
        ORIGINAL: known["original"],
        **{key: list(value) if isinstance(value, tuple) else value for key, value in known["kept"]},
    }
    overrides: dict[str, Any] = {"rope_parameters": parameters, "max_position_embeddings": length}
    return {"text_config": overrides} if known["nested"] else overrides


def own_length(what: str, architecture: Architecture, overrides: Any) -> int:
    """The context that a user's own hf-overrides give, as vLLM derives it; 0 where they say nothing of it.

    Raises ValueError for a length that is no number.
    """
    fields = text_fields(overrides) if isinstance(overrides, Mapping) else {}
    if not fields.keys() & {"max_position_embeddings", "rope_parameters", "rope_scaling"}:
        return 0
    with of_a_known_form(what):
        return longest_of(
            Fields(what, {"max_position_embeddings": architecture.longest or architecture.context, **fields})
        )


def with_own(overrides: Mapping[str, Any], own: Any) -> dict[str, Any]:
    """The plan's hf-overrides with the user's beside them, those of the language model's config likewise."""
    own = own if isinstance(own, Mapping) else {}
    both = {key: {**overrides[key], **own[key]} for key in ("text_config",) if key in overrides and key in own}
    return {**overrides, **own, **both}


def farthest(architecture: Architecture) -> int:
    """The longest context that YaRN is published for; 0 if the family is not published with it."""
    return int(dict(architecture.stretch).get("original", 0)) * FARTHEST
