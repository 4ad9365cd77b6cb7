# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fields of a config.json, read by name; which were read is noted, so that what a reader passed over is found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

#: Fields that make a model something else than a decoder of equal layers, and what they make it.
MARKERS: Mapping[str, tuple[str, ...]] = {
    "a mixture of experts": (
        "num_local_experts",
        "num_experts",
        "n_routed_experts",
        "moe_num_experts",
        "num_routed_experts",
        "moe_intermediate_size",
        "moe_layer_freq",
        "expert_layer_period",
    ),
    "latent attention (MLA)": ("kv_lora_rank",),
    "layers with a state": (
        "ssm_cfg",
        "ssm_state_size",
        "state_size",
        "layers_block_type",
        "hybrid_override_pattern",
        "hybrid_layer_ids",
        "mamba_d_state",
        "mamba_d_ssm",
        "mamba_num_heads",
        "attn_layer_period",
        "attn_type_list",
        "linear_num_value_heads",
        "linear_attn_config",
        "full_attention_interval",
        "full_attn_idxs",
        "conv_L_cache",
        "layer_group_size",
    ),
    "sparse attention": ("index_topk", "compress_ratios", "compress_ratio", "sparse_attention_config"),
    "windows of attention": (
        "sliding_window",
        "sliding_window_size",
        "sliding_window_pattern",
        "sliding_windows",
        "attention_chunk_size",
        "layer_types",
        "interleaved_sliding_window",
    ),
    "layers without a cache of their own": ("num_kv_shared_layers", "cross_attention_layers", "kv_sharing_period"),
    "layers that differ": ("block_configs", "num_attention_heads_per_layer", "num_global_key_value_heads"),
    "an encoder": ("encoder_layers", "decoder_layers", "is_encoder_decoder"),
}
#: Where the language model's own fields stand in the config of a model that does more.
NESTED = ("text_config", "llm_config", "language_config", "thinker_config", "text_model_config")


def text_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The language model's fields, laid over those around them; whether the ends are tied is said around them."""
    fields = dict(config)
    for key in NESTED:
        inner = fields.pop(key, None)
        if isinstance(inner, Mapping):
            fields = {**fields, **text_fields({"architectures": fields.get("architectures"), **inner})}
            fields |= {key: config[key] for key in ("architectures", "tie_word_embeddings") if key in config}
    return fields


#: What Python says where a field has another form than its reader takes.
ODD = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError)
#: No number of a model is larger, and none has more layers: what goes beyond is a mistake, not to be counted out.
MOST, MOST_LAYERS = 1 << 40, 4096


@contextmanager
def of_a_known_form(what: str) -> Iterator[None]:
    """Raise ValueError, with `what` in front, where a field within has a form that its reader does not take."""
    try:
        yield
    except (*ODD, ValueError) as error:
        if isinstance(error, ValueError) and str(error).startswith(what):
            raise
        raise ValueError(f"{what}: a field of its config.json has another form than is known: {error}.") from None


class Fields:
    """Fields by name. Raises ValueError, with `what` in front, for a field that is no number."""

    def __init__(self, what: str, values: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> None:
        self.what = what
        self._values = {**(defaults or {}), **{key: value for key, value in values.items() if value is not None}}
        self._read: set[str] = set()

    def get(self, *names: str, default: Any = None) -> Any:
        """The first of these that is there."""
        self._read.update(names)
        return next((self._values[name] for name in names if name in self._values), default)

    def number(self, *names: str, default: int | None = None, most: int = MOST) -> int:
        """A positive whole number; numbers given on a command line arrive as strings."""
        return self.whole(names[0], self.get(*names, default=default), most=most)

    def whole(self, name: str, value: Any, least: int = 1, most: int = MOST) -> int:
        """One value as a whole number, such as an entry of a list. ``name``: of its field, for a finding."""
        try:
            number = int(str(value))
        except ValueError:
            raise ValueError(f"{self.what}: {name} must be a whole number, not {value!r}.") from None
        if number < least:
            raise ValueError(f"{self.what}: {name} must be at least {least}, not {number}.")
        if number > most:
            raise ValueError(f"{self.what}: {name} must be at most {most}, not {number}.")
        return number

    def count(self, *names: str) -> int:
        """A number that may be 0 or absent."""
        value = self.get(*names)
        return self.number(*names) if value else 0

    def listed(self, *names: str) -> list[Any]:
        """A list, empty where there is none."""
        value = self.get(*names)
        return list(value) if isinstance(value, (list, tuple)) else []

    def one_or_more(self, least: int, *names: str) -> list[int]:
        """Whole numbers, of a field that has one or a list of them; none where it is not there."""
        value = self.get(*names)
        values = value if isinstance(value, (list, tuple)) else [value] if value else []
        return [self.whole(names[0], one, least) for one in values]

    def by_layer(self, count: int, *names: str) -> list[Any]:
        """A list with an entry for each layer, empty if absent. Raises ValueError for one that is too short."""
        entries = self.listed(*names)
        if entries and len(entries) < count:
            raise ValueError(f"{self.what}: {names[0]} has {len(entries)} entries for {count} layers.")
        return entries

    def flag(self, *names: str, default: bool = False) -> bool:
        """A truth value."""
        return bool(self.get(*names, default=default))

    def inner(self, name: str) -> Fields:
        """The fields within one; none where it is not there."""
        value = self.get(name)
        return Fields(f"{self.what}: {name}", value if isinstance(value, Mapping) else {})

    def unread(self) -> dict[str, str]:
        """Fields that say of what kind a model is and that nobody asked for, with that kind."""
        return {
            name: kind
            for kind, names in MARKERS.items()
            for name in names
            if self._values.get(name) and name not in self._read
        }
