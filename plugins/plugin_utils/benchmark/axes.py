# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The choices that a tune tries for one instance, from catalog/tuning.yml and from what a user sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import yaml

from ...module_utils.benchmark.quality import CHANGES_NUMBERS
from ...module_utils.programs.gpu import gpu_from
from ..planner.catalog import Catalog, version_key
from ..planner.catalog_files import HOME, LOADER
from ..planner.flags import PLANNED, SECRET
from ..planner.host import spec_of
from ..planner.preset_files import LAYOUT, MEMORY
from ..planner.request import hyphened

Raw = Mapping[str, Any]
TENSOR, DATA, PIPELINE = "tensor-parallel-size", "data-parallel-size", "pipeline-parallel-size"
#: The share of a GPU's memory that weights may take of a layout that is tried.
ROOM = 0.85


@lru_cache(maxsize=1)
def catalog() -> dict[str, Any]:
    """The axes that come with the collection, by their names, in the order in which they are tried."""
    text = (HOME / "tuning.yml").read_text(encoding="utf-8")
    axes: dict[str, Any] = yaml.load(text, Loader=LOADER)["axes"]
    return axes


def axes(instance: Raw, gpus: Sequence[Raw], flags: Sequence[str], settings: Raw) -> dict[str, list[dict[str, Any]]]:
    """The choices for an instance of a plan.

    Args:
        instance: as serving_plan returns it.
        gpus: its GPUs, as ``own_gpus`` returns them.
        flags: the options that the engine's release knows.
        settings: ``axes`` (names; empty for all that are not on request), ``values`` (the user's own values by option),
            ``power_limits_w``, and ``quality``: whether answers are compared. Without that, what may change answers is
            tried only if it is named.

    Raises:
        ValueError: a name is no axis or no option that can be tried; the sentence is for the user.
    """
    known = catalog()
    wanted = list(settings.get("axes") or ())
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ValueError(f"tune_axes names {unknown[0]!r}; there are {', '.join(known)}.")
    values = _own_values(settings.get("values") or {}, flags)
    # Who names values wants these and nothing else.
    chosen = wanted or [name for name, axis in known.items() if not values and not axis.get("on_request")]
    found = {name: _choices(known[name], instance, gpus, flags, settings) for name in known if name in chosen}
    if not wanted and not settings.get("quality"):
        found = {name: [choice for choice in choices if choice["exact"]] for name, choices in found.items()}
    found.update({name: _values(name, offered, instance) for name, offered in values.items()})
    if settings.get("power_limits_w") and gpus:
        found["power-limit"] = _power(settings)
    return {name: choices for name, choices in found.items() if choices}


def own_gpus(instance: Raw, gpus: Sequence[Raw], catalog: Catalog) -> list[dict[str, Any]]:
    """The GPUs of an instance, of those that serving_plan returns: nvidia-smi does not say what they can compute."""
    mine = instance.get("gpu_indices") or ()
    own = ((gpu, spec_of(gpu_from(dict(gpu)), catalog)) for gpu in gpus if gpu["index"] in mine)
    return [
        {
            **gpu,
            "compute_capability": spec.compute_capability if spec else "",
            "memory_mib": spec.memory_mib if spec else 0,
        }
        for gpu, spec in own
    ]


def lines(chosen: Mapping[str, Sequence[Raw]]) -> list[str]:
    """What is tried, in words."""
    named = {name: [one["name"].removeprefix(f"{name}=") for one in choices] for name, choices in chosen.items()}
    return [f"{name}: {', '.join(words)}" for name, words in named.items()]


def _own_values(given: Raw, flags: Sequence[str]) -> dict[str, list[Any]]:
    """The user's values, by options of this vLLM that a candidate may have."""
    values = {hyphened(name): value if isinstance(value, list) else [value] for name, value in given.items()}
    for name in values:
        if name not in flags:
            raise ValueError(f"tune_values names {name!r}, which is no option of this vLLM.")
        if name in SECRET or (name in PLANNED and name not in (*LAYOUT, *MEMORY)):
            raise ValueError(f"tune_values names {name!r}, which the plan sets: it has no value that is only faster.")
    return values


def _choices(
    axis: Raw, instance: Raw, gpus: Sequence[Raw], flags: Sequence[str], settings: Raw
) -> list[dict[str, Any]]:
    config: Raw = instance.get("config") or {}
    if len(gpus) < int(axis.get("gpus") or 0) or any(config.get(name) is not None for name in axis.get("unless") or ()):
        return []
    least = version_key(str(axis.get("min_compute_capability") or "0"))
    if not all(version_key(str(gpu.get("compute_capability") or "0")) >= least for gpu in gpus):
        return []
    if axis.get("precisions") and instance.get("precision") not in axis["precisions"]:
        return []
    if axis.get("layouts"):
        return _layouts(instance, gpus)
    if axis.get("power_limits"):
        return _power(settings)
    if "option" in axis:
        return _values(axis["option"], axis["values"], instance) if axis["option"] in flags else []
    return [
        _choice(choice["name"], options, choice.get("env") or {})
        for choice in axis["choices"]
        for options in [dict(choice.get("options") or {})]
        if all(name in flags for name in options) and _changes(options, config, choice)
    ]


def _choice(name: str, options: Raw, env: Raw) -> dict[str, Any]:
    """A choice as the job has it. ``exact``: no option changes what the model computes."""
    return {"name": name, "options": dict(options), "env": dict(env), "exact": not CHANGES_NUMBERS & options.keys()}


def _changes(options: Raw, config: Raw, choice: Raw) -> bool:
    return bool(choice.get("env")) or any(config.get(name) != value for name, value in options.items())


def _values(option: str, values: Sequence[Any], instance: Raw) -> list[dict[str, Any]]:
    serves = (instance.get("config") or {}).get(option)
    return [_choice(f"{option}={_word(value)}", {option: value}, {}) for value in values if value != serves]


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _layouts(instance: Raw, gpus: Sequence[Raw]) -> list[dict[str, Any]]:
    """Every split of the instance's GPUs into replicas, whose weights leave room on each GPU; none of a pipeline."""
    config: Raw = instance.get("config") or {}
    if int(config.get(PIPELINE) or 1) > 1:
        return []
    tensor, data = int(config.get(TENSOR) or 1), int(config.get(DATA) or 1)
    count, weights = tensor * data, float(instance.get("weights_gib_per_gpu") or 0)
    memory = min((float(gpu.get("memory_mib") or 0) for gpu in gpus), default=0.0) / 1024
    return [
        _choice(f"tp{split}-dp{count // split}", {TENSOR: split, DATA: count // split}, {})
        for split in range(1, count + 1)
        if count % split == 0 and split != tensor and weights * tensor / split <= ROOM * memory
    ]


def _power(settings: Raw) -> list[dict[str, Any]]:
    return [
        {**_choice(f"{int(watts)} W", {}, {}), "power_limit_w": int(watts)}
        for watts in settings.get("power_limits_w") or ()
    ]


def flags(image: str, catalog: Catalog) -> list[str]:
    """The options of the release whose image this is; of the newest one if no release names it."""
    releases = sorted(catalog.engines.values(), key=lambda engine: version_key(engine.version))
    named = [engine for engine in releases if any(own.image == image for own in engine.images)]
    return list((named or releases)[-1].flags)
