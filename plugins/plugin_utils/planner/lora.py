# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""LoRA adapters of an instance: which ones vLLM supports, the memory that they need, and the options for them.

vLLM allocates the memory of `max-loras` adapters of the rank `max-lora-rank` when it starts, for every module that an
adapter may change, whether an adapter changes it or not (lora/model_manager.py, _create_lora_modules).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from ...module_utils.instance.names import HUB_TARGET
from .adapters import CONFIG, SERVED_RANKS, Adapter, Lora
from .architecture import EVEN, EXPERTS, KV, Part, within
from .catalog import Catalog, ModelSpec
from .memory import GIB, Experts, Parallel, stages

#: The default number of adapters in one batch; each needs memory of the GPU.
MOST_AT_ONCE = 8
ELEMENT = 2  # lora-dtype is the model's, which is BF16 or FP16
#: Modules that vLLM fuses: if an adapter changes one of them, vLLM allocates memory for all.
FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
ATTENTION = frozenset(("q_proj", "k_proj", "v_proj", "o_proj"))
DENSE = ATTENTION | {"gate_proj", "up_proj", "down_proj"}
#: Features of adapters that vLLM does not support (PEFTHelper._validate_features in lora/peft_helper.py).
UNSERVED = {
    "use_dora": "is made with DoRA (use_dora)",
    "lora_bias": "brings biases (lora_bias)",
    "layer_replication": "repeats layers (layer_replication)",
    "alora_invocation_tokens": "is an activated LoRA (alora_invocation_tokens)",
    "use_bdlora": "is block-diagonal (use_bdlora)",
    "use_qalora": "is made with QALoRA (use_qalora)",
}
#: Initialisations that do not change the model's weights.
PLAIN_STARTS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
HEADS = ("classifier", "score")  # of models that classify
#: Fields by which layers or modules differ, so that the size of the file follows from more than the rank.
UNEVEN = ("rank_pattern", "layers_to_transform", "layers_pattern", "exclude_modules", "modules_to_save")
#: Bytes that a number of a file may have, and by how much its header may make it larger.
WIDTHS, SLACK = (1, 2, 4), 0.03
#: vLLM expands the home of the container's user (get_adapter_absolute_path in lora/utils.py).
CACHE = f"~/{HUB_TARGET}"


class Serving(Protocol):
    """The parts of a requested instance that are needed here (`request.InstanceRequest`)."""

    @property
    def name(self) -> str: ...
    @property
    def model(self) -> ModelSpec: ...
    @property
    def device(self) -> str: ...
    @property
    def lora(self) -> tuple[Lora, ...]: ...
    @property
    def extra_args(self) -> Mapping[str, Any]: ...
    @property
    def served_names(self) -> tuple[str, ...]: ...
    @property
    def task(self) -> str: ...
    def option(self, name: str, default: Any = None) -> Any: ...


# -- what is refused --------------------------------------------------------------------------------------------------
def problems(request: Serving, catalog: Catalog) -> list[str]:
    """A finding for each adapter that the instance cannot serve, and for options that contradict them."""
    if not request.lora:
        return []
    if not request.model.missing and not request.model.sized.lora:
        return [f"{request.name}: vLLM takes no LoRA adapters for {request.model.sized.name}: leave out vllm_lora."]
    findings = [*_same_names(request)]
    for requested in request.lora:
        if requested.adapter is None:
            findings.append(f"{request.name}: the adapter {requested.name} ({requested.reference}) was not asked for.")
        elif why := _why_not(requested, requested.adapter, request, catalog):
            findings.append(f"{request.name}: the adapter {requested.name} ({requested.adapter.title}) {why}")
    if "lora-modules" in request.extra_args:
        findings.append(f"{request.name}: lora-modules is written from vllm_lora: use one of the two.")
    return findings or _low_rank(request)


def _same_names(request: Serving) -> Iterator[str]:
    for requested in request.lora:
        if requested.name in request.served_names:
            yield (
                f"{request.name}: the adapter {requested.name} has a name of the model itself"
                f" ({', '.join(request.served_names)}): call it otherwise, since clients choose by this name."
            )


def _why_not(requested: Lora, adapter: Adapter, request: Serving, catalog: Catalog) -> str:
    """Why vLLM does not serve an adapter with this model; empty if it does."""
    return (
        _form(adapter) or _rank(adapter) or _unserved(adapter, request) or _base(requested, adapter, request, catalog)
    )


def _form(adapter: Adapter) -> str:
    kind = str(adapter.config.get("peft_type") or "LORA")
    if kind.upper() != "LORA":
        return f"is no LoRA adapter (peft_type: {kind}), and vLLM serves no other kind: choose a LoRA adapter."
    if not adapter.weights:
        return "has no adapter_model.safetensors: its repository holds no weights that vLLM reads."
    return ""


def _rank(adapter: Adapter) -> str:
    rank = adapter.rank
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        return f"says no rank (r: {rank}) in its {CONFIG}: choose a revision that does."
    if rank > SERVED_RANKS[-1]:
        return (
            f"has the rank {rank}, and vLLM takes {SERVED_RANKS[-1]} at most: merge it into the model, or train anew."
        )
    return ""


def _unserved(adapter: Adapter, request: Serving) -> str:
    config = adapter.config
    merge = "which vLLM does not serve: merge it into the model, and serve that."
    for key, words in UNSERVED.items():
        if config.get(key):
            return f"{words}, {merge}"
    if str(config.get("bias") or "none") != "none":
        return f"brings biases (bias: {config['bias']}), {merge}"
    heads = HEADS if request.task == "classify" else ()
    saved = config.get("modules_to_save") or ()
    whole = [str(name) for name in (saved if isinstance(saved, (list, tuple)) else [saved]) if name not in heads]
    if whole:
        return f"brings whole modules (modules_to_save: {', '.join(whole)}), {merge}"
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower() not in PLAIN_STARTS:
        return f"changes the model's own weights when it is loaded (init_lora_weights: {start}), {merge}"
    return ""


def _base(requested: Lora, adapter: Adapter, request: Serving, catalog: Catalog) -> str:
    """Whether it was trained on this model, in whichever revision and weight format."""
    model, base = request.model, adapter.base
    if base.casefold() == model.repo_id.casefold():
        return ""
    if requested.base and base.casefold() in ("", requested.base.casefold()):
        return _shapes(adapter, model)
    ours = catalog.find(base) if base else None
    if ours and model.title and ours.architecture == model.architecture and _family(ours.title) == _family(model.title):
        return ""
    trained_on = f"was trained on {base}" if base else "does not say what it was trained on"
    word = f"{{{requested.name}: {{adapter: {requested.reference}, base: {base or model.repo_id}}}}}"
    return (
        f"{trained_on} ({CONFIG}), and this model is {model.repo_id}: set it for its own model (lora in an entry of"
        f" vllm_models), or, if both are the same model, confirm it with lora: {word}."
    )


def _shapes(adapter: Adapter, model: ModelSpec) -> str:
    """Whether the file of its weights has the size that this model's shapes give, if the user confirmed the model.

    Checked only for adapters that change plain matrices of a dense decoder.
    """
    targets = frozenset(adapter.targets or ())
    plain = targets and targets <= DENSE and not any(adapter.config.get(key) for key in UNEVEN)
    if model.missing or not plain or model.sized.kind != "decoder" or model.sized.mixture:
        return ""
    parts = [part for part in model.sized.parts if part.name.rpartition(".")[2] in targets]
    numbers = adapter.rank * sum(len(part.layers) * (part.rows + part.columns) for part in parts)
    ends = 2 * model.sized.vocab_size * model.sized.hidden_size  # PEFT saves both if it has added tokens
    widths = [width for width in WIDTHS if abs(adapter.bytes - width * numbers) <= SLACK * width * numbers]
    if not numbers or widths or adapter.bytes >= min(WIDTHS[1:]) * numbers + ends:
        return ""
    return (
        f"does not have this model's shapes: of rank {adapter.rank}, {' and '.join(sorted(targets))} of"
        f" {model.repo_id} have {numbers * 2 / 1e6:.1f} MB in BF16 or {numbers * 4 / 1e6:.1f} MB in FP32, and its"
        f" {adapter.weights} has {adapter.bytes / 1e6:.1f} MB: it was trained on another model."
    )


def _family(title: str) -> str:
    """A catalogue's title without the weight format: "Llama 3.1 8B Instruct, FP8"."""
    return title.partition(",")[0]


def _low_rank(request: Serving) -> list[str]:
    own = request.option("max-lora-rank")
    highest = max(request.lora, key=_rank_of)
    if not isinstance(own, int) or own >= _rank_of(highest):
        return []
    return [
        f"{request.name}: max-lora-rank is {own}, and {highest.name} has the rank {_rank_of(highest)}: leave it out, or"
        f" set {_served(_rank_of(highest))} or more."
    ]


# -- the options ------------------------------------------------------------------------------------------------------
def _rank_of(requested: Lora) -> int:
    return int(requested.adapter.rank) if requested.adapter else 1


def _served(rank: int) -> int:
    return next((served for served in SERVED_RANKS if served >= rank), SERVED_RANKS[-1])


def rank_of(request: Serving) -> int:
    """max-lora-rank: the user's, else the smallest that vLLM supports for the highest rank of the adapters."""
    own = request.option("max-lora-rank")
    return own if isinstance(own, int) else _served(max(map(_rank_of, request.lora)))


def slots_of(request: Serving) -> int:
    """max-loras: the number of adapters on the GPU at the same time."""
    own = request.option("max-loras")
    return own if isinstance(own, int) else min(len(request.lora), MOST_AT_ONCE)


def targets_of(request: Serving) -> list[str] | None:
    """lora-target-modules: the modules that get memory for adapters; None: all that vLLM supports.

    Limited if all adapters name plain modules of a decoder. Experts are one module under another name, so if an adapter
    changes more than the attention of a mixture, all modules get memory.
    """
    own = request.option("lora-target-modules")
    if own is not None:
        return [str(name) for name in own] if isinstance(own, (list, tuple)) else [str(own)]
    named: set[str] = set()
    for requested in request.lora:
        targets = requested.adapter.targets if requested.adapter else None
        if targets is None:
            return None
        named |= set(targets)
    narrow = ATTENTION if request.model.sized.mixture else DENSE
    return sorted(named) if named and named <= narrow else None


def options(request: Serving) -> dict[str, Any]:
    """vLLM's options for the adapters; empty without any."""
    if not request.lora:
        return {}
    slots = slots_of(request)
    return {
        "enable-lora": True,
        "lora-modules": [
            _module(requested, requested.adapter, request) for requested in request.lora if requested.adapter
        ],
        "max-lora-rank": rank_of(request),
        "max-loras": slots,
        "max-cpu-loras": len(request.lora) if len(request.lora) > slots else None,
        "lora-target-modules": targets_of(request),
    }


def _module(requested: Lora, adapter: Adapter, request: Serving) -> str:
    folder = f"{CACHE}/models--{adapter.repo_id.replace('/', '--')}/snapshots/{adapter.revision}"
    return json.dumps({"name": requested.name, "path": folder, "base_model_name": request.served_names[0]})


def fetched(request: Serving) -> tuple[dict[str, Any], ...]:
    """The adapters in the form of snapshots to download, each with its size in bytes."""
    return tuple(
        {
            "name": requested.name,
            "repo_id": requested.adapter.repo_id,
            "revision": requested.adapter.revision,
            "branch": requested.adapter.branch,
            "gated": requested.adapter.gated,
            "allow_patterns": (CONFIG, requested.adapter.weights),
            "weights_bytes": requested.adapter.bytes,
        }
        for requested in request.lora
        if requested.adapter
    )


# -- memory -----------------------------------------------------------------------------------------------------------
def slots_gib(request: Serving, spread: Parallel, experts: Experts) -> float:
    """GiB on the fullest GPU for the adapters that are on it at the same time."""
    if not request.lora:
        return 0.0
    sized, rank, slots = request.model.sized, rank_of(request), slots_of(request)
    parts = list(_open(sized.parts, targets_of(request)))
    if not any(part.layers for part in parts):  # a model by its two figures
        largest = max(
            requested.adapter.bytes * rank / _rank_of(requested) for requested in request.lora if requested.adapter
        )
        return slots * largest / GIB
    each = stages(sized.layers, spread.pp, spread.cut)
    numbers = max(sum(_numbers(part, spread.tp, experts, stage) for part in parts) for stage in each)
    return slots * rank * numbers * ELEMENT / GIB


def _open(parts: Iterable[Part], targets: list[str] | None) -> Iterator[Part]:
    """The parts that get memory. Without targets these are routers, and both ends of the model, too."""
    wanted = {name for target in targets or () for name in next((f for f in FUSED if target in f), (target,))}
    for part in parts:
        end = part.name.rpartition(".")[2]
        if targets is not None:
            if end in wanted and part.split != EXPERTS:
                yield part
        elif part.linear or end in ("gate", "embed_tokens", "lm_head"):
            yield part


def _numbers(part: Part, tp: int, experts: Experts, stage: tuple[int, int]) -> float:
    """Numbers for each rank of one adapter: A has the inputs of a module, B its outputs.

    Tensor parallelism divides B of a module that is divided by its outputs, and A of one that is divided by its inputs
    (lora/layers/column_parallel_linear.py, row_parallel_linear.py). Of experts alike (fused_moe.py). Ends are whole.
    """
    if not part.layers:
        return part.rows + part.columns
    count, share = part.times, 1.0
    if part.split == EXPERTS:
        count, share = -(-part.times // experts.over), 1 / experts.cut
    elif part.split in (EVEN, KV):
        share = max(1 / tp, 1 / part.heads) if part.split == KV else 1 / tp
    if part.linear:
        rows, columns = (part.rows * share, part.columns) if part.along == "rows" else (part.rows, part.columns * share)
    else:
        rows, columns = part.rows, part.columns
    return len(within(part.layers, stage)) * count * (rows + columns)


def note(request: Serving, spread: Parallel, experts: Experts) -> str:
    """A note about the memory of the adapters; empty without any."""
    count = len(request.lora)
    if not count or request.device == "cpu":
        return ""
    are = "adapter takes" if count == 1 else "adapters take"
    return (
        f"its {count} LoRA {are} {slots_gib(request, spread, experts):.2f} GiB of each GPU (max-loras"
        f" {slots_of(request)}, max-lora-rank {rank_of(request)})."
    )
