# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Speculative decoding: a draft proposes tokens, and the model checks them in one step.

The draft is a model of its own with weights and a KV cache (draft_model), a head that reads the model's hidden states
(eagle, eagle3, dflash), built-in layers of the model (mtp), or the text itself (ngram).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ..values import read
from .architecture import FULL, INDEX, LATENT, Architecture, CacheLayers
from .catalog import Catalog, Draft, EngineSpec, ModelSpec, Policy
from .config_fields import Fields, text_fields
from .memory import GIB, Experts, Parallel, stage_bytes, weights_bytes
from .overhead import Step
from .tasks import GENERATE

#: Methods whose draft is a repository, and those that need none.
WITH_MODEL = ("draft_model", "eagle", "eagle3", "dflash")
WITHOUT_MODEL = ("mtp", "ngram", "ngram_gpu")
#: Heads read the hidden states of the model that they were trained with.
HEADS = ("eagle", "eagle3", "dflash")
#: Those that work over pipeline stages.
STAGED = ("ngram",)
#: More is refused by the sampler (MAX_SPEC_LEN in v1/sample/rejection_sampler.py).
MOST_TOKENS = 128
ATTENTION = (FULL, LATENT, INDEX)
KEYS = ("model", "method", "tokens")
#: The value that selects the catalogue's draft for the model.
AUTO = "auto"
HOW = "write {model: ORG/DRAFT, method: eagle3, tokens: 3}"


@dataclass(frozen=True)
class Speculation:
    """The option `speculative`. ``draft``: None without a repository, and until the hub was asked."""

    method: str
    tokens: int
    reference: str = ""
    draft: Draft | None = None


class Served(Protocol):
    """The parts of a requested instance that are needed here (`request.InstanceRequest`)."""

    @property
    def name(self) -> str: ...
    @property
    def model(self) -> ModelSpec: ...
    @property
    def speculative(self) -> Speculation | None: ...
    @property
    def trust_remote_code(self) -> bool | None: ...
    @property
    def extra_args(self) -> Mapping[str, Any]: ...
    @property
    def task(self) -> str: ...
    @property
    def nodes(self) -> int | None: ...
    @property
    def pp(self) -> int | None: ...


def read_speculative(value: Any) -> Speculation | None:
    """Read the option; None for an empty dictionary. Raises ValueError if something is missing or out of range."""
    if str(value).strip() == AUTO:
        return Speculation(AUTO, 0)
    value = _dictionary(value)
    if not value:
        return None
    unknown = [key for key in value if key not in KEYS]
    if unknown:
        raise ValueError(f"speculative has an unknown key {unknown[0]!r}: it takes {', '.join(KEYS)}.")
    if not isinstance(value.get("model") or "", str):
        raise ValueError(f"speculative: model must name a repository, not {value['model']!r}: {HOW}.")
    reference = str(value.get("model") or "").strip()
    method, tokens = str(value.get("method") or ""), str(value.get("tokens") or "").strip()
    if not method:
        raise ValueError(f"speculative has no method: {HOW}.")
    if not tokens.isdecimal() or not 1 <= int(tokens) <= MOST_TOKENS:
        raise ValueError(
            f"speculative: tokens must be a whole number from 1 to {MOST_TOKENS}, not {value.get('tokens')!r}: how many"
            " are proposed in one step, such as 3."
        )
    return Speculation(method, int(tokens), reference)


def _dictionary(value: Any) -> Mapping[str, Any]:
    """The option as a dictionary, also from a text: command-line values arrive as text."""
    try:
        found: Mapping[str, Any] = read("speculative", value, {"type": "dict", "required": True})
    except ValueError:
        raise ValueError(f"speculative must be auto or a dictionary, not {value!r}: {HOW}.") from None
    return found


def of_catalog(wanted: Speculation, model: ModelSpec) -> Speculation:
    """Replace `auto` by the draft in the model's entry. Other values stay, and so does `auto` without such a draft."""
    if wanted.method != AUTO or not model.drafts:
        return wanted
    best = model.drafts[0]
    return Speculation(best.method, best.tokens, best.reference)


# -- what is refused --------------------------------------------------------------------------------------------------
def problems(request: Served, engine: EngineSpec, catalog: Catalog) -> list[str]:
    """A finding if the engine cannot propose tokens this way for this model."""
    wanted = request.speculative
    if wanted is None:
        return []
    why = _none(wanted, request) or _method(wanted, engine) or _model(wanted, request)
    why = why or _of_another(wanted, request.model, catalog) or _draft(wanted, request)
    if not why and max(request.nodes or 1, request.pp or 1) > 1 and staged(request):
        why = f"{staged(request)}."
    if not why and "speculative-config" in request.extra_args:
        why = "speculative-config is written from vllm_speculative: use one of the two."
    return [f"{request.name}: {why}"] if why else []


def _none(wanted: Speculation, request: Served) -> str:
    if wanted.method != AUTO:
        return ""
    return (
        f"the catalogue has no draft for {request.model.repo_id}: in place of auto {HOW} in vllm_speculative, or leave"
        " it out."
    )


def _of_another(wanted: Speculation, model: ModelSpec, catalog: Catalog) -> str:
    """Whether the catalogue has this draft for others and not for this model, which it has too."""
    repo_id = wanted.reference.partition("@")[0].casefold()
    if not repo_id:
        return ""
    fitting = [one for one in catalog.models.values() if any(d.repo_id.casefold() == repo_id for d in one.drafts)]
    # What the catalogue does not have may well be trained from one of them.
    known = any(one.repo_id == model.repo_id and not one.files for one in catalog.models.values())
    if not fitting or not known or any(one.repo_id == model.repo_id for one in fitting):
        return ""
    return (
        f"the draft {wanted.reference} is for {fitting[0].repo_id} by the catalogue, and not for {model.repo_id}:"
        " choose another, or name it in `drafts` of the model in vllm_extra_models."
    )


def _method(wanted: Speculation, engine: EngineSpec) -> str:
    planned = [name for name in (*WITH_MODEL, *WITHOUT_MODEL) if name in engine.speculative_methods]
    if wanted.method not in engine.speculative_methods and not engine.unplanned:
        return f"vLLM {engine.version} has no speculative method {wanted.method!r}: use {', '.join(planned)}."
    if wanted.method not in (*WITH_MODEL, *WITHOUT_MODEL):
        return (
            f"the planner does not count the speculative method {wanted.method}: use {', '.join(planned)}, or set"
            " speculative-config in vllm_extra_args, which is not counted."
        )
    if wanted.method in WITH_MODEL and not wanted.reference:
        return f"the speculative method {wanted.method} needs a draft: set model: ORG/DRAFT in vllm_speculative."
    if wanted.method in ("ngram", "ngram_gpu") and wanted.reference:
        return f"the speculative method {wanted.method} proposes from the text itself: leave out model."
    return ""


def _model(wanted: Speculation, request: Served) -> str:
    if request.task != GENERATE:
        return "vllm_speculative is for models that generate, and this one is not served for that: leave it out."
    if wanted.method != "mtp" or wanted.reference:
        return ""
    layers = request.model.sized.mtp
    if not layers:
        return f"{request.model.repo_id} has no layers for mtp (its config.json names none): use another method."
    if wanted.tokens > layers and wanted.tokens % layers:
        return (
            f"{wanted.tokens} tokens are no multiple of the {layers} layers that {request.model.repo_id} has for mtp."
        )
    return ""


def _draft(wanted: Speculation, request: Served) -> str:
    """Whether the draft fits the model."""
    if not wanted.reference:
        return ""
    if wanted.draft is None:
        return f"the draft {wanted.reference} was not asked for."
    draft, target = wanted.draft.model, request.model.sized
    consent = request.trust_remote_code is not None or request.extra_args.get("trust-remote-code")
    # The form of the library speculators has classes of vLLM's own, which take no code from the repository
    # (transformers_utils/configs/speculators/base.py).
    if draft.code_files and not consent and "speculators_config" not in wanted.draft.config:
        return (
            f"the draft {draft.repo_id} at {draft.revision} brings code that would run in the engine:"
            f" {', '.join(draft.code_files[:3])}. Read it, then set vllm_trust_remote_code: true."
        )
    if wanted.method == "draft_model" and draft.missing:
        return f"the draft {wanted.reference} is not sized by the planner: {draft.missing}."
    fields = _fields(wanted)
    vocabulary = fields.count("vocab_size")
    if vocabulary and target.vocab_size and vocabulary != target.vocab_size:
        return (
            f"the draft {wanted.reference} has a vocabulary of {vocabulary} tokens, and {request.model.repo_id} one of"
            f" {target.vocab_size}: choose a draft of the same family."
        )
    hidden = fields.count("target_hidden_size") or fields.count("hidden_size")
    if wanted.method in HEADS and hidden and target.hidden_size and hidden != target.hidden_size:
        return (
            f"the draft {wanted.reference} reads hidden states of {hidden} numbers, and those of"
            f" {request.model.repo_id} have {target.hidden_size}: it was trained with another model."
        )
    return ""


def _fields(wanted: Speculation) -> Fields:
    """The fields of the draft's config.json; the library speculators has them in transformer_layer_config."""
    config = text_fields(wanted.draft.config if wanted.draft else {})
    inner = config.get("transformer_layer_config")
    return Fields(wanted.reference, {**(inner if isinstance(inner, Mapping) else {}), **config})


def staged(request: Served) -> str:
    """Why tokens cannot be proposed over pipeline stages; empty if they can.

    A draft is on the last stage, and what it shares with the model, its embedding or hidden states, on others
    (v1/worker/gpu/spec_decode/eagle/utils.py, maybe_share_target_embed).
    """
    wanted = request.speculative
    if wanted is None or wanted.method in STAGED:
        return ""
    return (
        f"the speculative method {wanted.method} is not planned over pipeline stages, since its draft is on the last"
        f" one and the model's embedding on the first: use {' or '.join(STAGED)}, or leave out vllm_speculative"
    )


# -- what it takes ----------------------------------------------------------------------------------------------------
def with_cache(model: ModelSpec, wanted: Speculation) -> Architecture:
    """The model's architecture, with the cache of the draft's layers, which lie on its last pipeline stage."""
    sized = model.sized
    last = sized.layers - 1
    if wanted.method == "mtp" and not wanted.reference:
        kinds = [group for group in sized.cache if group.kind in ATTENTION]
        more = [_moved(group, sized.mtp, last) for group in kinds[:1]]
        more += [_moved(group, sized.mtp, last) for group in kinds if group.kind == INDEX and group not in kinds[:1]]
    elif wanted.method == "draft_model" and wanted.draft:
        more = [_moved(group, len(group.layers), last) for group in wanted.draft.model.sized.cache]
    elif wanted.draft:
        more = [_head(_fields(wanted), last)]
    else:
        more = []
    own = (_longer(group, wanted.tokens) for group in sized.cache)
    return replace(sized, cache=(*own, *more), speculative=wanted.tokens)


def _longer(group: CacheLayers, tokens: int) -> CacheLayers:
    """States of the last inputs have a row for each proposed token (num_spec in layers/mamba/mamba_utils.py)."""
    states = tuple(replace(state, depth=state.depth + tokens) if state.rolling else state for state in group.states)
    return replace(group, states=states)


def _moved(group: CacheLayers, count: int, layer: int) -> CacheLayers:
    return replace(group, layers=(layer,) * count)


def _head(fields: Fields, layer: int) -> CacheLayers:
    """The cache of a head's own layers, mostly one."""
    layers = (layer,) * (fields.count("num_hidden_layers") or 1)
    latent = fields.count("kv_lora_rank")
    if latent:
        return CacheLayers(LATENT, layers, k=latent + fields.number("qk_rope_head_dim", default=64))
    heads = fields.number("num_attention_heads")
    size = fields.count("head_dim") or fields.number("hidden_size") // heads
    return CacheLayers(FULL, layers, fields.count("num_key_value_heads") or heads, size, size)


def weights_gib(request: Served, spread: Parallel, experts: Experts) -> float:
    """GiB of the draft's weights on one GPU: tensor parallelism divides it as it does the model."""
    wanted = request.speculative
    if wanted is None:
        return 0.0
    if wanted.draft:
        return weights_bytes(wanted.draft.model) / spread.tp / GIB
    sized = request.model.sized
    if wanted.method != "mtp":
        return 0.0
    # A further layer is as the last one, and joins two vectors before it.
    last = [weight for weight in request.model.stored if weight.part.layers]
    layer = stage_bytes(last, spread.tp, experts, (sized.layers - 1, sized.layers))
    return sized.mtp * (layer + 4 * sized.hidden_size**2) / GIB


def step_gib(request: Served, step: Step, policy: Policy) -> float:
    """GiB of a step for the rows of logits that are checked: one more for each sequence (_dummy_sampler_run)."""
    if request.speculative is None:
        return 0.0
    return step.sequences * request.model.sized.vocab_size * policy.sampled_logit_bytes / GIB


def options(request: Served) -> dict[str, Any]:
    """vLLM's option; empty without speculation."""
    wanted = request.speculative
    if wanted is None:
        return {}
    found: dict[str, Any] = {"method": wanted.method, "num_speculative_tokens": wanted.tokens}
    if wanted.draft:
        found |= {"model": wanted.draft.model.repo_id, "revision": wanted.draft.model.revision}
    return {"speculative-config": found}


def offered(request: Served) -> str:
    """A description of the draft that `auto` would use; empty without one, or if speculation is configured already."""
    return request.model.drafts[0].title if request.model.drafts and request.speculative is None else ""


def fetched(request: Served) -> dict[str, Any] | None:
    """The draft in the form of a snapshot to download; None without a repository."""
    wanted = request.speculative
    if wanted is None or wanted.draft is None:
        return None
    model = wanted.draft.model
    plain = ("repo_id", "revision", "branch", "gated", "allow_patterns", "ignore_patterns")
    return {**{name: getattr(model, name) for name in plain}, "weights_bytes": weights_bytes(model)}
