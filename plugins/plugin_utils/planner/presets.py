# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take presets: options and weights that were measured to be faster for a model on GPUs as an instance has them.

An instance is placed first, and then again on the same GPUs with the preset that matches. What the user sets wins, and
a preset that changes more than the speed is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from . import host_cache
from .catalog import Catalog, EngineSpec, ModelSpec, Preset, version_key
from .flags import UNCOUNTED, check_args, typed_args
from .messages import Advice, siblings, weight_text
from .placement import Placement
from .preset_files import CPU, LAYOUT, MEMORY
from .request import InstanceRequest, contradictions
from .spread import options, shortfall, tier, too_old, weight_only

#: The value of the option `weights` that takes the weights of a preset.
FASTEST = "fastest"
#: A GPU whose memory differs by more than this from the catalogue's is another one, such as a slice.
MEMORY_DIFFERS = 0.02
#: What the plan does not count unless it is set elsewhere, and where.
ELSEWHERE = {
    "speculative-config": "set vllm_speculative for it",
    host_cache.OPTION: "set vllm_kv_host_gib for it",
    "kv-transfer-config": "set it in vllm_extra_args",
    **dict.fromkeys(("enable-lora", "lora-modules"), "set vllm_lora for it"),
}


Tried = TypeVar("Tried", bound="Placement | InstanceRequest")


@dataclass(frozen=True)
class Where:
    """What an instance runs on: the key of its GPUs and their number, or the CPU; the release; and the catalogue."""

    gpu: str
    count: int
    engine: EngineSpec
    catalog: Catalog


# -- which match ------------------------------------------------------------------------------------------------------
def matching(request: InstanceRequest, where: Where) -> list[Preset]:
    """The presets for this instance, the one to take first: the user's, those of its release, the best measured."""
    if request.gpu_share is not None or (request.nodes or 1) > 1 or where.engine.unplanned:
        return []
    ours = {request.model.key.casefold(), request.model.repo_id.casefold()}
    found = (
        preset
        for preset in where.catalog.presets
        if (preset.gpu, preset.count, preset.objective) == (where.gpu, where.count, request.objective)
        and ours & _names(preset, where.catalog)
        and _same_layout(preset, request)
    )
    return sorted(found, key=lambda preset: _rank(preset, where.engine))


def _names(preset: Preset, catalog: Catalog) -> set[str]:
    known = catalog.find(preset.model)
    return {name.casefold() for name in (preset.model, known.repo_id if known else preset.model)}


def _states_layout(preset: Preset) -> bool:
    return any(name in preset.options for name in LAYOUT)


def _same_layout(preset: Preset, request: InstanceRequest) -> bool:
    """Whether the user wants no other layout than the one that was measured, if the preset states one."""
    if not _states_layout(preset):
        return True
    return all(getattr(request, field) in (None, preset.options.get(name, 1)) for name, field in LAYOUT.items())


def _of_release(preset: Preset, engine: EngineSpec) -> bool:
    """Whether a preset is for this release: the one that it names, else that of its measurement."""
    wanted = version_key(preset.release or preset.measured.engine)
    return version_key(engine.version)[: len(wanted)] == wanted


def _rank(preset: Preset, engine: EngineSpec) -> tuple[Any, ...]:
    # Tokens per second and requests per second are not compared.
    return not preset.path, not _of_release(preset, engine), preset.measured.unit, -preset.measured.after, preset.name


def _why_first(first: Preset, others: Sequence[Preset], engine: EngineSpec) -> str:
    """A note if several presets match."""
    if not others:
        return ""
    second = others[0]
    if bool(first.path) != bool(second.path):
        why = "it is yours"
    elif _of_release(first, engine) != _of_release(second, engine):
        why = f"it is for vLLM {engine.version}"
    elif first.measured.unit != second.measured.unit:
        why = f"it was measured in {first.measured.unit}"
    elif first.measured.after > second.measured.after:
        why = "it was measured to be the fastest"
    else:
        why = "it is the first by its name of those that are as fast"
    listed = " and ".join(preset.name for preset in others)
    return f"The preset {first.name} is taken and not {listed}, which {_match(others)}, too: {why}."


def _match(presets: Sequence[Preset]) -> str:
    return "matches" if len(presets) == 1 else "match"


# -- what it changes --------------------------------------------------------------------------------------------------
def _flag(name: str, engine: EngineSpec) -> str:
    """The option of a spelling, such as async-scheduling of no-async-scheduling."""
    flag = engine.spellings.get(name)
    return flag.name if flag else name


def with_preset(request: InstanceRequest, preset: Preset, engine: EngineSpec) -> InstanceRequest:
    """The request with what the preset sets and the user, the model's entry and the release do not."""
    mine = {_flag(name, engine) for name in (*engine.config, *request.model.vllm, *request.extra_args)}
    typed = typed_args(preset.options, engine)
    own = {name: value for name, value in typed.items() if _flag(name, engine) not in mine}
    planned = {**LAYOUT, **MEMORY}
    fields = {planned[name]: own[name] for name in planned if name in own and getattr(request, planned[name]) is None}
    rest = {name: value for name, value in own.items() if name not in planned}
    env = {name: value for name, value in preset.env.items() if name not in request.variables}
    return replace(request, **fields, preset=replace(preset, options=rest, env=env))


def _not_taken(before: InstanceRequest, after: InstanceRequest, preset: Preset) -> list[str]:
    """The options and variables of a preset that the user has set otherwise, or as it does."""
    planned = {**LAYOUT, **MEMORY}
    left = after.preset or preset
    return [
        *(name for name in preset.options if name not in left.options and name not in planned),
        *(name for name in preset.options if name in planned and getattr(before, planned[name]) is not None),
        *(name for name in preset.env if name not in left.env),
    ]


def _refused(request: InstanceRequest, engine: EngineSpec) -> str:
    """Why the release or the planner does not take a preset's options; empty if they do."""
    given = request.preset.options if request.preset else {}
    for name in given:
        if name in ELSEWHERE or name in UNCOUNTED:
            return f"the plan does not count the memory that {name} takes: {ELSEWHERE.get(name, 'leave it out')}"
    found, _notes = check_args(given, engine)
    first = next(iter((*found, *contradictions(request))), "")
    return first.removeprefix(f"{request.name}: ").rstrip(".")


# -- on GPUs ----------------------------------------------------------------------------------------------------------
def take(placements: Sequence[Placement], advice: Advice) -> tuple[tuple[Placement, ...], list[str]]:
    """The placements with the presets that match, on the same GPUs; and notes."""
    taken, notes = [], []
    for placement in placements:
        placed, said = _taken(placement, advice) if advice.catalog.presets or _fastest(placement) else (placement, [])
        taken.append(placed)
        notes += [f"{placement.request.name}: {note}" for note in said]
    return tuple(taken), notes


def _fastest(placement: Placement) -> bool:
    return placement.request.weights == FASTEST


def _taken(placement: Placement, advice: Advice) -> tuple[Placement, list[str]]:
    where = _where(placement, advice.catalog)
    placement, notes = _with_weights(placement, where)
    # A preset of other weights has its own options, as they were measured.
    if _sets_options(placement.request.preset):
        return placement, notes
    placed, said = _first(
        placement.request,
        where,
        lambda wanted, preset: _compared(placement, _placed(placement, wanted), _states_layout(preset)),
    )
    return placed or placement, [*notes, *said]


def _where(placement: Placement, catalog: Catalog) -> Where:
    spec = placement.candidate.group.spec
    known = catalog.gpus.get(spec.key)
    whole = known is not None and abs(spec.memory_mib - known.memory_mib) <= MEMORY_DIFFERS * known.memory_mib
    return Where(spec.key if whole else "", len(placement.indices), placement.candidate.engine, catalog)


def _sets_options(preset: Preset | None) -> bool:
    return preset is not None and bool(preset.options or preset.env)


def _placed(placement: Placement, request: InstanceRequest) -> Placement | str:
    """The instance as it is requested now on the GPUs that it has, or why that is not possible."""
    candidate, count = replace(placement.candidate, request=request), len(placement.indices)
    outdated = too_old(candidate)
    if outdated:
        return outdated
    ways = options(candidate, count)
    if ways.best is None:
        return shortfall(candidate, ways.nearest[0]) if ways.nearest else ways.rejected[0].reason
    if ways.best.gpus != count:
        return f"{ways.best} takes {ways.best.gpus} of {count} GPUs"
    return replace(placement, request=request, candidate=candidate, options=ways, choice=ways.best)


def _first(
    request: InstanceRequest, where: Where, tried: Callable[[InstanceRequest, Preset], Tried | str]
) -> tuple[Tried | None, list[str]]:
    """What comes of the first preset that can be taken, None without one; and notes about it and those before it.

    ``tried``: what comes of a request with a preset, or why it is left out.
    """
    notes: list[str] = []
    found = [preset for preset in matching(request, where) if request.presets and not preset.weights]
    for at, preset in enumerate(found):
        wanted = with_preset(request, preset, where.engine)
        kept = _not_taken(request, wanted, preset)
        if len(kept) == len(preset.options) + len(preset.env):
            continue  # all of it is set already
        refused = _refused(wanted, where.engine)
        placed: Tried | str = refused if refused else tried(wanted, preset)
        if not isinstance(placed, str):
            return placed, [*notes, *_said(preset, kept, found[at + 1 :], where.engine)]
        notes.append(_left_out(preset, placed))
    return None, notes


def _left_out(preset: Preset, why: str) -> str:
    return f"The preset {preset.name} is left out: {why}."


def _said(preset: Preset, kept: Sequence[str], others: Sequence[Preset], engine: EngineSpec) -> list[str]:
    """Notes about a preset that is taken."""
    notes = [_why_first(preset, others, engine), *check_args(preset.options, engine)[1]]
    if kept:
        notes.append(
            f"What is set already wins over the preset {preset.name}: {', '.join(kept)}. What the preset gains may"
            " differ."
        )
    return [note for note in notes if note]


def _compared(before: Placement, after: Placement | str, any_layout: bool) -> Placement | str:
    """The placement with a preset, or what speaks against it: what it changes beside the speed."""
    if isinstance(after, str):
        return f"with it the model does not fit: {after}"
    old, new = before.choice, after.choice
    if not _sets_options(after.request.preset) and (new, after.request.model) == (old, before.request.model):
        return "what it would change is set already"
    other = (old.spread, old.replicas) != (new.spread, new.replicas) and not any_layout
    if other or tier(new, after.candidate) > tier(old, before.candidate):
        return f"with it the model would be served with {new} in place of {old}"
    if new.context < old.context:
        return (
            f"with it the context would be {new.context} in place of {old.context}; vllm_max_model_len: {new.context}"
            " takes it"
        )
    if (old.spread, old.replicas, before.request.model) != (new.spread, new.replicas, after.request.model):
        return after
    # Other layouts are compared as without it: a preset that states one rules out all others.
    return replace(after, options=replace(after.options, rejected=before.options.rejected))


# -- other weights ----------------------------------------------------------------------------------------------------
def _with_weights(placement: Placement, where: Where) -> tuple[Placement, list[str]]:
    """The placement with the fastest weights if the user wants them, else with what they would gain; and notes."""
    request = placement.request
    notes: list[str] = []
    for preset in matching(request, where):
        if not preset.weights or (_sets_options(preset) and not request.presets):
            continue
        placed = _swapped(placement, preset, where)
        if not isinstance(placed, str) and _fastest(placement):
            return placed, [*notes, _serves(placed.request.model, request.model, preset)]
        if not isinstance(placed, str):
            offered = replace(request, faster=f"{placed.request.model.key}: {preset.measured.gain}")
            return _renamed(placement, offered), []
        notes += [_left_out(preset, placed)] if _fastest(placement) else []
    if _fastest(placement) and not notes:
        notes.append(
            f"No other weights of {request.model.key} were measured to be faster on {where.count} x "
            f"{placement.candidate.group.name} (vllm_weights: fastest): the named ones are served."
        )
    return placement, notes


def _renamed(placement: Placement, request: InstanceRequest) -> Placement:
    """The placement of a request that differs in what is said of it alone."""
    return replace(placement, request=request, candidate=replace(placement.candidate, request=request))


def _serves(model: ModelSpec, named: ModelSpec, preset: Preset) -> str:
    return (
        f"Serving {model.key} ({model.repo_id}, {weight_text(model)}) in place of {named.key}, since it is faster by "
        f"the preset {preset.name} (vllm_weights: fastest): answers may differ slightly."
    )


def _swapped(placement: Placement, preset: Preset, where: Where) -> Placement | str:
    """The placement with a preset's weights, or why they are not taken."""
    request = placement.request
    known = where.catalog.find(preset.weights)
    same = [model for model in siblings(request.model, where.catalog) if known and model.key == known.key]
    if not same:
        return f"{preset.weights} is not the model as it is served here with smaller weights"
    model = replace(same[0], vllm=typed_args(same[0].vllm, where.engine))
    wanted = with_preset(replace(request, model=model), preset, where.engine)
    native = weight_only(replace(placement.candidate, request=wanted))
    if native:
        return native.rstrip(".")
    # Smaller weights may be laid out in another way.
    refused = _refused(wanted, where.engine)
    return refused or _compared(placement, _placed(placement, wanted), any_layout=True)


# -- on the CPU -------------------------------------------------------------------------------------------------------
def on_cpu(
    request: InstanceRequest, engine: EngineSpec, catalog: Catalog, context: Callable[[InstanceRequest], int]
) -> tuple[InstanceRequest, list[str]]:
    """The request with the preset that matches, and notes. ``context``: the context that a request gets."""
    whole = context(request)

    def tried(wanted: InstanceRequest, _preset: Preset) -> InstanceRequest | str:
        shorter = context(wanted)
        return f"with it the context would be {shorter} in place of {whole}" if shorter < whole else wanted

    found, notes = _first(request, Where(CPU, 0, engine, catalog), tried)
    return found or request, notes
