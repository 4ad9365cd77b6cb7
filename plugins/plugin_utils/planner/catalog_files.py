# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read catalog/ and the user's own entries, and reject malformed entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from ...module_utils import paths
from . import forms
from .architectures import read_config
from .catalog import (
    BatchDefault,
    Catalog,
    EngineSpec,
    FittingDraft,
    Flag,
    GpuSpec,
    Image,
    ModelSpec,
    Policy,
    version_key,
)
from .preset_files import read_folder, read_presets
from .quantization import Storage, WeightFormat, plain
from .read_quantization import Unreadable, quantization_of, read_quantization
from .speculation import MOST_TOKENS, WITH_MODEL, WITHOUT_MODEL

HOME = Path(__file__).resolve().parents[3] / "catalog"
# An engine file has 320 options: the C loader takes 8 ms, the Python loader 150 ms.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Raw = Mapping[str, Any]


def _positive_int(what: str, raw: Raw, key: str, default: int | None = None) -> int:
    """A positive whole number, also from a string: command-line values arrive as strings."""
    value = raw.get(key, default)
    try:
        number = int(str(value))
    except ValueError:
        raise ValueError(f"{what}: {key} must be a whole number, not {value!r}.") from None
    if number < 1:
        raise ValueError(f"{what}: {key} must be at least 1, not {number}.")
    return number


def _optional_int(what: str, raw: Raw, key: str) -> int | None:
    return _positive_int(what, raw, key) if raw.get(key) is not None else None


@dataclass(frozen=True)
class Formats:
    """What catalog/weight_formats.yml holds."""

    known: Mapping[str, WeightFormat]
    not_served: tuple[str, ...] = ()


def _formats(raw: Raw) -> Formats:
    known = {
        key: WeightFormat(key=key, **{**entry, **({"parts": tuple(entry["parts"])} if "parts" in entry else {})})
        for key, entry in raw["weight_formats"].items()
    }
    return Formats(known, tuple(raw["not_served"]))


def weights_of(what: str, raw: Raw, config: Raw, formats: Formats) -> Storage | Unreadable:
    """The weight formats: from the entry, else from config.json's quantization_config, else BF16.

    Raises ValueError for a format that is not in catalog/weight_formats.yml.
    """
    if "weights" in raw:
        key = str(raw["weights"])
        if key not in formats.known:
            raise ValueError(f"{what}: weights {key!r} is unknown; known: {', '.join(formats.known)}.")
        return plain(formats.known[key])
    return read_quantization(quantization_of(config, raw.get("hf_quant_config")), formats.known, formats.not_served)


MODEL_KEYS = forms.types_of(
    ModelSpec,
    leave_out=("key", "architecture"),
    weights="str",
    config="Mapping",
    config_of="str",
    hf_quant_config="Mapping",
)
#: Keys of an entry that are taken as they stand.
PLAIN = (
    "title",
    "revision",
    "license",
    "tool_call_parser",
    "reasoning_parser",
    "source",
    "since",
    "variant_of",
    "vllm",
)


def model_spec(key: str, raw: Raw, formats: Formats, known: Mapping[str, Raw]) -> ModelSpec:
    """Validate one entry of models.yml."""
    what = f"model {key}"
    forms.check(what, raw, MODEL_KEYS)
    if not raw.get("repo_id"):
        raise ValueError(f"{what}: repo_id is missing.")
    config = raw.get("config") or known.get(str(raw.get("config_of")), {}).get("config")
    if not config:
        raise ValueError(f"{what}: give `config`, the fields of the repository's config.json, or `config_of`, a model.")
    if raw.get("variant_of") and raw["variant_of"] not in known:
        raise ValueError(f"{what}: variant_of names {raw['variant_of']!r}, which is not in the catalogue.")
    device = str(raw.get("device", "cuda"))
    if device not in ("cuda", "cpu"):
        raise ValueError(f"{what}: device must be cuda or cpu, not {device!r}.")
    plain = {name: raw[name] for name in PLAIN if raw.get(name) is not None}
    return ModelSpec(
        key=key,
        repo_id=str(raw["repo_id"]),
        architecture=read_config(what, config),
        weights=weights_of(what, raw, config, formats),
        gated=bool(raw.get("gated", False)),
        device=device,
        max_model_len=_optional_int(what, raw, "max_model_len"),
        weights_bytes=_optional_int(what, raw, "weights_bytes"),
        kv_bytes_per_token=_optional_int(what, raw, "kv_bytes_per_token"),
        **_file_fields(what, raw),
        env={name: str(value) for name, value in (raw.get("env") or {}).items()},
        drafts=_drafts(what, raw.get("drafts") or ()),
        in_matrix=bool(raw.get("in_matrix", True)),
        **plain,
    )


DRAFT_KEYS = forms.types_of(FittingDraft)


def _drafts(what: str, raw: Sequence[Any]) -> tuple[FittingDraft, ...]:
    return tuple(_draft(f"{what}: draft {number}", one) for number, one in enumerate(raw, 1))


def _draft(what: str, raw: Any) -> FittingDraft:
    """Validate one of a model's drafts."""
    if not isinstance(raw, Mapping):
        raise ValueError(f"{what} must be a dictionary such as {{repo_id: ORG/DRAFT, method: eagle3}}, not {raw!r}.")
    forms.check(what, raw, DRAFT_KEYS)
    method, repo_id = str(raw.get("method") or ""), str(raw.get("repo_id") or "")
    if method not in (*WITH_MODEL, *WITHOUT_MODEL):
        raise ValueError(f"{what}: method must be one of {', '.join((*WITH_MODEL, *WITHOUT_MODEL))}, not {method!r}.")
    if bool(repo_id) != (method in WITH_MODEL):
        raise ValueError(f"{what}: the method {method} {'takes no' if repo_id else 'needs a'} repo_id.")
    tokens = _positive_int(what, raw, "tokens")
    if tokens > MOST_TOKENS:
        raise ValueError(f"{what}: tokens must be at most {MOST_TOKENS}, not {tokens}.")
    try:
        names = {"repo_id": repo_id and paths.repo_id(repo_id), "revision": str(raw.get("revision") or "")}
        names["revision"] = names["revision"] and paths.revision(names["revision"])
    except ValueError as refused:
        raise ValueError(f"{what}: {refused}.") from None
    return FittingDraft(method, tokens, **names, source=str(raw.get("source") or ""))


def _file_fields(what: str, raw: Raw) -> dict[str, Any]:
    """The fields of an entry that concern the model's files."""
    lists = ("ignore_patterns", "allow_patterns", "shards", "code_files")
    given: dict[str, Any] = {name: tuple(map(str, raw[name])) for name in lists if raw.get(name) is not None}
    given |= {name: str(raw[name]) for name in ("branch", "folder") if raw.get(name)}
    if raw.get("files"):
        forms.check(f"{what}: files", raw["files"], dict.fromkeys(raw["files"], "int"))
        given["files"] = {str(path): int(size) for path, size in raw["files"].items() if size is not None}
    return given


GPU_KEYS = forms.types_of(GpuSpec, leave_out=("key", "most"))


def gpu_spec(key: str, raw: Raw) -> GpuSpec:
    """Validate one entry of gpus.yml."""
    what = f"gpu {key}"
    forms.check(what, raw, GPU_KEYS)
    capability = str(raw.get("compute_capability", ""))
    if len(version_key(capability)) != 2:
        raise ValueError(f"{what}: compute_capability must look like 9.0, not {capability!r}.")
    return GpuSpec(
        key=key,
        names=tuple(map(str, raw.get("names") or (key,))),
        memory_mib=_positive_int(what, raw, "memory_mib"),
        compute_capability=capability,
        reserved_mib=_optional_int(what, raw, "reserved_mib"),
        nvlink_domain=_positive_int(what, raw, "nvlink_domain", 1),
        fabric=bool(raw.get("fabric", False)),
        most_in_a_host=_positive_int(what, raw, "most_in_a_host", 8),
        unified=bool(raw.get("unified", False)),
        aliases=tuple(map(str, raw.get("aliases") or ())),
        matrix_counts=tuple(map(int, raw.get("matrix_counts") or ())),
        pci=tuple(map(str, raw.get("pci") or ())),
    )


OF_MEMORY = ("gpu_memory_utilization", "block_size", "runtime_overhead_gib", "counts_graphs", "batch_defaults")
ENGINE_KEYS = forms.types_of(EngineSpec, leave_out=("unplanned", *OF_MEMORY), memory="Mapping")
MEMORY_KEYS = {key: text for key, text in forms.types_of(EngineSpec).items() if key in OF_MEMORY}


def _checked_engine(raw: Raw) -> None:
    """Raise ValueError for a release whose parts have another form."""
    what = f"engine {raw['version']}"
    forms.check(what, raw, ENGINE_KEYS)
    forms.check(f"{what}: memory", raw["memory"], MEMORY_KEYS)
    for name, spec, listed in (
        ("images", Image, raw["images"]),
        ("batch_defaults", BatchDefault, raw["memory"]["batch_defaults"]),
    ):
        for part in listed:
            forms.check(f"{what}: {name}", part, forms.types_of(spec), forms.required(spec))
    for name, flag in raw["flags"].items():
        if not isinstance(flag, (list, tuple)) or len(flag) not in (2, 3):
            raise ValueError(f"{what}: flags: {name} must be a list of its type and default, not {flag!r}.")


def engine_spec(raw: Raw) -> EngineSpec:
    """Build a release from one file of catalog/engines."""
    _checked_engine(raw)
    memory = raw["memory"]
    images = (
        Image(**{**image, "compat_branches": tuple(image.get("compat_branches") or ())}) for image in raw["images"]
    )
    flags = (Flag(name, kind, default, tuple(*also)) for name, (kind, default, *also) in raw["flags"].items())
    return EngineSpec(
        version=str(raw["version"]),
        images=tuple(images),
        gpu_memory_utilization=float(memory["gpu_memory_utilization"]),
        block_size=int(memory["block_size"]),
        runtime_overhead_gib=float(memory["runtime_overhead_gib"]),
        counts_graphs=bool(memory["counts_graphs"]),
        batch_defaults=tuple(BatchDefault(**rule) for rule in memory["batch_defaults"]),
        flags={flag.name: flag for flag in flags},
        min_compute_capability=str(raw.get("min_compute_capability") or ""),
        speculative_methods=tuple(raw.get("speculative_methods") or ()),
        removed=raw.get("removed") or {},
        deprecated=raw.get("deprecated") or {},
        config=raw.get("config") or {},
        env=raw.get("env") or {},
    )


@lru_cache(maxsize=32)
def _read(path: Path) -> Any:
    """One file of the catalogue, read once in a process."""
    with path.open(encoding="utf-8") as stream:
        return yaml.load(stream, Loader=LOADER)


def _merged(what: str, base: Raw, extra: Raw | None) -> dict[str, dict[str, Any]]:
    """Merge the user's entries into ours key by key: an existing entry is amended, not replaced."""
    if not isinstance(extra or {}, Mapping):
        raise ValueError(f"extra_{what}s must be a dictionary such as {{name: {{…}}}}, not {extra!r}.")
    own = {str(key): entry or {} for key, entry in (extra or {}).items()}
    for key, entry in own.items():
        forms.entry(f"{what} {key}", entry)
    return {key: {**(base.get(key) or {}), **own.get(key, {})} for key in dict.fromkeys((*base, *own))}


def _release(version: str, newest: Raw, own: Raw) -> dict[str, Any]:
    """A release of which the user says only what differs from the newest that is whole."""
    given = {key: value for key, value in own.items() if value is not None}
    memory = given.get("memory", {})
    whole = {**newest["memory"], **memory} if isinstance(memory, Mapping) else memory
    return {**newest, **given, "version": version, "memory": whole}


def load_catalog(
    extra_models: Raw | None = None,
    extra_gpus: Raw | None = None,
    extra_engines: Raw | None = None,
    home: Path = HOME,
    presets_dir: str = "",
) -> Catalog:
    """Read catalog/ and merge the user's entries. Raises ValueError for malformed entries.

    ``presets_dir``: a folder with the user's own presets; empty for none.
    """
    models, gpus = _read(home / "models.yml"), _read(home / "gpus.yml")
    formats = _formats(_read(home / "weight_formats.yml"))
    raw_models = _merged("model", models["models"], extra_models)
    files = (_read(path) for path in sorted((home / "engines").glob("vllm-*.yml")))
    raw_engines = _merged("engine", {str(raw["version"]): raw for raw in files}, extra_engines)
    whole = [key for key, raw in raw_engines.items() if {"images", "memory", "flags"} <= raw.keys()]
    newest = raw_engines[max(whole, key=version_key)]
    engines = (engine_spec(_release(key, newest, raw)) for key, raw in raw_engines.items())
    catalog = Catalog(
        models={key: model_spec(key, raw, formats, raw_models) for key, raw in raw_models.items()},
        gpus={key: gpu_spec(key, raw) for key, raw in _merged("gpu", gpus["gpus"], extra_gpus).items()},
        engines={engine.version: engine for engine in engines},
        policy=Policy(**_read(home / "planner.yml")),
        reserved_fraction=float(gpus["reserved_fraction"]),
        unified_reserve_mib=int(gpus["unified_reserve_mib"]),
        architectures=gpus["architectures"],
    )
    presets = {**read_presets(_read(home / "presets.yml"), catalog), **read_folder(presets_dir, catalog)}
    return replace(catalog, presets=tuple(presets.values()))
