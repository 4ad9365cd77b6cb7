# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Describe a model that is not in the catalogue: its config.json and its files, as the planner needs them.

There are three sources. If the model was downloaded to this node, its manifest has the listing and the weights include
config.json, so no network is needed. Otherwise the hub is asked, or the folder that replaces it. A model that is a
folder of the node is read as it is. This file makes no decisions and writes nothing.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any, Callable, Iterable, Mapping, Sequence, Union

from .. import paths
from ..node import files as node_files
from . import sight as hub_sight, snapshot as hub_snapshot
from .api import About, Hub, HubError
from .folder import Folder, walk
from .snapshot import Cache, Manifest, RepoFile, Snapshot

CONFIG = "config.json"
#: ModelOpt's file with the weights' format, if config.json does not contain it.
FORMAT = "hf_quant_config.json"
#: The file that marks a repository as a LoRA adapter.
ADAPTER = "adapter_config.json"
#: The indexes of tensors by file, for each kind of files. The second is used if the first is missing.
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
#: Far more than any that was published: 5 MB is a long config.json, and 20 MB an index of 100,000 tensors.
LARGEST = {CONFIG: 16_000_000, FORMAT: 16_000_000, ADAPTER: 16_000_000}
LARGEST_INDEX = 60_000_000

Described = dict[str, Any]
#: The content of a file of the listing. Raises HubError if it is not available.
Read = Callable[[RepoFile], bytes]


@dataclass(frozen=True)
class Wanted:
    """A model as its user names it: a repository and a revision, or a ``folder`` of this node."""

    name: str
    repo_id: str = ""
    revision: str = "main"
    folder: str = ""

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Wanted:
        return cls(**{key: str(raw[key]) for key in ("name", "repo_id", "revision", "folder") if raw.get(key)})


def describe(wanted: Iterable[Wanted], hub: Union[Hub, Folder], home: str, update: bool) -> dict[str, Described]:
    """The description of each model, by name; or in ``refused`` the reason why there is none, as a sentence.

    Args:
        home: the folder of downloaded models.
        update: whether to resolve a branch again that was resolved on this node before.
    """
    answers: dict[str, Described] = {}
    for model in wanted:
        try:
            answers[model.name] = of_folder(model.folder) if model.folder else of_repository(model, hub, home, update)
        except (HubError, paths.Refused) as refusal:
            answers[model.name] = {"refused": str(refusal), "kind": getattr(refusal, "kind", "refused")}
    return answers


def of_repository(wanted: Wanted, hub: Union[Hub, Folder], home: str, update: bool) -> Described:
    """Describe a repository's revision, from this node's files or from the hub."""
    snapshot = Snapshot(wanted.repo_id, wanted.revision)
    kept = None if update and not snapshot.pinned else _kept(snapshot, home)
    if kept is not None:
        return kept
    about = hub.about(snapshot)
    paths.disjoint(file.path for file in about.files)
    return _described(snapshot, about, lambda file: hub.read(snapshot, about.commit, file))


def _kept(snapshot: Snapshot, home: str) -> Described | None:
    """Describe a model from its files on this node; None if they do not suffice."""
    present = hub_snapshot.look(home, snapshot)
    if present.manifest is None:
        return None
    manifest = present.manifest
    about = About(present.commit, manifest.gated, "", manifest.listing)
    try:
        return _described(snapshot, about, lambda file: _here(home, manifest, file))
    except (OSError, HubError):
        return None


def _here(home: str, manifest: Manifest, file: RepoFile) -> bytes:
    return node_files.read_bytes(Cache(home).pointer(manifest.repo_id, manifest.revision, file.path))


def _described(snapshot: Snapshot, about: About, read: Read) -> Described:
    files = {file.path: file for file in about.files}
    what = f"{snapshot.repo_id} at {about.commit}"
    return {
        "repo_id": snapshot.repo_id,
        "revision": about.commit,
        "branch": "" if snapshot.pinned else snapshot.revision,
        "gated": about.gated,
        "license": about.license,
        "files": {path: file.size for path, file in files.items()},
        **_contents(what, files, read),
    }


def _contents(what: str, files: Mapping[str, RepoFile], read: Read) -> Described:
    """The content of config.json (None without one), the weights' format and an adapter's rank from other files, and
    the files in the index of the weights."""
    config = _json(what, files[CONFIG], read) if CONFIG in files else None
    beside = FORMAT in files and config is not None and not config.get("quantization_config")
    stored = {"hf_quant_config": _json(what, files[FORMAT], read)} if beside else {}
    if ADAPTER in files:
        stored["adapter_config"] = _json(what, files[ADAPTER], read)
    index = next((name for name in INDEXES if name in files), "") if config is not None else ""
    if index and not index.startswith("model.") and any(path.endswith(".safetensors") for path in files):
        index = ""
    shards = _shards(what, files[index], read) if index else []
    return {"config": config, "index": index, "shards": shards, **stored}


def _shards(what: str, file: RepoFile, read: Read) -> Sequence[str]:
    tensors = _json(what, file, read).get("weight_map")
    if not isinstance(tensors, dict) or not all(isinstance(name, str) for name in tensors.values()):
        raise HubError(
            "refused", f"{file.path} of {what} has no weight_map, so which files hold its weights is not known."
        )
    return sorted(set(tensors.values()))


def _json(what: str, file: RepoFile, read: Read) -> dict[str, Any]:
    most = LARGEST.get(file.path, LARGEST_INDEX)
    if file.size > most:
        raise HubError(
            "refused",
            f"{file.path} of {what} has {file.size / 1e6:.0f} MB, and no more than {most / 1e6:.0f} MB are read: it is"
            " probably another kind of file.",
        )
    try:
        # Python writes Infinity, which JSON does not have, and configurations of state-space models contain it.
        value = json.loads(read(file), parse_constant=str)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise HubError("refused", f"{file.path} of {what} is no JSON object, so what model this is is not known.")
    return value


# -- a folder of the node's own ---------------------------------------------------------------------------------------
def of_folder(folder: str) -> Described:
    """Describe a folder with config.json and weights."""
    if not os.path.isdir(folder):
        raise HubError("no_folder", f"There is no folder {folder} here. Is it mounted?")
    places = {path: place for path, place in walk(folder) if not path.startswith(".")} if _is_model(folder) else {}
    outside = hub_sight.out_of_sight(folder, places.values())
    if outside:
        raise HubError("no_folder", outside)
    # Their hashes are unknown and not needed, so the listing has made-up names of blobs.
    files = {path: RepoFile(path, os.stat(place).st_size, "0" * 40) for path, place in places.items()}
    contents = _contents(folder, files, lambda file: _read_here(places[file.path]))
    names = files or dict.fromkeys(os.listdir(folder))
    sizes = {path: file.size if file else 0 for path, file in names.items()}
    return {"folder": folder, "gated": False, "license": "", "files": sizes, **contents}


def _is_model(folder: str) -> bool:
    """Without config.json the folder is not listed: it may be any folder, such as a whole disk."""
    return os.path.isfile(os.path.join(folder, CONFIG))


def _read_here(place: str) -> bytes:
    try:
        return node_files.read_bytes(place)
    except OSError as trouble:
        raise HubError("no_folder", f"{place} cannot be read: {trouble.strerror}.") from trouble
