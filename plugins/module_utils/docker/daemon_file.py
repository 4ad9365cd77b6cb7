# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file daemon.json on a node: read, staged, checked by dockerd itself, landed."""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, Tuple

from ..node import files as node_files
from . import daemon as docker_daemon

Runner = Callable[..., Tuple[int, str, str]]

#: What Docker must do for settings that are written and not taken up: "restarted" or "reloaded". A play that is stopped
#: in between leaves a file that looks settled and a Docker that does not know it. Gone with the node's next start.
DUE = "/run/gpunode/docker-settings-due"


def read(path: str) -> Tuple[str, Dict[str, Any]]:
    """The file's text and settings; both empty where there is none.

    Raises:
        ValueError: it cannot be read, or is not a JSON object that names each of its keys once.
    """
    try:
        # Docker takes a byte order mark too.
        text = node_files.read_text(path).lstrip("\ufeff")
        return text, docker_daemon.load(text)
    except FileNotFoundError:
        return "", {}
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text, so nothing was written to it: its byte {error.start + 1} is"
            f" {error.object[error.start]:#04x}. Save it as UTF-8."
        ) from error
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON, so nothing was written to it: {error}.") from error


def merged(path: str, base: Dict[str, Any], wanted: Dict[str, Any]) -> Dict[str, Any]:
    """The file's settings with the wanted ones in them. Nothing else that was in the file is lost.

    Raises:
        ValueError: something else stands where a dictionary is to be merged.
    """
    try:
        return docker_daemon.merge(base, wanted)
    except ValueError as error:
        raise ValueError(f"{path} cannot be merged into, so nothing was written to it: {error}.") from error


def data_root(path: str = "/etc/docker/daemon.json") -> str:
    """Where Docker keeps containers and images; its own default where the file says nothing that can be read."""
    try:
        return str(read(path)[1].get("data-root") or "/var/lib/docker")
    except (OSError, ValueError):
        return "/var/lib/docker"


def stage(text: str) -> str:
    """Write a candidate to a file of its own, which the caller has the module clean up."""
    return node_files.staged(text, suffix=".json")


def refusal(run: Runner, dockerd: str, staged: str, path: str) -> str:
    """Why dockerd would not start with it; empty where it would, or is older than the option that tells."""
    rc, out, err = run([dockerd, "--validate", "--config-file", staged])
    said = (err + out).strip()
    if rc == 0 or "unknown flag: --validate" in said:
        return ""
    return f"Docker would not start with this {path}, so it was not written: {said.replace(staged, path)}"


def due() -> str:
    """What Docker must still do for its settings; empty where it has taken them up."""
    return node_files.text_of(DUE).strip()


def land(move: Callable[[str, str], None], staged: str, path: str, restart: bool) -> None:
    """Move it into place, and write down what is due for it before. A file that was there keeps its mode, and a link
    stays one: what it points to is replaced."""
    # A restart that an earlier play owes is not made a reload by this one.
    owed = "restarted" if restart else due() or "reloaded"
    node_files.write_atomically(DUE, f"{owed}\n")
    target = os.path.realpath(path)
    mode = os.stat(target).st_mode & 0o777 if os.path.exists(target) else 0o644
    os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
    move(staged, target)
    os.chmod(target, mode)
