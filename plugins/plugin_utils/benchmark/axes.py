# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The choices that a tune tries for one instance, from catalog/tuning.yml, and the preset that the best of them becomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import yaml

from ..planner.catalog import Catalog, version_key
from ..planner.catalog_files import HOME, LOADER

Raw = Mapping[str, Any]
TENSOR, DATA = "tensor-parallel-size", "data-parallel-size"
#: The figure that each objective is about.
UNITS = {
    "throughput": "output_tokens_per_s",
    "goodput": "goodput_requests_per_s",
    "latency": "output_tokens_per_s",
}
#: The share of a GPU's memory that weights may take of a layout that is tried.
ROOM = 0.85


@lru_cache(maxsize=1)
def catalog() -> dict[str, Any]:
    text = (HOME / "tuning.yml").read_text(encoding="utf-8")
    axes: dict[str, Any] = yaml.load(text, Loader=LOADER)["axes"]
    return axes


def axes(instance: Raw, gpus: Sequence[Raw], flags: Sequence[str], settings: Raw) -> dict[str, list[dict[str, Any]]]:
    """The choices for an instance of a plan.

    Args:
        instance: as serving_plan returns it.
        gpus: its GPUs, as serving_plan returns them.
        flags: the options that the engine's release knows.
        settings: ``axes`` (names; empty for all that are not on request), ``values`` (the user's own values by option)
            and ``power_limits_w``.

    Raises:
        ValueError: a name is no axis; the sentence is for the user.
    """
    known = catalog()
    wanted = list(settings.get("axes") or ())
    values: Raw = settings.get("values") or {}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ValueError(f"tune_axes names {unknown[0]!r}; there are {', '.join(known)}.")
    stray = [name for name in values if name not in flags]
    if stray:
        raise ValueError(f"tune_values names {stray[0]!r}, which is no option of this vLLM.")
    chosen = wanted or [name for name, axis in known.items() if not axis.get("on_request")]
    if values and not wanted:
        # Who names values wants these and nothing else.
        chosen = []
    found = {name: _choices(known[name], instance, gpus, flags, settings) for name in known if name in chosen}
    found.update({name: _values(name, offered, instance, True) for name, offered in values.items()})
    if settings.get("power_limits_w"):
        found["power-limit"] = _power(settings)
    return {name: choices for name, choices in found.items() if choices}


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
    exact = bool(axis.get("exact", True))
    if axis.get("layouts"):
        return _layouts(instance, gpus)
    if axis.get("power_limits"):
        return _power(settings)
    if "option" in axis:
        return _values(axis["option"], axis["values"], instance, exact) if axis["option"] in flags else []
    return [
        {"name": choice["name"], "options": options, "env": dict(choice.get("env") or {}), "exact": exact}
        for choice in axis["choices"]
        for options in [dict(choice.get("options") or {})]
        if all(name in flags for name in options) and _changes(options, config, choice)
    ]


def _changes(options: Raw, config: Raw, choice: Raw) -> bool:
    return bool(choice.get("env")) or any(config.get(name) != value for name, value in options.items())


def _values(option: str, values: Sequence[Any], instance: Raw, exact: bool) -> list[dict[str, Any]]:
    serves = (instance.get("config") or {}).get(option)
    return [
        {"name": f"{option}={_word(value)}", "options": {option: value}, "env": {}, "exact": exact}
        for value in values
        if value != serves
    ]


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _layouts(instance: Raw, gpus: Sequence[Raw]) -> list[dict[str, Any]]:
    """Every split of the instance's GPUs into replicas, whose weights leave room on each GPU."""
    config: Raw = instance.get("config") or {}
    tensor, data = int(config.get(TENSOR) or 1), int(config.get(DATA) or 1)
    count, weights = tensor * data, float(instance.get("weights_gib_per_gpu") or 0)
    memory = min((float(gpu.get("memory_mib") or 0) for gpu in gpus), default=0.0) / 1024
    return [
        {"name": f"tp{split}-dp{count // split}", "options": {TENSOR: split, DATA: count // split}, "env": {}}
        for split in range(1, count + 1)
        if count % split == 0 and split != tensor and weights * tensor / split <= ROOM * memory
    ]


def _power(settings: Raw) -> list[dict[str, Any]]:
    return [{"name": f"{int(watts)} W", "power_limit_w": int(watts)} for watts in settings.get("power_limits_w") or ()]


def flags(image: str, catalog: Catalog) -> list[str]:
    """The options of the release whose image this is; of the newest one if no release names it."""
    releases = sorted(catalog.engines.values(), key=lambda engine: version_key(engine.version))
    named = [engine for engine in releases if any(own.image == image for own in engine.images)]
    return list((named or releases)[-1].flags)


def preset(tune: Raw, instance: Raw, catalog: Catalog) -> dict[str, Any]:
    """The preset that the winner of a tune becomes, by its name; empty if nothing is better than what serves."""
    rows = {row["name"]: row for row in tune["candidates"]}
    base, best = rows[tune["baseline"]], rows[tune["best"]]
    if best is base:
        return {}
    gpu = catalog.gpu_names.get(str((tune["node"]["gpus"] or [{"name": "cpu"}])[0]["name"]).casefold())
    kind, count = gpu.key if gpu else "cpu", len(tune["node"]["gpus"])
    measured = {
        **{"date": tune["date"][:10], "engine": tune["engine"]["version"], "profile": tune["profile"]},
        **{"concurrency": 1 if tune["objective"] == "latency" else tune["concurrency"], "record": tune["id"]},
        UNITS[tune["objective"]]: {"before": round(base["score"], 1), "after": round(best["score"], 1)},
    }
    return {
        f"{instance['name']}-{count}x{kind}-{tune['objective']}": {
            "model": instance["model"],
            "gpus": {"type": kind, "count": count},
            "objective": tune["objective"],
            "vllm": best["options"],
            "env": best["env"],
            "measured": measured,
        }
    }
