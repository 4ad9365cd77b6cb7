# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Models x hosts: what fits and how, what does not and why, what must be downloaded; one by one, or side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ...module_utils.instance.serving import Here
from ...module_utils.programs.gpu import NodeGpus
from .catalog import Catalog
from .host import UNIT, Group, Host, read_host
from .instance import Instance
from .memory import Parallel, weights_bytes
from .messages import Advice, nodes_needed, short_why
from .placement import Seat, pack
from .plan import make_plan, on_cpu_context
from .request import InstanceRequest, read_request

#: Joining hosts of fewer GPUs is no advice: one larger host is.
WORTH_JOINING = 4
HEAD = ("model", "host", "fits", "layout", "context", "KV cache", "download", "minutes")


@dataclass(frozen=True)
class Row:
    """One model on one host: alone, or with GPUs by their indices where it is planned beside others."""

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

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as an action returns it."""
        return asdict(self)


@dataclass(frozen=True)
class Together:
    """What a host would serve side by side, and what that takes; or `findings`, which say why it cannot."""

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
        """Plain data, as an action returns it; the rows stand elsewhere."""
        return {key: value for key, value in asdict(self).items() if key != "rows"}


def catalogue_hosts(catalog: Catalog) -> list[str]:
    """The hosts that are worth a row: each GPU in the sizes in which it is sold."""
    return [f"{count}x{gpu.key}" for gpu in catalog.gpus.values() for count in gpu.matrix_counts]


def matrix_models(models: Sequence[Any], catalog: Catalog) -> list[Any]:
    """`all` stands for every model that is meant to be served."""
    named = [key for key, model in catalog.models.items() if model.in_matrix]
    return [item for model in models for item in (named if model == "all" else [model])]


def _minutes(size: int, bits_per_s: float) -> float:
    return round(size * 8 / bits_per_s / 60, 1)


def _seated(row: dict[str, Any], seat: Seat) -> Row:
    choice = seat.choice
    return Row(
        **row,
        fits=True,
        reason="",
        layout=str(choice),
        tensor_parallel_size=choice.spread.tp,
        pipeline_parallel_size=choice.spread.pp,
        data_parallel_size=choice.replicas,
        max_model_len=choice.context,
        kv_cache_tokens=choice.fit.kv_tokens * choice.replicas,
    )


def _nodes(wish: InstanceRequest, groups: Sequence[Group], advice: Advice) -> str:
    if len(groups[0].indices) < WORTH_JOINING:
        return ""
    found = nodes_needed(wish, groups[0], advice)
    return f"; {found[0]} such nodes would hold it ({found[1].spread})" if found else ""


def _row(wish: InstanceRequest, label: str, host: Host, advice: Advice, bits_per_s: float) -> Row:
    size = weights_bytes(wish.model)
    minutes = _minutes(size, bits_per_s)
    row: dict[str, Any] = {"model": wish.name, "host": label, "download_bytes": size, "download_minutes": minutes}
    if wish.device == "cpu":
        context, tokens = on_cpu_context(wish, advice.catalog)
        return Row(**row, fits=True, reason="", layout="CPU", max_model_len=context, kv_cache_tokens=tokens)
    if not host.groups:
        return Row(**row, fits=False, reason="no GPU that is free")
    packing = pack([wish], host.groups, advice.engine, advice.catalog.policy)
    if packing.seats:
        return _seated(row, packing.seats[0])
    reason = packing.pinned[0] if packing.pinned else short_why(wish, host.groups[0], advice)
    return Row(**row, fits=False, reason=reason + _nodes(wish, host.groups, advice))


def matrix(
    options: Mapping[str, Any], hosts: Iterable[tuple[str, Host]], catalog: Catalog, mbit_per_s: float
) -> tuple[list[Row], list[str]]:
    """A row for each model on each host; and what could not be read of the models."""
    request = read_request(options, catalog)
    wishes = sorted(request.instances, key=lambda wish: list(catalog.models).index(wish.model.key))
    advice = Advice(request.engine, catalog)
    rows = [_row(wish, label, host, advice, mbit_per_s * 1e6) for label, host in hosts for wish in wishes]
    return rows, list(request.findings)


def _count(number: int) -> str:
    """1014816 as 1014k: a column of tokens is read by its order."""
    return f"{number // 1000}k" if number >= 10000 else str(number)


def cells(row: Row) -> tuple[str, ...]:
    """A row as people read it."""
    gigabytes = f"{row.download_bytes / 1e9:.1f} GB"
    minutes = f"{row.download_minutes:.0f}" if row.download_minutes >= 1 else "<1"
    if not row.fits:
        return (row.model, row.host, "no", row.reason, "", "", gigabytes, minutes)
    tokens = _count(row.kv_cache_tokens)
    return (row.model, row.host, "yes", row.layout, str(row.max_model_len), tokens, gigabytes, minutes)


def _planned(one: Instance, label: str, bits_per_s: float) -> Row:
    layout = str(Parallel(one.tensor_parallel_size, one.pipeline_parallel_size))
    replicas = f" x {one.data_parallel_size} replicas" if one.data_parallel_size > 1 else ""
    return Row(
        model=one.name,
        host=label,
        fits=True,
        reason="",
        download_bytes=one.weights_bytes,
        download_minutes=_minutes(one.weights_bytes, bits_per_s),
        layout=f"{layout}{replicas}" if one.device == "cuda" else "CPU",
        tensor_parallel_size=one.tensor_parallel_size,
        pipeline_parallel_size=one.pipeline_parallel_size,
        data_parallel_size=one.data_parallel_size,
        max_model_len=one.max_model_len,
        kv_cache_tokens=one.kv_cache_tokens,
        gpu_indices=one.gpu_indices,
    )


def together(
    options: Mapping[str, Any], label: str, node: NodeGpus, here: Here, catalog: Catalog, mbit_per_s: float
) -> Together:
    """The plan that site.yml would make for this host. Weights of one revision, and an image, are counted once."""
    outcome = make_plan(read_request(options, catalog), node, catalog, here)
    title = read_host(node, catalog, lambda owner: owner.startswith(UNIT)).title
    if outcome.plan is None:
        return Together(label, title, len(node.gpus), findings=outcome.findings)
    found, bits_per_s, policy = outcome.plan.instances, mbit_per_s * 1e6, catalog.policy
    weights = sum({(one.repo_id, one.revision): one.weights_bytes for one in found}.values())
    images = {one.image: one.device for one in found}
    sent = sum(policy.image_download_bytes[device] for device in images.values())
    return Together(
        host=label,
        title=title,
        gpus=len(node.gpus),
        rows=tuple(_planned(one, label, bits_per_s) for one in found),
        images=tuple(images),
        download_bytes=weights,
        image_download_bytes=sent,
        image_disk_bytes=sum(policy.image_disk_bytes[device] for device in images.values()),
        download_minutes=_minutes(weights + sent, bits_per_s),
        notes=outcome.plan.warnings,
    )
