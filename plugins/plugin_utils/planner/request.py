# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read and validate what the user requests: types, ranges, unique names and ports."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

from ...module_utils import paths
from ...module_utils.programs.gpu import SLICES, index_of
from ..quoting import env_text
from ..values import FALSE, TRUE, WHOLE, Option, choices, size
from . import group as node_group, host_cache, lora as lora_rules, options as planner_options, speculation
from .adapters import Lora, read_lora
from .catalog import Catalog, EngineSpec, ModelSpec, Preset, near
from .fetched import chosen
from .flags import FP16, typed_args
from .named import called, shown
from .release import chosen_image_release
from .rope import own_length, yarn
from .splits import cuts_experts
from .tasks import task_of
from .user_figures import is_auto, with_figures

#: Environment variables that the plan uses as numbers, and their maximum (GiB, seconds).
ENV_NUMBERS = {"VLLM_CPU_KVCACHE_SPACE": 65536, "VLLM_ENGINE_READY_TIMEOUT_S": 864_000}
LOOPBACK = ("127.0.0.1", "::1")
#: The name of a MIG slice: a GPU, and its slice.
SLICE = re.compile(r"\d{1,3}:\d{1,3}")
#: A share of a GPU that the planner decides.
AUTO_SHARE = "auto"
#: Maximum length of an instance's name, which is part of names of units, containers and files, and of URLs.
NAME_LENGTH = 64
#: Suffixes that an instance's files and units use: NAME.keys.yaml, vllm-NAME-beside.service, NAME.new.
RESERVED_SUFFIXES = ("-beside", ".keys", ".new", ".old", ".service")


@dataclass(frozen=True)
class InstanceRequest:
    """One requested instance. None: the planner chooses."""

    name: str
    model: ModelSpec
    device: str
    #: Whether the user chose the name.
    named: bool = False
    objective: str = "throughput"
    image: str | None = None
    host: str = "127.0.0.1"
    port: int | None = None
    served_model_name: tuple[str, ...] = ()
    max_model_len: int | None = None
    gpu_memory_utilization: float | None = None
    #: Its share of one GPU, AUTO_SHARE where it is planned; None: it has whole GPUs.
    gpu_share: float | str | None = None
    kv_cache_dtype: str | None = None
    tp: int | None = None
    pp: int | None = None
    dp: int | None = None
    gpu_indices: tuple[int, ...] | None = None
    #: Over how many nodes it runs; None: one, or as many of its group as it needs. And whether that was planned.
    nodes: int | None = None
    group: node_group.NodeGroup | None = None
    nodes_decided: bool = False
    weights: str = "published"
    weights_bytes: int | None = None
    kv_bytes_per_token: int | None = None
    engine_decides_context: bool = False
    #: hf-overrides that make the context longer than config.json's.
    stretched: Mapping[str, Any] = field(default_factory=dict)
    allow_patterns: tuple[str, ...] | None = None
    ignore_patterns: tuple[str, ...] | None = None
    trust_remote_code: bool | None = None
    lora: tuple[Lora, ...] = ()
    speculative: speculation.Speculation | None = None
    #: GiB of the host's memory for KV cache, host_cache.AUTO where it is planned.
    kv_host_gib: int | str | None = None
    extra_args: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    #: The release of its image; None: the host's release.
    engine: EngineSpec | None = None
    #: Whether presets are taken; the one that is, without what is set already; and what faster weights would give.
    presets: bool = True
    preset: Preset | None = None
    faster: str = ""

    @cached_property
    def options(self) -> Mapping[str, Any]:
        """The options of vLLM of a preset, of the model's entry and of the user, who wins."""
        return {**(self.preset.options if self.preset else {}), **self.model.vllm, **self.extra_args}

    @cached_property
    def variables(self) -> Mapping[str, str]:
        """The environment, likewise."""
        return {**(self.preset.env if self.preset else {}), **self.model.env, **self.env}

    def option(self, name: str, default: Any = None) -> Any:
        """An option of vLLM that is set, under its own name or with `no-` before it."""
        options = self.options
        if options.get(f"no-{name}") is True:
            return False
        return default if options.get(name) is None else options[name]

    @cached_property
    def cached_model(self) -> ModelSpec:
        """The model with the cache that what proposes tokens for it takes beside its own."""
        if self.speculative is None:
            return self.model
        return replace(self.model, architecture=speculation.with_cache(self.model, self.speculative))

    @property
    def served_names(self) -> tuple[str, ...]:
        """Names that clients may use: the user's, else the repository id and the instance's name."""
        known_as = () if self.model.folder else (self.model.repo_id,)
        return self.served_model_name or tuple(dict.fromkeys((*known_as, self.name)))

    @property
    def task(self) -> str:
        """What the model is served for, as vLLM decides it from the same options."""
        names = ("runner", "convert", "hf-overrides")
        return task_of(self.model, {name: self.option(name) for name in names})

    @property
    def batched_tokens(self) -> int | None:
        """The user's max-num-batched-tokens, which determines the memory of a step."""
        value = self.option("max-num-batched-tokens")
        return value if isinstance(value, int) else None  # check_args rejects anything else

    @property
    def widest(self) -> int:
        """The most GPUs that any of the user's own sizes asks for."""
        return max(self.tp or 1, self.pp or 1, self.dp or 1, len(self.gpu_indices or ()))

    @property
    def shares_several(self) -> bool:
        """Whether it is to have a share of one GPU, and several of them: it cannot have both."""
        return self.gpu_share is not None and self.widest > 1

    @cached_property
    def whole_prompts(self) -> bool:
        """Whether a prompt goes through in one step, since there is no chunked prefill.

        By default where attention looks both ways, and always with an encoder beside the decoder
        (ModelConfig.is_chunked_prefill_supported, SchedulerConfig.__post_init__).
        """
        setting, sized = self.option("enable-chunked-prefill"), self.model.sized
        if setting is None or sized.kind == "whisper":
            return sized.kind in ("encoder", "whisper") or (sized.kind == "decoder" and not sized.cache)
        return not setting

    def expert_parallel(self, tp: int, replicas: int) -> bool:
        """Whether GPUs hold whole experts: as the user says, else where replicas share them or TP would cut them."""
        setting = self.option("enable-expert-parallel")
        if setting is not None or not self.model.sized.mixture or tp * replicas == 1:
            return bool(setting)
        return replicas > 1 or cuts_experts(self.model.sized, self.model.stored, tp)


@dataclass(frozen=True)
class HostRequest:
    """All that is requested of one host. `findings`: options that are invalid."""

    engine: EngineSpec
    instances: tuple[InstanceRequest, ...]
    port: int = 8000
    remove_unlisted: bool = False
    findings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def engine_of(self, request: InstanceRequest) -> EngineSpec:
        """The release that serves this instance."""
        return request.engine or self.engine


def whole_number(what: str, value: Any, low: int, high: int) -> int:
    """Read a whole number within bounds; `-e port=9000` arrives as a string."""
    if not WHOLE.fullmatch(str(value).strip()):
        raise ValueError(f"{what} must be a whole number, not {value!r}.")
    number = int(str(value))
    if not low <= number <= high:
        raise ValueError(f"{what} must be between {low} and {high}, not {number}.")
    return number


def context_length(value: Any) -> int | None:
    """Read a context as vLLM writes it: 32768, 32k, 32K; None (planner's choice) for `auto` and -1."""
    if is_auto(value):
        return None
    try:
        number = size(value)
    except ValueError:
        number = 0
    if number < 1:
        raise ValueError(f"max_model_len must be a number of tokens such as 32768, 32K or auto, not {value!r}.")
    return number


def utilization(value: Any) -> float:
    """Read a share of a GPU's memory."""
    try:
        share = float(text_of("gpu_memory_utilization", value))
    except ValueError:
        raise ValueError(f"gpu_memory_utilization must be a share such as 0.92, not {value!r}.") from None
    if not 0 < share <= 1:
        raise ValueError(
            f"gpu_memory_utilization must be above 0 and at most 1, not {share:g}; vLLM's default is 0.92."
        )
    return share


def gpu_share(value: Any) -> float | str:
    """Read a share of one GPU."""
    text = text_of("gpu_share", value).strip()
    if text == AUTO_SHARE:
        return AUTO_SHARE
    try:
        share = float(text)
    except ValueError:
        share = 0
    if not 0 < share <= 1:
        raise ValueError(f"gpu_share must be auto, or above 0 and at most 1 such as 0.5, not {value!r}.")
    return share


def choice_of(what: str, value: Any, known: Sequence[str]) -> str:
    """Read one of a closed list of values."""
    if value not in known:
        raise ValueError(f"{what} must be one of {', '.join(known)}, not {value!r}.")
    return str(value)


def indices(value: Any) -> tuple[int, ...]:
    """Read GPU indices; returned in ascending order, without duplicates."""
    items = value if isinstance(value, (list, tuple)) else str(value).split(",")
    return tuple(sorted({_gpu_index(item) for item in items}))


def _gpu_index(item: Any) -> int:
    """The index of a GPU, or of a MIG slice that is named as the container toolkit does, such as 0:1."""
    if SLICE.fullmatch(str(item).strip()):
        return index_of(str(item).strip())
    return whole_number("gpu_indices", item, 0, SLICES - 1)


def text_of(what: str, value: Any) -> str:
    """Read text or a number. A boolean is rejected: YAML turns words such as `no` into one, and the word is lost."""
    if isinstance(value, (bool, Mapping, list, tuple)):
        quoted = ": put it in quotes, since YAML reads yes, no, on and off as true and false" * isinstance(value, bool)
        raise ValueError(f"{what} must be a text, not {value!r}{quoted}.")
    if not str(value).isprintable():
        raise ValueError(f"{what} must be one line of text, not {value!r}.")
    return str(value)


def names(value: Any) -> tuple[str, ...]:
    """Read one name or a list of names."""
    return tuple(
        text_of("served_model_name", item) for item in (value if isinstance(value, (list, tuple)) else [value])
    )


def patterns(what: str, value: Any) -> tuple[str, ...]:
    """Patterns of files, as a list or as one text."""
    return tuple(text_of(what, item) for item in (value if isinstance(value, (list, tuple)) else [value]))


def truth(what: str, value: Any) -> bool:
    """Yes or no, in the words that Ansible knows."""
    text = str(value).strip().lower()
    if text not in TRUE + FALSE:
        raise ValueError(f"{what} must be true or false, not {value!r}.")
    return text in TRUE


def mapping(what: str, value: Any) -> Mapping[str, Any]:
    """Read a dictionary; text is rejected."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{what} must be a dictionary, not {value!r}.")
    return value


def safe_name(text: str) -> str:
    """Reduce text to a name that is valid for units, containers and files."""
    return re.sub(r"[^a-z0-9.-]+", "-", text.casefold()).strip("-.")


def instance_name(text: Any) -> str:
    """Read an instance's name, which names its unit, container and files. Raises ValueError if it is invalid."""
    name = safe_name(str(text))
    if not name:
        raise ValueError(
            f"{str(text)!r} is not usable as an instance's name: set a `name` of letters a-z, digits, dots and dashes."
        )
    if len(name) > NAME_LENGTH:
        raise ValueError(
            f"An instance's name can have at most {NAME_LENGTH} characters, but {name!r} has {len(name)}: set a shorter"
            " `name`."
        )
    for end in RESERVED_SUFFIXES:
        if name.endswith(end):
            raise ValueError(
                f"{name!r} ends in {end!r}, which is reserved for files and units of the instance "
                f"{name[: -len(end)]!r}: set another `name`."
            )
    return name


def host_address(value: Any) -> str:
    """Read an address for Docker to publish a port on.

    Raises ValueError for a host name, which Docker refuses, and for a multicast, reserved or link-local address.
    """
    text = str(value).strip()
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        address = ipaddress.ip_address(paths.address(bare))
        # Docker treats an IPv4-mapped IPv6 address as IPv4.
        address = getattr(address, "ipv4_mapped", None) or address
        if address.is_multicast or (address.is_link_local if address.version == 6 else address.is_reserved):
            raise ValueError(bare)
        return str(address)
    except ValueError:
        suggestion = (
            "127.0.0.1" if bare.casefold().startswith("localhost") else "127.0.0.1, 0.0.0.0 or one of the node's"
        )
        raise ValueError(
            f"host must be an IP address, not {text!r}, since Docker publishes ports on addresses only: set"
            f" {suggestion}."
        ) from None


def hyphened(name: Any) -> str:
    """Normalise an option's name to dashes; vLLM accepts underscores too."""
    return str(name).strip().removeprefix("--").replace("_", "-")


def environment(value: Any) -> dict[str, str]:
    """Read the engine's environment as text. Variables that the plan uses as numbers must be numbers."""
    variables = {str(key): env_text(text) for key, text in mapping("env", value).items()}
    for name in variables.keys() & ENV_NUMBERS.keys():
        whole_number(f"{name} in env", variables[name], 1, ENV_NUMBERS[name])
    if node_group.PARTITION in variables:
        variables[node_group.PARTITION] = node_group.read_partition(variables[node_group.PARTITION])
    return variables


#: Readers for options that need more than their type's check.
READERS: dict[str, Callable[[Any], Any]] = {
    "name": lambda value: instance_name(text_of("name", value)),
    "model": lambda value: text_of("model", value),
    "host": host_address,
    "served_model_name": names,
    "max_model_len": context_length,
    "gpu_memory_utilization": utilization,
    "gpu_indices": indices,
    "gpu_share": gpu_share,
    "allow_patterns": lambda value: patterns("allow_patterns", value),
    "ignore_patterns": lambda value: patterns("ignore_patterns", value),
    "lora": read_lora,
    "speculative": speculation.read_speculative,
    "group": node_group.read_group,
    "kv_host_gib": host_cache.read_kv_host_gib,
    "extra_args": lambda value: {hyphened(key): item for key, item in mapping("extra_args", value).items()},
    "env": environment,
}
#: Upper limits of numbers; the default is 1024.
LARGEST = {
    "port": 65535,
    "nodes_per_engine": node_group.MOST_NODES,
    "weights_bytes": 1 << 60,
    "kv_bytes_per_token": 1 << 40,
}
#: Options of the whole host. All others belong to one instance and are fields of InstanceRequest.
OF_THE_HOST = ("engine", "extra_models", "extra_gpus", "extra_engines", "presets_dir", "remove_unlisted")


def _reader(name: str, option: Option) -> Callable[[Any], Any]:
    """The reader for an option, from its definition."""
    if "choices" in option:
        return lambda value: choice_of(name, value, choices(option))
    if option["type"] == "int":
        return lambda value: whole_number(name, value, 1, LARGEST.get(name, 1024))
    if option["type"] == "dict":
        return lambda value: mapping(name, value)
    if option["type"] == "bool":
        return lambda value: truth(name, value)
    return lambda value: text_of(name, value)


@lru_cache(maxsize=1)
def readers() -> Mapping[str, Callable[[Any], Any]]:
    """The reader of each instance option, by name."""
    defined = {name: option for name, option in planner_options.definitions().items() if name not in OF_THE_HOST}
    return {**{name: _reader(name, option) for name, option in defined.items()}, **READERS}


SHORT = {
    "tensor_parallel_size": "tp",
    "pipeline_parallel_size": "pp",
    "data_parallel_size": "dp",
    "nodes_per_engine": "nodes",
}
#: Options merged from the host's and the instance's values; for others, the instance's value replaces the host's.
MERGED = ("extra_args", "env")
#: Options that belong to one instance, so a host-wide value does not apply.
PER_INSTANCE = ("model", "name", "port", "gpu_indices", "served_model_name")


def _read(options: Mapping[str, Any], findings: list[str], own: Container[str] = ()) -> dict[str, Any]:
    """Read all options and collect findings about invalid ones.

    A finding names an option as the user wrote it: the key in an entry of `models` (`own`), else the variable.
    """
    read: dict[str, Any] = {}
    for key, value in options.items():
        if key not in readers():
            meant = near(key, readers())
            findings.append(f"models: unknown key {key!r}{f', did you mean {meant[0]!r}?' if meant else '.'}")
        elif value is not None and value != "":
            try:
                read[SHORT.get(key, key)] = readers()[key](value)
            except ValueError as error:
                findings.append(f"models: {error}" if key in own else str(error).replace(key, f"vllm_{key}", 1))
    return read


def _merged(common: Any, own: Any) -> Any:
    """Merge an instance's dictionary over the host's; leave other types for the reader to reject."""
    if isinstance(common or {}, Mapping) and isinstance(own or {}, Mapping):
        return {**(common or {}), **(own or {})}
    return own or common


def _instance(wanted: Any, common: Mapping[str, Any], catalog: Catalog, findings: list[str]) -> InstanceRequest | None:
    """Read one entry of `models`: a name, or a dictionary of options over the host's."""
    own = dict(wanted) if isinstance(wanted, Mapping) else {"model": wanted}
    merged = {key: _merged(common.get(key), own.get(key)) for key in MERGED}
    options = _read({**common, **own, **merged}, findings, own)
    try:
        model = catalog.model(options.pop("model", ""))
        model = chosen(model, options.get("allow_patterns"), options.get("ignore_patterns"))
        # If the user's name was invalid, there is a finding about it already.
        named = options.pop("name", None)
        name = named or (safe_name if own.get("name") else instance_name)(called(model.key))
        auto = is_auto({**common, **own}.get("max_model_len"))
        model, engine_decides = with_figures(model, options, auto)
    except ValueError as error:
        findings.append(str(error))
        return None
    options["lora"] = tuple(
        replace(lora, adapter=catalog.adapters.get(lora.reference)) for lora in options.get("lora", ())
    )
    drafted = options.get("speculative")
    if drafted:
        drafted = speculation.of_catalog(drafted, model)
        options["speculative"] = replace(drafted, draft=catalog.drafts.get(drafted.reference))
    fields = {"device": model.device, "named": bool(named), "engine_decides_context": engine_decides, **options}
    return InstanceRequest(name=name, model=model, **fields)


def stretch(request: InstanceRequest) -> InstanceRequest:
    """The request with its context as hf-overrides make it: the user's own, else those of YaRN where it needs them."""
    model, wanted = request.model, request.max_model_len or 0
    own = 0 if model.missing else own_length(request.name, model.sized, request.option("hf-overrides"))
    if own:
        architecture = replace(model.sized, context=own, longest=own, stretch=())
        return replace(request, model=replace(model, architecture=architecture))
    if model.missing or wanted <= model.context or model.max_model_len:
        return request
    overrides = {} if wanted <= model.sized.longest else yarn(model.sized, wanted)
    if not overrides and wanted > model.sized.longest:
        return request
    architecture = replace(model.sized, context=wanted)
    return replace(request, model=replace(model, architecture=architecture), stretched=overrides)


def _duplicates(instances: Sequence[InstanceRequest]) -> list[str]:
    findings = []
    listed = [instance.name for instance in instances]
    for name in sorted({name for name in listed if listed.count(name) > 1}):
        findings.append(f"Two instances are named {name!r}: give one of them a `name` of its own.")
    ports = [instance.port for instance in instances if instance.port is not None]
    for port in sorted({port for port in ports if ports.count(port) > 1}):
        findings.append(f"Two instances want port {port}.")
    return findings


def _unconsented(instance: InstanceRequest) -> list[str]:
    """A finding if the model brings code and the user has not said whether it may run."""
    model = instance.model
    if not model.code_files or instance.trust_remote_code is not None or instance.extra_args.get("trust-remote-code"):
        return []
    where = model.folder or model.repo_id + (f" at {model.revision}" if model.revision else "")
    return [
        f"{instance.name}: {where} brings code that would run in the engine: {shown(model.code_files)}. Read it, then"
        " set vllm_trust_remote_code: true; with false vLLM serves the model by its own code alone, if it knows it."
    ]


def _shares_one_gpu(instance: InstanceRequest) -> list[str]:
    """A finding if an engine with a share of a GPU is to have several."""
    if not instance.shares_several:
        return []
    return [
        f"{instance.name}: an engine with a gpu_share has that share of one GPU, and {instance.widest} are asked for: "
        "leave out gpu_share, or its sizes and further gpu_indices."
    ]


def _steps(instance: InstanceRequest) -> list[str]:
    """A finding if the steps that the user sets are too short for what vLLM puts into one."""
    tokens, sequences = instance.batched_tokens, instance.option("max-num-seqs")
    if instance.model.missing or not tokens or tokens < 1:
        return []
    if isinstance(sequences, int) and tokens < sequences:
        return [
            f"{instance.name}: max-num-batched-tokens ({tokens}) must be at least max-num-seqs ({sequences}): each"
            " request takes a token of a step."
        ]
    context = instance.max_model_len or instance.model.context
    if not instance.whole_prompts or tokens >= context:
        return []
    return [
        f"{instance.name}: max-num-batched-tokens is {tokens}, and without chunked prefill a whole prompt of up to"
        f" {context} tokens goes through in one step: set it to {context} or more, or vllm_max_model_len to {tokens}"
        " or less."
    ]


def _dtype(instance: InstanceRequest) -> list[str]:
    """A finding if the user wants FP16 of a model that vLLM refuses it for."""
    if instance.model.missing or instance.model.sized.float16 or instance.option("dtype") not in FP16:
        return []
    return [
        f"{instance.name}: vLLM refuses FP16 (dtype: {instance.option('dtype')}) for {instance.model.sized.name}, whose"
        " numbers leave its range: leave dtype out, or set bfloat16."
    ]


def contradictions(instance: InstanceRequest) -> list[str]:
    """Findings about options that vLLM does not take together, or for this model."""
    return [*_steps(instance), *_dtype(instance)]


def _exposed(instance: InstanceRequest, api_key_set: bool) -> list[str]:
    if instance.host in LOOPBACK or api_key_set:
        return []
    return [
        f"{instance.name} would listen on {instance.host} without an API key, so anybody who reaches this host could "
        "use it. Set a key (vllm_api_keys), or set vllm_host to 127.0.0.1."
    ]


def _with_release(
    request: InstanceRequest, engine: EngineSpec, explicit: bool, catalog: Catalog, notes: list[str]
) -> InstanceRequest:
    """Add the release of the image to a request, and convert its options as that release's parser does."""
    release, note = chosen_image_release(request.image, engine, explicit, catalog) if request.image else (engine, "")
    notes += [note] if note else []
    typed = typed_args(request.model.vllm, release)
    # A model that stays what it is keeps what was counted of it.
    model = request.model if typed == request.model.vllm else replace(request.model, vllm=typed)
    typed_request = replace(request, engine=release, model=model, extra_args=typed_args(request.extra_args, release))
    return stretch(typed_request)


def read_request(options: Mapping[str, Any], catalog: Catalog) -> HostRequest:
    """Turn an action's options into a request. Raises ValueError if no model is named."""
    findings: list[str] = []
    wanted = list(options.get("models") or ([options["model"]] if options.get("model") else []))
    if not wanted:
        raise ValueError(f"No model was named. Choose one with -e model=NAME: {', '.join(catalog.models)}.")
    engine = catalog.engine(options.get("engine") or None)
    common = {key: options[key] for key in readers() if options.get(key) is not None and key not in PER_INSTANCE}
    items = (_instance(item, common, catalog, findings) for item in wanted)
    instances = sorted((item for item in items if item is not None), key=lambda item: item.name)
    notes: list[str] = []
    instances = [_with_release(item, engine, bool(options.get("engine")), catalog, notes) for item in instances]
    findings += _duplicates(instances)
    key_set = bool(options.get("api_key_set"))
    findings += [finding for instance in instances for finding in _exposed(instance, key_set)]
    findings += [finding for instance in instances for finding in _unconsented(instance)]
    findings += [finding for instance in instances for finding in _shares_one_gpu(instance)]
    findings += [finding for instance in instances for finding in contradictions(instance)]
    findings += [finding for instance in instances for finding in node_group.problems(instance)]
    unserved = {instance.name: lora_rules.problems(instance, catalog) for instance in instances}
    findings += [finding for found in unserved.values() for finding in found]
    # What is refused is not counted.
    instances = [replace(item, lora=()) if unserved[item.name] else item for item in instances]
    findings += [finding for item in instances for finding in host_cache.problems(item, item.engine or engine)]
    undrafted = {item.name: speculation.problems(item, item.engine or engine, catalog) for item in instances}
    findings += [finding for found in undrafted.values() for finding in found]
    instances = [replace(item, speculative=None) if undrafted[item.name] else item for item in instances]
    port = _read({"port": options.get("port")}, findings).get("port", 8000)
    return HostRequest(
        engine=engine,
        instances=tuple(instances),
        port=port,
        remove_unlisted=bool(options.get("remove_unlisted")),
        findings=tuple(dict.fromkeys(findings)),
        notes=tuple(dict.fromkeys(notes)),
    )
