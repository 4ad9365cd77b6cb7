# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide what a host runs, from models, GPUs and an engine release. Arithmetic and rules only: no input or output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ...module_utils.instance.serving import NodeServing
from ...module_utils.programs.gpu import NodeGpus, label
from . import group as node_group, host_cache, presets
from .catalog import Catalog, EngineSpec, Image, version_key
from .flags import check_args
from .host import UNIT, Host, numbered, read_host
from .instance import Decision, Instance, instance
from .kv_cache import Layout, Setting
from .lora import note as lora_note
from .memory import GIB, Experts, Parallel, shaped_bytes, stages, weights_by_stage, weights_bytes
from .messages import Advice, does_not_fit, no_gpus, not_together, siblings, smaller_that_fits, weight_text
from .placement import Packing, Placement, pack, without
from .ports import ports
from .release import catalog_image_note
from .request import HostRequest, InstanceRequest
from .rope import farthest
from .sharing import share_out, starts_after
from .spread import BFLOAT16, Candidate, Choice, experts_of, half_precision, layouts, weight_only
from .taken import problems as taken

COMPAT = "VLLM_ENABLE_CUDA_COMPATIBILITY"
#: By how much the weights' files may differ from what the shapes say, before the plan tells.
WEIGHTS_DIFFER = 0.02


@dataclass(frozen=True)
class Plan:
    """The instances of a host, warnings about them, and the options that were rejected, with reasons."""

    instances: tuple[Instance, ...]
    warnings: tuple[str, ...] = ()
    rejected: tuple[Mapping[str, str], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as an action returns it."""
        plain: dict[str, Any] = asdict(self)
        return plain


@dataclass(frozen=True)
class Outcome:
    """A plan, or findings that say why there is none."""

    plan: Plan | None
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageChoice:
    """The image for an instance, or the finding that rules out every image."""

    image: str = ""
    finding: str = ""
    warning: str = ""


def _driver_supports(image: Image, driver: str, env: Mapping[str, str]) -> bool:
    if not driver or not image.min_driver or version_key(driver) >= version_key(image.min_driver):
        return True
    return env.get(COMPAT) == "1" and version_key(driver)[0] in image.compat_branches


def pick_image(request: InstanceRequest, engine: EngineSpec, driver: str) -> ImageChoice:
    """The release's first image that the driver supports. An image outside the catalogue is used unchecked."""
    images = [image for image in engine.images if image.device == request.device]
    if request.image:
        images = [image for image in images if image.image == request.image] or [Image(request.image, request.device)]
    if not images:
        return ImageChoice(
            finding=f"vLLM {engine.version} has no image for {request.device} in the catalogue: set vllm_image."
        )
    for image in images:
        if _driver_supports(image, driver, request.variables):
            fallback = (
                f"The driver ({driver}) is too old for {images[0].image} ({images[0].min_driver}): using {image.image}."
            )
            return ImageChoice(image.image, warning=fallback if image is not images[0] else "")
    needs = " or ".join(f"{image.min_driver} ({image.image})" for image in images)
    compat = " or ".join(map(str, images[0].compat_branches))
    hint = f", or set {COMPAT}=1 in vllm_env on a data-centre GPU with driver branch {compat}" if compat else ""
    return ImageChoice(
        finding=f"The NVIDIA driver is {driver}, and the image needs at least {needs}: upgrade it{hint}."
    )


def _cpu_space_gib(request: InstanceRequest, catalog: Catalog) -> int:
    space = request.variables.get("VLLM_CPU_KVCACHE_SPACE")
    return int(space or catalog.policy.cpu_kv_cache_gib)


def _cpu_layout(request: InstanceRequest) -> Layout:
    fp8 = (request.kv_cache_dtype or "auto").startswith("fp8")
    setting = Setting(fp8=fp8, hybrid_manager=False, prefix_caching=False)
    spread, model = _cpu_spread(request), request.cached_model
    if spread.pp == 1:
        return model.layout(setting)
    each = stages(model.sized.layers, spread.pp, spread.cut)
    return max((model.layout(replace(setting, layers=stage)) for stage in each), key=lambda layout: layout.token_bytes)


def _cpu_spread(request: InstanceRequest) -> Parallel:
    """A stage on each node."""
    nodes = request.nodes or 1
    return Parallel(1, nodes, nodes, node_group.cut_of(request.variables) if nodes > 1 else ())


def _cpu_tokens(request: InstanceRequest, catalog: Catalog) -> int:
    size = _cpu_layout(request).token_bytes
    return int(_cpu_space_gib(request, catalog) * GIB // size) if size else request.model.context


def on_cpu_context(request: InstanceRequest, catalog: Catalog) -> tuple[int, int]:
    """Context and KV-cache tokens on the CPU, where the KV cache has a fixed size."""
    tokens = _cpu_tokens(request, catalog)
    safe = int(tokens * (1 - catalog.policy.calibration_error))
    return request.max_model_len or min(request.model.context, safe), tokens


def with_cpu_preset(
    request: InstanceRequest, engine: EngineSpec, catalog: Catalog
) -> tuple[InstanceRequest, list[str]]:
    """The request of an engine on the CPU with the preset that matches, and notes."""
    return presets.on_cpu(request, engine, catalog, lambda one: on_cpu_context(one, catalog)[0])


def _on_cpu(
    request: InstanceRequest, port: int, image: str, engine: EngineSpec, catalog: Catalog, order: int
) -> Decision:
    request, notes = with_cpu_preset(request, engine, catalog)
    context, tokens = on_cpu_context(request, catalog)
    spread = _cpu_spread(request)
    joined = node_group.joined(request, spread, order, context)
    return Decision(
        request=request,
        port=port,
        image=image,
        context=context,
        kv_tokens=tokens,
        spread=spread,
        group=joined,
        weights_gib=max(weights_by_stage(request.model, spread, Experts())),
        kv_gib=_cpu_space_gib(request, catalog),
        request_bytes=_cpu_layout(request).request_bytes(context),
        kv_dtype=request.kv_cache_dtype or "auto",
        warnings=tuple(filter(None, (*notes, node_group.note(joined, spread)))),
    )


def _on_gpus(placement: Placement, port: int, image: str, order: int) -> Decision:
    choice, candidate = placement.choice, placement.candidate
    step = choice.batched_tokens or candidate.default_step
    each = layouts(candidate, choice.spread, choice.kv_dtype, step)
    joined = node_group.joined(placement.request, choice.spread, order, step)
    link = node_group.note(joined, choice.spread)
    return Decision(
        request=placement.request,
        port=port,
        image=image,
        context=choice.context,
        kv_tokens=choice.fit.kv_tokens * choice.replicas,
        weights_gib=choice.fit.weights_gib,
        kv_gib=choice.fit.kv_gib,
        request_bytes=max(layout.request_bytes(choice.context) for layout in each),
        spread=choice.spread,
        replicas=choice.replicas,
        indices=placement.indices,
        batched_tokens=choice.batched_tokens,
        sequences=choice.sequences,
        kv_dtype=choice.kv_dtype,
        utilization=candidate.utilization,
        dtype="" if candidate.group.has(BFLOAT16) else "half",
        group=joined,
        warnings=(*_notes(placement), *([link] if link else [])),
    )


def _context_note(choice: Choice, placement: Placement) -> str:
    """A note if the context is shorter than the model's, and how to get it all."""
    full = placement.request.model.context
    if placement.request.max_model_len or choice.context >= full:
        return ""
    wider = [way for way in placement.options.fitting if way.context >= full]
    remedy = f" {min(wider, key=lambda way: way.gpus)} would hold it (vllm_objective: context)." if wider else ""
    held = choice.fit.kv_tokens
    room = f"{held} tokens of KV cache fit, and {held - choice.context} stay free as a margin"
    return f"The context is {choice.context} of the model's {full}: {room}.{remedy}"


def _stretched(request: InstanceRequest) -> str:
    """A note if YaRN makes the context longer than config.json's."""
    if not request.stretched:
        return ""
    parameters = (request.stretched.get("text_config") or request.stretched)["rope_parameters"]
    return (
        f"The context of {request.max_model_len} is beyond config.json's: YaRN with a factor of "
        f"{parameters['factor']:g} over {parameters['original_max_position_embeddings']} (hf-overrides) makes it so, "
        "and may cost quality on short prompts."
    )


def _longer_by_rope(request: InstanceRequest) -> str:
    """A note if the model can take a longer context than vLLM gives it by itself."""
    longest, context = request.model.sized.longest, request.model.context
    if request.max_model_len or request.model.max_model_len or longest <= context:
        return ""
    return (
        f"The context is {context}, as vLLM has it; the model takes up to {longest} (vllm_max_model_len), at some cost "
        "to answers to short prompts (LongRoPE)."
    )


def _beside_host(candidate: Candidate) -> str:
    """A note if the GPU's memory is the host's."""
    group = candidate.group
    if not group.spec.unified:
        return ""
    return (
        f"The memory of {group.name} is the host's ({group.total_gib:.1f} GiB): the engine takes "
        f"{candidate.utilization:g} of it, and {group.total_gib * (1 - candidate.utilization):.1f} GiB stay for the "
        "system."
    )


def _left_to_engine(request: InstanceRequest) -> str:
    """A note if the engine decides the context."""
    if not request.engine_decides_context:
        return ""
    return (
        f"The engine decides the context at its start, up to {request.model.context}, so its KV cache is not planned. "
        'Its log shows the size ("GPU KV cache size").'
    )


def _notes(placement: Placement) -> tuple[str, ...]:
    """Notes about a layout that fits."""
    choice, candidate = placement.choice, placement.candidate
    notes = [_context_note(choice, placement), weight_only(candidate) or "", half_precision(candidate) or ""]
    if choice.sequences:
        notes.append(
            f"At most {choice.sequences} requests run at once (max-num-seqs): the KV cache has room for no more states."
        )
    notes += [_stretched(placement.request), _left_to_engine(placement.request), _longer_by_rope(placement.request)]
    notes.append(_beside_host(candidate))
    notes.append(lora_note(placement.request, choice.spread, experts_of(candidate, choice.spread, choice.replicas)))
    if choice.kv_dtype.startswith("fp8") and not placement.request.kv_cache_dtype:
        notes.append("The KV cache is in FP8 to make room for the context: answers may differ slightly.")
    if choice.spread.tp > candidate.group.spec.nvlink_domain:
        notes.append(f"{choice.spread} spans GPUs without NVLink between them: each layer's exchange goes over PCIe.")
    return tuple(note for note in notes if note)


def _idle(host: Host, packing: Packing) -> list[str]:
    """Notes about free GPUs that no instance uses."""
    used = {index for placement in packing.placements for index in placement.indices}
    notes = []
    for group in host.groups if packing.placements else ():
        idle = [index for index in group.indices if index not in used]
        if idle:
            mixed = " An engine can use GPUs of one type only." if len(host.groups) > 1 else ""
            notes.append(f"{numbered(idle)} ({group.name}) {'stays' if len(idle) == 1 else 'stay'} idle.{mixed}")
    return notes


def too_new(request: InstanceRequest, engine: EngineSpec) -> str:
    """A finding if the release does not serve the architecture yet; empty if it does."""
    sized = request.model.sized
    since = max((sized.since, request.model.since), key=version_key)
    if engine.unplanned or version_key(engine.version) >= version_key(since):
        return ""
    return f"{request.name}: vLLM {engine.version} does not serve {sized.name}, but {since} does (vllm_engine)."


def too_long(request: InstanceRequest, catalog: Catalog) -> list[str]:
    """A finding if the context is beyond the model's, or beyond a cache in the host's memory."""
    if request.max_model_len is None:
        return []
    context, most = request.model.context, farthest(request.model.sized)
    if request.max_model_len > context:
        longer = most if most > context and not request.model.max_model_len else context
        by_yarn = f", or up to {longer} with YaRN" if longer > context else ""
        return [
            f"{request.name}: max_model_len {request.max_model_len} exceeds the model's context of "
            f"{context}; set it to {context} or less{by_yarn}."
        ]
    if request.device == "cpu" and request.max_model_len > _cpu_tokens(request, catalog):
        return [
            f"{request.name}: a context of {request.max_model_len} does not fit a KV cache of "
            f"{_cpu_tokens(request, catalog)} tokens; raise VLLM_CPU_KVCACHE_SPACE (GiB) in vllm_env."
        ]
    return []


def _smaller(
    requests: Sequence[InstanceRequest], host: Host, advice: Advice
) -> tuple[list[InstanceRequest], list[str]]:
    """Replace weights that do not fit by smaller ones if the user allows it; and notes about it."""
    chosen, notes = [], []
    for request in requests:
        other = None
        if request.weights == "smaller" and not any(advice.best(request, group) for group in host.groups):
            other = smaller_that_fits(request, host.groups, advice)
        if other:
            notes.append(
                f"{request.name}: {weight_text(request.model)} do not fit {host.title}; serving {other.model.key} "
                f"({other.model.repo_id}, {weight_text(other.model)}) instead: answers may differ slightly."
            )
        chosen.append(other or request)
    return chosen, notes


def _over_nodes(
    requests: Sequence[InstanceRequest], host: Host, advice: Advice
) -> tuple[list[InstanceRequest], list[str]]:
    """Decide over how many nodes an engine runs that one node is too small for; and findings about groups."""
    chosen, problems = [], []
    for request in requests:
        request = request if request.nodes else _nodes_needed(request, host, advice)
        chosen.append(request)
        problems += node_group.not_full(request)
    return chosen, problems


def _nodes_needed(request: InstanceRequest, host: Host, advice: Advice) -> InstanceRequest:
    """The request over the fewest nodes of its group that it fits, where it does not fit this one."""
    groups = host.groups if request.device == "cuda" else ()
    if not groups or node_group.available(request) == 1 or any(advice.best(request, group) for group in groups):
        return request
    for count in range(2, node_group.available(request) + 1):
        wider = replace(request, nodes=count, nodes_decided=True)
        if not node_group.problems(wider) and any(advice.best(wider, group) for group in groups):
            return wider
    return request


def _place(
    host_request: HostRequest, host: Host, advice: Advice, current: Mapping[str, tuple[int, ...]]
) -> tuple[Packing, list[str], list[str]]:
    """Place all instances that need GPUs. Returns the packing, findings and notes."""
    # Who wants a share of one GPU and several of them has a finding, to which a place would add nothing.
    requests = [
        request for request in host_request.instances if request.device == "cuda" and not request.shares_several
    ]
    if not requests:
        return Packing(), [], []
    if not host.groups:
        return Packing(), [*host.blocked, *(no_gpus(request, advice) for request in requests)], []
    requests, notes = _smaller(requests, host, advice)
    requests, partial = _over_nodes(requests, host, advice)
    shared = share_out(requests, host.groups, advice.engine, advice.catalog.policy, current)
    groups = without(host.groups, shared.indices)
    whole = [request for request in requests if request.gpu_share is None]
    packing = pack(whole, groups, advice.engine, advice.catalog.policy, current) if groups else Packing()
    problems = [*partial, *shared.problems, *packing.pinned]
    problems += [
        f"{request.name} wants whole GPUs, and all of this host are shared ({host.title}): give it a gpu_share, too."
        for request in whole
        if not groups
    ]
    problems += [does_not_fit(request, groups, advice) for request in packing.alone]
    problems += [not_together(packing.together, host, advice.catalog)] if packing.together else []
    placements, said = presets.take((*packing.placements, *shared.placements), advice)
    packing = replace(packing, placements=placements)
    notes = [*host.blocked, *notes, *_idle(host, packing), *said]
    return packing, [*(host.blocked if problems else ()), *problems], notes


def _other_weights(placement: Placement, advice: Advice) -> list[Mapping[str, str]]:
    """Rejected options with smaller weights, which were not requested."""
    rejected: list[Mapping[str, str]] = []
    for model in siblings(placement.request.model, advice.catalog):
        request, group = replace(placement.request, model=model), placement.candidate.group
        # Where one node is too small for the weights that were named, it may not be for others.
        alone = replace(request, nodes=None) if request.nodes_decided else request
        best = advice.best(alone, group) or advice.best(request, group)
        if best:
            reason = (
                f"other weights than requested ({weight_text(model)}); they would run as {best} with "
                f"{best.fit.kv_tokens * best.replicas} tokens of KV cache"
            )
            choice = f"model {model.key}"
            gain = "roomier" if best.spread.nodes == placement.choice.spread.nodes else "on one node"
            rejected.append({"instance": placement.request.name, "choice": choice, "reason": reason, "gain": gain})
    return rejected


def _rejected(placements: Sequence[Placement], advice: Advice) -> tuple[Mapping[str, str], ...]:
    ways: list[Mapping[str, str]] = []
    for placement in placements:
        for way in placement.options.rejected:
            ways.append({"instance": placement.request.name, **asdict(way)})
        ways += _other_weights(placement, advice)
    return tuple(ways)


def _decisions(
    host_request: HostRequest,
    packing: Packing,
    images: Mapping[str, ImageChoice],
    port_of: Mapping[str, int],
    catalog: Catalog,
) -> list[Decision]:
    placements = {placement.request.name: placement for placement in packing.placements}
    before = starts_after(packing.placements)
    decisions: list[Decision] = []
    for request in host_request.instances:
        port, image = port_of[request.name], images[request.name].image
        order = sum(decision.group is not None for decision in decisions)
        if request.device == "cpu":
            engine = host_request.engine_of(request)
            decisions.append(_on_cpu(request, port, image, engine, catalog, order))
        else:
            made = _on_gpus(placements[request.name], port, image, order)
            decisions.append(replace(made, starts_after=before.get(request.name, ())))
    return decisions


def _cpu_groups(host_request: HostRequest) -> list[str]:
    """Findings about engines on the CPU over several nodes."""
    found = []
    for request in host_request.instances:
        if request.device == "cpu" and (request.nodes or 1) > 1:
            why = node_group.stage_problem(request, _cpu_spread(request))
            found += [f"{request.name}: {why}."] if why else node_group.not_full(request)
    return found


def _ports(host_request: HostRequest, serving: NodeServing) -> tuple[dict[str, int], list[str]]:
    """The ports by instance, or a finding."""
    try:
        return ports(host_request, serving.engines), []
    except ValueError as error:
        return {}, [str(error)]


def _current_gpus(serving: NodeServing, node: NodeGpus) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """GPU indices by engine of the node, and a note for each GPU that is gone."""
    index_of = {
        name: gpu.index for gpu in node.devices if not gpu.lost for name in (gpu.uuid, label(gpu.index)) if name
    }
    current, gone = {}, []
    for engine in serving.engines:
        current[engine.name] = tuple(index_of[name] for name in engine.gpus if name in index_of)
        lost = [name for name in engine.gpus if name not in index_of]
        if lost and any(gpu.uuid for gpu in node.gpus):
            which = "GPU" if len(lost) == 1 else "GPUs"
            listed = f"{which} {', '.join(lost)}"
            gone.append(f"{engine.name} ran on {listed}, which this node has lost: `nvidia-smi -L` lists the others.")
    return current, gone


def _with_uuids(
    plan: Sequence[Instance], node: NodeGpus, serving: NodeServing
) -> tuple[tuple[Instance, ...], list[str]]:
    """Add GPU UUIDs to the instances if containers can request GPUs by UUID; else a note says why not."""
    uuids = {gpu.index: gpu.uuid for gpu in node.devices}
    known = [item for item in plan if item.gpu_indices and all(uuids.get(index) for index in item.gpu_indices)]
    if known and not serving.gpus_by_uuid:
        return tuple(plan), [
            "The CDI specification of this node names GPUs by index only, so the units do, too: after a GPU is lost, an"
            " engine may get the GPU of another. Upgrade nvidia-container-toolkit to 1.15 or later, which names UUIDs."
        ]
    return tuple(
        replace(item, gpu_uuids=tuple(uuids[index] for index in item.gpu_indices)) if item in known else item
        for item in plan
    ), []


def _unique(sentences: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(sentence for sentence in sentences if sentence))


def arguments(host_request: HostRequest) -> tuple[list[str], list[str]]:
    """Findings and notes about vLLM options from users and models."""
    checked = [
        check_args({**request.model.vllm, **request.extra_args}, host_request.engine_of(request))
        for request in host_request.instances
    ]
    return (
        [finding for findings, _notes in checked for finding in findings],
        [note for _findings, notes in checked for note in notes],
    )


def _size_note(request: InstanceRequest) -> str:
    """A note if the weights by their files and by the shapes differ by more than the two ever did."""
    files, shapes = weights_bytes(request.model), shaped_bytes(request.model)
    if abs(files - shapes) <= WEIGHTS_DIFFER * shapes:
        return ""
    return (
        f"{request.name}: the files of its weights have {files / GIB:.2f} GiB, and by the shapes in its config.json"
        f" they would have {shapes / GIB:.2f} GiB. The plan takes the files for the download and the disk, and the"
        " shapes, as the engine loads them, for the GPUs."
    )


def _with_host_cache(
    decisions: Sequence[Decision], packing: Packing, host_request: HostRequest, node: NodeGpus, catalog: Catalog
) -> tuple[list[Decision], host_cache.Shares]:
    """The decisions with their shares of the host's memory."""
    unified = {placement.request.name: placement.candidate.group.spec.unified for placement in packing.placements}
    requests = [
        (decision.request, host_request.engine_of(decision.request), unified.get(decision.request.name, False))
        for decision in decisions
    ]
    # Over how many nodes it runs may have been decided since the request was read.
    refused = [finding for request, engine, _unified in requests for finding in host_cache.problems(request, engine)]
    if refused:
        return list(decisions), host_cache.Shares({}, tuple(refused))
    found = host_cache.shares(requests, node.host_memory_mib, catalog)
    return [replace(decision, kv_host_gib=found.gib.get(decision.request.name, 0)) for decision in decisions], found


def _waits(instances: Sequence[Instance]) -> list[Instance]:
    """An engine that starts after others on its GPU has their time, too."""
    own = {item.name: item.start_timeout_s for item in instances}
    return [
        replace(item, start_timeout_s=item.start_timeout_s + sum(own[name] for name in item.starts_after))
        for item in instances
    ]


def _releases(host_request: HostRequest, images: Mapping[str, ImageChoice], catalog: Catalog) -> list[str]:
    """Notes about images whose vLLM release differs from the one that the plan assumes."""
    mismatches = [
        catalog_image_note(images[request.name].image, host_request.engine_of(request), catalog)
        for request in host_request.instances
        if not request.image
    ]
    return [*host_request.notes, *mismatches]


def _utilization(host_request: HostRequest) -> float | None:
    """The largest share of a GPU that the user gives engines; None where one of them has none."""
    given = [item.gpu_memory_utilization for item in host_request.instances if item.device == "cuda"]
    known = [share for share in given if share is not None]
    return max(known) if known and len(known) == len(given) else None


def _host(host_request: HostRequest, node: NodeGpus, catalog: Catalog) -> Host:
    """The node's GPUs. The engines that this plan replaces or removes do not count as other users of them."""
    names = {UNIT + request.name for request in host_request.instances}
    return read_host(
        node,
        catalog,
        lambda owner: owner in names or (host_request.remove_unlisted and owner.startswith(UNIT)),
        _utilization(host_request),
    )


def _images(host_request: HostRequest, driver_version: str) -> dict[str, ImageChoice]:
    """The image of each instance, by the instance's name."""
    return {
        request.name: pick_image(request, host_request.engine_of(request), driver_version)
        for request in host_request.instances
    }


def _host_cache_notes(decisions: Sequence[Decision]) -> list[str]:
    """A note for each instance that keeps KV cache in the host's memory."""
    return [
        host_cache.note(decision.request.name, decision.kv_host_gib, decision.replicas)
        for decision in decisions
        if decision.kv_host_gib
    ]


def make_plan(
    host_request: HostRequest, node: NodeGpus, catalog: Catalog, serving: NodeServing | None = None
) -> Outcome:
    """Decide what runs on which GPUs; or return all findings, not only the first.

    ``serving``: the engines that the node has already. They keep their ports and GPUs.
    """
    serving = serving or NodeServing()
    host = _host(host_request, node, catalog)
    advice = Advice(host_request.engine, catalog)
    current, gone = _current_gpus(serving, node)
    port_of, no_port = _ports(host_request, serving)
    images = _images(host_request, host.driver_version)
    arg_findings, arg_notes = arguments(host_request)
    overlong = [finding for request in host_request.instances for finding in too_long(request, catalog)]
    packing, problems, notes = (Packing(), [], []) if overlong else _place(host_request, host, advice, current)
    findings = [*host_request.findings, *no_port, *(picked.finding for picked in images.values())]
    # If the image's release is unknown, that may be why an option is refused: add the note about it.
    findings += [*arg_findings, *(host_request.notes if arg_findings else ()), *overlong, *problems]
    findings += _cpu_groups(host_request)
    findings += [too_new(request, host_request.engine_of(request)) for request in host_request.instances]
    findings += taken(host_request, {engine.name: engine.model for engine in serving.engines}, catalog)
    if any(findings):
        return Outcome(None, _unique([*findings, *(gone if problems else ())]))
    decisions = _decisions(host_request, packing, images, port_of, catalog)
    decisions, in_host = _with_host_cache(decisions, packing, host_request, node, catalog)
    if in_host.findings:
        return Outcome(None, in_host.findings)
    instances, unnamed = _with_uuids(
        _waits([instance(item, host_request, catalog.policy) for item in decisions]), node, serving
    )
    warnings = [*host.warnings, *gone, *unnamed, *_releases(host_request, images, catalog)]
    warnings += [_size_note(item.request) for item in decisions]
    warnings += [*(picked.warning for picked in images.values()), *notes, *arg_notes]
    warnings += [f"{item.request.name}: {note}" for item in decisions for note in item.warnings]
    warnings += [*in_host.notes, *_host_cache_notes(decisions)]
    return Outcome(Plan(instances, _unique(warnings), _rejected(packing.placements, advice)))
