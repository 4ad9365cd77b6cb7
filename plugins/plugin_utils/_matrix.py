# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Models x hosts at a glance: what fits and how, what does not and why, what must be downloaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.gpunode.llm.plugins.plugin_utils._boards import Group, Host
from ansible_collections.gpunode.llm.plugins.plugin_utils._catalog import Catalog
from ansible_collections.gpunode.llm.plugins.plugin_utils._memory import weights_bytes
from ansible_collections.gpunode.llm.plugins.plugin_utils._pack import Seat, pack
from ansible_collections.gpunode.llm.plugins.plugin_utils._plan import on_cpu_context
from ansible_collections.gpunode.llm.plugins.plugin_utils._request import InstanceRequest, read_request
from ansible_collections.gpunode.llm.plugins.plugin_utils._words import Advice, nodes_needed, short_why

#: Joining hosts of fewer GPUs is no advice: one larger host is.
WORTH_JOINING = 4
HEAD = ("model", "host", "fits", "layout", "context", "KV cache", "download", "minutes")


@dataclass(frozen=True)
class Row:
    """One model on one host, alone."""

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

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as an action returns it."""
        return asdict(self)


def catalogue_hosts(catalog: Catalog) -> list[str]:
    """The hosts that are worth a row: each GPU in the sizes in which it is sold."""
    return [f"{count}x{gpu.key}" for gpu in catalog.gpus.values() for count in gpu.matrix_counts]


def matrix_models(models: Sequence[Any], catalog: Catalog) -> list[Any]:
    """`all` stands for every model that is meant to be served."""
    named = [key for key, model in catalog.models.items() if model.in_matrix]
    return [item for model in models for item in (named if model == "all" else [model])]


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
    return f"; {found[0]} such nodes would ({found[1].spread})" if found else ""


def _row(wish: InstanceRequest, label: str, host: Host, advice: Advice, bits_per_s: float) -> Row:
    size = weights_bytes(wish.model)
    minutes = round(size * 8 / bits_per_s / 60, 1)
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


def table(rows: Sequence[Row]) -> list[str]:
    """Lines for a terminal. A reason runs over the columns that it leaves empty."""
    lines = [HEAD, *(cells(row) for row in rows)]
    counted = [line for line in lines if line[2] != "no"]
    widths = [
        max(len(line[column]) for line in (lines if column in (0, 1, 6) else counted)) for column in range(len(HEAD))
    ]
    text = []
    for line in lines:
        if line[2] == "no":
            text.append("  ".join((line[0].ljust(widths[0]), line[1].ljust(widths[1]), "no".ljust(widths[2]), line[3])))
            continue
        left = [line[column].ljust(widths[column]) for column in range(4)]
        text.append("  ".join((*left, *(line[column].rjust(widths[column]) for column in range(4, len(HEAD))))))
    return text
