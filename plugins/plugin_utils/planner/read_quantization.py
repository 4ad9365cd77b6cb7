# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a quantization_config (or an hf_quant_config.json) to the formats that the weights have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .config_fields import ODD, text_fields
from .quantization import Group, Storage, WeightFormat, plain

Raw = Mapping[str, Any]
Formats = Mapping[str, WeightFormat]

#: Fields that list what stays as it is.
LISTS = ("ignore", "modules_to_not_convert", "ignored_layers", "exclude_modules")


@dataclass(frozen=True)
class Unreadable:
    """Why the planner cannot tell how the weights are stored; ``refused``: the engine does not take them at all."""

    why: str
    refused: bool = False


def quantization_of(config: Raw, beside: Raw | None = None) -> Raw:
    """The quantization_config, wherever it stands; ``beside``: the content of hf_quant_config.json."""
    text = text_fields(config)
    section = config.get("quantization_config") or config.get("compression_config") or text.get("quantization_config")
    if not section and beside:
        section = {"quant_method": "modelopt", **(beside.get("quantization") or beside)}
    return section if isinstance(section, Mapping) else {}


def _left_out(raw: Raw) -> tuple[str, ...]:
    listed = next((raw[name] for name in LISTS if raw.get(name)), ())
    return tuple(str(item) for item in listed)


def _int_weights(formats: Formats, weights: Raw, activations: Raw) -> WeightFormat | None:
    """Whole numbers: by bits, by what activations are, by group."""
    bits, group = weights.get("num_bits"), int(weights.get("group_size") or 0)
    zeros = 0 if weights.get("symmetric", True) else int(bits or 0)
    if bits == 8:
        return formats["int8" if activations else "w8a16"]
    if bits != 4:
        return None
    base = formats["w4a8-fp8" if activations.get("type") == "float" else "w4a16"]
    if group <= 0 or weights.get("strategy") == "channel":
        return replace(base, group_size=0, scale_bits=0, row_bytes=base.row_bytes + 2)
    return replace(base, group_size=group, zero_bits=zeros)


def _float_weights(formats: Formats, weights: Raw) -> WeightFormat | None:
    """FP8, FP4 and their block forms."""
    bits, group, strategy = weights.get("num_bits"), int(weights.get("group_size") or 0), weights.get("strategy")
    if bits == 4:
        return formats["nvfp4" if group == 16 else "mxfp4"] if group in (16, 32) else None
    if bits != 8:
        return None
    if strategy == "block" and weights.get("block_structure"):
        rows, columns = weights["block_structure"]
        return replace(formats["fp8-block"], block_size=int(rows), group_size=int(columns))
    if group == 32:
        return formats["mxfp8"]
    return formats["fp8-channel" if strategy == "channel" else "fp8"]


def _grouped(raw: Raw, formats: Formats) -> Storage | Unreadable:
    """config_groups of compressed-tensors and of newer ModelOpt, each with a scheme of its own."""
    groups = []
    for group in raw["config_groups"].values():
        weights, activations = group.get("weights") or {}, group.get("input_activations") or {}
        # Older entries of a catalogue have the bits only: those were FP8.
        of_floats = weights.get("type", "float" if weights.get("num_bits") == 8 else "int") == "float"
        stored = _float_weights(formats, weights) if of_floats else _int_weights(formats, weights, activations)
        if stored is None:
            kind = f"{weights.get('type')} of {weights.get('num_bits')} bits in groups of {weights.get('group_size')}"
            return Unreadable(f"the planner does not size weights of {kind}")
        targets = tuple(str(target) for target in group.get("targets") or ())
        everything = not targets or any(target in ("Linear", "FusedMoE", "RoutedExperts") for target in targets)
        groups.append(Group(stored, () if everything else targets))
    groups.sort(key=lambda group: not group.targets)  # names before the rest
    scheme = raw.get("kv_cache_scheme") or {}
    eight = scheme == "FP8" or (isinstance(scheme, Mapping) and scheme.get("num_bits") == 8)
    return Storage(tuple(groups), _left_out(raw), "fp8" if eight else "")


#: ModelOpt's algorithms.
ALGORITHMS = {
    "FP8": "fp8",
    "FP8_PER_CHANNEL_PER_TOKEN": "fp8-channel",
    "FP8_PB_WO": "fp8-block",
    "NVFP4": "nvfp4",
    "MXFP8": "mxfp8",
    "W4A16_AWQ": "awq",
}


def _modelopt(raw: Raw, formats: Formats) -> Storage | Unreadable:
    algorithm = str(raw.get("quant_algo") or raw.get("quantization", {}).get("quant_algo") or "").upper()
    cache = "fp8" if str(raw.get("kv_cache_quant_algo") or "").upper() == "FP8" else ""
    if algorithm == "MIXED_PRECISION":
        return _mixed(raw, formats, cache)
    if algorithm not in ALGORITHMS:
        return Unreadable(f"the planner does not size ModelOpt's {algorithm or 'weights without quant_algo'}")
    return Storage((Group(formats[ALGORITHMS[algorithm]]),), _left_out(raw), cache)


def _mixed(raw: Raw, formats: Formats, cache: str) -> Storage | Unreadable:
    """ModelOpt's list of layers, each with its own algorithm."""
    by_format: dict[str, list[str]] = {}
    for name, layer in (raw.get("quantized_layers") or {}).items():
        by_format.setdefault(ALGORITHMS.get(str(layer.get("quant_algo")).upper(), ""), []).append(name)
    if not by_format or "" in by_format:
        return Unreadable("the planner does not size this mixture of ModelOpt's algorithms")
    groups = tuple(Group(formats[key], tuple(names)) for key, names in by_format.items())
    return Storage(groups, _left_out(raw), cache)


def _fp8(raw: Raw, formats: Formats) -> Storage:
    block = raw.get("weight_block_size")
    stored = formats["fp8"]
    if block:
        stored = replace(formats["fp8-block"], block_size=int(block[0]), group_size=int(block[1]))
    return Storage((Group(stored),), _left_out(raw))


def _four_bits(key: str, raw: Raw, formats: Formats) -> Storage | Unreadable:
    """AWQ and GPTQ, in groups or by output."""
    bits = int(raw.get("bits") or raw.get("w_bit") or 4)
    group = int(raw.get("group_size") or raw.get("q_group_size") or 128)
    if bits not in (4, 8):
        return Unreadable(f"vLLM serves {key.upper()} weights of 4 and 8 bits, not of {bits}", refused=True)
    stored = replace(formats[key], bits=bits, zero_bits=bits)
    if group <= 0:
        stored = replace(stored, group_size=0, scale_bits=0, zero_bits=0, row_bytes=2 + bits // 4)
    else:
        stored = replace(stored, group_size=group)
    return Storage((Group(stored),), _left_out(raw))


def read_quantization(raw: Raw, formats: Formats, not_served: tuple[str, ...] = ()) -> Storage | Unreadable:
    """The formats of a quantization_config; BF16 where there is none."""
    try:
        return _read(raw, formats, not_served)
    except (*ODD, ValueError) as error:
        return Unreadable(f"a field of its quantization_config has another form than is known: {error}")


def _read(raw: Raw, formats: Formats, not_served: tuple[str, ...]) -> Storage | Unreadable:
    method = str(raw.get("quant_method") or "").lower().replace("_", "-")
    if (raw.get("producer") or {}).get("name") == "modelopt":
        method = "modelopt"
    if raw.get("config_groups") and (method == "compressed-tensors" or "modelopt" in method):
        return _grouped(raw, formats)
    if not method and raw:
        return Unreadable("its quantization_config has no quant_method, without which vLLM does not see it")
    if not method:
        return plain(formats["bf16"])
    if method in not_served:
        return Unreadable(f"vLLM does not serve weights in {method}", refused=True)
    if method == "fp8":
        return _fp8(raw, formats) if not raw.get("moe_quant_algo") else Unreadable("its experts have another format")
    if method in ("awq", "gptq"):
        return _four_bits(method, raw, formats)
    if method == "fbgemm-fp8":
        left_out = _left_out(raw)
        stored = formats["fbgemm-fp8"]
        stored = replace(stored, parts=("attention", "mlp", "experts"), skip_layers=0) if left_out else stored
        return Storage((Group(stored),), left_out)
    if method == "mxfp4":
        return Storage((Group(replace(formats["mxfp4"], parts=("experts",))),), ())
    if method.startswith("modelopt"):
        return _modelopt(raw, formats)
    return Unreadable(f"the planner does not size weights in {method}")
