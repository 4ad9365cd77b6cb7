# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write docs/models-and-gpus.md from the catalogue: python docs/models_and_gpus.py"""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
PAGE = CHECKOUT / "docs" / "models-and-gpus.md"
# Lets this be run from a checkout as it is.
runpy.run_path(str(CHECKOUT / "tests" / "unit" / "conftest.py"))

from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog import Catalog, ModelSpec
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog_files import load_catalog
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.host import given_gpus, read_host
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.matrix import Row, matrix
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.memory import weights_bytes

#: The boards that have a column, and how many of them one host has.
COLUMNS = ("l40s", "rtx-pro-6000", "a100-80", "h100", "h200", "b200")
COUNTS = (1, 2, 4, 8)
#: Smaller ones are shown by themselves, one in a host.
SMALL_MIB = 50_000
HEAD = """# Models and GPUs

How many GPUs of one host each model of the catalogue needs. For your own host or another objective, use the planner,
[in the browser](planner.md) or on the command line:

    ansible-playbook gpunode.llm.plan -e gpus=4xH100

For a model outside the catalogue, use the name of its repository: [`-e model=ORG/NAME`](guides/several-models.md).

`1 (34k), 2`: the model fits one GPU with a context of 34k tokens, and two GPUs with its full context. `2 nodes x 8`: no
host holds it, and one engine runs [over two nodes](guides/several-nodes.md) with eight GPUs each. `-`: four such nodes
do not hold it, or the GPUs cannot compute with it. The table covers hosts with {counts} GPUs, by their names in `gpus`.

`draft`: the method of [`vllm_speculative: auto`](guides/several-models.md#speculative-decoding); `mtp` uses layers of
the model itself. The table does not include its memory.

Made from `catalog/` by `make docs`, for vLLM {version} with {utilization:.0%} of each GPU's memory and the objective
`throughput`. The memory model is within 1 % of vLLM's figures on real H100 and H200. The context in the table
uses {error:.0%} less than the predicted room.
"""
ONE = """
## One smaller GPU

The models that fit one GPU of a workstation or of a small host; the context is in brackets if it is not the full one.

"""
#: What a family's titles begin with.
FAMILY = re.compile(r"[A-Za-z]+(-[a-z]+)?")


def line(values: Sequence[str]) -> str:
    return f"| {' | '.join(values)} |\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "".join([line(head), line(["---"] * len(head)), *map(line, rows)])


def thousands(tokens: int) -> str:
    """131072 tokens are 128k, as contexts are named."""
    return f"{tokens // 1024}k"


def families(catalog: Catalog) -> Iterator[tuple[str, list[ModelSpec]]]:
    """Each family with its models for GPUs, in the catalogue's order."""
    models = [model for model in catalog.models.values() if model.device == "cuda"]
    names = {model.key: FAMILY.match(model.title)[0] for model in models}
    order = list(dict.fromkeys(names.values()))
    models.sort(key=lambda model: order.index(names[model.key]))
    for name, members in groupby(models, lambda model: names[model.key]):
        yield name, list(members)


def count(row: Row) -> str:
    return row.host.partition("x")[0]


def fewest(rows: Sequence[Row], context: int) -> str:
    """The smallest host on which a model fits; where that cuts its context, the one with the most beside it."""
    fitting = [row for row in rows if row.fits]
    if not fitting:
        joined = [row for row in rows if row.nodes > 1]
        few = min(joined, key=lambda row: (row.nodes, int(count(row))), default=None)
        return f"{few.nodes} nodes x {count(few)}" if few else "-"
    roomiest = max(fitting, key=lambda row: row.max_model_len)  # the first, so the smallest, of equals
    shown = [fitting[0], roomiest] if roomiest.max_model_len > fitting[0].max_model_len else fitting[:1]
    return ", ".join(f"{count(row)}{cut(row, context)}" for row in shown)


def cut(row: Row, context: int) -> str:
    return f" ({thousands(row.max_model_len)})" if row.max_model_len < context else ""


def by_family(rows: Sequence[Row], catalog: Catalog) -> Iterator[str]:
    found = {(row.model, row.host): row for row in rows}
    for name, models in families(catalog):
        yield f"\n## {name}\n\n"
        cells = []
        for model in models:
            hosts = [[found[model.key, f"{n}x{key}"] for n in COUNTS] for key in COLUMNS]
            about = [f"`{model.key}`", model.title, f"{weights_bytes(model) / 1e9:.0f} GB", thousands(model.context)]
            tools = "yes" if model.tool_call_parser else ""
            draft = model.drafts[0].method if model.drafts else ""
            cells.append([*about, tools, draft, *(fewest(on, model.context) for on in hosts)])
        yield table(["model", "is", "weights", "context", "tools", "draft", *(f"`{key}`" for key in COLUMNS)], cells)
        drafts = {one.repo_id: one.source for model in models for one in model.drafts if one.repo_id}
        if drafts:
            yield f"\nDrafts: {', '.join(f'`{name}` ([source]({page}))' for name, page in drafts.items())}.\n"
        gated = [f"`{model.key}`" for model in models if model.gated]
        if gated:
            yield f"\nThe hub gives {', '.join(gated)} to those who have accepted the licence.\n"


def small(catalog: Catalog) -> list[str]:
    """The keys of the smaller boards that hosts have one of, and of those that share the host's memory."""
    one = [gpu for gpu in catalog.gpus.values() if 1 in gpu.matrix_counts and gpu.key not in COLUMNS]
    return [gpu.key for gpu in one if gpu.memory_mib < SMALL_MIB or gpu.unified]


def one_gpu(rows: Sequence[Row], catalog: Catalog) -> str:
    cells = []
    for key in small(catalog):
        fitting = [row for row in rows if row.fits and row.host == f"1x{key}"]
        names = [f"`{row.model}`{cut(row, catalog.models[row.model].context)}" for row in fitting]
        cells.append([f"`{key}`", ", ".join(names)])
    return table(["GPU", "holds"], cells)


def page() -> str:
    catalog = load_catalog()
    labels = [*(f"{n}x{key}" for key in COLUMNS for n in COUNTS), *(f"1x{key}" for key in small(catalog))]
    hosts = [(label, read_host(given_gpus(label, catalog), catalog)) for label in labels]
    models = [model.key for _name, members in families(catalog) for model in members]
    rows, _findings = matrix({"models": models}, hosts, catalog, 1000)
    engine = catalog.engine(None)
    head = HEAD.format(
        version=engine.version,
        utilization=engine.gpu_memory_utilization,
        error=catalog.policy.calibration_error,
        counts=f"{', '.join(map(str, COUNTS[:-1]))} or {COUNTS[-1]}",
    )
    return head + "".join(by_family(rows, catalog)) + ONE + one_gpu(rows, catalog)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
