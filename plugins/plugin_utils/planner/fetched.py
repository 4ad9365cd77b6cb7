# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files of a repository are downloaded, and the size of their weights, from a listing.

Many repositories have their weights more than once: as safetensors, in PyTorch's older format, as the publisher's own
checkpoint, as GGUF. vLLM reads one of them. The others are not downloaded, unless the user names the files.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from ...module_utils.hub.snapshot import wanted
from .catalog import ModelSpec
from .named import ADAPTER, READ, shown

CONFIG = "config.json"
#: Files of weights that vLLM does not read. Those that it reads are in READ, in its order of preference.
UNREAD = (".pth", ".gguf", ".onnx", ".h5", ".msgpack", ".ot", ".ckpt", ".tflite")
#: Folders with copies in other formats, and of training runs.
FOLDERS = re.compile(r"(original|metal|onnx|openvino|coreml|checkpoint-\d+)/")
#: Files of a training run besides the weights.
TRAINING = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state)[^/]*\.(bin|pt|pth)$")
#: Patterns of copies. The first match is used, so that a plan shows few patterns.
PATTERNS = (
    *("original/*", "metal/*", "onnx/*", "openvino/*", "coreml/*", "checkpoint-*", "consolidated*"),
    *("*.bin", *(f"*{kind}" for kind in (".pt", *UNREAD))),
)


def chosen(
    model: ModelSpec, allow_patterns: Sequence[str] | None = None, ignore_patterns: Sequence[str] | None = None
) -> ModelSpec:
    """The model, with its files to download.

    Args:
        allow_patterns: the files that the user wants; None by default.
        ignore_patterns: the files that the user does not want, instead of the copies that are excluded by default.

    Raises:
        ValueError: there are no weights that vLLM reads, or not all of them; a sentence.
    """
    allow = model.allow_patterns if allow_patterns is None else tuple(allow_patterns)
    ignore = model.ignore_patterns if ignore_patterns is None else tuple(ignore_patterns)
    if not model.files:
        return replace(model, allow_patterns=allow, ignore_patterns=ignore)
    if ignore_patterns is None:
        # The user has named these files explicitly.
        ignore = () if allow else patterns(model.files, model.shards)
    fetched = {path: size for path, size in model.files.items() if wanted(path, allow, ignore)}
    _check(model, fetched)
    weights = sum(size for path, size in fetched.items() if path.endswith(READ) and not TRAINING.search(path))
    return replace(model, allow_patterns=allow, ignore_patterns=ignore, weights_bytes=weights)


def patterns(files: Iterable[str], shards: Iterable[str] = ()) -> tuple[str, ...]:
    """Patterns of the copies in a listing, as the hub's tools read them: what they match is not fetched."""
    listed = list(files)
    out = left_out(listed, frozenset(shards))
    matching, rest = [], set(out)
    for pattern in PATTERNS:
        hit = {path for path in listed if fnmatchcase(path, pattern)}
        if hit & rest and hit <= out:
            matching.append(pattern)
            rest -= hit
    return (*matching, *map(glob.escape, sorted(rest)))


def left_out(files: Iterable[str], shards: frozenset[str]) -> set[str]:
    """The files of a listing that are copies of what vLLM reads, or that it does not read."""
    listed = [path for path in files if path.endswith((*READ, *UNREAD)) or FOLDERS.match(path) or _consolidated(path)]
    kinds = {folder: _kind(path for path in listed if _folder(path) == folder) for folder in map(_folder, listed)}
    if not kinds.get(""):
        return set()
    out = {path for path in listed if FOLDERS.match(path) or TRAINING.search(path)}
    out |= {path for path in listed if kinds[_folder(path)] and not path.endswith((kinds[_folder(path)], ".json"))}
    real = {path for path in listed if path.endswith(".safetensors") and "/" not in path}
    if shards & real:  # as vLLM does: what the index does not name is a copy
        out |= real - shards
    consolidated = {path for path in listed if _consolidated(path)}
    out |= consolidated if real - consolidated else set()
    # vLLM would take an adapter's tensors for the model's.
    adapters = {path for path in listed if path.startswith(ADAPTER)}
    return out | (adapters if {path for path in listed if "/" not in path} - out - adapters else set())


def _consolidated(path: str) -> bool:
    """Whether a file belongs to the publisher's own checkpoint or is its index."""
    return path.startswith("consolidated")


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _kind(paths: Iterable[str]) -> str:
    """The format of the weights in a folder that vLLM reads; empty if there are none."""
    names = [path for path in paths if not TRAINING.search(path)]
    return next((kind for kind in READ if any(path.endswith(kind) for path in names)), "")


def _check(model: ModelSpec, fetched: Mapping[str, int]) -> None:
    """Raises ValueError if vLLM cannot load a model from the downloaded files."""
    what = model.folder or f"{model.repo_id} at {model.revision}"
    if CONFIG not in fetched:
        raise ValueError(f"{what}: the patterns leave out config.json, without which vLLM does not start.")
    absent = [name for name in model.shards if name not in model.files]
    if absent:
        raise ValueError(
            f"{what} is not whole: the index of its weights names {len(model.shards)} files, and {shown(absent, 3)}"
            f" {'are' if absent[1:] else 'is'} not there. Its upload may still go on: choose another revision, or wait."
        )
    if _kind(path for path in fetched if "/" not in path):
        short = [name for name in model.shards if name not in fetched]
        if short:
            raise ValueError(f"{what}: the patterns leave out {shown(short, 3)}, and vLLM needs all of its weights.")
        return
    if _kind(path for path in model.files if "/" not in path):
        raise ValueError(f"{what}: the patterns leave out all of its weights.")
    if any(path.endswith(".gguf") for path in model.files):
        raise ValueError(
            f"{what} has its weights as GGUF alone, which vLLM does not read: serve the repository that they were made"
            " from, or one of the same model in FP8, AWQ or GPTQ."
        )
    raise ValueError(
        f"{what} has no weights that vLLM reads, which are safetensors or .bin: it has {shown(sorted(model.files))}."
    )
