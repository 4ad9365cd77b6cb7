# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of the winner of a tune: a preset that the planner takes, or variables for the user to set."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..planner import host_cache, preset_files
from ..planner.catalog import Catalog
from ..planner.flags import PLANNED, UNCOUNTED

Raw = Mapping[str, Any]
#: What a tune may be for, and the figure that it is about.
OBJECTIVES = {
    "throughput": preset_files.TOKENS,
    "goodput": preset_files.GOODPUT,
    "latency": preset_files.TOKENS,
}
SPECULATION = "speculative-config"


def preset(tune: Raw, instance: Raw, catalog: Catalog) -> tuple[dict[str, Any], str]:
    """The preset of the winner, by its name, or a sentence on how to set it; neither if nothing is better.

    Args:
        tune: as the job keeps it.
        instance: as serving_plan returns it.
        catalog: with the user's own GPUs.
    """
    rows = {row["name"]: row for row in tune["candidates"]}
    base, best = rows[tune["baseline"]], rows[tune["best"]]
    if best is base:
        return {}, ""
    names = [str(gpu["name"]) for gpu in tune["node"]["gpus"]]
    gpu = catalog.gpu(names[0]) if names else None
    why = _why_none(best, names, known=gpu is not None)
    if why:
        return {}, why
    kind = gpu.key if gpu else preset_files.CPU
    # A node's requests within goals are what it gives under load.
    objective = "latency" if tune["objective"] == "latency" else "throughput"
    return {
        f"{instance['name']}-{f'{len(names)}x' if names else ''}{kind}-{tune['objective']}": {
            "model": instance["model"],
            "gpus": {"type": kind, "count": len(names)},
            "objective": objective,
            "vllm": best["options"],
            "env": best["env"],
            "measured": _measured(tune, base, best),
        }
    }, ""


def _measured(tune: Raw, base: Raw, best: Raw) -> dict[str, Any]:
    return {
        **{"date": tune["date"][:10], "engine": tune["engine"]["version"], "profile": tune["profile"]},
        "concurrency": 1 if tune["objective"] == "latency" else tune["concurrency"],
        OBJECTIVES[tune["objective"]]: {"before": _rounded(base["score"]), "after": _rounded(best["score"])},
        "record": tune["id"],
    }


def _rounded(score: float) -> float:
    """Four digits at least: requests per second may be few."""
    return round(score, 1) if score >= 1000 else float(f"{score:.4g}")


def _why_none(best: Raw, gpus: list[str], known: bool) -> str:
    """Why no preset can have the winner, with what to set instead; empty if one can."""
    if gpus and not known:
        return (
            f"{best['name']} is the best, but no preset can name {gpus[0]}, which is not in the catalogue: describe it"
            f" in vllm_extra_gpus and tune again, or set {_variables(best)} in your variables."
        )
    uncounted = [name for name in best["options"] if name in (*UNCOUNTED, host_cache.OPTION)]
    if uncounted:
        return (
            f"{best['name']} is the best, but the plan does not count what {' and '.join(uncounted)} changes in memory,"
            f" so no preset has it: set {_variables(best)} in your variables."
        )
    if not (best["options"] or best["env"]):
        return (
            f"{best['name']} is the best, and no preset sets the power limit of a GPU: set it with nvidia-smi"
            " --power-limit at each boot."
        )
    return ""


def _variables(best: Raw) -> str:
    """What a user writes to have the winner, as one line of YAML."""
    found: dict[str, Any] = {}
    arguments: dict[str, Any] = {}
    for name, value in best["options"].items():
        if name == SPECULATION:
            found["vllm_speculative"] = _speculative(value)
        elif name == host_cache.OPTION:
            found["vllm_kv_host_gib"] = value
        elif name in PLANNED:
            found[PLANNED[name]] = value
        else:
            arguments[name] = value
    found.update({"vllm_extra_args": arguments} if arguments else {})
    found.update({"vllm_env": dict(best["env"])} if best["env"] else {})
    return json.dumps(found)


def _speculative(value: Any) -> dict[str, Any]:
    """The variable for vLLM's own form."""
    ours = {"model": "model", "method": "method", "tokens": "num_speculative_tokens"}
    return {name: value[theirs] for name, theirs in ours.items() if theirs in (value or {})}
