# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""LoRA adapters: the user's option, and the content of their repositories. The rules about them are in `lora`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CONFIG = "adapter_config.json"
#: The files with an adapter's weights, in the order in which vLLM prefers them (lora/lora_model.py).
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin", "adapter_model.pt")
#: The ranks that vLLM has kernels for (MaxLoRARanks in config/lora.py).
SERVED_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
#: The pattern of names that clients use as `model`.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@+-]*")
HOW = "write NAME: ORG/ADAPTER or NAME: ORG/ADAPTER@REVISION, a repository of the hub"


@dataclass(frozen=True)
class Adapter:
    """An adapter's repository. ``config``: its adapter_config.json; ``files``: the size of each file in bytes."""

    repo_id: str
    revision: str
    branch: str = ""
    gated: bool = False
    files: Mapping[str, int] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Its name in messages."""
        return f"{self.repo_id} at {self.revision[:8]}"

    @property
    def weights(self) -> str:
        """The file of its weights that vLLM reads; empty if it has none."""
        return next((name for name in WEIGHTS if name in self.files), "")

    @property
    def bytes(self) -> int:
        """The size of that file."""
        return self.files.get(self.weights, 0)

    @property
    def base(self) -> str:
        """The model that it was trained on, as named in its configuration."""
        return str(self.config.get("base_model_name_or_path") or "").rstrip("/")

    @property
    def rank(self) -> Any:
        """The rank in its configuration, which may be invalid."""
        ranks = [self.config.get("r"), *_mapping(self.config.get("rank_pattern")).values()]
        wrong = [rank for rank in ranks if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1]
        return wrong[0] if wrong else max(ranks)

    @property
    def targets(self) -> tuple[str, ...] | None:
        """The modules that it changes, by the ends of their names; None if it has a pattern."""
        names = self.config.get("target_modules")
        if not isinstance(names, list) or self.config.get("target_parameters"):
            return None
        return tuple(str(name).rpartition(".")[2] for name in names)


@dataclass(frozen=True)
class Lora:
    """An adapter under the name that clients use.

    ``base``: the name of its base model that the user confirms to be the served model. ``adapter``: None until the hub
    was asked.
    """

    name: str
    reference: str
    base: str = ""
    adapter: Adapter | None = None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def read_lora(value: Any) -> tuple[Lora, ...]:
    """Read the option `lora`. Raises ValueError if it is not a dictionary."""
    if not isinstance(value, Mapping):
        raise ValueError(f"lora must be a dictionary, not {value!r}: {HOW}.")
    return tuple(_one(str(name), entry) for name, entry in value.items())


def _one(name: str, value: Any) -> Lora:
    if not NAME.fullmatch(name):
        raise ValueError(f"lora: {name!r} names no adapter: use letters, digits, dots, dashes and slashes.")
    given = value if isinstance(value, Mapping) else {"adapter": value}
    unknown = [key for key in given if key not in ("adapter", "base")]
    if unknown:
        raise ValueError(f"lora: {name} has an unknown key {unknown[0]!r}: it takes adapter and base.")
    reference = given.get("adapter")
    if not isinstance(reference, str) or not reference.strip():
        raise ValueError(f"lora: {name} must name a repository, not {reference!r}: {HOW}.")
    return Lora(name, reference.strip(), str(given.get("base") or "").rstrip("/"))


def read_adapter(answer: Mapping[str, Any]) -> Adapter:
    """What the hub answer of an adapter. Raises ValueError if it could not be read, or is none; a sentence."""
    if answer.get("refused"):
        raise ValueError(str(answer["refused"]))
    adapter = Adapter(
        repo_id=str(answer["repo_id"]),
        revision=str(answer["revision"]),
        branch=str(answer.get("branch") or ""),
        gated=bool(answer.get("gated")),
        files={str(path): int(size) for path, size in answer["files"].items()},
        config=_mapping(answer.get("adapter_config")),
    )
    if not adapter.config:
        raise ValueError(
            f"{adapter.repo_id} at {adapter.revision} has no {CONFIG}, so it is no LoRA adapter: a model is served with"
            " -e model=ORG/NAME."
        )
    return adapter
