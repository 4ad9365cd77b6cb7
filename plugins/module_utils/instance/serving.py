# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engines that a node has, with their ports and GPUs. A new plan leaves these to them.

A GPU is named as in the container toolkit (CDI): by its UUID, which never changes, or by its index, which changes when
a GPU before it is lost.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple

from ..node import files as node_files
from . import known, names
from .record import Record

#: Matches a device in a CDI specification (YAML or JSON) that is named by its UUID.
_UUID_NAME = re.compile(r"""name["']?:\s*["']?(?:GPU|MIG)-""")


@dataclass(frozen=True)
class Serving:
    """An engine of a node, running or not.

    ``port_base``: the port that its port is counted from, None if unknown. ``model``: its repository, or the folder of
    its model; empty if unknown.
    """

    name: str
    port: Optional[int] = None
    port_base: Optional[int] = None
    gpus: Tuple[str, ...] = ()
    model: str = ""

    def as_dict(self) -> Dict[str, Any]:
        """Plain data, as a module returns it."""
        return asdict(self)


@dataclass(frozen=True)
class NodeServing:
    """What a plan needs to know of a node besides its GPUs. ``gpus_by_uuid``: whether CDI names them by UUID."""

    engines: Tuple[Serving, ...] = ()
    gpus_by_uuid: bool = True


def engines(records: Iterable[Record]) -> List[Serving]:
    """The engines of these instances."""
    return [Serving(record.name, record.port, record.port_base, record.gpus, record.model) for record in records]


def short_digest(text: bytes) -> str:
    """A digest long enough to compare two texts, and too short to help guess a secret."""
    return hashlib.sha256(text).hexdigest()[:8]


def started_from(name: str, root: str = "") -> Dict[str, str]:
    """The files that an engine was started from, path -> digest, from the copies of its unit. Empty: it does not run.

    ``root``: a prefix for the folder, for tests.
    """
    digests = {}
    for path, copy in known.copied(root + names.started_from(names.unit_of(name))):
        if not known.is_record(path):  # the engine does not read it
            try:
                digests[path] = short_digest(node_files.read_bytes(copy))
            except OSError:  # it has just ended
                continue
    return digests


def names_uuids(specs: Iterable[str]) -> Optional[bool]:
    """Whether the CDI specifications of a node name GPUs by UUID; None if they name no GPU."""
    ours = [text for text in specs if "nvidia.com/gpu" in text]
    return any(_UUID_NAME.search(text) for text in ours) if ours else None


def serving_from(plain: Mapping[str, Any]) -> NodeServing:
    """Build it from the data that gpu_info returned; on the controller."""
    engines = tuple(
        Serving(
            engine["name"],
            engine.get("port"),
            engine.get("port_base"),
            tuple(engine.get("gpus") or ()),
            str(engine.get("model") or ""),
        )
        for engine in plain.get("engines") or ()
    )
    return NodeServing(engines, plain.get("cdi_uuids") is not False)
