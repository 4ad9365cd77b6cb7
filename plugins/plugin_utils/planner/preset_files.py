# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read presets, the collection's and the user's own, and reject what is no preset."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from . import forms
from .catalog import Catalog, Measured, Preset, near
from .flags import PLANNED, SECRET
from .request import environment, hyphened, mapping, readers

#: The type of GPUs of an engine without any.
CPU = "cpu"
#: What a preset may be measured for.
OBJECTIVES = ("throughput", "latency")
#: The options that the plan sets and a preset may: how a model is shared out, which is also its condition, and others.
LAYOUT = {"tensor-parallel-size": "tp", "pipeline-parallel-size": "pp", "data-parallel-size": "dp"}
MEMORY = {"kv-cache-dtype": "kv_cache_dtype", "gpu-memory-utilization": "gpu_memory_utilization"}
KEYS = {
    **{"model": "str", "gpus": "Mapping", "engines": "str", "objective": "str", "vllm": "Mapping"},
    **{"env": "Mapping", "weights": "str", "measured": "Mapping"},
}
GPUS = {"type": "str", "count": "int"}
#: The figures that show a gain: one of them. The second counts the requests that keep to a tune's goals.
TOKENS, GOODPUT = "output_tokens_per_s", "goodput_requests_per_s"
#: An unquoted date is no text in YAML.
MEASURED = {
    **{"date": "Any", "engine": "str", "profile": "str", "concurrency": "int", TOKENS: "Mapping", GOODPUT: "Mapping"},
    **{"record": "str", "how": "str"},
}
UNITS = {TOKENS: "output tokens/s", GOODPUT: "requests/s within the goals"}
SPEED = {"before": "float", "after": "float"}
FORM = "{presets: {NAME: {model: …, gpus: …, vllm: …, measured: …}}}"
#: Endings of files of presets; others of a folder are somebody else's.
ENDINGS = (".yml", ".yaml")
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_presets(raw: Any, catalog: Catalog, path: str = "") -> dict[str, Preset]:
    """The presets of one file, by name. Raises ValueError, with the path if it is the user's, for what is none."""
    where = f"{path}: " if path else ""
    if not isinstance(raw, Mapping) or list(raw) != ["presets"] or not isinstance(raw["presets"], Mapping):
        raise ValueError(f"{where}presets are written as {FORM}: correct the file, or move it out of the folder.")
    try:
        return {str(name): _preset(str(name), entry, catalog, path) for name, entry in raw["presets"].items()}
    except ValueError as refused:
        remedy = " Correct it, or move the file out of the folder (vllm_presets_dir)." if path else ""
        raise ValueError(f"{where}{refused}{remedy}") from None


def read_folder(folder: str, catalog: Catalog) -> dict[str, Preset]:
    """The presets of a user's folder, by name; none for an empty path. Raises ValueError for what is none."""
    if not folder:
        return {}
    home = Path(folder).expanduser()
    if not home.is_dir():
        raise ValueError(f"vllm_presets_dir: {home} is no folder on this machine: create it, or leave the setting out.")
    presets: dict[str, Preset] = {}
    for path in sorted(home.iterdir()):
        if path.suffix not in ENDINGS or path.name.startswith("."):
            continue
        for name, preset in read_presets(_loaded(path), catalog, str(path)).items():
            if name in presets:
                raise ValueError(f"The preset {name} is in {presets[name].path} and in {path}: remove one of them.")
            presets[name] = preset
    return presets


def _loaded(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER)
    except (OSError, ValueError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        remedy = "correct it, or move it out of the folder (vllm_presets_dir)"
        raise ValueError(f"{path} cannot be read as presets ({why}): {remedy}.") from None


def _preset(name: str, raw: Any, catalog: Catalog, path: str) -> Preset:
    """Validate one preset."""
    what = f"preset {name}"
    forms.check(what, raw, KEYS, ("model", "gpus", "measured"))
    model, weights = str(raw["model"]), str(raw.get("weights") or "")
    for key in filter(None, (model, weights)):
        if catalog.find(key) is None and (key == weights or "/" not in key):
            meant = near(key, catalog.models)
            hint = f", did you mean {meant[0]!r}?" if meant else "."
            raise ValueError(f"{what}: the catalogue has no model {key!r}{hint}")
    objective = str(raw.get("objective") or OBJECTIVES[0])
    if objective not in OBJECTIVES:
        raise ValueError(f"{what}: objective must be one of {', '.join(OBJECTIVES)}, not {objective!r}.")
    gpu, count = _gpus(what, raw["gpus"], catalog)
    options = _options(what, raw.get("vllm") or {})
    env = environment(raw.get("env") or {})
    if not (options or env or weights):
        raise ValueError(f"{what}: it sets nothing: give vllm, env or weights.")
    measured = _measured(f"{what}: measured", raw["measured"])
    release = _release(what, str(raw.get("engines") or ""))
    return Preset(name, model, gpu, count, objective, measured, release, options, env, weights, path)


def _gpus(what: str, raw: Mapping[str, Any], catalog: Catalog) -> tuple[str, int]:
    """The key of a GPU and the number of them."""
    forms.check(f"{what}: gpus", raw, GPUS, ("type", "count"))
    name, count = str(raw["type"]), int(raw["count"])
    known = catalog.gpu(name)
    if name != CPU and known is None:
        meant = near(name, catalog.gpu_names)
        hint = f", did you mean {meant[0]!r}?" if meant else "."
        raise ValueError(f"{what}: gpus: the catalogue has no type {name!r}{hint}")
    if (count > 0) != (name != CPU):
        raise ValueError(f"{what}: gpus: count must be at least 1, and 0 of the CPU, not {count} of {name}.")
    return known.key if known else CPU, count


def _options(what: str, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Options by their long names, without those that are the plan's or secret."""
    options = {hyphened(key): value for key, value in mapping(f"{what}: vllm", raw).items()}
    for name, value in options.items():
        if name in SECRET or (name in PLANNED and name not in (*LAYOUT, *MEMORY)):
            raise ValueError(f"{what}: vllm: {name} is not for a preset: {ELSEWHERE.get(name, 'leave it out')}.")
        if name in LAYOUT and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"{what}: vllm: {name} must be a whole number of at least 1, not {value!r}.")
    return {name: _read(what, name, value) for name, value in options.items()}


def _read(what: str, name: str, value: Any) -> Any:
    """The value of an option, read as the planner's own option if it has one."""
    try:
        return readers()[MEMORY[name]](value) if name in MEMORY else value
    except ValueError as refused:
        raise ValueError(f"{what}: vllm: {refused}") from None


ELSEWHERE = {"max-model-len": "the context is the user's to choose (vllm_max_model_len)"}


def _release(what: str, text: str) -> str:
    """0.33 of `vllm 0.33`."""
    match = re.fullmatch(r"(?:vllm\s+)?v?(\d+(?:\.\d+)*)|", text.strip())
    if match is None:
        raise ValueError(f"{what}: engines must be a release such as 'vllm 0.33', not {text!r}.")
    return match[1] or ""


def _measured(what: str, raw: Mapping[str, Any]) -> Measured:
    """A measurement, which must show a gain."""
    forms.check(what, raw, MEASURED, ("date", "engine", "profile", "concurrency"))
    found = [name for name in (TOKENS, GOODPUT) if raw.get(name)]
    if len(found) != 1:
        raise ValueError(f"{what}: give one of {TOKENS} and {GOODPUT}, as {{before: …, after: …}}.")
    (figure,) = found
    speed = raw[figure]
    forms.check(f"{what}: {figure}", speed, SPEED, SPEED)
    before, after = float(speed["before"]), float(speed["after"])
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}.*", str(raw["date"])):
        raise ValueError(f"{what}: date must be one such as 2026-11-25, not {raw['date']!r}.")
    if int(raw["concurrency"]) < 1:
        raise ValueError(f"{what}: concurrency must be at least 1, not {raw['concurrency']}.")
    if not (0 < before < after and math.isfinite(after)):
        raise ValueError(f"{what}: {after:g} {UNITS[figure]} after are no gain over {before:g} before.")
    plain = {"unit": UNITS[figure], **{key: str(raw[key]) for key in ("record", "how") if raw.get(key)}}
    day = str(raw["date"])[:10]
    return Measured(day, str(raw["engine"]), str(raw["profile"]), int(raw["concurrency"]), before, after, **plain)
