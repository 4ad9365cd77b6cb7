# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine's own figures beside the plan's: what is asked of an image, and what its answers say.

The engine counts for the GPUs that it sees. So an image is asked where these are, and for a described host only about
engines on the CPU.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...module_utils.instance.names import MODEL_TARGET
from ...module_utils.instance.serving import NodeServing
from ...module_utils.programs.gpu import NodeGpus, label
from .catalog import Catalog
from .instance import Instance
from .memory import GIB
from .plan import make_plan
from .request import read_request

#: The module that asks an image.
MODULE = "gpunode.llm.vllm_figures_info"
#: Options that the engine is not asked with, since there is nothing of the repository but its config.json.
LEFT_OUT = ("revision", "speculative-config", "tokenizer", "chat-template")
DEVICES = {"cpu": "a CPU", "cuda": "GPUs"}
#: A host's label, its GPUs and the instances that it serves.
Place = tuple[str, NodeGpus, NodeServing]
#: Asks images in one call: the options of the module's units, and its answers in the same order.
Ask = Callable[[list[dict[str, Any]]], Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class Planned:
    """An engine of a plan, on the host of this label. ``elsewhere``: the host is only described."""

    host: str
    instance: Instance
    elsewhere: bool = False

    @property
    def hindrance(self) -> str:
        """Why no image can be asked about it, whatever its config.json says; empty if one can."""
        if self.elsewhere and self.instance.device != "cpu":
            return f"{self.host} is only described, and an engine counts for the GPUs that it sees: plan on such a node"
        return "its draft is a second model, which is not built with it" if self.instance.draft else ""


@dataclass(frozen=True)
class Compared:
    """What the engine counts on one GPU for what is planned; or ``cannot``, why it could not be asked."""

    planned: Planned
    cannot: str = ""
    weights_gib: float = 0.0
    request_bytes: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as a row of the comparison of models has it."""
        instance = self.planned.instance
        if self.cannot:
            return {"image": instance.image, "cannot": self.cannot}
        return {
            "image": instance.image,
            "weights_gib": round(self.weights_gib, 2),
            "planned_weights_gib": instance.weights_gib_per_gpu,
            "request_bytes": self.request_bytes,
            "planned_request_bytes": instance.kv_request_bytes,
        }


def planned(options: Mapping[str, Any], places: Sequence[Place], catalog: Catalog) -> list[Planned]:
    """The engines of each place: of all models side by side, or of each model alone."""
    together, elsewhere = options["together"], bool(options["gpus"])
    alone = [{**options, "models": [model], "remove_unlisted": True} for model in options["models"]]
    found = []
    for host, node, serving in places:
        for request in [options] if together else alone:
            outcome = make_plan(read_request(request, catalog), node, catalog, serving if together else None)
            instances = outcome.plan.instances if outcome.plan else ()
            found += [Planned(host, instance, elsewhere) for instance in instances]
    return found


def references(engines: Sequence[Planned], described: Mapping[str, Any]) -> list[dict[str, str]]:
    """The models whose config.json is wanted and was not read yet, as model_info takes them."""
    wanted = {one.instance.model: one.instance for one in engines if not one.hindrance}
    return [
        {"name": key, "repo_id": instance.repo_id, "revision": instance.revision or "main"}
        for key, instance in wanted.items()
        if key not in described
    ]


def unit(instance: Instance, model: Mapping[str, Any]) -> dict[str, Any]:
    """What an image is asked about an engine, as the module takes it. ``model``: the hub's answer about the model."""
    options = {name: value for name, value in instance.config.items() if name not in LEFT_OUT}
    gpus = list(instance.gpu_uuids) or [label(index) for index in instance.gpu_indices]
    return {
        "image": instance.image,
        "options": {**options, "model": MODEL_TARGET, "skip-tokenizer-init": True},
        "config": model["config"],
        **({"hf_quant_config": model["hf_quant_config"]} if model.get("hf_quant_config") else {}),
        "gpus": gpus[: instance.tensor_parallel_size],
    }


def compare(engines: Sequence[Planned], described: Mapping[str, Any], ask: Ask) -> list[Compared]:
    """Each engine with what its image says. Equal questions are asked once, and all of them in one call."""
    hindrances = [_hindrance(one, described) for one in engines]
    units = [
        None if hindrance else unit(one.instance, described[one.instance.model])
        for one, hindrance in zip(engines, hindrances)
    ]
    texts = [json.dumps(question, sort_keys=True) for question in units]
    each = {text: question for text, question in zip(texts, units) if question}
    answers = dict(zip(each, ask(list(each.values())))) if each else {}
    return [
        Compared(one, cannot=hindrance) if hindrance else _compared(one, answers[text])
        for one, hindrance, text in zip(engines, hindrances, texts)
    ]


def _hindrance(one: Planned, described: Mapping[str, Any]) -> str:
    """Why no image can be asked about an engine; empty if one can."""
    model = described.get(one.instance.model) or {}
    if one.hindrance or model.get("config"):
        return one.hindrance
    return f"its config.json was not read: {model.get('refused') or 'its repository has none'}".rstrip(".")


def _compared(one: Planned, answer: Mapping[str, Any]) -> Compared:
    if "cannot" in answer:
        return Compared(one, cannot=str(answer["cannot"]).rstrip("."))
    if answer["device"] != one.instance.device:
        seen, wanted = DEVICES.get(answer["device"], answer["device"]), DEVICES[one.instance.device]
        return Compared(one, cannot=f"{one.instance.image} counts for {seen} there, and the plan is for {wanted}")
    return Compared(one, weights_gib=answer["weights_bytes"] / GIB, request_bytes=answer["request_bytes"])
