# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the user asked for, as values that can be trusted: numbers are numbers, names are unique, ports are free."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from ...module_utils import paths
from ..quoting import env_text
from ..values import WHOLE, Option, choices, size
from . import options as planner_options
from .catalog import Catalog, EngineSpec, ModelSpec, near
from .flags import typed_args
from .release import of_wished

#: Variables of an engine's environment that the plan counts with, and the most that they may be: GiB and seconds.
ENV_NUMBERS = {"VLLM_CPU_KVCACHE_SPACE": 65536, "VLLM_ENGINE_READY_TIMEOUT_S": 864_000}
LOOPBACK = ("127.0.0.1", "::1")
#: The longest name of an instance: it is part of units, containers, files and paths of the gateway.
NAME_LENGTH = 64
#: Ends of names that another instance's files or units have: NAME.keys.yaml, vllm-NAME-beside.service, NAME.new.
RESERVED_ENDS = ("-beside", ".keys", ".new", ".old", ".service")


@dataclass(frozen=True)
class InstanceRequest:
    """One engine that is wanted. None: the planner chooses."""

    name: str
    model: ModelSpec
    device: str
    objective: str = "throughput"
    image: str | None = None
    host: str = "127.0.0.1"
    port: int | None = None
    served_model_name: tuple[str, ...] = ()
    max_model_len: int | None = None
    gpu_memory_utilization: float | None = None
    kv_cache_dtype: str | None = None
    tp: int | None = None
    pp: int | None = None
    dp: int | None = None
    gpu_indices: tuple[int, ...] | None = None
    weights: str = "published"
    extra_args: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    #: The release that its image is of; without one, the host's.
    engine: EngineSpec | None = None

    @property
    def batched_tokens(self) -> int | None:
        """The user's own max-num-batched-tokens, which the memory of a step follows."""
        value = {**self.model.vllm, **self.extra_args}.get("max-num-batched-tokens")
        return value if isinstance(value, int) else None  # anything else is refused


@dataclass(frozen=True)
class Request:
    """Everything that is wanted on one host. `findings` are the wishes that cannot be read."""

    engine: EngineSpec
    instances: tuple[InstanceRequest, ...]
    port: int = 8000
    remove_unlisted: bool = False
    findings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def engine_of(self, wish: InstanceRequest) -> EngineSpec:
        """The release that a wish is served by: its image's."""
        return wish.engine or self.engine


def whole_number(what: str, value: Any, low: int, high: int) -> int:
    """A whole number within bounds; `-e port=9000` arrives as a string."""
    if not WHOLE.fullmatch(str(value).strip()):
        raise ValueError(f"{what} must be a whole number, not {value!r}.")
    number = int(str(value))
    if not low <= number <= high:
        raise ValueError(f"{what} must lie between {low} and {high}, not {number}.")
    return number


def context_length(value: Any) -> int | None:
    """A context as vLLM takes it: 32768, 32k, 32K; `auto` and -1 leave it to the planner."""
    if str(value).strip().lower() in ("auto", "-1"):
        return None
    try:
        number = size(value)
    except ValueError:
        number = 0
    if number < 1:
        raise ValueError(f"max_model_len must be a number of tokens such as 32768, 32K or auto, not {value!r}.")
    return number


def utilization(value: Any) -> float:
    """A share of a GPU's memory."""
    try:
        share = float(text_of("gpu_memory_utilization", value))
    except ValueError:
        raise ValueError(f"gpu_memory_utilization must be a share such as 0.92, not {value!r}.") from None
    if not 0 < share <= 1:
        raise ValueError(
            f"gpu_memory_utilization must lie above 0 and at most at 1, not {share:g}; vLLM's own is 0.92."
        )
    return share


def choice_of(what: str, value: Any, known: Sequence[str]) -> str:
    """One of a closed list."""
    if value not in known:
        raise ValueError(f"{what} must be one of {', '.join(known)}, not {value!r}.")
    return str(value)


def indices(value: Any) -> tuple[int, ...]:
    """GPU numbers, in ascending order, each once."""
    items = value if isinstance(value, (list, tuple)) else str(value).split(",")
    return tuple(sorted({whole_number("gpu_indices", item, 0, 1023) for item in items}))


def text_of(what: str, value: Any) -> str:
    """A text, for which a number will do. YAML reads some words as truth values, and what was meant is gone by then."""
    if isinstance(value, (bool, Mapping, list, tuple)):
        quoted = ": put it in quotes, since YAML reads yes, no, on and off as true and false" * isinstance(value, bool)
        raise ValueError(f"{what} must be a text, not {value!r}{quoted}.")
    return str(value)


def names(value: Any) -> tuple[str, ...]:
    """One name or several."""
    return tuple(
        text_of("served_model_name", item) for item in (value if isinstance(value, (list, tuple)) else [value])
    )


def mapping(what: str, value: Any) -> Mapping[str, Any]:
    """A dictionary, and not the text of one."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{what} must be a dictionary, not {value!r}.")
    return value


def safe_name(text: str) -> str:
    """Fit for a unit, a container and a file."""
    return re.sub(r"[^a-z0-9.-]+", "-", text.casefold()).strip("-.")


def instance_name(text: Any) -> str:
    """An instance's name as everything on the node is called by it. Raises ValueError for one that cannot be."""
    name = safe_name(str(text))
    if not name:
        raise ValueError(
            f"{str(text)!r} leaves nothing to call an instance by: set a `name` of letters a-z, digits, dots and"
            " dashes."
        )
    if len(name) > NAME_LENGTH:
        raise ValueError(
            f"An instance's name has {NAME_LENGTH} characters at the most, and {name!r} has {len(name)}: set a shorter"
            " `name`."
        )
    for end in RESERVED_ENDS:
        if name.endswith(end):
            raise ValueError(
                f"An instance's name cannot end in {end!r}, as {name!r} does: what belongs to {name[: -len(end)]!r} is"
                " called so. Set another `name`."
            )
    return name


def host_address(value: Any) -> str:
    """An address that Docker publishes a port on.

    Raises ValueError for a name, which Docker does not take, and for an address that no node has or that takes a zone.
    """
    text = str(value).strip()
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        address = ipaddress.ip_address(paths.address(bare))
        # Docker takes it for the IPv4 address in it.
        address = getattr(address, "ipv4_mapped", None) or address
        if address.is_multicast or (address.is_link_local if address.version == 6 else address.is_reserved):
            raise ValueError(bare)
        return str(address)
    except ValueError:
        meant = (
            "127.0.0.1" if bare.casefold().startswith("localhost") else "127.0.0.1, 0.0.0.0 or one of the node's own"
        )
        raise ValueError(
            f"host must be an address, since Docker publishes ports on addresses only, not {text!r}: set {meant}."
        ) from None


def hyphened(name: Any) -> str:
    """vLLM takes underscores too; a configuration file should not mix them."""
    return str(name).strip().removeprefix("--").replace("_", "-")


def environment(value: Any) -> dict[str, str]:
    """The engine's environment as text. What the plan counts with must be a number."""
    found = {str(key): env_text(text) for key, text in mapping("env", value).items()}
    for name in found.keys() & ENV_NUMBERS.keys():
        whole_number(f"{name} in env", found[name], 1, ENV_NUMBERS[name])
    return found


#: How the options are read of which a type does not say enough.
READERS: dict[str, Callable[[Any], Any]] = {
    "name": lambda value: instance_name(text_of("name", value)),
    "model": lambda value: text_of("model", value),
    "host": host_address,
    "served_model_name": names,
    "max_model_len": context_length,
    "gpu_memory_utilization": utilization,
    "gpu_indices": indices,
    "extra_args": lambda value: {hyphened(key): item for key, item in mapping("extra_args", value).items()},
    "env": environment,
}
#: The largest of each number that has a limit of its own.
LARGEST = {"port": 65535}
#: Options of the host as a whole. All others are one engine's, and a field of InstanceRequest.
OF_THE_HOST = ("engine", "extra_models", "extra_gpus", "extra_engines", "remove_unlisted")


def _reader(name: str, option: Option) -> Callable[[Any], Any]:
    """How an option is read by what its definition says of it."""
    if "choices" in option:
        return lambda value: choice_of(name, value, choices(option))
    if option["type"] == "int":
        return lambda value: whole_number(name, value, 1, LARGEST.get(name, 1024))
    if option["type"] == "dict":
        return lambda value: mapping(name, value)
    return lambda value: text_of(name, value)


@lru_cache(maxsize=1)
def readers() -> Mapping[str, Callable[[Any], Any]]:
    """How each option of an engine is read."""
    defined = {name: option for name, option in planner_options.definitions().items() if name not in OF_THE_HOST}
    return {**{name: _reader(name, option) for name, option in defined.items()}, **READERS}


SHORT = {"tensor_parallel_size": "tp", "pipeline_parallel_size": "pp", "data_parallel_size": "dp"}
#: These are merged from the host's and the instance's own; all else is replaced.
MERGED = ("extra_args", "env")
#: These cannot hold for all instances of a host.
OWN = ("model", "name", "port", "gpu_indices", "served_model_name")


def _read(options: Mapping[str, Any], findings: list[str], own: Container[str] = ()) -> dict[str, Any]:
    """Each option through its reader; what cannot be read is a finding, and all of them are found.

    A finding names an option as its writer does: by the key in an entry of `models` (own), else by the variable.
    """
    seen: dict[str, Any] = {}
    for key, value in options.items():
        if key not in readers():
            meant = near(key, readers())
            findings.append(f"models: unknown key {key!r}{f', did you mean {meant[0]!r}?' if meant else '.'}")
        elif value is not None and value != "":
            try:
                seen[SHORT.get(key, key)] = readers()[key](value)
            except ValueError as error:
                findings.append(f"models: {error}" if key in own else str(error).replace(key, f"vllm_{key}", 1))
    return seen


def _laid_over(common: Any, own: Any) -> Any:
    """An instance's own entries over the host's; what is no dictionary is left for its reader to refuse."""
    if isinstance(common or {}, Mapping) and isinstance(own or {}, Mapping):
        return {**(common or {}), **(own or {})}
    return own or common


def _instance(wanted: Any, common: Mapping[str, Any], catalog: Catalog, findings: list[str]) -> InstanceRequest | None:
    """One item of `models`: a name, or a dictionary of options over the host's."""
    own = dict(wanted) if isinstance(wanted, Mapping) else {"model": wanted}
    merged = {key: _laid_over(common.get(key), own.get(key)) for key in MERGED}
    options = _read({**common, **own, **merged}, findings, own)
    try:
        model = catalog.model(options.pop("model", ""))
        # One that was set and refused is told of already.
        name = options.pop("name", None) or (safe_name if own.get("name") else instance_name)(model.key)
    except ValueError as error:
        findings.append(str(error))
        return None
    return InstanceRequest(name=name, model=model, **{"device": model.device, **options})


def _duplicates(instances: Sequence[InstanceRequest]) -> list[str]:
    findings = []
    listed = [instance.name for instance in instances]
    for name in sorted({name for name in listed if listed.count(name) > 1}):
        findings.append(f"Two instances are named {name!r}: give one of them a `name` of its own.")
    ports = [instance.port for instance in instances if instance.port is not None]
    for port in sorted({port for port in ports if ports.count(port) > 1}):
        findings.append(f"Two instances want port {port}.")
    return findings


def _exposed(instance: InstanceRequest, api_key_set: bool) -> list[str]:
    if instance.host in LOOPBACK or api_key_set:
        return []
    return [
        f"{instance.name} would answer on {instance.host} without an API key, so everybody who reaches this host could "
        "use it. Set a key (vllm_api_keys), or keep the host at 127.0.0.1."
    ]


def _released(
    wish: InstanceRequest, engine: EngineSpec, named: bool, catalog: Catalog, notes: list[str]
) -> InstanceRequest:
    """The wish with the release that its image is of, and its options as that release's parser would read them: text
    that is a number counts as that number."""
    own, note = of_wished(wish.image, engine, named, catalog) if wish.image else (engine, "")
    notes += [note] if note else []
    model = replace(wish.model, vllm=typed_args(wish.model.vllm, own))
    return replace(wish, engine=own, model=model, extra_args=typed_args(wish.extra_args, own))


def read_request(options: Mapping[str, Any], catalog: Catalog) -> Request:
    """Turn an action's options into a request. Raises ValueError where there is nothing to plan."""
    findings: list[str] = []
    wanted = list(options.get("models") or ([options["model"]] if options.get("model") else []))
    if not wanted:
        raise ValueError(f"No model was named. Choose one with -e model=NAME: {', '.join(catalog.models)}.")
    engine = catalog.engine(options.get("engine") or None)
    common = {key: options[key] for key in readers() if options.get(key) is not None and key not in OWN}
    found = (_instance(item, common, catalog, findings) for item in wanted)
    instances = sorted((item for item in found if item is not None), key=lambda item: item.name)
    notes: list[str] = []
    instances = [_released(item, engine, bool(options.get("engine")), catalog, notes) for item in instances]
    findings += _duplicates(instances)
    key_set = bool(options.get("api_key_set"))
    findings += [finding for instance in instances for finding in _exposed(instance, key_set)]
    port = _read({"port": options.get("port")}, findings).get("port", 8000)
    return Request(
        engine=engine,
        instances=tuple(instances),
        port=port,
        remove_unlisted=bool(options.get("remove_unlisted")),
        findings=tuple(dict.fromkeys(findings)),
        notes=tuple(dict.fromkeys(notes)),
    )
