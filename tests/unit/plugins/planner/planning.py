# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Short ways to a plan, for tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.gpunode.llm.plugins.module_utils.instance.serving import NodeServing
from ansible_collections.gpunode.llm.plugins.module_utils.programs.gpu import NodeGpus, parse
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog import Catalog
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog_files import HOME, load_catalog
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.host import given_gpus
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.instance import Instance
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.plan import Outcome, make_plan
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.request import read_request

FIXTURES = Path(__file__).resolve().parents[3] / "fixtures"
CATALOG = load_catalog()
#: The fields of config.json of each model in the catalogue.
CONFIGS: dict[str, Any] = {
    key: entry["config"]
    for key, entry in yaml.safe_load((HOME / "models.yml").read_text(encoding="utf-8"))["models"].items()
    if "config" in entry
}
#: A dense decoder of 8 billion parameters, as its config.json says it.
SHAPE: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}


def board(name: str, owner: str = "") -> NodeGpus:
    """A recorded or derived board; `owner`, the container of its processes."""
    xml = (FIXTURES / "nvidia_smi" / f"{name}.xml").read_text(encoding="utf-8")
    return parse(xml, lambda pid: owner)


def recorded(catalog: Catalog) -> Catalog:
    """The catalogue for figures of vLLM 0.26.0, whose second model runner does not take CUDA graphs off."""
    engines = {version: replace(engine, counts_graphs=False) for version, engine in catalog.engines.items()}
    return replace(catalog, engines=engines)


def outcome(gpus: Any, catalog: Catalog = CATALOG, serving: NodeServing | None = None, **options: Any) -> Outcome:
    """Plan for GPUs by description, or for a node."""
    node = gpus if isinstance(gpus, NodeGpus) else given_gpus(gpus, catalog)
    return make_plan(read_request(options, catalog), node, catalog, serving)


def instances(gpus: Any, catalog: Catalog = CATALOG, **options: Any) -> dict[str, Instance]:
    """The instances of a plan that must be there, by name."""
    made = outcome(gpus, catalog, **options)
    assert made.plan, made.findings
    return {instance.name: instance for instance in made.plan.instances}


def one(gpus: Any, catalog: Catalog = CATALOG, **options: Any) -> Instance:
    """The only instance of a plan that must be there."""
    (instance,) = instances(gpus, catalog, **options).values()
    return instance


def findings(gpus: Any, catalog: Catalog = CATALOG, **options: Any) -> str:
    """What stands against a plan that must not be there."""
    try:
        made = outcome(gpus, catalog, **options)
    except ValueError as error:  # the action makes a finding of it, too
        return str(error)
    assert made.plan is None
    assert made.findings
    return "\n".join(made.findings)


def warnings(gpus: Any, catalog: Catalog = CATALOG, **options: Any) -> str:
    """What a plan that must be there warns of."""
    made = outcome(gpus, catalog, **options)
    assert made.plan, made.findings
    return "\n".join(made.plan.warnings)
