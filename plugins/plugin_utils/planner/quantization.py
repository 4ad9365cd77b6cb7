# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Formats of weights: which layers have which one, and how many bytes that makes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property, lru_cache
from typing import Any

from .architecture import Architecture, Part

Raw = Mapping[str, Any]

#: What stands before `layers.N.` in checkpoints; patterns are written against the whole name.
BEFORE = ("model.", "model.language_model.", "language_model.model.", "backbone.")


@dataclass(frozen=True)
class WeightFormat:
    """How the weights of linear layers are stored; catalog/weight_formats.yml says what each field means."""

    key: str
    title: str
    bits: int
    min_compute_capability: str
    native_compute_capability: str = "0.0"
    group_size: int = 0
    block_size: int = 0
    scale_bits: int = 0
    zero_bits: int = 0
    row_bytes: int = 0
    parts: tuple[str, ...] = ("attention", "mlp", "experts")
    skip_layers: int = 0
    cores: str = ""
    pad_to: int = 1
    repacked: float = 0.0

    def size(self, rows: int, columns: int) -> float:
        """Bytes of a matrix with its scales."""
        total = rows * columns * self.bits / 8 + rows * self.row_bytes
        if self.group_size:
            across = -(-rows // self.block_size) if self.block_size else rows
            total += across * -(-columns // self.group_size) * (self.scale_bits + self.zero_bits) / 8
        return total


@dataclass(frozen=True)
class Group:
    """A format and the names that it is for; without names, for all linear layers."""

    stored: WeightFormat
    targets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Storage:
    """The formats of one model."""

    groups: tuple[Group, ...]
    left_out: tuple[str, ...] = ()
    kv_cache: str = ""  # the data type that the checkpoint wants for the KV cache

    @property
    def formats(self) -> tuple[WeightFormat, ...]:
        """Each format once, the smallest last."""
        return tuple(dict.fromkeys(group.stored for group in self.groups))

    @property
    def title(self) -> str:
        """What the weights are called."""
        return " and ".join(dict.fromkeys(stored.title for stored in self.formats))

    @property
    def key(self) -> str:
        """The key of the first format."""
        return self.formats[0].key


def plain(stored: WeightFormat) -> Storage:
    """One format for everything that it applies to."""
    return Storage((Group(stored),))


@lru_cache(maxsize=4096)
def _pattern(text: str) -> re.Pattern[str]:
    """A pattern of a list as a regular expression: `re:…` is one, `*` is a wildcard, all else a name or its parent."""
    if text.startswith("re:"):
        return re.compile(text[3:])
    if "*" in text:
        return re.compile(translate(text) + "|" + translate(text + ".*"))
    return re.compile(rf"(?:.*\.)?{re.escape(text)}(?:\..*)?$")


_NUMBERED = re.compile(r"layers\.(\d+)(?:\.|$|\*)")

#: Projections that the engine fuses; a list may name the fused one.
FUSED = {"q_proj": "qkv_proj", "k_proj": "qkv_proj", "v_proj": "qkv_proj", "gate_proj": "gate_up_proj"}
FUSED["up_proj"] = "gate_up_proj"


def _names(part: Part, layer: int | None) -> list[str]:
    """What a part may be called in full."""
    if layer is None:
        return [part.name]
    end = part.name.rpartition(".")[2]
    spelled = [part.name, part.name.replace(end, FUSED[end])] if end in FUSED else [part.name]
    return [f"{before}layers.{layer}.{name}" for before in BEFORE for name in spelled]


class _Matcher:
    """Whether a list names a part. What names a layer is looked up by its number: lists have thousands of those."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._exact: set[str] = set()
        self._of_layer: dict[int, list[re.Pattern[str]]] = {}
        self._patterns: list[re.Pattern[str]] = []
        for text in texts:
            numbered = None if text.startswith("re:") else _NUMBERED.search(text)
            if numbered is not None and not _ours(text[: numbered.start()]):
                continue  # a layer of a tower or of a draft
            if numbered is None:
                self._patterns.append(_pattern(text))
            elif "*" in text:
                pattern = re.compile(translate(text[numbered.start() :]))
                self._of_layer.setdefault(int(numbered[1]), []).append(pattern)
            else:
                self._exact.add(text[numbered.start() :])
        self.whole = not self._exact and not self._of_layer and not any("layers" in p.pattern for p in self._patterns)

    def named(self, part: Part, layer: int | None) -> bool:
        """By its own name or by that of a module around it."""
        names = _names(part, layer)
        if layer is not None and (self._exact or layer in self._of_layer):
            short = [name[name.index("layers.") :] for name in names[:2]]
            if any(pattern.match(name) for pattern in self._of_layer.get(layer, ()) for name in short):
                return True
            if any(upper in self._exact for name in short for upper in _uppers(name)):
                return True
        return any(pattern.match(name) for pattern in self._patterns for name in names)


def _ours(before: str) -> bool:
    """Whether what stands before `layers.N.` is the language model."""
    return before in ("", *BEFORE) or before.strip(".").endswith(("transformer", "decoder", "*"))


def _uppers(name: str) -> list[str]:
    """A name and those of the modules around it, down to its layer."""
    words = name.split(".")
    return [".".join(words[:end]) for end in range(2, len(words) + 1)]


def _kind(part: Part) -> str:
    """What a format's `parts` calls it."""
    if ".experts." in part.name:
        return "experts"
    return "attention" if "attn" in part.name else "mlp"


@dataclass(frozen=True)
class Stored:
    """A part, the layers of it that are stored alike, and how; None: as it is."""

    part: Part
    layers: tuple[int, ...]
    stored: WeightFormat | None

    @cached_property
    def layer_bytes(self) -> float:
        """In one layer."""
        if self.stored is None:
            return float(self.part.parameters * self.part.element)
        return self.stored.size(self.part.rows, self.part.columns) * self.part.times


def laid_out(architecture: Architecture, storage: Storage) -> tuple[Stored, ...]:
    """Every part with its format."""
    left_out = _Matcher(storage.left_out)
    groups = [(group.stored, _Matcher(group.targets) if group.targets else None) for group in storage.groups]
    parts: list[Stored] = []
    for part in architecture.parts:
        if not part.linear:
            parts.append(Stored(part, part.layers, None))
            continue
        by_format: dict[WeightFormat | None, list[int]] = {}
        alike = left_out.whole and all(matcher is None or matcher.whole for _stored, matcher in groups)
        first = _format(part, part.layers[0], left_out, groups, architecture.layers) if alike and part.layers else None
        for layer in part.layers:
            same = alike and not any(stored.skip_layers for stored, _matcher in groups)
            stored = first if same else _format(part, layer, left_out, groups, architecture.layers)
            by_format.setdefault(stored, []).append(layer)
        parts += [Stored(part, tuple(layers), stored) for stored, layers in by_format.items()]
    return tuple(parts)


def _format(
    part: Part,
    layer: int,
    left_out: _Matcher,
    groups: list[tuple[WeightFormat, _Matcher | None]],
    layers: int,
) -> WeightFormat | None:
    """The format of a part in one layer."""
    if left_out.named(part, layer):
        return None
    for stored, targets in groups:
        if _kind(part) not in stored.parts or min(layer, layers - 1 - layer) < stored.skip_layers // 2:
            continue
        if targets is None or targets.named(part, layer):
            return stored if stored.bits < 16 else None
    return None
