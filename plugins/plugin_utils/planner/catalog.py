# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Types for the facts about models, GPUs and engine releases. `catalog_files` fills them from catalog/."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

from .adapters import Adapter
from .architecture import Architecture, Unsized
from .kv_cache import Layout, Setting, layout
from .quantization import Storage, Stored, WeightFormat, laid_out
from .read_quantization import Unreadable

#: The engine release of an image that is used at its user's own risk.
UNPLANNED = "unplanned"


@lru_cache(maxsize=1024)
def version_key(version: str) -> tuple[int, ...]:
    """Order versions as numbers: 0.9 is older than 0.33, and a driver's 580.65.06 is newer than 580.9."""
    return tuple(int("0" + "".join(filter(str.isdecimal, part))) for part in str(version).split("."))


def near(name: Any, known: Iterable[str]) -> list[str]:
    """Up to three known names that resemble this one."""
    folded = {item.casefold(): item for item in known}
    return [folded[hit] for hit in difflib.get_close_matches(str(name).casefold(), folded, n=3, cutoff=0.5)]


@dataclass(frozen=True)
class FittingDraft:
    """What proposes tokens for a model, from its entry. ``repo_id``: empty where the method needs no repository."""

    method: str
    tokens: int
    repo_id: str = ""
    revision: str = ""
    source: str = ""

    @property
    def reference(self) -> str:
        """The repository as a user names one: ORG/DRAFT or ORG/DRAFT@REVISION."""
        return f"{self.repo_id}@{self.revision}" if self.revision else self.repo_id

    @property
    def title(self) -> str:
        """How a person reads it: eagle3 by ORG/DRAFT, 3 tokens."""
        by = f" by {self.repo_id}" if self.repo_id else ""
        return f"{self.method}{by}, {self.tokens} token{'' if self.tokens == 1 else 's'}"


@dataclass(frozen=True)
class ModelSpec:
    """A model from the catalogue or from the user's `extra_models`."""

    key: str
    repo_id: str
    architecture: Architecture | Unsized
    weights: Storage | Unreadable
    title: str = ""
    revision: str | None = None
    gated: bool = False
    license: str = ""
    device: str = "cuda"
    max_model_len: int | None = None
    tool_call_parser: str = ""
    reasoning_parser: str = ""
    #: Where parsers, options and `since` are from; and the first release of vLLM that serves the model.
    source: str = ""
    since: str = ""
    ignore_patterns: tuple[str, ...] = ("original/*", "metal/*")
    allow_patterns: tuple[str, ...] = ()
    #: The branch or tag that its commit was resolved from, if the user named one.
    branch: str = ""
    #: The folder on the node that holds the model, in place of a repository.
    folder: str = ""
    #: The size of each file of the repository, and the files that the index of its weights names. Empty: unknown.
    files: Mapping[str, int] = field(default_factory=dict)
    shards: tuple[str, ...] = ()
    #: Python files of the repository that the engine would run.
    code_files: tuple[str, ...] = ()
    vllm: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    #: What may propose tokens for it, the best first.
    drafts: tuple[FittingDraft, ...] = ()
    in_matrix: bool = True
    #: The key of the same model with larger weights.
    variant_of: str = ""
    #: Bytes of the weights' files. None: computed from the shapes.
    weights_bytes: int | None = None
    kv_bytes_per_token: int | None = None

    @property
    def context(self) -> int:
        """The model's longest context, or the entry's limit if that is lower."""
        return min(self.max_model_len or self.architecture.context, self.architecture.context)

    @property
    def missing(self) -> str:
        """Why the planner cannot size this model; empty if it can."""
        if isinstance(self.architecture, Unsized):
            return self.architecture.why
        return self.weights.why if isinstance(self.weights, Unreadable) else ""

    @property
    def sized(self) -> Architecture:
        """The architecture. Raises ValueError if the planner cannot size it: requests are checked for that first."""
        if isinstance(self.architecture, Unsized):
            raise ValueError(f"model {self.key}: {self.architecture.why}.")
        return self.architecture

    @property
    def precision(self) -> str:
        """What the weights are called."""
        return "weights" if isinstance(self.weights, Unreadable) else self.weights.title

    @property
    def cache_dtype(self) -> str:
        """The data type that the checkpoint wants for the KV cache; empty for that of the model."""
        return "" if isinstance(self.weights, Unreadable) else self.weights.kv_cache

    @property
    def formats(self) -> tuple[WeightFormat, ...]:
        """The formats of the weights, none if they are unknown."""
        return () if isinstance(self.weights, Unreadable) else self.weights.formats

    @cached_property
    def stored(self) -> tuple[Stored, ...]:
        """Every part of the weights with its format."""
        if isinstance(self.weights, Unreadable):
            raise ValueError(f"model {self.key}: {self.weights.why}.")
        return laid_out(self.sized, self.weights)

    @cached_property
    def equal_stages(self) -> bool:
        """Whether all layers are alike, so that pipeline stages differ by their number and their end alone."""
        layers = self.sized.layers
        parts = (len(weight.layers) for weight in self.stored if weight.part.layers)
        return all(count == layers for count in (*parts, *(len(group.layers) for group in self.sized.cache)))

    @cached_property
    def counted(self) -> dict[Any, tuple[float, ...]]:
        """What was counted of the weights already, by what it was counted for."""
        return {}

    @cached_property
    def _layouts(self) -> dict[Setting, Layout]:
        return {}

    def layout(self, setting: Setting) -> Layout:
        """How the KV cache is laid out on one GPU."""
        if setting not in self._layouts:
            self._layouts[setting] = layout(self.sized, setting)
        return self._layouts[setting]


@dataclass(frozen=True)
class Draft:
    """A repository that proposes tokens for a model. ``config``: its config.json, which need not be one of a model."""

    model: ModelSpec
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class GpuSpec:
    """A GPU type."""

    key: str
    names: tuple[str, ...]
    memory_mib: int
    compute_capability: str
    reserved_mib: int | None = None
    nvlink_domain: int = 1
    fabric: bool = False
    #: How many of them one host has at most, where that is less than the 8 of most.
    most_in_a_host: int = 8
    #: Whether its memory is the host's.
    unified: bool = False
    #: The largest share of its memory that the planner takes by itself.
    most: float = 1.0
    aliases: tuple[str, ...] = ()
    matrix_counts: tuple[int, ...] = ()
    #: Its device ids on the PCI bus.
    pci: tuple[str, ...] = ()


@dataclass(frozen=True)
class Image:
    """One image of an engine release, and the driver it needs."""

    image: str
    device: str
    cuda: str = ""
    min_driver: str = ""
    compat_branches: tuple[int, ...] = ()


@dataclass(frozen=True)
class BatchDefault:
    """vLLM's default number of tokens per step, for GPUs with at least this memory."""

    min_memory_gib: float
    batched_tokens: int
    name_lacks: str = ""
    sequences: int = 256


@dataclass(frozen=True)
class Flag:
    """An option of `vllm serve`."""

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
    counts_graphs: bool
    batch_defaults: tuple[BatchDefault, ...]
    flags: Mapping[str, Flag]
    #: GPUs older than this have no kernels in its images.
    min_compute_capability: str = ""
    #: Ways to propose tokens ahead.
    speculative_methods: tuple[str, ...] = ()
    #: A stand-in for a release that the catalogue does not know: its options are not checked.
    unplanned: bool = False
    removed: Mapping[str, str] = field(default_factory=dict)
    deprecated: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def spellings(self) -> Mapping[str, Flag]:
        """Options by every accepted spelling, including `no-…` and `disable-…`."""
        return {name: flag for flag in self.flags.values() for name in (flag.name, *flag.also)}

    def batched_tokens(self, memory_gib: float, name: str) -> int:
        """vLLM's default for a GPU with this memory and name. Raises ValueError if no rule matches."""
        return self.batch_default(memory_gib, name).batched_tokens

    def batch_default(self, memory_gib: float, name: str) -> BatchDefault:
        """vLLM's defaults for a GPU with this memory and name. Raises ValueError if no rule matches."""
        for rule in self.batch_defaults:
            if memory_gib >= rule.min_memory_gib and not (rule.name_lacks and rule.name_lacks in name.casefold()):
                return rule
        raise ValueError(f"engine {self.version}: batch_defaults has no rule for {memory_gib:.1f} GiB.")


@dataclass(frozen=True)
class Measured:
    """Where a preset's gain is from. ``before`` and ``after``: of the whole instance, in ``unit``."""

    date: str
    engine: str
    profile: str
    concurrency: int
    before: float
    after: float
    record: str = ""
    #: What was measured, where it is not quite what is served.
    how: str = ""
    unit: str = "output tokens/s"

    @property
    def gain(self) -> str:
        """What was gained, and by which measurement, in words."""
        after, before = (f"{speed:.{0 if speed >= 1000 else 1}f}" for speed in (self.after, self.before))
        how = f" ({self.how})" if self.how else ""
        share = f"{self.after / self.before - 1:.0%}"
        return (
            f"{after} {self.unit} in place of {before} (+{share}), measured on {self.date} with vLLM {self.engine},"
            f" profile {self.profile}, {self.concurrency} at once{how}"
        )


@dataclass(frozen=True)
class Preset:
    """Options or other weights that were measured to be faster for a model on so many GPUs of a type."""

    name: str
    model: str
    #: A key of the catalogue's GPUs with how many of them; CPU with 0.
    gpu: str
    count: int
    objective: str
    measured: Measured
    #: The release that its options are for, such as 0.33.
    release: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    #: The key of the same model's other weights; empty for the model's own.
    weights: str = ""
    #: The user's file that it is from; empty for one of the collection.
    path: str = ""


@dataclass(frozen=True)
class Policy:
    """The planner's constants. catalog/planner.yml gives the source of each."""

    min_context: int
    calibration_error: float
    mixed_overhead_error_gib: float
    context_step: int
    kv_share: float
    kv_host_share: float
    activation_base_gib: float
    activation_hidden: float
    activation_intermediate: float
    image_tokens: int
    measured_vocabulary: int
    logit_bytes: int
    sampled_logit_bytes: int
    expanded_tokens: int
    states_step_gib: float
    graphs_base_gib: float
    graphs_layer_gib: Mapping[str, float]
    graphs_sizes: int
    graphs_parallel: float
    start_base_s: int
    load_bytes_per_s: int
    shm_size: Mapping[str, str]
    cpu_kv_cache_gib: int
    busy_mib: int
    image_download_bytes: Mapping[str, int]
    image_disk_bytes: Mapping[str, int]


@dataclass(frozen=True)
class Catalog:
    """Everything the planner knows before it sees a host."""

    models: Mapping[str, ModelSpec]
    gpus: Mapping[str, GpuSpec]
    engines: Mapping[str, EngineSpec]
    policy: Policy
    reserved_fraction: float
    unified_reserve_mib: int
    architectures: Mapping[str, str]
    #: LoRA adapters that the hub was asked for, by what the user calls them: ORG/ADAPTER[@REVISION].
    adapters: Mapping[str, Adapter] = field(default_factory=dict)
    #: Drafts, likewise.
    drafts: Mapping[str, Draft] = field(default_factory=dict)
    presets: tuple[Preset, ...] = ()

    @cached_property
    def gpu_names(self) -> Mapping[str, GpuSpec]:
        """GPUs by each of their names in lower case: key, nvidia-smi's names, aliases."""
        return {name.casefold(): gpu for gpu in self.gpus.values() for name in (gpu.key, *gpu.names, *gpu.aliases)}

    @cached_property
    def gpus_on_pci(self) -> Mapping[str, GpuSpec]:
        """GPUs by their device ids on the PCI bus."""
        return {number.casefold(): gpu for gpu in self.gpus.values() for number in gpu.pci}

    def find(self, name: str) -> ModelSpec | None:
        """Find a model by key or repository id; None if the catalogue does not have it."""
        wanted = str(name).strip().casefold()
        by_key = (model for model in self.models.values() if model.key.casefold() == wanted)
        by_repository = (model for model in self.models.values() if model.repo_id.casefold() == wanted)
        return next(by_key, None) or next(by_repository, None)

    def ours(self, name: str) -> ModelSpec | None:
        """As find; another revision of a repository, ORG/NAME@REVISION, is found by the repository."""
        return self.find(name) or self.find(str(name).partition("@")[0])

    def model(self, name: str) -> ModelSpec:
        """Find a model by key or repository id. Raises ValueError, with suggestions, if it is unknown."""
        known = self.find(name)
        if known is not None:
            return known
        guesses = near(name, self.models)
        meant = f"Did you mean {' or '.join(guesses)}? " if guesses else ""
        raise ValueError(
            f"Model {name!r} is not in the catalogue. {meant}Known: {', '.join(self.models)}. "
            "Name any other by its repository, ORG/NAME, or by its folder on the node, such as /srv/models/NAME."
        )

    def gpu(self, name: str) -> GpuSpec | None:
        """Find a GPU by any of its names; None if the catalogue does not have it."""
        return self.gpu_names.get(name.casefold())

    def engine(self, version: str | None) -> EngineSpec:
        """Find a release by version; None selects the newest, UNPLANNED its arithmetic for an image that is not known.

        Raises ValueError if it is unknown.
        """
        if version is None:
            return self.engines[max(self.engines, key=version_key)]
        if str(version) == UNPLANNED:
            return replace(self.engine(None), images=(), min_compute_capability="", unplanned=True)
        wanted = str(version).removeprefix("vllm-").removeprefix("v")
        if wanted not in self.engines:
            raise ValueError(
                f"Engine release {version!r} is not in the catalogue. Known: {', '.join(self.engines)}. "
                f"Add your own with vllm_extra_engines, or run vllm_image at your own risk with {UNPLANNED!r}."
            )
        return self.engines[wanted]
