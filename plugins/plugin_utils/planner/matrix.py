# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which models fit which hosts, how, and what must be downloaded; alone or side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ...module_utils.instance.serving import NodeServing
from ...module_utils.programs.gpu import NodeGpus
from . import lora, presets, speculation
from .catalog import Catalog
from .host import UNIT, Group, Host, read_host
from .instance import Instance, to_download
from .memory import Parallel, weights_bytes
from .messages import Advice, nodes_needed, short_why
from .placement import Placement, pack
from .plan import arguments, make_plan, on_cpu_context, pick_image, too_long, too_new, with_cpu_preset
from .request import InstanceRequest, read_request
from .sharing import share_out

#: Only hosts with at least this many GPUs are suggested to be joined; below that, one larger host is better.
WORTH_JOINING = 4
HEAD = ("model", "host", "fits", "layout", "context", "KV cache", "download", "minutes")


@dataclass(frozen=True)
class Row:
    """One model on one host. `gpu_indices` is set if it is planned side by side with others."""

    model: str
    host: str
    fits: bool
    reason: str
    download_bytes: int
    download_minutes: float
    layout: str = ""
    tensor_parallel_size: int = 0
    pipeline_parallel_size: int = 0
    data_parallel_size: int = 0
    max_model_len: int = 0
    kv_cache_tokens: int = 0
    gpu_indices: tuple[int, ...] = ()
    #: How many such hosts an engine of it takes; 0 where it is not known.
    nodes: int = 1
    #: What `speculative: auto` would take, in words, where nothing proposes tokens.
    auto_draft: str = ""
    #: The preset that is taken, what it gains in words, and what faster weights would give, where they are not served.
    preset: str = ""
    preset_gain: str = ""
    faster_weights: str = ""
    #: What else the plan says of presets and weights, where the model is planned alone.
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as an action returns it."""
        return asdict(self)


@dataclass(frozen=True)
class Together:
    """Models side by side on one host and what they need; or `findings`, the reasons why they do not fit."""

    host: str
    title: str
    gpus: int
    rows: tuple[Row, ...] = ()
    images: tuple[str, ...] = ()
    download_bytes: int = 0
    image_download_bytes: int = 0
    image_disk_bytes: int = 0
    download_minutes: float = 0
    findings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as an action returns it, without the rows."""
        return {key: value for key, value in asdict(self).items() if key != "rows"}


def catalogue_hosts(catalog: Catalog) -> list[str]:
    """One host for each GPU type and each number of GPUs that it is sold in."""
    return [f"{count}x{gpu.key}" for gpu in catalog.gpus.values() for count in gpu.matrix_counts]


def matrix_models(models: Sequence[Any], catalog: Catalog) -> list[Any]:
    """Replace `all` with every model of the catalogue that belongs in the matrix."""
    named = [key for key, model in catalog.models.items() if model.in_matrix]
    return [item for model in models for item in (named if model == "all" else [model])]


def _minutes(size: int, bits_per_s: float) -> float:
    return round(size * 8 / bits_per_s / 60, 1)


def _fitting_row(row: dict[str, Any], placement: Placement) -> Row:
    choice = placement.choice
    return Row(
        **row,
        fits=True,
        reason="",
        layout=str(choice),
        tensor_parallel_size=choice.spread.tp,
        pipeline_parallel_size=choice.spread.pp,
        data_parallel_size=choice.replicas,
        nodes=choice.spread.nodes,
        max_model_len=choice.context,
        kv_cache_tokens=choice.fit.kv_tokens * choice.replicas,
        **_of_presets(placement.request),
    )


def _of_presets(request: InstanceRequest) -> dict[str, Any]:
    preset = request.preset
    taken = {"preset": preset.name, "preset_gain": preset.measured.gain} if preset else {}
    return {**taken, "faster_weights": request.faster}


def _nodes(request: InstanceRequest, groups: Sequence[Group], advice: Advice) -> tuple[int, str]:
    """How many such hosts would hold it, 0 for none, and in words."""
    if len(groups[0].indices) < WORTH_JOINING:
        return 0, ""
    needed = nodes_needed(request, groups[0], advice)
    if needed is None:
        return 0, ""
    return needed[0], f"; {needed[0]} such nodes would hold it ({replace(needed[1].spread, nodes=1)})"


def _refused(request: InstanceRequest, host: Host, advice: Advice) -> str:
    """What rules the model out on every GPU of this host, as the plan of it would say; empty if nothing does."""
    engine = request.engine or advice.engine
    found = [*too_long(request, advice.catalog), too_new(request, engine)]
    found.append(pick_image(request, engine, host.driver_version).finding)
    first = next(filter(None, found), "")
    return first.removeprefix(f"{request.name}: ").removesuffix(".")


def _shared_row(row: dict[str, Any], request: InstanceRequest, host: Host, advice: Advice) -> Row:
    """An engine with a share of one GPU."""
    shared = share_out([request], host.groups, advice.engine, advice.catalog.policy, {})
    if shared.placements:
        placement = shared.placements[0]
        return replace(_fitting_row(row, placement), layout=f"share {placement.request.gpu_share:g}")
    return Row(
        **row, fits=False, nodes=0, reason=shared.problems[0].removeprefix(f"{request.name}: ").removesuffix(".")
    )


def _common(request: InstanceRequest, label: str, bits_per_s: float) -> dict[str, Any]:
    """What a row has in any case."""
    beside = [*lora.fetched(request), speculation.fetched(request)]
    size = to_download(request.model.folder, weights_bytes(request.model), beside)
    row = {"model": request.name, "host": label, "download_bytes": size, "download_minutes": _minutes(size, bits_per_s)}
    return {**row, "auto_draft": speculation.offered(request)}


def _row(request: InstanceRequest, label: str, host: Host, advice: Advice, bits_per_s: float) -> Row:
    row = _common(request, label, bits_per_s)
    refused = _refused(request, host, advice)
    if refused:
        return Row(**row, fits=False, nodes=0, reason=refused)
    if request.device == "cpu":
        request, notes = with_cpu_preset(request, request.engine or advice.engine, advice.catalog)
        context, tokens = on_cpu_context(request, advice.catalog)
        figures: dict[str, Any] = {"max_model_len": context, "kv_cache_tokens": tokens, **_of_presets(request)}
        figures["notes"] = tuple(f"{request.name}: {note}" for note in notes)
        return Row(**row, fits=True, reason="", layout="CPU", **figures)
    if not host.groups:
        return Row(**row, fits=False, nodes=0, reason="no free GPU")
    if request.gpu_share is not None:
        return _shared_row(row, request, host, advice)
    packing = pack([request], host.groups, advice.engine, advice.catalog.policy)
    if packing.placements:
        (placement,), notes = presets.take(packing.placements, advice)
        return replace(_fitting_row(_common(placement.request, label, bits_per_s), placement), notes=tuple(notes))
    reason = packing.pinned[0] if packing.pinned else short_why(request, host.groups[0], advice)
    nodes, joined = _nodes(request, host.groups, advice)
    return Row(**row, fits=False, nodes=nodes, reason=reason + joined)


def matrix(
    options: Mapping[str, Any], hosts: Iterable[tuple[str, Host]], catalog: Catalog, mbit_per_s: float
) -> tuple[list[Row], list[str]]:
    """One row per model and host, and findings about models that could not be read."""
    host_request = read_request(options, catalog)
    requests = sorted(host_request.instances, key=lambda request: list(catalog.models).index(request.model.key))
    advice = Advice(host_request.engine, catalog)
    rows = [_row(request, label, host, advice, mbit_per_s * 1e6) for label, host in hosts for request in requests]
    refused = arguments(host_request)[0]
    # If the image's release is unknown, that may be why an option is refused.
    findings = [*host_request.findings, *refused, *(host_request.notes if refused else ())]
    return rows, list(dict.fromkeys(findings))


def _count(number: int) -> str:
    """Shorten large numbers: 1014816 becomes 1014k."""
    return f"{number // 1000}k" if number >= 10000 else str(number)


def cells(row: Row) -> tuple[str, ...]:
    """The row as table cells."""
    gigabytes = f"{row.download_bytes / 1e9:.1f} GB"
    minutes = f"{row.download_minutes:.0f}" if row.download_minutes >= 1 else "<1"
    if not row.fits:
        return (row.model, row.host, "no", row.reason, "", "", gigabytes, minutes)
    tokens = _count(row.kv_cache_tokens)
    return (row.model, row.host, "yes", row.layout, str(row.max_model_len), tokens, gigabytes, minutes)


def _layout_of(instance: Instance, spread: str) -> str:
    if instance.device == "cpu":
        return "CPU"
    return f"share {instance.gpu_share:g}" if instance.gpu_share else spread


def _planned_row(instance: Instance, label: str, bits_per_s: float) -> Row:
    nodes = instance.group.size if instance.group else 1
    layout = str(Parallel(instance.tensor_parallel_size, instance.pipeline_parallel_size, nodes))
    replicas = f" x {instance.data_parallel_size} replicas" if instance.data_parallel_size > 1 else ""
    return Row(
        model=instance.name,
        host=label,
        fits=True,
        reason="",
        download_bytes=instance.download_bytes,
        download_minutes=_minutes(instance.download_bytes, bits_per_s),
        layout=_layout_of(instance, f"{layout}{replicas}"),
        tensor_parallel_size=instance.tensor_parallel_size,
        pipeline_parallel_size=instance.pipeline_parallel_size,
        data_parallel_size=instance.data_parallel_size,
        max_model_len=instance.max_model_len,
        kv_cache_tokens=instance.kv_cache_tokens,
        gpu_indices=instance.gpu_indices,
        nodes=nodes,
        auto_draft=instance.auto_draft,
        preset=instance.preset,
        preset_gain=instance.preset_gain,
        faster_weights=instance.faster_weights,
    )


def together(
    options: Mapping[str, Any], label: str, node: NodeGpus, serving: NodeServing, catalog: Catalog, mbit_per_s: float
) -> Together:
    """The plan that site.yml would make for this host. Shared weights and images are counted once."""
    outcome = make_plan(read_request(options, catalog), node, catalog, serving)
    title = read_host(node, catalog, lambda owner: owner.startswith(UNIT)).title
    if outcome.plan is None:
        return Together(label, title, len(node.devices), findings=outcome.findings)
    planned, bits_per_s, policy = outcome.plan.instances, mbit_per_s * 1e6, catalog.policy
    weights = sum({(item.repo_id, item.revision): item.download_bytes for item in planned}.values())
    images = {item.image: item.device for item in planned}
    image_bytes = sum(policy.image_download_bytes[device] for device in images.values())
    return Together(
        host=label,
        title=title,
        gpus=len(node.devices),
        rows=tuple(_planned_row(instance, label, bits_per_s) for instance in planned),
        images=tuple(images),
        download_bytes=weights,
        image_download_bytes=image_bytes,
        image_disk_bytes=sum(policy.image_disk_bytes[device] for device in images.values()),
        download_minutes=_minutes(weights + image_bytes, bits_per_s),
        notes=outcome.plan.warnings,
    )
