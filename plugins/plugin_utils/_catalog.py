# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known about models, GPUs and engine releases: read from catalog/, widened by the user's own entries."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

HOME = Path(__file__).resolve().parents[2] / "catalog"
# The C loader reads the 320 options of an engine in 8 ms, the Python one in 150 ms.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Raw = Mapping[str, Any]


def version_key(version: str) -> tuple[int, ...]:
    """Order versions as numbers: 0.9 is older than 0.33, and a driver's 580.65.06 is newer than 580.9."""
    return tuple(int("0" + "".join(filter(str.isdigit, part))) for part in str(version).split("."))


def near(name: str, known: Iterable[str]) -> list[str]:
    """Up to three names that the writer may have meant."""
    folded = {item.casefold(): item for item in known}
    return [folded[hit] for hit in difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.5)]


@dataclass(frozen=True)
class WeightFormat:
    """How the weights of the linear layers are stored."""

    key: str
    title: str
    bits: int
    min_compute_capability: str
    native_compute_capability: str = "0.0"
    group_size: int = 0
    parts: tuple[str, ...] = ("attention", "mlp")
    skip_layers: int = 0


@dataclass(frozen=True)
class Shapes:
    """The fields of config.json that size a decoder."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    tie_word_embeddings: bool = False
    attention_bias: bool = False


@dataclass(frozen=True)
class ModelSpec:
    """One model of the catalogue, or of the user's `extra_models`."""

    key: str
    repo_id: str
    shapes: Shapes
    weights: WeightFormat
    title: str = ""
    revision: str | None = None
    gated: bool = False
    license: str = ""
    device: str = "cuda"
    max_model_len: int | None = None
    tool_call_parser: str = ""
    ignore_patterns: tuple[str, ...] = ("original/*",)
    vllm: Raw = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    in_matrix: bool = True

    @property
    def context(self) -> int:
        """The longest context that the model was made for, or that its entry allows."""
        return min(self.max_model_len or self.shapes.max_position_embeddings, self.shapes.max_position_embeddings)


@dataclass(frozen=True)
class GpuSpec:
    """One kind of GPU."""

    key: str
    names: tuple[str, ...]
    memory_mib: int
    compute_capability: str
    reserved_mib: int | None = None
    nvlink_domain: int = 1
    fabric: bool = False
    aliases: tuple[str, ...] = ()
    matrix_counts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Image:
    """One build of an engine release and the driver that it needs."""

    image: str
    device: str
    cuda: str = ""
    min_driver: str = ""
    compat_branches: tuple[int, ...] = ()


@dataclass(frozen=True)
class BatchDefault:
    """How many tokens vLLM puts into one step on GPUs of this memory."""

    min_memory_gib: float
    batched_tokens: int
    name_lacks: str = ""


@dataclass(frozen=True)
class Flag:
    """One option of `vllm serve`."""

    name: str
    type: str
    default: Any = None
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class EngineSpec:
    """One release of vLLM."""

    version: str
    images: tuple[Image, ...]
    gpu_memory_utilization: float
    block_size: int
    runtime_overhead_gib: float
    batch_defaults: tuple[BatchDefault, ...]
    flags: Mapping[str, Flag]
    removed: Mapping[str, str] = field(default_factory=dict)
    deprecated: Mapping[str, str] = field(default_factory=dict)
    config: Raw = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def spellings(self) -> Mapping[str, Flag]:
        """Every way to write an option, `no-…` and `disable-…` forms included."""
        return {name: flag for flag in self.flags.values() for name in (flag.name, *flag.also)}

    def batched_tokens(self, memory_gib: float, name: str) -> int:
        """vLLM's own default for a GPU of this memory and name."""
        for rule in self.batch_defaults:
            if memory_gib >= rule.min_memory_gib and not (rule.name_lacks and rule.name_lacks in name.casefold()):
                return rule.batched_tokens
        raise ValueError(f"engine {self.version}: batch_defaults has no rule for {memory_gib:.1f} GiB.")


@dataclass(frozen=True)
class Policy:
    """The planner's own rules in numbers (catalog/planner.yml says where each comes from)."""

    min_context: int
    calibration_error: float
    context_step: int
    kv_share: float
    activation_hidden: float
    activation_intermediate: float
    start_base_s: int
    load_bytes_per_s: int
    shm_size: Mapping[str, str]
    cpu_kv_cache_gib: int
    busy_mib: int


@dataclass(frozen=True)
class Catalog:
    """Everything that the planner knows before it sees a host."""

    models: Mapping[str, ModelSpec]
    gpus: Mapping[str, GpuSpec]
    engines: Mapping[str, EngineSpec]
    policy: Policy
    reserved_fraction: float
    architectures: Mapping[str, str]

    @cached_property
    def gpu_names(self) -> Mapping[str, GpuSpec]:
        """Every name of every GPU, folded: its key, nvidia-smi's names, the short forms people type."""
        return {name.casefold(): gpu for gpu in self.gpus.values() for name in (gpu.key, *gpu.names, *gpu.aliases)}

    def model(self, name: str) -> ModelSpec:
        """By key, or by the repository's id."""
        wanted = str(name).casefold()
        for model in self.models.values():
            if wanted in (model.key.casefold(), model.repo_id.casefold()):
                return model
        guesses = near(name, self.models)
        meant = f"Did you mean {' or '.join(guesses)}? " if guesses else ""
        raise ValueError(
            f"Model {name!r} is not in the catalogue. {meant}Known: {', '.join(self.models)}. "
            "Add your own with extra_models: a repo_id and the fields of its config.json."
        )

    def gpu(self, name: str) -> GpuSpec | None:
        """The entry of a GPU, however it is called; None for a kind that the catalogue has not seen."""
        return self.gpu_names.get(name.casefold())

    def engine(self, version: str | None) -> EngineSpec:
        """A release by its version; without one, the newest."""
        if version is None:
            return self.engines[max(self.engines, key=version_key)]
        wanted = str(version).removeprefix("vllm-").removeprefix("v")
        if wanted not in self.engines:
            raise ValueError(
                f"Engine release {version!r} is not in the catalogue. Known: {', '.join(self.engines)}. "
                "Add your own with extra_engines."
            )
        return self.engines[wanted]


def _only(what: str, raw: Raw, known: Iterable[str]) -> None:
    """Refuse a key that nobody reads: it is a typing error, and silence would hide it."""
    known = list(known)
    for key in raw:
        if key not in known:
            meant = near(str(key), known)
            raise ValueError(f"{what}: unknown key {key!r}{f', did you mean {meant[0]!r}?' if meant else '.'}")


def _whole(what: str, raw: Raw, key: str, default: int | None = None) -> int:
    """A positive whole number; numbers given on a command line arrive as strings."""
    value = raw.get(key, default)
    try:
        number = int(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(f"{what}: {key} must be a whole number, not {value!r}.") from None
    if number < 1:
        raise ValueError(f"{what}: {key} must be at least 1, not {number}.")
    return number


UNSIZED = {
    "num_local_experts": "a mixture of experts",
    "num_experts": "a mixture of experts",
    "n_routed_experts": "a mixture of experts",
    "kv_lora_rank": "latent attention (MLA)",
    "ssm_cfg": "a state-space model",
    "layers_block_type": "a hybrid of attention and state-space layers",
}


def shapes_of(what: str, config: Raw) -> Shapes:
    """Read config.json's fields; what the arithmetic does not cover is refused, not guessed."""
    config = {**config, **(config.get("text_config") or {})}
    for key, kind in UNSIZED.items():
        if config.get(key):
            raise ValueError(f"{what}: config.json has {key}, so this is {kind}; the planner sizes dense decoders only.")
    heads = _whole(what, config, "num_attention_heads")
    hidden = _whole(what, config, "hidden_size")
    return Shapes(
        hidden_size=hidden,
        intermediate_size=_whole(what, config, "intermediate_size"),
        num_hidden_layers=_whole(what, config, "num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=_whole(what, config, "num_key_value_heads", heads),
        head_dim=_whole(what, {"head_dim": config.get("head_dim") or hidden // heads}, "head_dim"),
        vocab_size=_whole(what, config, "vocab_size"),
        max_position_embeddings=_whole(what, config, "max_position_embeddings"),
        tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
        attention_bias=bool(config.get("attention_bias", config.get("model_type") == "qwen2")),
    )


def _format_key(what: str, raw: Raw) -> str:
    """The weight format: as the entry says, else as config.json's quantization_config says, else BF16."""
    if "weights" in raw:
        return str(raw["weights"])
    quantization = raw.get("config", {}).get("quantization_config") or {}
    method = quantization.get("quant_method")
    if not method:
        return "bf16"
    groups = (quantization.get("config_groups") or {}).values()
    bits = {(group.get("weights") or {}).get("num_bits") for group in groups} or {quantization.get("bits")}
    known = {("compressed-tensors", 8): "fp8", ("compressed-tensors", 4): "w4a16", ("awq", 4): "w4a16"}
    known |= {("gptq", 4): "w4a16", ("fbgemm_fp8", None): "fbgemm-fp8", ("fp8", None): "fp8"}
    key = known.get((method, next(iter(bits)) if len(bits) == 1 else None))
    if key is None:
        raise ValueError(f"{what}: quantization_config {method!r} is not one that the planner sizes; say `weights:`.")
    return key


MODEL_KEYS = ["title", "repo_id", "revision", "gated", "license", "device", "max_model_len", "tool_call_parser", "ignore_patterns", "vllm", "env", "in_matrix", "config", "config_of", "weights"]


def model_spec(key: str, raw: Raw, formats: Mapping[str, WeightFormat], known: Mapping[str, Raw]) -> ModelSpec:
    """One entry of models.yml, checked."""
    what = f"model {key}"
    _only(what, raw, MODEL_KEYS)
    if not raw.get("repo_id"):
        raise ValueError(f"{what}: repo_id is missing.")
    config = raw.get("config") or known.get(str(raw.get("config_of")), {}).get("config")
    if not config:
        raise ValueError(f"{what}: give `config`, the fields of the repository's config.json, or `config_of`, a model.")
    weights = _format_key(what, {**raw, "config": config})
    if weights not in formats:
        raise ValueError(f"{what}: weights {weights!r} is unknown; known: {', '.join(formats)}.")
    device = str(raw.get("device", "cuda"))
    if device not in ("cuda", "cpu"):
        raise ValueError(f"{what}: device must be cuda or cpu, not {device!r}.")
    plain = {name: raw[name] for name in ("title", "revision", "license", "tool_call_parser", "vllm") if name in raw}
    return ModelSpec(
        key=key,
        repo_id=str(raw["repo_id"]),
        shapes=shapes_of(what, config),
        weights=formats[weights],
        gated=bool(raw.get("gated", False)),
        device=device,
        max_model_len=_whole(what, raw, "max_model_len") if raw.get("max_model_len") is not None else None,
        ignore_patterns=tuple(raw.get("ignore_patterns", ("original/*",))),
        env={name: str(value) for name, value in (raw.get("env") or {}).items()},
        in_matrix=bool(raw.get("in_matrix", True)),
        **plain,
    )


GPU_KEYS = ["names", "aliases", "memory_mib", "reserved_mib", "compute_capability", "nvlink_domain", "fabric", "matrix_counts"]


def gpu_spec(key: str, raw: Raw) -> GpuSpec:
    """One entry of gpus.yml, checked."""
    what = f"gpu {key}"
    _only(what, raw, GPU_KEYS)
    capability = str(raw.get("compute_capability", ""))
    if len(version_key(capability)) != 2:
        raise ValueError(f"{what}: compute_capability must look like 9.0, not {capability!r}.")
    return GpuSpec(
        key=key,
        names=tuple(raw.get("names") or (key,)),
        memory_mib=_whole(what, raw, "memory_mib"),
        compute_capability=capability,
        reserved_mib=_whole(what, raw, "reserved_mib") if raw.get("reserved_mib") is not None else None,
        nvlink_domain=_whole(what, raw, "nvlink_domain", 1),
        fabric=bool(raw.get("fabric", False)),
        aliases=tuple(raw.get("aliases", ())),
        matrix_counts=tuple(raw.get("matrix_counts", ())),
    )


def engine_spec(raw: Raw) -> EngineSpec:
    """One file of catalog/engines."""
    memory = raw["memory"]
    images = (
        Image(**{**image, "compat_branches": tuple(image.get("compat_branches", ()))}) for image in raw["images"]
    )
    flags = (Flag(name, kind, default, tuple(*also)) for name, (kind, default, *also) in raw["flags"].items())
    return EngineSpec(
        version=str(raw["version"]),
        images=tuple(images),
        gpu_memory_utilization=float(memory["gpu_memory_utilization"]),
        block_size=int(memory["block_size"]),
        runtime_overhead_gib=float(memory["runtime_overhead_gib"]),
        batch_defaults=tuple(BatchDefault(**rule) for rule in memory["batch_defaults"]),
        flags={flag.name: flag for flag in flags},
        removed=raw.get("removed") or {},
        deprecated=raw.get("deprecated") or {},
        config=raw.get("config") or {},
        env=raw.get("env") or {},
    )


def _read(path: Path) -> Any:
    with path.open(encoding="utf-8") as stream:
        return yaml.load(stream, Loader=LOADER)


def _merged(base: Raw, extra: Raw | None) -> dict[str, dict[str, Any]]:
    """The user's entries over ours, key by key: an entry that exists is amended, not replaced."""
    extra = extra or {}
    return {key: {**(base.get(key) or {}), **(extra.get(key) or {})} for key in (*base, *(k for k in extra if k not in base))}


def load_catalog(
    extra_models: Raw | None = None,
    extra_gpus: Raw | None = None,
    extra_engines: Raw | None = None,
    home: Path = HOME,
) -> Catalog:
    """Read catalog/ and lay the user's entries over it."""
    models, gpus = _read(home / "models.yml"), _read(home / "gpus.yml")
    formats = {
        key: WeightFormat(key=key, **{**raw, "parts": tuple(raw.get("parts", ("attention", "mlp")))})
        for key, raw in models["weight_formats"].items()
    }
    raw_models = _merged(models["models"], extra_models)
    files = (_read(path) for path in sorted((home / "engines").glob("vllm-*.yml")))
    raw_engines = _merged({str(raw["version"]): raw for raw in files}, extra_engines)
    newest = raw_engines[max((key for key in raw_engines if "flags" in raw_engines[key]), key=version_key)]
    engines = (engine_spec({**newest, "version": key, **raw}) for key, raw in raw_engines.items())
    return Catalog(
        models={key: model_spec(key, raw, formats, raw_models) for key, raw in raw_models.items()},
        gpus={key: gpu_spec(key, raw) for key, raw in _merged(gpus["gpus"], extra_gpus).items()},
        engines={engine.version: engine for engine in engines},
        policy=Policy(**_read(home / "planner.yml")),
        reserved_fraction=float(gpus["reserved_fraction"]),
        architectures=gpus["architectures"],
    )
