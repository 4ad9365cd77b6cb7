# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file on the controller in which playbooks/key.yml keeps gateway_keys: digests of keys, and what each may do."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from typing import Any

import yaml

from ..screen import text as screen_text
from . import keys

#: The first lines of the file.
ABOUT = """\
---
# Clients of the gateway, each with the digest of its key and what it may do. No key is in it.
# Written by playbooks/key.yml. Give it to site.yml with -e @FILE, or put it into group_vars.
"""
_NAME = "gateway_keys"


def read(text: str, path: str) -> dict[str, Any]:
    """The keys of the file; none of an empty one.

    Raises:
        ValueError: it is no such file.
    """
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    if value is None:
        return {}
    if not isinstance(value, Mapping) or set(value) != {_NAME} or not isinstance(value[_NAME] or {}, Mapping):
        raise ValueError(f"{path} holds more than {_NAME}, or is encrypted: name another file in key_file.")
    return dict(value[_NAME] or {})


def text_of(held: Mapping[str, Any]) -> str:
    # Ansible's texts and YAML's days become plain ones.
    plain = json.loads(json.dumps({_NAME: dict(held)}, default=str))
    return ABOUT + str(yaml.safe_dump(plain, sort_keys=True, default_flow_style=False))


def made(held: Mapping[str, Any], client: str, limits: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The keys with one for a further client, and that key itself.

    Raises:
        ValueError: the client has one, or its limits cannot be read.
    """
    if client in held:
        raise ValueError(
            f"{client} has a key already. Revoke it, or make one for {client}-2 and revoke the old one later."
        )
    key = f"sk-{secrets.token_hex(24)}"
    own = {"sha256": hashlib.sha256(key.encode()).hexdigest(), **limits}
    _clients, found = keys.read({client: own})
    if found:
        raise ValueError(" ".join(found).replace(" of gateway_keys", "").replace(" of key 1", ""))
    return {**held, client: own}, key


def revoked(held: Mapping[str, Any], client: str) -> dict[str, Any]:
    """The keys without that of a client.

    Raises:
        ValueError: there is none.
    """
    if client not in held:
        raise ValueError(f"{client} has no key here. There is {', '.join(map(str, sorted(held))) or 'none'}.")
    return {name: value for name, value in held.items() if name != client}


def rows(held: Mapping[str, Any], today: str) -> list[str]:
    """The clients as a table, without keys and digests."""
    if not held:
        return ["There is no key yet: -e make=NAME makes one."]
    lines = [("client", "models", "requests/s", "tokens/day", "expires", "note")]
    for name in sorted(held, key=str):
        value = held[name] if isinstance(held[name], Mapping) else {}
        expires = str(value.get("expires") or "")
        cells = (
            ", ".join(map(str, value.get("models") or ["all"])),
            str(value.get("requests_per_second") or ""),
            f"{value['tokens_per_day']:,}" if value.get("tokens_per_day") else "",
            f"{expires} (past)" if expires and expires < today else expires,
            str(value.get("note") or ""),
        )
        lines.append((str(name), *cells))
    return screen_text.columns(lines, right=(2, 3))
