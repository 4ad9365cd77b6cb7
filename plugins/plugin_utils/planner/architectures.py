# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a config.json to an architecture. What the allow-list does not name, or what contradicts it, is not guessed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from . import read_decoder, read_encoder, read_latent, read_state, read_unequal
from .architecture import EVEN, Architecture, Unsized
from .config_fields import Fields, of_a_known_form, text_fields
from .draft import Draft
from .read_vision import TOWERS
from .rope import context_of, longest_of, stretch_of

HOME = Path(__file__).resolve().parents[3] / "catalog" / "architectures.yml"
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
#: What an entry without `architectures` is: a few fields of a dense decoder, as catalogues had them before.
PLAIN = "LlamaForCausalLM"
Raw = Mapping[str, Any]

READERS: Mapping[str, Callable[[Fields, Raw, Draft], int]] = {
    "decoder": read_decoder.decoder,
    "delta_net": read_state.delta_net,
    "encoder": read_encoder.encoder,
    "falcon_h1": read_state.falcon_h1,
    "gemma3n": read_unequal.gemma3n,
    "gemma4": read_unequal.gemma4,
    "granite_hybrid": read_state.granite_hybrid,
    "jamba": read_state.jamba,
    "kimi_linear": read_state.kimi_linear,
    "latent": read_latent.latent,
    "mimo_v2": read_unequal.mimo_v2,
    "nas": read_unequal.nas,
    "nemotron_h": read_state.nemotron_h,
    "pure_mamba": read_state.pure_mamba,
    "short_conv": read_state.short_conv,
    "whisper": read_encoder.whisper,
}


@lru_cache(maxsize=1)
def listed() -> Raw:
    """The allow-list."""
    with HOME.open(encoding="utf-8") as stream:
        content: Raw = yaml.load(stream, Loader=LOADER)
    return content


def _named(config: Raw) -> str:
    """The architecture: by `architectures`, else by `model_type`, as in qwen3_moe for Qwen3MoeForCausalLM."""
    names = config.get("architectures") or []
    if isinstance(names, (list, tuple)) and names:
        return str(names[0])
    wanted = str(config.get("model_type") or "").replace("_", "") + "forcausallm"
    return next((name for name in listed()["architectures"] if name.casefold() == wanted), "")


def _unsized(what: str, name: str, why: str, config: Raw, gone: bool = False) -> Unsized:
    fields = Fields(what, text_fields(config))
    heads = fields.get("num_attention_heads", default=0)
    return Unsized(name, why, context_of(fields), heads if isinstance(heads, int) else 0, gone)


def read_config(what: str, config: Raw) -> Architecture | Unsized:
    """The architecture of a config.json. Raises ValueError where a field cannot be read.

    ``what``: the start of a finding. Unsized: an architecture that is not on the list, or a config.json that
    contradicts it.
    """
    with of_a_known_form(what):
        return _read(what, config)


def _read(what: str, config: Raw) -> Architecture | Unsized:
    name = _named(config)
    entry = _entry(name or PLAIN)
    if name in listed()["gone"]:
        last = listed()["gone"][name]
        return _unsized(what, name, f"vLLM served {name} up to {last} and no longer does", config, gone=True)
    if entry is None:
        return _unsized(what, name, f"the planner does not know {name}", config)
    if entry["reader"] == "refused":
        return _unsized(what, name, f"the planner does not size {name}, since {entry['why']}", config)
    fields = Fields(what, text_fields(config), entry.get("defaults"))
    draft = Draft(fields.number("hidden_size", "n_embd", "d_model"))
    experts = READERS[entry["reader"]](fields, entry, draft)
    unread = fields.unread()
    if unread:
        field, kind = next(iter(unread.items()))
        return _unsized(
            what, name or PLAIN, f"its config.json has {field}, {kind}, and {_title(name)} has none", config
        )
    return _whole(what, config, fields, draft, entry, name, experts)


#: Ends of the names of models that vLLM serves as their decoder with a pooler in place of the head.
POOLED = ("ForSequenceClassification", "ForTokenClassification", "ForRewardModel", "ForRewardModeling", "RewardModel")


def _entry(name: str) -> Raw | None:
    """The entry of the allow-list; of a pooling model by its decoder's, where it has none of its own."""
    known = listed()["architectures"]
    if name in known:
        entry: Raw = known[name]
        return entry
    for end in POOLED:
        decoder = known.get(name.removesuffix(end) + "ForCausalLM") if name.endswith(end) else None
        if decoder:
            return {**decoder, "task": "pooling"}
    return None


def _title(name: str) -> str:
    return name or f"an entry without `architectures`, which is read as a plain {PLAIN},"


def _whole(what: str, config: Raw, fields: Fields, draft: Draft, entry: Raw, name: str, experts: int) -> Architecture:
    """What the reader has drafted, with the ends of the model and its images."""
    layers = 1 + max((layer for part in draft.parts for layer in part.layers), default=0)
    vocabulary = fields.number("vocab_size", "padded_vocab_size")
    tied = fields.flag("tie_word_embeddings") or entry.get("task") == "pooling"
    draft.embedding(vocabulary, tied, str(entry.get("vocabulary", EVEN)))
    draft.plain("norm", draft.hidden, 1)
    tower = str(entry.get("tower", "none"))
    vision = config.get("vision_config")
    if tower in TOWERS and isinstance(vision, Mapping):
        TOWERS[tower](Fields(f"{what}: vision_config", vision), draft)
    return Architecture(
        name=name or PLAIN,
        kind=str(entry["reader"]),
        layers=layers,
        hidden_size=draft.hidden,
        inner_size=draft.inner,
        context=context_of(fields),
        parts=tuple(draft.parts),
        cache=tuple(draft.cache),
        wholes=tuple(draft.wholes.values()),
        vocab_size=vocabulary,
        task=str(entry.get("task", "generate")),
        labels=len(config.get("id2label") or ()) or fields.count("num_labels") or 2,
        since=str(entry.get("since", "")),
        experts_per_token=experts,
        expert_size=draft.expert,
        float16=bool(entry.get("float16", True)),
        lora=bool(entry.get("lora", True)),
        stages=bool(entry.get("stages", True)),
        apart=bool(entry.get("apart", False)),
        mtp=fields.count("num_nextn_predict_layers", "mtp_num_hidden_layers"),
        stretch=stretch_of(fields, entry, isinstance(config.get("text_config"), Mapping)),
        longest=longest_of(fields),
        captured=int(entry.get("captured", 512)),
        image_activation=draft.images,
    )
