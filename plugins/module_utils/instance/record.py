# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an instance is, as its record on the node says: /etc/vllm/NAME.json, which everybody there reads.

The role vllm writes it in the step that writes the instance's other files, and the unit puts it aside with them. The
engine does not read it, so a record that changes restarts nothing. It holds no secret.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ..node.schema import SCHEMA, numbered
from . import names

#: What the role vllm writes into each file of an instance's.
MARK = "Written by Ansible (gpunode.llm.vllm)"
ABOUT = f"What belongs to this instance, for the playbooks. The engine does not read it. {MARK}."
#: How long an engine may take from its start to its first answer where nobody says otherwise, in seconds.
START_S = 900
#: How much longer than what it waits for each limit is, in seconds: the inner one ends first, and says why.
MARGIN_S = 60


class NewerRecord(ValueError):
    """A record that a newer release wrote. The message is for people."""


def start_limit_s(start_s: int, gpu_s: int) -> int:
    """After how many seconds systemd gives up a start. It counts each command of a start apart."""
    return max(start_s, gpu_s) + MARGIN_S


def patience_s(limit_s: int, gpu_s: int) -> int:
    """How long to wait for a start, in seconds: until systemd has given it up, the wait for its GPUs included."""
    return gpu_s + limit_s + MARGIN_S


@dataclass(frozen=True)
class Files:
    """Where everything of an instance is; empty where it has no such file."""

    config: str = ""
    environment: str = ""
    api_keys: str = ""
    #: What its engine compiled.
    cache: str = ""
    #: What it last answered from.
    kept: str = ""
    unit: str = ""
    record: str = ""

    def all(self) -> List[str]:
        """In the order in which they go. The record is the last: while it is there, the rest is found again."""
        paths = [self.config, self.environment, self.api_keys, self.cache, self.kept, self.unit, self.record]
        # A path that is not absolute is no path of ours.
        return [path for path in paths if path.startswith("/")]


@dataclass(frozen=True)
class Record:
    """An instance. ``gpus``: their names for the container toolkit; ``port_base``: where its port was counted from."""

    name: str
    unit: str
    image: str = ""
    #: The repository, its commit or branch, and the name under which clients ask for it.
    model: str = ""
    revision: str = ""
    served: str = ""
    host: str = "127.0.0.1"
    port: Optional[int] = None
    port_base: Optional[int] = None
    gpus: Tuple[str, ...] = ()
    #: How long to wait for a start of it, in seconds.
    timeout_s: int = patience_s(start_limit_s(START_S, 0), 0)
    files: Files = field(default_factory=Files)

    @property
    def endpoint(self) -> Dict[str, Any]:
        """Where it answers, as the module endpoint_ready takes it."""
        return {
            "name": self.name,
            "unit": self.unit,
            "host": self.host,
            "port": self.port or 8000,
            "model": self.served,
            "env_file": self.files.environment,
            "timeout_s": self.timeout_s,
        }

    def text(self) -> str:
        """The record as it is written down."""
        return json.dumps(numbered({"about": ABOUT, **asdict(self)}), indent=2) + "\n"


def parse(text: str) -> Optional[Record]:
    """The record in a file's text; None where it is none of ours.

    Raises:
        NewerRecord: a newer release wrote it.
    """
    value = document(text)
    if value is None or not (isinstance(value.get("name"), str) and isinstance(value.get("unit"), str)):
        return None
    files = value.get("files")
    known = {key: value[key] for key in Record.__dataclass_fields__ if value.get(key) is not None}
    known_files = files if isinstance(files, Mapping) else {}
    paths = {key: str(known_files[key]) for key in Files.__dataclass_fields__ if key in known_files}
    return Record(**{**known, "gpus": tuple(map(str, known.get("gpus", ()))), "files": Files(**paths)})


def document(text: str) -> Optional[Mapping[str, Any]]:
    """A JSON text of ours, an instance's or the gateway's; None where it is none.

    Raises:
        NewerRecord: a newer release wrote it.
    """
    try:
        value = json.loads(text)
    except ValueError:
        return None
    ours = isinstance(value, Mapping) and "gpunode.llm" in str(value.get("about"))
    if not ours or not isinstance(value.get("schema"), int):
        return None
    if value["schema"] > SCHEMA:
        raise NewerRecord(
            f"The record of {value.get('name') or value.get('unit')} on the node has schema {value['schema']}, and this"
            f" release of gpunode.llm reads schema {SCHEMA}. Use the release that wrote it, or a newer one."
        )
    return dict(value)


def gateway_text(listens: Any) -> str:
    """The gateway's record. ``listens``: every host and port that it takes on the node."""
    about = "What the gateway listens on, for the playbooks. Written by Ansible (gpunode.llm.gateway)."
    value = {"about": about, "unit": names.GATEWAY_UNIT, "listens": listens}
    return json.dumps(numbered(value), indent=2) + "\n"
