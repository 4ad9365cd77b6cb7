# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node's units say of the engines that it has: their ports and their GPUs, which a plan leaves to them.

A GPU goes by its name for the container toolkit (CDI): its UUID, which stays, or its index, which another GPU takes
over when one before it is lost.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple

from ..node import files as node_files
from . import known, names
from .record import Record

#: The name of a device in a CDI specification, YAML or JSON, that is a UUID.
_UUID_NAME = re.compile(r"""name["']?:\s*["']?GPU-""")


@dataclass(frozen=True)
class Serving:
    """An engine that a node has, running or not. ``port_base``: where its port was counted from, None where untold."""

    name: str
    port: Optional[int] = None
    port_base: Optional[int] = None
    gpus: Tuple[str, ...] = ()

    def as_dict(self) -> Dict[str, Any]:
        """Plain data, as a module returns it."""
        return asdict(self)


@dataclass(frozen=True)
class NodeServing:
    """What a plan must know of a node besides its GPUs. ``gpus_by_uuid``: whether containers can have them so."""

    engines: Tuple[Serving, ...] = ()
    gpus_by_uuid: bool = True


def engines(records: Iterable[Record]) -> List[Serving]:
    """The engines of these instances."""
    return [Serving(one.name, one.port, one.port_base, one.gpus) for one in records]


def short_digest(text: bytes) -> str:
    """Enough to tell two texts apart, and too little to tell what a secret one holds."""
    return hashlib.sha256(text).hexdigest()[:8]


def started_from(name: str, root: str = "") -> Dict[str, str]:
    """The files that an engine was started from, path -> digest; its unit put them aside. Empty: it does not run.

    ``root`` stands before their folder, for tests.
    """
    found = {}
    for path, copy in known.copied(root + names.started_from(names.unit_of(name))):
        if not known.is_record(path):  # from which nothing is started
            try:
                found[path] = short_digest(node_files.read_bytes(copy))
            except OSError:  # it ends just now
                continue
    return found


def names_uuids(specs: Iterable[str]) -> Optional[bool]:
    """Whether the CDI specifications of a node name GPUs by UUID; None where none names a GPU at all."""
    ours = [text for text in specs if "nvidia.com/gpu" in text]
    return any(_UUID_NAME.search(text) for text in ours) if ours else None


def serving_from(plain: Mapping[str, Any]) -> NodeServing:
    """The way back from what gpu_info returns, on the controller."""
    engines = tuple(
        Serving(one["name"], one.get("port"), one.get("port_base"), tuple(one.get("gpus") or ()))
        for one in plain.get("engines") or ()
    )
    return NodeServing(engines, plain.get("cdi_uuids") is not False)
