# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file daemon.json on a node: read it, stage a new one, validate it with dockerd, move it into place."""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, Tuple

from ..node import files as node_files
from . import daemon as docker_daemon

Runner = Callable[..., Tuple[int, str, str]]

#: What Docker must still do to apply written settings: "restarted" or "reloaded". Without this file, a play that is
#: stopped in between would leave settings that Docker has not loaded, and the next play would not notice. A reboot
#: removes it.
DUE = "/run/gpunode/docker-settings-due"


def read(path: str) -> Tuple[str, Dict[str, Any]]:
    """The file's text and settings; both empty if there is no file.

    Raises:
        ValueError: the file cannot be read, or is not a JSON object with unique keys.
    """
    try:
        # Docker accepts a byte order mark too.
        text = node_files.read_text(path).lstrip("\ufeff")
        return text, docker_daemon.load(text)
    except FileNotFoundError:
        return "", {}
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text, so nothing was written to it: byte {error.start + 1} is"
            f" {error.object[error.start]:#04x}. Save it as UTF-8."
        ) from error
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON, so nothing was written to it: {error}.") from error


def merged(path: str, base: Dict[str, Any], wanted: Dict[str, Any]) -> Dict[str, Any]:
    """The file's settings, updated with the wanted ones. Other settings stay.

    Raises:
        ValueError: a dictionary would replace something else.
    """
    try:
        return docker_daemon.merge(base, wanted)
    except ValueError as error:
        raise ValueError(f"{path} cannot be merged with the new settings, so nothing was written: {error}.") from error


def data_root(path: str = "/etc/docker/daemon.json") -> str:
    """Where Docker keeps containers and images; its default if the file cannot be read or does not say."""
    try:
        return str(read(path)[1].get("data-root") or "/var/lib/docker")
    except (OSError, ValueError):
        return "/var/lib/docker"


def stage(text: str) -> str:
    """Write a candidate to a temporary file, which the caller must register for clean-up."""
    return node_files.staged(text, suffix=".json")


def refusal(run: Runner, dockerd: str, staged: str, path: str) -> str:
    """Why dockerd would not start with the file; empty if it would, or if it is too old to validate."""
    rc, out, err = run([dockerd, "--validate", "--config-file", staged])
    said = (err + out).strip()
    if rc == 0 or "unknown flag: --validate" in said:
        return ""
    return f"Docker would not start with this {path}, so it was not written: {said.replace(staged, path)}"


def due() -> str:
    """What Docker must still do to apply its settings; empty if it has."""
    return node_files.text_of(DUE).strip()


def land(move: Callable[[str, str], None], staged: str, path: str, restart: bool) -> None:
    """Note the pending restart or reload, then move the file into place. An existing file keeps its mode. A link stays
    a link: its target is replaced."""
    # A pending restart from an earlier play must not become a reload.
    owed = "restarted" if restart else due() or "reloaded"
    node_files.write_atomically(DUE, f"{owed}\n")
    target = os.path.realpath(path)
    mode = os.stat(target).st_mode & 0o777 if os.path.exists(target) else 0o644
    os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
    move(staged, target)
    os.chmod(target, mode)
