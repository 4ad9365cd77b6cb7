# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Models x GPUs x engine release -> what to run. Arithmetic and rules only: no host, no network, no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ...module_utils.instance.serving import Here
from ...module_utils.programs.gpu import NodeGpus
from .catalog import Catalog, EngineSpec, Image, version_key
from .flags import check_args
from .host import UNIT, Host, numbered, read_host
from .instance import Instance, Settled, instance
from .memory import GIB, Parallel, kv_bytes_per_token, weights_bytes
from .messages import Advice, does_not_fit, no_gpus, not_together, siblings, smaller_that_fits, weight_text
from .placement import Packing, Seat, pack
from .ports import ports
from .release import of_picked
from .request import InstanceRequest, Request
from .spread import Choice, weight_only

COMPAT = "VLLM_ENABLE_CUDA_COMPATIBILITY"


@dataclass(frozen=True)
class Plan:
    """What a host runs, what to know about it, and what was not chosen and why."""

    instances: tuple[Instance, ...]
    warnings: tuple[str, ...] = ()
    rejected: tuple[Mapping[str, str], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as an action returns it."""
        plain: dict[str, Any] = asdict(self)
        return plain


@dataclass(frozen=True)
class Outcome:
    """A plan, or the sentences that say why there is none."""

    plan: Plan | None
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Picked:
    """The image for an instance, or what stands against every image."""

    image: str = ""
    finding: str = ""
    warning: str = ""


def _driver_serves(image: Image, driver: str, env: Mapping[str, str]) -> bool:
    if not driver or not image.min_driver or version_key(driver) >= version_key(image.min_driver):
        return True
    return env.get(COMPAT) == "1" and version_key(driver)[0] in image.compat_branches


def pick_image(wish: InstanceRequest, engine: EngineSpec, driver: str) -> Picked:
    """The first image of the release that the driver serves. An image that nobody knows is taken as it is."""
    images = [image for image in engine.images if image.device == wish.device]
    if wish.image:
        images = [image for image in images if image.image == wish.image] or [Image(wish.image, wish.device)]
    if not images:
        return Picked(finding=f"vLLM {engine.version} has no image for {wish.device} in the catalogue: set vllm_image.")
    for image in images:
        if _driver_serves(image, driver, {**wish.model.env, **wish.env}):
            older = (
                f"The driver ({driver}) is too old for {images[0].image} ({images[0].min_driver}): {image.image} it is."
            )
            return Picked(image.image, warning=older if image is not images[0] else "")
    needs = " or ".join(f"{image.min_driver} ({image.image})" for image in images)
    compat = " or ".join(map(str, images[0].compat_branches))
    hint = f", or set {COMPAT}=1 in vllm_env on a data-centre GPU with driver branch {compat}" if compat else ""
    return Picked(finding=f"The NVIDIA driver is {driver}, and the image needs at least {needs}: upgrade it{hint}.")


def _cpu_tokens(wish: InstanceRequest, catalog: Catalog) -> int:
    space = {**wish.model.env, **wish.env}.get("VLLM_CPU_KVCACHE_SPACE", str(catalog.policy.cpu_kv_cache_gib))
    return int(int(space) * GIB // kv_bytes_per_token(wish.model.shapes, Parallel(), wish.kv_cache_dtype or "auto"))


def on_cpu_context(wish: InstanceRequest, catalog: Catalog) -> tuple[int, int]:
    """The context on the CPU, and the tokens of its KV cache, whose size is set and not what is left."""
    tokens = _cpu_tokens(wish, catalog)
    safe = int(tokens * (1 - catalog.policy.calibration_error))
    return wish.max_model_len or min(wish.model.context, safe), tokens


def _on_cpu(wish: InstanceRequest, port: int, image: str, catalog: Catalog) -> Settled:
    context, tokens = on_cpu_context(wish, catalog)
    return Settled(
        wish=wish,
        port=port,
        image=image,
        context=context,
        kv_tokens=tokens,
        weights_gib=weights_bytes(wish.model) / GIB,
        kv_dtype=wish.kv_cache_dtype or "auto",
    )


def _on_gpus(seat: Seat, port: int, image: str, warnings: tuple[str, ...]) -> Settled:
    choice = seat.choice
    return Settled(
        wish=seat.wish,
        port=port,
        image=image,
        context=choice.context,
        kv_tokens=choice.fit.kv_tokens * choice.replicas,
        weights_gib=choice.fit.weights_gib,
        spread=choice.spread,
        replicas=choice.replicas,
        indices=seat.indices,
        batched_tokens=choice.batched_tokens,
        kv_dtype=choice.kv_dtype,
        warnings=warnings,
    )


def _shorter(choice: Choice, seat: Seat) -> str:
    """What the default context gave up, and how to get it back."""
    full = seat.wish.model.context
    if seat.wish.max_model_len or choice.context >= full:
        return ""
    wider = [way for way in seat.options.fitting if way.context >= full]
    cure = f" {min(wider, key=lambda way: way.gpus)} would hold it (vllm_objective: context)." if wider else ""
    room = f"{choice.fit.kv_tokens} tokens of KV cache fit"
    return f"The context is {choice.context} of the model's {full}, since {room}.{cure}"


def _about(seat: Seat) -> tuple[str, ...]:
    """What to know about a choice that works."""
    choice, bench = seat.choice, seat.bench
    notes = [_shorter(choice, seat), weight_only(bench) or ""]
    if choice.kv_dtype.startswith("fp8") and not seat.wish.kv_cache_dtype:
        notes.append("The KV cache is kept in FP8 for the sake of the context: answers may differ slightly.")
    if choice.spread.tp > bench.group.spec.nvlink_domain:
        notes.append(f"{choice.spread} spans GPUs that no NVLink joins: each layer's exchange goes over PCIe.")
    return tuple(note for note in notes if note)


def _idle(host: Host, packing: Packing) -> list[str]:
    """GPUs that nobody got."""
    used = {index for seat in packing.seats for index in seat.indices}
    notes = []
    for group in host.groups if packing.seats else ():
        idle = [index for index in group.indices if index not in used]
        if idle:
            mixed = " An engine spans GPUs of one kind only." if len(host.groups) > 1 else ""
            notes.append(f"{numbered(idle)} ({group.name}) {'stays' if len(idle) == 1 else 'stay'} idle.{mixed}")
    return notes


def _too_long(wish: InstanceRequest, catalog: Catalog) -> list[str]:
    if wish.max_model_len is None:
        return []
    if wish.max_model_len > wish.model.context:
        return [
            f"{wish.name}: max_model_len {wish.max_model_len} is beyond the model's own context of "
            f"{wish.model.context}; set it to {wish.model.context} or less."
        ]
    if wish.device == "cpu" and wish.max_model_len > _cpu_tokens(wish, catalog):
        return [
            f"{wish.name}: a context of {wish.max_model_len} does not fit a KV cache of {_cpu_tokens(wish, catalog)} "
            "tokens; raise VLLM_CPU_KVCACHE_SPACE (GiB) in vllm_env."
        ]
    return []


def _smaller(wishes: Sequence[InstanceRequest], host: Host, advice: Advice) -> tuple[list[InstanceRequest], list[str]]:
    """Smaller weights where the asked-for ones do not fit and the user allows that."""
    taken, notes = [], []
    for wish in wishes:
        other = None
        if wish.weights == "smaller" and not any(advice.best(wish, group) for group in host.groups):
            other = smaller_that_fits(wish, host.groups, advice)
        if other:
            notes.append(
                f"{wish.name}: {weight_text(wish.model)} do not fit {host.title}, so {other.model.key} "
                f"({other.model.repo_id}, {weight_text(other.model)}) is served: answers may differ slightly."
            )
        taken.append(other or wish)
    return taken, notes


def _seated(
    request: Request, host: Host, advice: Advice, own: Mapping[str, tuple[int, ...]]
) -> tuple[Packing, list[str], list[str]]:
    """GPUs for everybody who wants some; what stands against it; what to know."""
    wishes = [wish for wish in request.instances if wish.device == "cuda"]
    if not wishes:
        return Packing(), [], []
    if not host.groups:
        return Packing(), [*host.blocked, *(no_gpus(wish, advice) for wish in wishes)], []
    wishes, notes = _smaller(wishes, host, advice)
    packing = pack(wishes, host.groups, advice.engine, advice.catalog.policy, own)
    problems = list(packing.pinned)
    problems += [does_not_fit(wish, host.groups, advice) for wish in packing.alone]
    problems += [not_together(packing.together, host, advice.catalog)] if packing.together else []
    return packing, [*(host.blocked if problems else ()), *problems], [*host.blocked, *notes, *_idle(host, packing)]


def _other_weights(seat: Seat, advice: Advice) -> list[Mapping[str, str]]:
    """The same model in smaller weights: faster or roomier, but not what was asked for."""
    found: list[Mapping[str, str]] = []
    for model in siblings(seat.wish.model, advice.catalog):
        best = advice.best(replace(seat.wish, model=model), seat.bench.group)
        if best:
            reason = (
                f"other weights than asked for ({weight_text(model)}); they would run as {best} with "
                f"{best.fit.kv_tokens * best.replicas} tokens of KV cache"
            )
            choice = f"model {model.key}"
            found.append({"instance": seat.wish.name, "choice": choice, "reason": reason, "gain": "roomier"})
    return found


def _rejected(seats: Sequence[Seat], advice: Advice) -> tuple[Mapping[str, str], ...]:
    ways: list[Mapping[str, str]] = []
    for seat in seats:
        for way in seat.options.rejected:
            ways.append({"instance": seat.wish.name, **asdict(way)})
        ways += _other_weights(seat, advice)
    return tuple(ways)


def _settled(
    request: Request, packing: Packing, images: Mapping[str, Picked], numbers: Mapping[str, int], catalog: Catalog
) -> list[Settled]:
    seats = {seat.wish.name: seat for seat in packing.seats}
    settled = []
    for wish in request.instances:
        port, image = numbers[wish.name], images[wish.name].image
        if wish.device == "cpu":
            settled.append(_on_cpu(wish, port, image, catalog))
        else:
            settled.append(_on_gpus(seats[wish.name], port, image, _about(seats[wish.name])))
    return settled


def _numbers(request: Request, here: Here) -> tuple[dict[str, int], list[str]]:
    """The ports, or what stands against them."""
    try:
        return ports(request, here.engines), []
    except ValueError as error:
        return {}, [str(error)]


def _own_gpus(here: Here, node: NodeGpus) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """The GPUs that each engine of the node has by their indices now, and a sentence for each that is gone."""
    index_of = {name: gpu.index for gpu in node.gpus if not gpu.lost for name in (gpu.uuid, str(gpu.index)) if name}
    own, gone = {}, []
    for engine in here.engines:
        own[engine.name] = tuple(index_of[name] for name in engine.gpus if name in index_of)
        lost = [name for name in engine.gpus if name not in index_of]
        if lost and any(gpu.uuid for gpu in node.gpus):
            which = "GPU" if len(lost) == 1 else "GPUs"
            listed = f"{which} {', '.join(lost)}"
            gone.append(f"{engine.name} ran on {listed}, which this node has lost: `nvidia-smi -L` lists the rest.")
    return own, gone


def _named(plan: Sequence[Instance], node: NodeGpus, here: Here) -> tuple[tuple[Instance, ...], list[str]]:
    """The instances with the UUIDs of their GPUs, where containers can have them by those; else why not."""
    uuids = {gpu.index: gpu.uuid for gpu in node.gpus}
    known = [one for one in plan if one.gpu_indices and all(uuids.get(index) for index in one.gpu_indices)]
    if known and not here.gpus_by_uuid:
        return tuple(plan), [
            "The CDI specification of this node names GPUs by index only, so the units do, too: after one is lost, an"
            " engine may get another's. nvidia-container-toolkit 1.15 and later name them by UUID: upgrade it."
        ]
    return tuple(
        replace(one, gpu_uuids=tuple(uuids[index] for index in one.gpu_indices)) if one in known else one
        for one in plan
    ), []


def _unique(sentences: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(sentence for sentence in sentences if sentence))


def _arguments(request: Request) -> tuple[list[str], list[str]]:
    """What is wrong with the options of vLLM that a user or a model brings, and what to know of them."""
    told = [check_args({**wish.model.vllm, **wish.extra_args}, request.engine_of(wish)) for wish in request.instances]
    return [finding for found, _notes in told for finding in found], [note for _found, notes in told for note in notes]


def _releases(request: Request, images: Mapping[str, Picked], catalog: Catalog) -> list[str]:
    """Which release of vLLM the images are of, where that is not what the plan was made with."""
    picked = [
        of_picked(images[wish.name].image, request.engine_of(wish), catalog)
        for wish in request.instances
        if not wish.image
    ]
    return [*request.notes, *picked]


def make_plan(request: Request, node: NodeGpus, catalog: Catalog, here: Here | None = None) -> Outcome:
    """Decide what runs where. Every reason against it is found, not only the first.

    ``here``: what the node has besides its GPUs. What serves keeps its port and its GPUs.
    """
    here = here or Here()
    names = {UNIT + wish.name for wish in request.instances}
    host = read_host(
        node, catalog, lambda owner: owner in names or (request.remove_unlisted and owner.startswith(UNIT))
    )
    advice = Advice(request.engine, catalog)
    own, gone = _own_gpus(here, node)
    numbers, no_port = _numbers(request, here)
    images = {wish.name: pick_image(wish, request.engine_of(wish), host.driver_version) for wish in request.instances}
    refused, noted = _arguments(request)
    too_long = [finding for wish in request.instances for finding in _too_long(wish, catalog)]
    packing, problems, notes = (Packing(), [], []) if too_long else _seated(request, host, advice, own)
    findings = [*request.findings, *no_port, *(picked.finding for picked in images.values())]
    # Where nobody knows the image's release, that is why an option of it may be refused.
    findings += [*refused, *(request.notes if refused else ()), *too_long, *problems]
    if any(findings):
        return Outcome(None, _unique([*findings, *(gone if problems else ())]))
    settled = _settled(request, packing, images, numbers, catalog)
    instances, unnamed = _named([instance(item, request, catalog.policy) for item in settled], node, here)
    warnings = [*host.warnings, *gone, *unnamed, *_releases(request, images, catalog)]
    warnings += [*(picked.warning for picked in images.values()), *notes, *noted]
    warnings += [f"{item.wish.name}: {note}" for item in settled for note in item.warnings]
    return Outcome(Plan(instances, _unique(warnings), _rejected(packing.seats, advice)))
