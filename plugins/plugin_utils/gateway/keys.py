# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of the gateway's clients: read and validate them, and write what nginx looks them up in.

A key is a text, or a dictionary of what its client may do. No message contains a key, or the name of a client, which
might be a key by mistake.
"""

from __future__ import annotations

import datetime
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...module_utils.instance import names
from ..planner.request import whole_number
from ..values import Option, read as read_value, typed

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
#: The characters of a bearer token (RFC 6750), which need no quoting in any file or header.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*\Z")
#: Length of a key: nginx looks it up in a table with slots of limited size.
LENGTH = (20, 256)
#: Characters of a text within a block of nginx's configuration: its buffer has 4096.
PART = 2000
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
#: What a key in the form of a dictionary can hold.
FIELDS: Mapping[str, Option] = {
    "key": {"type": "str"},
    "sha256": {"type": "str"},
    "models": {"type": "list", "elements": "str"},
    "requests_per_second": {"type": "int"},
    "tokens_per_day": {"type": "int"},
    "expires": {"type": "str"},
    "note": {"type": "str"},
}
_LIMITS = {"requests_per_second": (1, 100_000), "tokens_per_day": (1, 10**15)}
_DAY = re.compile(r"\d{4}-\d\d-\d\d\Z")


@dataclass(frozen=True)
class Client:
    """A client, and what its key may do. None is no limit of its own."""

    name: str
    #: The key itself; empty if only its digest is known.
    key: str = ""
    sha256: str = ""
    models: tuple[str, ...] | None = None
    requests_per_second: int | None = None
    tokens_per_day: int | None = None
    #: The last day on which the key is valid, in UTC.
    expires: str = ""

    @property
    def digest(self) -> str:
        return self.sha256 or hashlib.sha256(self.key.encode()).hexdigest()

    @property
    def needs_script(self) -> bool:
        """Whether nginx's own tables cannot decide what the key may do."""
        return bool(not self.key or self.models is not None or self.tokens_per_day or self.expires)

    def ends(self) -> int | None:
        """The second from which the key is refused."""
        if not self.expires:
            return None
        day = datetime.datetime.fromisoformat(self.expires).replace(tzinfo=datetime.timezone.utc)
        return int((day + datetime.timedelta(days=1)).timestamp())


def day(what: str, value: str) -> str:
    """Read a date. Its time of day would be lost, so it must have none."""
    try:
        if _DAY.match(value):
            return datetime.date.fromisoformat(value).isoformat()
    except ValueError:
        pass
    raise ValueError(f"{what} must be a day such as 2027-01-31.")


def _token(what: str, text: str) -> str:
    if LENGTH[0] <= len(text) <= LENGTH[1] and _TOKEN.match(text):
        return text
    raise ValueError(
        f"{what} must be a text of {LENGTH[0]} to {LENGTH[1]} letters, digits and any of . _ ~ + / -;"
        " `openssl rand -hex 32` makes one."
    )


def _digest(what: str, text: str) -> str:
    if _DIGEST.match(text):
        return text
    raise ValueError(f"{what} must be the 64 hexadecimal digits that playbooks/key.yml prints.")


def _models(what: str, value: Sequence[str]) -> tuple[str, ...]:
    if not value or any(not name or _CONTROL.search(name) for name in value):
        raise ValueError(f"{what} must list at least one model. Leave it out if the key may use every model.")
    return tuple(dict.fromkeys(value))


def _limit(field: str) -> Callable[[str, int], int]:
    return lambda what, value: whole_number(what, value, *_LIMITS[field])


_READERS: dict[str, Callable[[str, Any], Any]] = {
    "key": _token,
    "sha256": _digest,
    "models": _models,
    "requests_per_second": _limit("requests_per_second"),
    "tokens_per_day": _limit("tokens_per_day"),
    "expires": day,
}


def _client(number: int, name: Any, value: Any) -> Client:
    """Read one key. Raises ValueError with its number."""
    what = f"Key {number} of gateway_keys"
    if not isinstance(name, str) or not NAME.match(name):
        raise ValueError(f"Name {number} of gateway_keys must be letters, digits, dots and dashes, 64 at the most.")
    if not isinstance(value, Mapping):
        return Client(name, key=_token(what, value if isinstance(value, str) else ""))
    # The name of a field that is not known is not shown: it might be the key.
    if not {*value} <= {*FIELDS}:
        raise ValueError(f"{what} can hold {', '.join(FIELDS)}, and nothing else.")
    given = read_value(what, dict(value), {"type": "dict", "options": FIELDS}, secret=True)
    if ("key" in given) == ("sha256" in given):
        raise ValueError(f"{what} must have either key or sha256.")
    what = f"key {number} of gateway_keys"
    return Client(name, **{f: reader(f"{f} of {what}", given[f]) for f, reader in _READERS.items() if f in given})


def read(keys: Any) -> tuple[list[Client], list[str]]:
    """The clients, and a sentence for each key that cannot be read."""
    try:
        keys = typed("gateway_keys", keys)
    except ValueError as error:
        return [], [str(error)]
    if not isinstance(keys, Mapping) or not keys:
        return [], [
            "gateway_keys is empty; the gateway requires at least one key. Set a dictionary of client names and keys;"
            " `openssl rand -hex 32` makes a key."
        ]
    clients, found = [], []
    for number, (name, value) in enumerate(keys.items(), 1):
        try:
            clients.append(_client(number, name, value))
        except ValueError as error:
            found.append(str(error))
    return clients, found


def findings(keys: Any, engine_key: str = "", usage: Any = True) -> list[str]:
    """Findings about the keys. None contains a key, or a name, which might be a key by mistake."""
    clients, found = read(keys)
    if _CONTROL.search(str(engine_key)):
        found.append("The API key of the engines holds a line break or another control character.")
    texts = [client.key.casefold() for client in clients if client.key]
    digests = {client.digest for client in clients}
    # nginx compares keys without regard to case.
    if len(set(texts)) < len(texts) or len(digests) < len(clients):
        found.append("Two keys of gateway_keys are equal, or differ only in case. Give each client its own.")
    if not usage and any(client.tokens_per_day for client in clients):
        found.append("tokens_per_day of gateway_keys needs the engines to count by client: set usage_enabled.")
    return found


def _data(client: Client) -> dict[str, Any]:
    """A client as the script reads it."""
    limits = {"models": client.models, "tokens_per_day": client.tokens_per_day, "ends": client.ends()}
    return {"name": client.name, "expires": client.expires, **{k: v for k, v in limits.items() if v is not None}}


def _sources(plan: Mapping[str, Any]) -> dict[str, str]:
    """The files that others write, and the script reads during operation."""
    router = {"others": names.ROUTER_ALIASES} if (plan.get("router") or {}).get("first") else {}
    return {"over": names.USAGE_OVER, **router}


def _shares(models: Mapping[str, int]) -> list[dict[str, Any]]:
    """The models that a name stands for, each up to its share of all weights."""
    sums = itertools.accumulate(models.values())
    return [{"name": name, "upto": upto} for name, upto in zip(models, sums)]


def _parts(text: str) -> list[str]:
    """A text in parts that nginx takes within a block, each to stand between [==[ and ]==]."""
    text = text.replace("]=", "]\\u003d")
    return [text[at : at + PART] for at in range(0, len(text), PART)]


def access(keys: Any, plan: Mapping[str, Any]) -> dict[str, Any]:
    """What the templates write about keys, none of it if the keys cannot be read.

    ``scripted``: whether a script decides what a key may do. ``rates``: the clients by their own number of requests per
    second. ``limits``: the tokens by the day of clients that have such a limit. ``data``: what the script looks up, as
    JSON in parts, with the digests of the keys and without the keys.
    """
    clients, _found = read(keys)
    rates: dict[int, list[str]] = {}
    for client in clients:
        if client.requests_per_second:
            rates.setdefault(client.requests_per_second, []).append(client.name)
    aliases = plan.get("aliases") or {}
    data = {"aliases": {name: _shares(models) for name, models in aliases.items()}, **_sources(plan)}
    data |= {"clients": {client.digest: _data(client) for client in clients}}
    return {
        "scripted": bool(aliases) or any(client.needs_script for client in clients),
        "keys": {client.name: client.key for client in clients},
        "limits": {client.name: client.tokens_per_day for client in clients if client.tokens_per_day},
        "rates": {str(rate): rates[rate] for rate in sorted(rates)},
        "data": _parts(json.dumps(data)),
    }
