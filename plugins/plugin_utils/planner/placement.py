# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several models on one host: who gets how many GPUs of which group, and which ones. Nobody's GPUs overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from .catalog import EngineSpec, Policy
from .host import Group, numbered
from .request import InstanceRequest
from .spread import Bench, Choice, Options, options, too_old

#: The GPUs that each engine runs on already, in its order.
Own = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Seat:
    """Where one instance runs and what was decided for it."""

    wish: InstanceRequest
    bench: Bench
    options: Options
    choice: Choice
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Packing:
    """All instances seated, or the ones that fit nowhere."""

    seats: tuple[Seat, ...] = ()
    alone: tuple[InstanceRequest, ...] = ()  # do not fit even with the whole host to themselves
    together: tuple[tuple[InstanceRequest, int], ...] = ()  # fit alone, with so many GPUs at least, but not all at once
    pinned: tuple[str, ...] = ()  # what is wrong with the GPUs that were named


class Table:
    """Options per instance, group and budget; asked for often, worked out once."""

    def __init__(self, engine: EngineSpec, policy: Policy) -> None:
        self._engine = engine
        self._policy = policy
        self._known: dict[tuple[str, Group, int], Options] = {}

    def bench(self, wish: InstanceRequest, group: Group) -> Bench:
        """What this wish is judged against on this group."""
        return Bench(wish, group, wish.engine or self._engine, self._policy)

    def options(self, wish: InstanceRequest, group: Group, budget: int) -> Options:
        """All ways for this wish on so many GPUs of this group."""
        key = (wish.name, group, budget)
        if key not in self._known:
            bench = self.bench(wish, group)
            self._known[key] = Options((), ()) if too_old(bench) else options(bench, budget)
        return self._known[key]

    def least(self, wish: InstanceRequest, group: Group, scarce: bool) -> int | None:
        """The fewest GPUs of this group with which the wish can be met.

        It is met as it would be with the whole group to itself. Where GPUs are scarce it may be met in any way: a model
        that fits a whole group without pipeline stages may fit fewer GPUs with them.
        """
        size = len(group.indices)
        ways = (self.options(wish, group, budget) for budget in range(1 if scarce else size, size + 1))
        return min((one.spread.gpus * (wish.dp or 1) for way in ways for one in way.fitting), default=None)


def _assign(
    wishes: Sequence[InstanceRequest], groups: Sequence[Group], table: Table, scarce: bool
) -> dict[str, Group] | None:
    """A group for each instance, so that the least of all of them is there. Tries everything; hosts are small."""
    needs = [{group: table.least(wish, group, scarce) for group in groups} for wish in wishes]

    def place(which: int, left: Mapping[Group, int]) -> dict[str, Group] | None:
        if which == len(wishes):
            return {}
        for group in groups:
            need = needs[which][group]
            if need is not None and need <= left[group]:
                rest = place(which + 1, {**left, group: left[group] - need})
                if rest is not None:
                    return {wishes[which].name: group, **rest}
        return None

    return place(0, {group: len(group.indices) for group in groups})


def _next_budget(wish: InstanceRequest, group: Group, table: Table, now: int, left: int) -> int | None:
    """The next number of GPUs that this instance would use up to the last one."""
    for budget in range(now + 1, now + left + 1):
        best = table.options(wish, group, budget).best
        if best is not None and best.gpus == budget:
            return budget
    return None


def _shares(wishes: Sequence[InstanceRequest], group: Group, table: Table, scarce: bool, own: Own) -> dict[str, int]:
    """GPUs per instance: the least for everybody, then whoever has fewest gets the next step, while there are any.

    Who runs on GPUs of this group already comes before the others until it has as many as before.
    """
    had = {name: len(set(indices) & set(group.indices)) for name, indices in own.items()}
    if len(wishes) == 1:
        return {wishes[0].name: len(group.indices)}
    budget = {wish.name: table.least(wish, group, scarce) or 0 for wish in wishes}
    while True:
        left = len(group.indices) - sum(budget.values())

        def turn(wish: InstanceRequest) -> tuple[bool, int, str]:
            return budget[wish.name] >= had.get(wish.name, 0) > 0, budget[wish.name], wish.name

        for wish in sorted(wishes, key=turn):
            more = _next_budget(wish, group, table, budget[wish.name], left)
            if more is not None:
                budget[wish.name] = more
                break
        else:
            return budget


def _block(free: list[int], width: int, domain: int) -> list[int]:
    """GPUs for one tensor-parallel group: within the fullest NVLink island that has room, else the first ones."""
    islands: dict[int, list[int]] = {}
    for index in free:
        islands.setdefault(index // domain, []).append(index)
    roomy = [island for island in islands.values() if len(island) >= width]
    return (min(roomy, key=lambda island: (len(island), island)) if roomy else free)[:width]


def _pool(wanted: int, mine: list[int], free: list[int], others: set[int], domain: int) -> list[int]:
    """What an instance takes its GPUs from: those that it runs on, then those on which nobody runs, then all others."""
    mine = [index for index in mine if index in free]
    nobodys = [index for index in free if index not in mine and index not in others]
    if len(mine) + len(nobodys) < wanted:
        return free
    if not mine:
        return nobodys
    return mine if len(mine) >= wanted else sorted(mine + _block(nobodys, wanted - len(mine), domain))


def _seats(wishes: Sequence[InstanceRequest], group: Group, table: Table, scarce: bool, own: Own) -> list[Seat]:
    budgets = _shares(wishes, group, table, scarce, own)
    found = []
    for wish in wishes:
        ways = table.options(wish, group, budgets[wish.name])
        found.append((wish, ways, ways.fitting[0]))  # there is one: _assign has seen to it
    free = list(group.indices)
    seats = []
    for wish, ways, choice in sorted(found, key=lambda item: (-item[2].spread.tp, item[0].name)):
        taken = _taken(choice, wish.name, free, group.spec.nvlink_domain, own)
        free = [index for index in free if index not in taken]
        seats.append(Seat(wish, table.bench(wish, group), ways, choice, tuple(taken)))
    return seats


def _taken(choice: Choice, name: str, free: list[int], domain: int, own: Own) -> list[int]:
    """The GPUs that an instance gets of those that are free, one tensor-parallel group after the other."""
    width, mine = choice.spread.tp, list(own.get(name, ()))
    if len(mine) == choice.gpus and set(mine) <= set(free) and _joined(mine, width, domain):
        return mine
    others = {index for other, indices in own.items() if other != name for index in indices}
    pool = _pool(choice.gpus, mine, free, others, domain)
    taken: list[int] = []
    for _block_number in range(choice.gpus // width):
        block = _block(pool, width, domain)
        pool = [index for index in pool if index not in block]
        taken += block
    return taken


def _joined(indices: Sequence[int], width: int, domain: int) -> bool:
    """Whether each tensor-parallel group of these lies within one NVLink island, where it can."""
    groups = (indices[start : start + width] for start in range(0, len(indices), width))
    return width > domain or all(len({index // domain for index in group}) == 1 for group in groups)


def _pinned_group(wish: InstanceRequest, groups: Sequence[Group]) -> Group | str:
    """The GPUs that an instance names, as a group of their own; or what is wrong with them."""
    named = set(wish.gpu_indices or ())
    for group in groups:
        if named <= set(group.indices):
            return replace(group, indices=tuple(sorted(named)))
    there = {index for group in groups for index in group.indices}
    if named - there:
        return f"{wish.name}: {numbered(sorted(named - there))} of gpu_indices cannot be had on this host."
    return f"{wish.name}: {numbered(sorted(named))} of gpu_indices differ in kind, and an engine spans one kind only."


def _without(groups: Sequence[Group], indices: set[int]) -> tuple[Group, ...]:
    rest = (replace(group, indices=tuple(i for i in group.indices if i not in indices)) for group in groups)
    return tuple(group for group in rest if group.indices)


def _pin(wishes: Sequence[InstanceRequest], groups: Sequence[Group]) -> tuple[dict[str, Group], list[str]]:
    """Each instance that names its GPUs with a group of exactly those."""
    pinned: dict[str, Group] = {}
    problems: list[str] = []
    taken: dict[int, str] = {}
    for wish in wishes:
        if wish.gpu_indices is None:
            continue
        for index in wish.gpu_indices:
            if index in taken:
                problems.append(f"GPU {index} is named by both {taken[index]} and {wish.name}.")
            taken[index] = wish.name
        group = _pinned_group(wish, groups)
        if isinstance(group, str):
            problems.append(group)
        else:
            pinned[wish.name] = group
    return pinned, problems


def pack(
    wishes: Sequence[InstanceRequest],
    groups: Sequence[Group],
    engine: EngineSpec,
    policy: Policy,
    own: Own | None = None,
) -> Packing:
    """Seat every instance, or say which cannot be seated. ``own``: the GPUs that the node's engines run on, by name."""
    own = own or {}
    table = Table(engine, policy)
    pinned, problems = _pin(wishes, groups)
    if problems:
        return Packing(pinned=tuple(problems))
    rest = _without(groups, {index for group in pinned.values() for index in group.indices})

    def least(wish: InstanceRequest) -> int | None:
        choices = [pinned[wish.name]] if wish.name in pinned else groups
        return min((need for group in choices if (need := table.least(wish, group, True)) is not None), default=None)

    needs = {wish.name: least(wish) for wish in wishes}
    alone = tuple(wish for wish in wishes if needs[wish.name] is None)
    if alone:
        return Packing(alone=alone)
    loose = [wish for wish in wishes if wish.name not in pinned]
    loose.sort(key=lambda wish: (-(needs[wish.name] or 0), wish.name))
    scarce = _assign(loose, rest, table, scarce=False) is None
    placed = _assign(loose, rest, table, scarce)
    if placed is None:
        return Packing(together=tuple((wish, needs[wish.name] or 0) for wish in wishes))
    seats = [
        seat for wish in wishes if wish.name in pinned for seat in _seats([wish], pinned[wish.name], table, scarce, own)
    ]
    for group in rest:
        here = [wish for wish in loose if placed[wish.name] == group]
        seats += _seats(here, group, table, scarce, own) if here else []
    return Packing(seats=tuple(sorted(seats, key=lambda seat: seat.wish.name)))
