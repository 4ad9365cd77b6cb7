# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Published throughput of the models that were measured, from catalog/references.yml."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ...module_utils.node import files
from .record import Record

HOME = Path(__file__).resolve().parents[3] / "catalog"
#: The C loader is ten times as fast as the Python one.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Reference:
    """A published figure. ``own_gpu``: it was made on such a GPU as the records were."""

    source: str
    title: str
    model: str
    gpu: str
    count: int
    output_tokens_per_s: float
    load: str
    origin: str
    own_gpu: bool

    @property
    def hardware(self) -> str:
        """Such as ``8x H200``."""
        return f"{self.count}x {self.gpu.upper()}"

    @property
    def per_gpu(self) -> float:
        """Output tokens/s divided by the GPUs."""
        return self.output_tokens_per_s / self.count


@cache
def _catalog(name: str) -> Mapping[str, Any]:
    content: Mapping[str, Any] = yaml.load(files.read_text(HOME / name), Loader=_LOADER)
    return content


def model_of(repo_id: str) -> str:
    """The key of the model that has these weights or other weights of the same; empty if the catalogue has none."""
    models = _catalog("models.yml")["models"]
    key = next((key for key, entry in models.items() if entry["repo_id"] == repo_id), "")
    return str(models[key].get("variant_of", key)) if key else ""


def of_models(contents: Iterable[Record]) -> list[Reference]:
    """The published figures of the models of these records, in the order of the catalogue."""
    found = list(contents)
    models = {model_of(content["model"]["repo_id"]) for content in found} - {""}
    boards = {gpu["name"] for content in found for gpu in content["node"]["gpus"]}
    page, gpus = _catalog("references.yml"), _catalog("gpus.yml")["gpus"]
    return [
        Reference(
            source=figure["source"],
            title=page["sources"][figure["source"]]["title"],
            model=figure["model"],
            gpu=figure["gpu"],
            count=figure["count"],
            output_tokens_per_s=float(figure["output_tokens_per_s"]),
            load=page["sources"][figure["source"]]["load"],
            origin=page["sources"][figure["source"]]["from"],
            own_gpu=bool(boards & set(gpus[figure["gpu"]]["names"])),
        )
        for figure in page["figures"]
        if figure["model"] in models
    ]


def drawn(references: Sequence[Reference]) -> list[Reference]:
    """Those that a plot shows: of each source those of the records' own GPU, or else the first."""
    sources = dict.fromkeys(reference.source for reference in references)
    chosen = []
    for source in sources:
        of_source = [reference for reference in references if reference.source == source]
        chosen += [reference for reference in of_source if reference.own_gpu] or of_source[:1]
    return chosen
