# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of an instance on the node, /etc/vllm/NAME.json, which every reader there uses.

The role vllm writes it together with the instance's other files, and the unit keeps a copy of it with theirs. The
engine does not read it, so a changed record restarts nothing. It holds no secret.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ..node.schema import SCHEMA, numbered
from . import names

#: What the role vllm writes into each file of an instance.
MARK = "Written by Ansible (gpunode.llm.vllm)"
ABOUT = f"What belongs to this instance, for the playbooks. The engine does not read it. {MARK}."
#: The default limit from an engine's start to its first answer, in seconds.
START_S = 900
#: The task of a model that generates, as programs/vllm_wait.py has it, which most readers of records do without.
GENERATE = "generate"
#: How much longer each outer limit is, in seconds: the inner limit must end first, since it reports the cause.
MARGIN_S = 60


class NewerRecord(ValueError):
    """A record from a newer release. The message is for the user."""


def start_limit_s(start_s: int, gpu_s: int) -> int:
    """Seconds until systemd gives up a start. It limits each command of a start separately."""
    return max(start_s, gpu_s) + MARGIN_S


def patience_s(limit_s: int, gpu_s: int) -> int:
    """Seconds to wait for a start: until systemd has given it up, including the wait for its GPUs."""
    return gpu_s + limit_s + MARGIN_S


@dataclass(frozen=True)
class Files:
    """The paths of an instance's files; empty for a file that it does not have."""

    config: str = ""
    environment: str = ""
    api_keys: str = ""
    #: The compile cache.
    cache: str = ""
    #: The last good set.
    kept: str = ""
    unit: str = ""
    record: str = ""

    def all(self) -> List[str]:
        """All paths in the order of their removal. The record is the last, so an interrupted removal is noticed."""
        paths = [self.config, self.environment, self.api_keys, self.cache, self.kept, self.unit, self.record]
        # Skip what is not an absolute path.
        return [path for path in paths if path.startswith("/")]


@dataclass(frozen=True)
class Record:
    """An instance. ``gpus``: their names for the container toolkit; ``port_base``: where its port is counted from."""

    name: str
    unit: str
    image: str = ""
    #: The repository, its commit or branch, and the model name for clients.
    model: str = ""
    revision: str = ""
    served: str = ""
    host: str = "127.0.0.1"
    port: Optional[int] = None
    port_base: Optional[int] = None
    gpus: Tuple[str, ...] = ()
    #: How long to wait for its start, in seconds.
    timeout_s: int = patience_s(start_limit_s(START_S, 0), 0)
    files: Files = field(default_factory=Files)
    #: What the model is served for, which decides how it is asked.
    task: str = GENERATE
    #: The repositories of its adapters and of its draft.
    beside: Tuple[str, ...] = ()
    #: Of an engine over several nodes: ``size``, ``rank``, ``nodes``, ``addresses``, and what vllm-peer needs.
    group: Optional[Mapping[str, Any]] = None

    @property
    def headless(self) -> bool:
        """Whether it has no API: the head of its engine is another node."""
        return bool(self.group and self.group["rank"])

    @property
    def endpoint(self) -> Dict[str, Any]:
        """Its endpoint, as an option of the module endpoint_ready."""
        return {
            "name": self.name,
            "unit": self.unit,
            "host": self.host,
            "port": self.port or 8000,
            "model": self.served,
            "env_file": self.files.environment,
            "timeout_s": self.timeout_s,
            **self._task(),
            **({"rank": self.group["rank"], "head": self.group["nodes"][0]} if self.group else {}),
        }

    def _task(self) -> Dict[str, str]:
        """Nothing for a model that generates: its record stays as earlier releases wrote it."""
        return {} if self.task == GENERATE else {"task": self.task}

    def text(self) -> str:
        """The record as the text of a file."""
        written = {key: value for key, value in asdict(self).items() if key not in ("task", "beside", "group")}
        beside = {"beside": self.beside} if self.beside else {}
        group = {"group": self.group} if self.group else {}
        return json.dumps(numbered({"about": ABOUT, **written, **self._task(), **beside, **group}), indent=2) + "\n"


def parse(text: str) -> Optional[Record]:
    """The record in a file's text; None if it is not one of ours.

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
    lists = {key: tuple(map(str, known.get(key, ()))) for key in ("gpus", "beside")}
    return Record(**{**known, **lists, "files": Files(**paths)})


def document(text: str) -> Optional[Mapping[str, Any]]:
    """The JSON of a record, of an instance or the gateway; None if the text is not one.

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
            f"The record of {value.get('name') or value.get('unit')} on the node has schema {value['schema']}; this"
            f" release of gpunode.llm reads schema {SCHEMA}. Use the release that wrote it, or a newer one."
        )
    return dict(value)


def gateway_text(listens: Any) -> str:
    """The gateway's record. ``listens``: every host and port on which it listens."""
    about = "What the gateway listens on, for the playbooks. Written by Ansible (gpunode.llm.gateway)."
    value = {"about": about, "unit": names.GATEWAY_UNIT, "listens": listens}
    return json.dumps(numbered(value), indent=2) + "\n"
