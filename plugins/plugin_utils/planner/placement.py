# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Place several models on one host: how many whole GPUs of which group each gets, and which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from .catalog import EngineSpec, GpuSpec, Policy
from .host import Group, numbered
from .request import InstanceRequest
from .spread import Candidate, Choice, Options, options, too_old

#: The GPUs that each running engine uses, in its order, by the instance's name.
Current = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Placement:
    """The GPUs of one instance and the layout chosen for it."""

    request: InstanceRequest
    candidate: Candidate
    options: Options
    choice: Choice
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Packing:
    """The placements of all instances, or why there are none."""

    placements: tuple[Placement, ...] = ()
    alone: tuple[InstanceRequest, ...] = ()  # do not fit even with the whole host
    together: tuple[tuple[InstanceRequest, int], ...] = ()  # fit alone, with at least so many GPUs, but not all at once
    pinned: tuple[str, ...] = ()  # findings about the users' gpu_indices


class Table:
    """A cache of options per instance, group and budget."""

    def __init__(self, engine: EngineSpec, policy: Policy) -> None:
        self._engine = engine
        self._policy = policy
        self._cache: dict[tuple[str, Group, int], Options] = {}

    def candidate(self, request: InstanceRequest, group: Group) -> Candidate:
        """The request on this group."""
        return Candidate(request, group, request.engine or self._engine, self._policy)

    def options(self, request: InstanceRequest, group: Group, budget: int) -> Options:
        """All options for this request on `budget` GPUs of this group."""
        key = (request.name, group, budget)
        if key not in self._cache:
            candidate = self.candidate(request, group)
            self._cache[key] = Options((), ()) if too_old(candidate) else options(candidate, budget)
        return self._cache[key]

    def least(self, request: InstanceRequest, group: Group, scarce: bool) -> int | None:
        """The fewest GPUs of this group that fit the request; None if it does not fit.

        Normally only options count that also fit the whole group. If GPUs are scarce, all options count: a model that
        fits the whole group without pipeline stages may fit fewer GPUs with them.
        """
        size, shared = len(group.indices), request.model.sized.mixture
        ways = (self.options(request, group, budget) for budget in range(1 if scarce or shared else size, size + 1))
        choices = [choice for way in ways for choice in way.fitting]
        if shared:
            # Its replicas hold the experts between them: all of them are needed, and fewer hold more each.
            usual = (
                choice.gpus for choice in choices if scarce or request.pp or choice.spread.pp == choice.spread.nodes
            )
            return min(usual, default=None)
        return min((choice.spread.on_a_node * (request.dp or 1) for choice in choices), default=None)


def _assign(
    requests: Sequence[InstanceRequest], groups: Sequence[Group], table: Table, scarce: bool
) -> dict[str, Group] | None:
    """Choose a group for each instance so that all get their minimum. Tries every combination; hosts are small."""
    needs = [{group: table.least(request, group, scarce) for group in groups} for request in requests]

    def place(which: int, left: Mapping[Group, int]) -> dict[str, Group] | None:
        if which == len(requests):
            return {}
        tried: set[tuple[GpuSpec, int]] = set()  # slices of a GPU are many groups that are alike
        for group in groups:
            need = needs[which][group]
            if need is not None and need <= left[group] and (group.spec, left[group]) not in tried:
                tried.add((group.spec, left[group]))
                rest = place(which + 1, {**left, group: left[group] - need})
                if rest is not None:
                    return {requests[which].name: group, **rest}
        return None

    return place(0, {group: len(group.indices) for group in groups})


def _next_budget(request: InstanceRequest, group: Group, table: Table, now: int, left: int) -> int | None:
    """The next larger number of GPUs that this instance would use completely; None if there is none."""
    for budget in range(now + 1, now + left + 1):
        best = table.options(request, group, budget).best
        if best is not None and best.gpus == budget:
            return budget
    return None


def _shares(
    requests: Sequence[InstanceRequest], group: Group, table: Table, scarce: bool, current: Current
) -> dict[str, int]:
    """GPUs per instance: the minimum for each, then the one with the fewest gets its next step, until none is left.

    Instances that already run on this group come first until they have as many GPUs as before.
    """
    before = {name: len(set(indices) & set(group.indices)) for name, indices in current.items()}
    if len(requests) == 1:
        # All GPUs, but for replicas whose number cuts through something: as many as go.
        budgets = range(len(group.indices), 0, -1)
        return {requests[0].name: next(count for count in budgets if table.options(requests[0], group, count).best)}
    budget = {request.name: table.least(request, group, scarce) or 0 for request in requests}
    while True:
        left = len(group.indices) - sum(budget.values())

        def turn(request: InstanceRequest) -> tuple[bool, int, str]:
            return budget[request.name] >= before.get(request.name, 0) > 0, budget[request.name], request.name

        for request in sorted(requests, key=turn):
            more = _next_budget(request, group, table, budget[request.name], left)
            if more is not None:
                budget[request.name] = more
                break
        else:
            return budget


def _block(free: list[int], width: int, domain: int) -> list[int]:
    """GPUs for one tensor-parallel group: in the smallest NVLink island with enough free GPUs, else the first ones."""
    islands: dict[int, list[int]] = {}
    for index in free:
        islands.setdefault(index // domain, []).append(index)
    roomy = [island for island in islands.values() if len(island) >= width]
    return (min(roomy, key=lambda island: (len(island), island)) if roomy else free)[:width]


def _pool(wanted: int, in_use: list[int], free: list[int], others: set[int], domain: int) -> list[int]:
    """The GPUs to choose from: those it runs on, then unused ones, then all free ones."""
    in_use = [index for index in in_use if index in free]
    unused = [index for index in free if index not in in_use and index not in others]
    if len(in_use) + len(unused) < wanted:
        return free
    if not in_use:
        return unused
    return in_use if len(in_use) >= wanted else sorted(in_use + _block(unused, wanted - len(in_use), domain))


def _placements(
    requests: Sequence[InstanceRequest], group: Group, table: Table, scarce: bool, current: Current
) -> list[Placement]:
    budgets = _shares(requests, group, table, scarce, current)
    chosen = []
    for request in requests:
        ways = table.options(request, group, budgets[request.name])
        chosen.append((request, ways, ways.fitting[0]))  # never empty: _assign gave it a group that fits
    free = list(group.indices)
    placements = []
    for request, ways, choice in sorted(chosen, key=lambda item: (-item[2].spread.tp, item[0].name)):
        taken = _pick_gpus(choice, request.name, free, group.spec.nvlink_domain, current)
        free = [index for index in free if index not in taken]
        placements.append(Placement(request, table.candidate(request, group), ways, choice, tuple(taken)))
    return placements


def _pick_gpus(choice: Choice, name: str, free: list[int], domain: int, current: Current) -> list[int]:
    """Choose an instance's GPUs among the free ones, one tensor-parallel group after the other."""
    width, in_use = choice.spread.tp, list(current.get(name, ()))
    if len(in_use) == choice.gpus and set(in_use) <= set(free) and _within_islands(in_use, width, domain):
        return in_use
    others = {index for other, indices in current.items() if other != name for index in indices}
    pool = _pool(choice.gpus, in_use, free, others, domain)
    taken: list[int] = []
    for _block_number in range(choice.gpus // width):
        block = _block(pool, width, domain)
        pool = [index for index in pool if index not in block]
        taken += block
    return taken


def _within_islands(indices: Sequence[int], width: int, domain: int) -> bool:
    """Whether each tensor-parallel group lies in one NVLink island, or is too wide for any."""
    groups = (indices[start : start + width] for start in range(0, len(indices), width))
    return width > domain or all(len({index // domain for index in group}) == 1 for group in groups)


def _pinned_group(request: InstanceRequest, groups: Sequence[Group]) -> Group | str:
    """The GPUs in an instance's gpu_indices as a group; or a finding about them."""
    named = set(request.gpu_indices or ())
    for group in groups:
        if named <= set(group.indices):
            return replace(group, indices=tuple(sorted(named)))
    available = {index for group in groups for index in group.indices}
    if named - available:
        verb = "is" if len(named - available) == 1 else "are"
        return (
            f"{request.name}: {numbered(sorted(named - available))} of gpu_indices {verb} not available on this host."
        )
    return (
        f"{request.name}: {numbered(sorted(named))} of gpu_indices are of different types; an"
        " engine can use GPUs of one type only."
    )


def without(groups: Sequence[Group], indices: set[int]) -> tuple[Group, ...]:
    """The groups without these GPUs."""
    rest = (replace(group, indices=tuple(i for i in group.indices if i not in indices)) for group in groups)
    return tuple(group for group in rest if group.indices)


def _pin(requests: Sequence[InstanceRequest], groups: Sequence[Group]) -> tuple[dict[str, Group], list[str]]:
    """A group for each instance with gpu_indices, made of exactly those GPUs; and findings."""
    pinned: dict[str, Group] = {}
    problems: list[str] = []
    taken: dict[int, str] = {}
    for request in requests:
        if request.gpu_indices is None:
            continue
        for index in request.gpu_indices:
            if index in taken:
                problems.append(f"GPU {index} is in gpu_indices of both {taken[index]} and {request.name}.")
            taken[index] = request.name
        group = _pinned_group(request, groups)
        if isinstance(group, str):
            problems.append(group)
        else:
            pinned[request.name] = group
    return pinned, problems


def pack(
    requests: Sequence[InstanceRequest],
    groups: Sequence[Group],
    engine: EngineSpec,
    policy: Policy,
    current: Current | None = None,
) -> Packing:
    """Place every instance, or say which cannot be placed. ``current``: the GPUs of the node's engines, by name."""
    current = current or {}
    table = Table(engine, policy)
    pinned, problems = _pin(requests, groups)
    if problems:
        return Packing(pinned=tuple(problems))
    rest = without(groups, {index for group in pinned.values() for index in group.indices})

    def least(request: InstanceRequest) -> int | None:
        choices = [pinned[request.name]] if request.name in pinned else groups
        return min((need for group in choices if (need := table.least(request, group, True)) is not None), default=None)

    needs = {request.name: least(request) for request in requests}
    alone = tuple(request for request in requests if needs[request.name] is None)
    if alone:
        return Packing(alone=alone)
    unpinned = [request for request in requests if request.name not in pinned]
    unpinned.sort(key=lambda request: (-(needs[request.name] or 0), request.name))
    scarce = _assign(unpinned, rest, table, scarce=False) is None
    group_of = _assign(unpinned, rest, table, scarce)
    if group_of is None:
        return Packing(together=tuple((request, needs[request.name] or 0) for request in requests))
    placements = [
        placement
        for request in requests
        if request.name in pinned
        for placement in _placements([request], pinned[request.name], table, scarce, current)
    ]
    for group in rest:
        in_group = [request for request in unpinned if group_of[request.name] == group]
        placements += _placements(in_group, group, table, scarce, current) if in_group else []
    return Packing(placements=tuple(sorted(placements, key=lambda placement: placement.request.name)))
