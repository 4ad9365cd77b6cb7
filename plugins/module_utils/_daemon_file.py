# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file daemon.json on a node: read, staged, checked by dockerd itself, landed."""

from __future__ import annotations

import os
import tempfile
from typing import Any, Callable, Dict, Tuple

from ansible_collections.gpunode.llm.plugins.module_utils import _daemon_json

Runner = Callable[..., Tuple[int, str, str]]

#: What Docker must do for settings that are written and not taken up: "restarted" or "reloaded". A play that is stopped
#: in between leaves a file that looks settled and a Docker that does not know it. Gone with the node's next start.
DUE = "/run/gpunode/docker-settings-due"


def read(path: str) -> Tuple[str, Dict[str, Any]]:
    """The file's text and settings; both empty where there is none.

    Raises:
        ValueError: it is not a JSON object.
    """
    if not os.path.exists(path):
        return "", {}
    with open(path, encoding="utf-8") as stream:
        text = stream.read()
    try:
        return text, _daemon_json.load(text)
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON, so nothing was written to it: {error}.") from error


def data_root(path: str = "/etc/docker/daemon.json") -> str:
    """Where Docker keeps containers and images; its own default where the file says nothing that can be read."""
    try:
        return str(read(path)[1].get("data-root") or "/var/lib/docker")
    except (OSError, ValueError):
        return "/var/lib/docker"


def stage(text: str) -> str:
    """Write a candidate to a file of its own, which the caller has the module clean up."""
    handle, staged = tempfile.mkstemp(prefix="daemon.", suffix=".json")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
    return staged


def refusal(run: Runner, dockerd: str, staged: str, path: str) -> str:
    """Why dockerd would not start with it; empty where it would, or is older than the option that tells."""
    rc, out, err = run([dockerd, "--validate", "--config-file", staged])
    said = (err + out).strip()
    if rc == 0 or "unknown flag: --validate" in said:
        return ""
    return f"Docker would not start with this {path}, so it was not written: {said.replace(staged, path)}"


def due(path: str = DUE) -> str:
    """What Docker must still do for its settings; empty where it has taken them up."""
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def land(move: Callable[[str, str], None], staged: str, path: str, restart: bool, due_path: str = DUE) -> None:
    """Move it into place, and write down what is due for it before; a file that was there keeps its mode."""
    os.makedirs(os.path.dirname(due_path), mode=0o755, exist_ok=True)
    # A restart that an earlier play owes is not made a reload by this one.
    owed = "restarted" if restart else due(due_path) or "reloaded"
    with open(due_path, "w", encoding="utf-8") as stream:
        stream.write(f"{owed}\n")
    mode = os.stat(path).st_mode & 0o777 if os.path.exists(path) else 0o644
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    move(staged, path)
    os.chmod(path, mode)
