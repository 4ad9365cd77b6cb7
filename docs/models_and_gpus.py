# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write docs/models-and-gpus.md from the catalogue: python docs/models_and_gpus.py"""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
PAGE = CHECKOUT / "docs" / "models-and-gpus.md"
# Lets this be run from a checkout as it is.
runpy.run_path(str(CHECKOUT / "tests" / "unit" / "conftest.py"))

from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog import Catalog
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog_files import load_catalog
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.host import given_gpus, read_host
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.matrix import (
    Row,
    catalogue_hosts,
    cells,
    matrix,
    matrix_models,
)

# The sizes of hosts are those of catalog/gpus.yml.
HEAD = """# Models and GPUs

Made from `catalog/` by `make docs`; a test keeps it in step. vLLM {version}, objective
`throughput`, {utilization:.0%} of each GPU's memory. For your own hosts and models, or another objective:

    ansible-playbook playbooks/plan.yml -e gpus=4xH100
    ansible-playbook playbooks/plan.yml -i inventories/example

The memory model is within 1 % of what vLLM reported on real H100 and H200. What is offered as context stays
{error:.0%} under the predicted room.

## The fewest GPUs of one host

In brackets stands the context where the full one does not fit, with the host that has the most beside it; an empty cell
means that no host of this kind does.

"""
HOSTS = """
## Host by host

`TP` GPUs share each layer, `PP` stages divide the layers, replicas answer side by side. The KV cache is counted in
tokens over all replicas, the minutes are for a link of 1 Gbit/s.
"""


def line(values: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(values)} |\n"


def fewest(rows: list[Row], context: int) -> str:
    """The smallest host on which a model fits; where that cuts its context, the one with the most beside it."""
    fitting = [row for row in rows if row.fits]
    if not fitting:
        return ""
    roomiest = max(fitting, key=lambda row: row.max_model_len)  # the first, so the smallest, of equals
    shown = [fitting[0], roomiest] if roomiest.max_model_len > fitting[0].max_model_len else fitting[:1]
    cut = {row.host: f" ({row.max_model_len // 1024}k)" if row.max_model_len < context else "" for row in shown}
    return ", ".join(f"{row.host.split('x')[0]}{cut[row.host]}" for row in shown)


def glance(rows: list[Row], catalog: Catalog) -> Iterator[str]:
    kinds = [gpu for gpu in catalog.gpus.values() if gpu.matrix_counts]
    yield line(["", *(gpu.key for gpu in kinds)])
    yield line(["---"] * (len(kinds) + 1))
    for model in matrix_models(["all"], catalog):
        context = catalog.models[model].context
        mine = [[row for row in rows if row.model == model and row.host.split("x", 1)[1] == gpu.key] for gpu in kinds]
        yield line([f"`{model}`", *(fewest(found, context) for found in mine)])


def host_by_host(rows: list[Row], catalog: Catalog) -> Iterator[str]:
    for host in catalogue_hosts(catalog):
        count, key = host.split("x", 1)
        yield f"\n### {count}x {catalog.gpus[key].names[0]}\n\n"
        yield line(["model", "layout", "context", "KV cache", "download", "minutes"])
        yield line(["---"] * 6)
        for row in rows:
            if row.host == host:
                model, _host, _fits, layout, *numbers = cells(row)
                yield line([f"`{model}`", layout if row.fits else f"*no: {layout}*", *numbers])


def page() -> str:
    catalog = load_catalog()
    hosts = [(host, read_host(given_gpus(host, catalog), catalog)) for host in catalogue_hosts(catalog)]
    rows, _findings = matrix({"models": matrix_models(["all"], catalog)}, hosts, catalog, 1000)
    engine = catalog.engine(None)
    head = HEAD.format(
        version=engine.version,
        utilization=engine.gpu_memory_utilization,
        error=catalog.policy.calibration_error,
    )
    return head + "".join(glance(rows, catalog)) + HOSTS + "".join(host_by_host(rows, catalog))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
