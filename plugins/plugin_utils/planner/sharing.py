# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GPUs that several engines share: each engine has one GPU, and a share of what an engine may use of it.

A share is stated or planned. A planned one is what the engine needs, and its part of what the others leave. vLLM's own
measure is of all of the memory, so a share becomes a `gpu-memory-utilization`; engines of one GPU start one after the
other, since each measures what is free while it starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from .catalog import EngineSpec, Policy
from .host import Group, numbered
from .placement import Current, Placement, Table
from .request import AUTO_SHARE, InstanceRequest
from .spread import Candidate, options, shortfall, too_old

#: Shares are planned in hundredths.
PARTS = 100
#: Sums of shares are compared with this much tolerance.
SLACK = 1e-9


@dataclass
class Board:
    """One GPU, and the engines that are to share it with the least share of each."""

    group: Group
    index: int
    least: dict[str, float] = field(default_factory=dict)

    @property
    def alone(self) -> Group:
        """The GPU as a group of its own."""
        return replace(self.group, indices=(self.index,))

    @property
    def left(self) -> float:
        """The share that nobody has."""
        return 1 - sum(self.least.values())


@dataclass(frozen=True)
class Shared:
    """Where the engines go that share GPUs, or findings that say why they cannot."""

    placements: tuple[Placement, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def indices(self) -> set[int]:
        """The GPUs that are shared."""
        return {index for placement in self.placements for index in placement.indices}


class Sharing:
    """Puts engines that share onto boards."""

    def __init__(self, engine: EngineSpec, policy: Policy, current: Current) -> None:
        self._table = Table(engine, policy)
        self._current = current

    def candidate(self, request: InstanceRequest, board: Board, share: float) -> Candidate:
        """The engine with this share of the board."""
        return self._table.candidate(replace(request, gpu_share=share), board.alone)

    def fits(self, request: InstanceRequest, board: Board, share: float) -> bool:
        """Whether the engine runs in this share of the board."""
        candidate = self.candidate(request, board, share)
        return not too_old(candidate) and options(candidate, 1).best is not None

    def needed(self, request: InstanceRequest, board: Board) -> float | None:
        """The least share of the board that the engine runs in; None if it does not fit all of it."""
        if not self.fits(request, board, 1.0):
            return None
        low, high = 1, PARTS
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self.fits(request, board, middle / PARTS) else (middle + 1, high)
        return low / PARTS

    def least(self, request: InstanceRequest, board: Board) -> float | None:
        """The share that the engine takes at least: the stated one if it fits, else what it needs."""
        if isinstance(request.gpu_share, float):
            return request.gpu_share if self.fits(request, board, request.gpu_share) else None
        return self.needed(request, board)

    def put(self, request: InstanceRequest, boards: Sequence[Board], others: set[int]) -> str:
        """Put the engine on the board that suits it best; or say why none does."""
        wanted = [board for board in boards if not request.gpu_indices or board.index in request.gpu_indices]
        if not wanted:
            return (
                f"{request.name}: {numbered(request.gpu_indices or ())} of gpu_indices cannot be shared on this host."
            )
        own = self._current.get(request.name, ())
        wanted.sort(
            key=lambda board: (board.index not in own, not board.least, board.index in others, board.left, board.index)
        )
        sizes: dict[Group, float | None] = {}
        for board in wanted:
            if board.group not in sizes:
                sizes[board.group] = self.least(request, board)
            share = sizes[board.group]
            if share is not None and share <= board.left + SLACK:
                board.least[request.name] = share
                return ""
        return self._why_not(request, wanted, [share for share in sizes.values() if share is not None])

    def _why_not(self, request: InstanceRequest, boards: Sequence[Board], fitting: Sequence[float]) -> str:
        if fitting:
            have = "; ".join(_usage(board) for board in boards)
            return (
                f"{request.name} wants a share of {min(fitting):g} of one GPU, and no GPU has that much left: {have}. "
                "Lower the shares (gpu_share), or serve fewer models on this host."
            )
        board = boards[0]
        share = request.gpu_share if isinstance(request.gpu_share, float) else 1.0
        candidate = self.candidate(request, board, share)
        why = too_old(candidate)
        nearest = None if why else options(candidate, 1).nearest
        why = why or (shortfall(candidate, nearest[0]) if nearest else "it cannot run on one GPU")
        needed = self.needed(request, board)
        remedy = (
            f"a gpu_share of {needed:g} or more is enough"
            if needed
            else "it does not fit one such GPU: serve it without gpu_share, on several"
        )
        return f"{request.name} does not fit a share of {share:g} of {board.group.name}: {why}; {remedy}."

    def placements(self, requests: Sequence[InstanceRequest], board: Board) -> list[Placement]:
        """The engines of a board. What nobody has goes to those with planned shares, as much as they need."""
        planned = [request for request in requests if request.gpu_share == AUTO_SHARE]
        whole = sum(board.least[request.name] for request in planned)
        placed = []
        for request in requests:
            share = board.least[request.name]
            if request in planned:
                share = int((share + board.left * share / whole) * PARTS + SLACK) / PARTS
            candidate = self.candidate(request, board, share)
            ways = options(candidate, 1)
            placed.append(Placement(candidate.request, candidate, ways, ways.fitting[0], (board.index,)))
        return placed


def _usage(board: Board) -> str:
    """Who has what of a board."""
    who = ", ".join(f"{name} {share:g}" for name, share in sorted(board.least.items()))
    return f"GPU {board.index} has {max(board.left, 0):.2g} left ({who})" if who else f"GPU {board.index} is free"


def share_out(
    requests: Sequence[InstanceRequest], groups: Sequence[Group], engine: EngineSpec, policy: Policy, current: Current
) -> Shared:
    """Place the engines that share, those with whole GPUs in mind. ``current``: the GPUs of the node's engines."""
    sharing = [request for request in requests if request.gpu_share is not None]
    if not sharing:
        return Shared()
    whole = [request for request in requests if request.gpu_share is None]
    pinned = {index: request.name for request in whole for index in request.gpu_indices or ()}
    others = {index for request in whole for index in current.get(request.name, ())}
    boards = [Board(group, index) for group in groups for index in group.indices if index not in pinned]
    work = Sharing(engine, policy, current)
    sharing.sort(key=lambda request: (request.gpu_indices is None, -_size(request), request.name))
    problems = [
        problem for request in sharing if (problem := _taken(request, pinned) or work.put(request, boards, others))
    ]
    if problems:
        return Shared(problems=tuple(problems))
    by_name: Mapping[str, InstanceRequest] = {request.name: request for request in sharing}
    placed = [
        placement
        for board in boards
        if board.least
        for placement in work.placements([by_name[name] for name in sorted(board.least)], board)
    ]
    return Shared(tuple(placed))


def _size(request: InstanceRequest) -> float:
    """Stated shares come first, the larger ones before; planned ones go by what their weights take."""
    stated = isinstance(request.gpu_share, float)
    return (
        1.0 + float(request.gpu_share or 0) if stated else -1.0 / (1 + sum(s.layer_bytes for s in request.model.stored))
    )


def _taken(request: InstanceRequest, pinned: Mapping[int, str]) -> str:
    """A finding if the engine's GPU is another's as a whole."""
    taken = sorted(index for index in request.gpu_indices or () if index in pinned)
    if not taken:
        return ""
    return (
        f"{request.name}: GPU {taken[0]} of gpu_indices is in gpu_indices of {pinned[taken[0]]}, too, which has no "
        "gpu_share: give it one."
    )


def starts_after(placements: Sequence[Placement]) -> dict[str, tuple[str, ...]]:
    """By instance, those that share its GPU and start before it."""
    before: dict[str, tuple[str, ...]] = {}
    sharing = sorted(
        (placement for placement in placements if placement.request.gpu_share is not None),
        key=lambda placement: placement.request.name,
    )
    for place, placement in enumerate(sharing):
        before[placement.request.name] = tuple(
            o.request.name for o in sharing[:place] if o.indices == placement.indices
        )
    return before
