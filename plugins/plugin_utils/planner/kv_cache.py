# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The KV cache as vLLM lays it out: pages of a block of tokens in each layer, layers in groups, blocks from one pool.

The arithmetic is the engine's own (v1/kv_cache_interface.py, v1/core/kv_cache_planning.py, platforms/interface.py of
0.33): the block is raised until a page of attention holds a state, pages are made equal, layers are put in groups of
one kind, a request takes blocks of each group, and a block is as wide as the widest group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import lcm

from .architecture import CHUNK, CROSS, FULL, INDEX, LATENT, STATE, WINDOW, Architecture, CacheLayers, within

#: Kinds whose blocks hold every token: vLLM puts them in one group even where their sizes differ.
EVERY_TOKEN = (FULL, LATENT, INDEX)
#: With attention of latent vectors beside states, a block is a multiple of this.
LATENT_BLOCK = 128
#: Kernels of sparse attention want blocks of this.
SPARSE_BLOCK = 64
#: FlashAttention 4 reads an FP8 cache of heads this wide in blocks of SPARSE_BLOCK, on Hopper.
WIDE_HEAD, WIDE_ON = 512, (9, 0)


@dataclass(frozen=True)
class Setting:
    """What the sizes depend on beside the model."""

    tp: int = 1
    layers: tuple[int, int] = (0, 1 << 30)  # of one pipeline stage: from, up to
    fp8: bool = False
    block: int = 16
    in_flight: int = 16384
    step: int = 8192
    capability: tuple[int, ...] = (9, 0)
    prefix_caching: bool = True
    hybrid_manager: bool = True


@dataclass(frozen=True)
class Page:
    """One layer's share of a block: the tokens of a block and its bytes. ``limit``: of WINDOW and CHUNK."""

    kind: str
    tokens: int
    size: int
    limit: int = 0
    blocks: int = 0  # of STATE and CROSS: a request's, whatever its length

    def taken(self, context: int, in_flight: int) -> int:
        """Blocks of a request of this length."""
        if self.blocks:
            return self.blocks
        if self.kind == WINDOW:
            return -(-min(self.limit - 1 + in_flight, context) // self.tokens) + 1
        if self.kind == CHUNK:
            return -(-min(self.limit + in_flight, context) // self.tokens)
        return -(-context // self.tokens)


@dataclass(frozen=True)
class Layout:
    """The pool's block and the groups that take blocks from it."""

    block_bytes: int
    groups: tuple[Page, ...]
    in_flight: int

    def blocks(self, context: int) -> int:
        """Of one request."""
        return sum(page.taken(context, self.in_flight) for page in self.groups)

    def request_bytes(self, context: int) -> int:
        """Of one request."""
        return self.blocks(context) * self.block_bytes

    def longest(self, blocks: int, most: int) -> int:
        """The longest request, up to the most that is asked about, that so many blocks hold; 0 where there is none."""
        if not self.groups or self.blocks(most) <= blocks:
            return most
        low, high = 0, most
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.blocks(middle) <= blocks else (low, middle)
        return low

    def tokens(self, blocks: int, context: int) -> int:
        """What the engine's log calls the size of the KV cache."""
        return blocks * context // self.blocks(context) if self.groups else 0

    @property
    def has_states(self) -> bool:
        """Whether requests keep a state of fixed size."""
        return any(page.kind == STATE for page in self.groups)

    @property
    def token_bytes(self) -> float:
        """What one more token of a long request takes."""
        return sum(self.block_bytes / page.tokens for page in self.groups if page.kind in EVERY_TOKEN)


def token_size(group: CacheLayers, setting: Setting) -> int:
    """Bytes of one token in one layer."""
    if group.kind == LATENT:
        return group.packed if setting.fp8 and group.packed else group.k * (1 if setting.fp8 else 2)
    if group.kind == INDEX:
        return group.k * group.element
    heads = max(1, group.heads // setting.tp)
    return heads * (group.k + group.v) * (group.element or (1 if setting.fp8 else 2))


def state_size(group: CacheLayers, tp: int) -> int:
    """Bytes of one request's state in one layer."""
    return sum(state.bytes(tp) for state in group.states)


def _raised(groups: Sequence[CacheLayers], setting: Setting) -> int:
    """The block of tokens that a page of attention needs to hold a state."""
    block = _block(groups, setting)
    states = [state_size(group, setting.tp) for group in groups if group.kind == STATE]
    sizes = [token_size(group, setting) for group in groups if group.kind in (FULL, LATENT)]
    if not states or not sizes:
        return block
    step = max(block, LATENT_BLOCK if any(group.kind == LATENT for group in groups) else 0)
    step = lcm(step, _checkpoint(groups, setting) or 1)
    return max(block, step * -(-max(states) // (step * sizes[0])))


def _checkpoint(groups: Sequence[CacheLayers], setting: Setting) -> int:
    """At multiples of how many tokens the engine keeps a state inside a prefill; 0 where it does not.

    It does where all layers with a state can (get_mamba_prefill_checkpoint_alignment).
    """
    kept = [group for group in groups if group.kind == STATE]
    able = all(group.checkpoint and setting.capability >= group.checkpoint_from for group in kept)
    return lcm(*(group.checkpoint for group in kept)) if setting.prefix_caching and kept and able else 0


def _state_blocks(groups: Sequence[CacheLayers], setting: Setting, attention: bool) -> int:
    """Blocks of a request's state: one; two with prefix caching, and the checkpoint's."""
    if not setting.prefix_caching or not attention:
        return 1
    return 3 if _checkpoint(groups, setting) else 2


def _block(groups: Sequence[CacheLayers], setting: Setting) -> int:
    """Tokens of a block that the attention's kernels want."""
    wide = setting.fp8 and setting.capability[:1] == WIDE_ON[:1] and any(group.k == WIDE_HEAD for group in groups)
    sparse = any(group.kind == INDEX for group in groups)
    return max(setting.block, SPARSE_BLOCK) if sparse or wide else setting.block


def pages(architecture: Architecture, setting: Setting) -> Counter[Page]:
    """The layers of one GPU by what they keep."""
    groups = [replace(group, layers=within(group.layers, setting.layers)) for group in architecture.cache]
    groups = [group for group in groups if group.layers]
    block = _raised(groups, setting)
    attention = [token_size(group, setting) for group in groups if group.kind in (FULL, LATENT)]
    windows = setting.hybrid_manager
    kept: Counter[Page] = Counter()
    for group in groups:
        count = len(group.layers)
        if group.kind == STATE:
            size = max(state_size(group, setting.tp), block * attention[0] if attention else 0)
            blocks = _state_blocks(groups, setting, bool(attention)) + architecture.speculative
            kept[Page(STATE, block, size, blocks=blocks)] += count
            continue
        size = block * token_size(group, setting)
        if group.kind == CROSS:
            # The encoder's memory of a step, or of the largest item where that is more.
            kept[Page(CROSS, block, size, blocks=-(-max(group.window, setting.step) // block))] += count
        elif group.kind in (WINDOW, CHUNK) and windows:
            kept[Page(group.kind, block, size, group.window)] += count
        else:
            kind = FULL if group.kind in (WINDOW, CHUNK) else group.kind
            kept[Page(kind, block, size)] += count
    return kept


def _even(kept: Mapping[Page, int]) -> Counter[Page]:
    """Pages made equal: by more tokens to a block where that comes out even, else by padding."""
    largest = max(page.size for page in kept)
    made: Counter[Page] = Counter()
    for page, count in kept.items():
        if page.size == largest or page.kind in (STATE, CROSS) or largest % page.size:
            made[replace(page, size=largest)] += count
        else:
            made[replace(page, size=largest, tokens=page.tokens * (largest // page.size))] += count
    return made


def _group_layers(counts: Sequence[int]) -> int:
    """How many layers a group has: as many as the rarest kind, or as the commonest where they are nearly as many."""
    least, most = min(counts), max(counts)
    return most if most < least * 1.5 else least


def layout(architecture: Architecture, setting: Setting) -> Layout:
    """How the cache is laid out on one GPU."""
    kept = pages(architecture, setting)
    if not kept:
        return Layout(0, (), setting.in_flight)
    kinds = {(page.kind if page.kind not in EVERY_TOKEN else FULL, page.limit, page.blocks) for page in kept}
    if len(kinds) == 1 and len({page.tokens for page in kept}) == 1:
        width = sum(page.size * count for page, count in kept.items())
        return Layout(width, (next(iter(kept)),), setting.in_flight)
    even = _even(kept)
    size = _group_layers(list(even.values()))
    groups = [page for page, count in even.items() for _group in range(-(-count // size))]
    widest = max(-(-count // -(-count // size)) for count in even.values())
    return Layout(widest * next(iter(even)).size, tuple(groups), setting.in_flight)
