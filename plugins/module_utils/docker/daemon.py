# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker's daemon.json: read it, merge settings key by key, validate the result with dockerd, move it into place.

Tells which changes need a restart of Docker.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any, Callable, Dict, List, Tuple

from ..node import files as node_files

Runner = Callable[..., Tuple[int, str, str]]

#: What Docker must still do to apply written settings: "restarted" or "reloaded". Without this file, a play that is
#: stopped in between would leave settings that Docker has not loaded, and the next play would not notice. A reboot
#: removes it.
DUE = "/run/gpunode/docker-settings-due"

Config = Dict[str, Any]

# dockerd reloads these at a SIGHUP, without stopping containers; all others need a restart.
RELOADABLE = frozenset(
    [
        "allow-nondistributable-artifacts",
        "authorization-plugins",
        "debug",
        "default-runtime",
        "features",
        "insecure-registries",
        "labels",
        "live-restore",
        "max-concurrent-downloads",
        "max-concurrent-uploads",
        "max-download-attempts",
        "registry-mirrors",
        "runtimes",
        "shutdown-timeout",
    ]
)


KINDS = {dict: "a dictionary", list: "a list", str: "a text", bool: "true or false"}


def _once(pairs: List[Tuple[str, Any]]) -> Config:
    """An object, rejected if a key occurs twice: a merge would drop one of them."""
    keys = [key for key, _value in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"the key {key} occurs twice, and Docker would use only one of them")
    return dict(pairs)


def _cause(text: str, error: json.JSONDecodeError) -> str:
    """The decoder's error in words that name the usual mistakes."""
    before, after = text[: error.pos].rstrip()[-1:], text[error.pos :].lstrip()
    if any(re.match(r",\s*[}\]]", place) for place in (before + after, after)):
        cause = "a comma before a closing bracket"
    elif after[:1] == "#" or after[:2] in ("//", "/*"):
        cause = "a comment, which JSON does not allow"
    else:
        cause = error.msg[:1].lower() + error.msg[1:]
    return f"{cause}, in line {error.lineno}, column {error.colno}"


def load(text: str) -> Config:
    """The settings in a file's text; an empty file has none.

    Raises:
        ValueError: it is not a JSON object, or a key occurs twice.
    """
    if not text.strip():
        return {}
    try:
        config = json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise ValueError(_cause(text, error)) from error
    if not isinstance(config, dict):
        raise ValueError("it is not a JSON object")
    return config


def merge(base: Config, wanted: Config) -> Config:
    """``base`` updated with ``wanted``, at any depth. A null removes its key; a list replaces a list.

    Raises:
        ValueError: a dictionary would replace something else, which would be lost.
    """
    merged = dict(base)
    for key, value in wanted.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            here = {} if merged.get(key) is None else merged[key]
            if not isinstance(here, dict):
                raise ValueError(f"{key} is {KINDS.get(type(here), 'a number')}, but must be a dictionary")
            merged[key] = merge(here, value)
        else:
            merged[key] = value
    return merged


def dump(config: Config) -> str:
    """The settings as text, with the keys in their original order."""
    return json.dumps(config, indent=4, ensure_ascii=False) + "\n"


def changed_keys(before: Config, after: Config) -> List[str]:
    """The top-level settings that differ."""
    return sorted(key for key in {*before, *after} if before.get(key) != after.get(key))


def needs_restart(keys: List[str]) -> bool:
    """Whether a reload is not enough for these settings."""
    return not RELOADABLE.issuperset(keys)


def read(path: str) -> Tuple[str, Dict[str, Any]]:
    """The file's text and settings; both empty if there is no file.

    Raises:
        ValueError: the file cannot be read, or is not a JSON object with unique keys.
    """
    try:
        # Docker accepts a byte order mark too.
        text = node_files.read_text(path).lstrip("\ufeff")
        return text, load(text)
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
        return merge(base, wanted)
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
    output = (err + out).strip()
    if rc == 0 or "unknown flag: --validate" in output:
        return ""
    return f"Docker would not start with this {path}, so it was not written: {output.replace(staged, path)}"


def due() -> str:
    """What Docker must still do to apply its settings; empty if it has."""
    return node_files.text_of(DUE).strip()


def land(move: Callable[[str, str], None], staged: str, path: str, restart: bool) -> None:
    """Note the pending restart or reload, then move the file into place. An existing file keeps its mode. A link stays
    a link: its target is replaced."""
    # A pending restart from an earlier play must not become a reload.
    pending = "restarted" if restart else due() or "reloaded"
    node_files.write_atomically(DUE, f"{pending}\n")
    target = os.path.realpath(path)
    mode = os.stat(target).st_mode & 0o777 if os.path.exists(target) else 0o644
    os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
    move(staged, target)
    os.chmod(target, mode)
