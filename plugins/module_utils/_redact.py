# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Texts without the secrets of a node: those that it holds, those that it is told of, and what looks like one.

What a node holds is read from its own files, so that a secret is blotted out wherever it turns up, a journal for one. A
secret is known in every spelling in which programs write it down: as it is, in a URL, in JSON, in XML, in base64.
"""

from __future__ import annotations

import base64
import html
import json
import re
from typing import Iterable, List, Set
from urllib.parse import quote, unquote

BLOT = "(blotted out)"
BLANK = "(blank)"
#: Shorter ones are blotted out as words alone: every text is full of them as parts of words.
SHORT = 5
#: A value of an environment that is as long as this may be a secret, whatever its name says.
LONG = 12

_TELLING = re.compile(r"key|token|secret|pass|credential|auth", re.IGNORECASE)
_ASSIGNED = re.compile(r"^[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*=(.*)$", re.MULTILINE)
_USERINFO = re.compile(r"([a-z][a-z0-9+.-]*://)([^\s/@\"'<>]+)@", re.IGNORECASE)
_NO_SECRET = re.compile(r"^(?:[\d.:,]+|true|false|none|/[\w./:-]*|[a-z]+://[^\s@]*)$", re.IGNORECASE)
#: Secrets whatever they look like.
_ALWAYS = ("VLLM_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
#: What looks like a secret, whoever's it is: before, the secret, after.
_LOOKS = tuple(
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        r"(\b)(hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|AKIA[A-Z0-9]{16})(\b)",
        r"(\bauthorization[\"']?[ \t]*[:=][ \t]*[\"']?(?:(?:bearer|basic)[ \t]+)?)([^\s\"',]+)()",
        r"(\b(?:bearer|basic)[ \t]+)([A-Za-z0-9_.~+/=-]{8,})()",
        r"((?:api[_-]?key|token|secret|passw(?:or)?d)[\"']?[ \t]*[:=][ \t]*[\"']?)([^\s\"',;&]+)()",
        r"(--(?:api-key|hf-token|token|password)[= ][\"']?)([^\s\"']+)()",
        r"(-----BEGIN [A-Z ]*PRIVATE KEY-----)(.+?)(-----END [A-Z ]*PRIVATE KEY-----)",
    )
)


def of_environment(text: str) -> Set[str]:
    """The values of an environment file that are secret by their name, or that may be by their length."""
    found = set()
    for name, value in _ASSIGNED.findall(text):
        value = value.strip().strip("'\"")
        may_be = (_TELLING.search(name) or len(value) >= LONG) and not _NO_SECRET.match(value)
        if name in _ALWAYS or (may_be and name.lower() != "no_proxy"):
            found.add(value)
    return (found | of_urls(text)) - {""}


def of_urls(text: str) -> Set[str]:
    """The passwords in addresses, and what a program makes of them for Basic authorization."""
    found = set()
    for _scheme, info in _USERINFO.findall(text):
        user, colon, password = info.partition(":")
        if colon:
            found |= {password, unquote(password), _base64(f"{unquote(user)}:{unquote(password)}")}
    return found - {""}


def of_docker_config(text: str) -> Set[str]:
    """Passwords and tokens of registries in Docker's config.json."""
    found: Set[str] = set()
    try:
        entries = list((json.loads(text).get("auths") or {}).values())
    except (ValueError, AttributeError):
        return found
    for entry in entries:
        if not isinstance(entry, dict):
            continue
        found |= {str(entry.get(key) or "") for key in ("auth", "identitytoken", "registrytoken", "password")}
        try:
            user_and_password = base64.b64decode(str(entry.get("auth") or "")).decode("utf-8")
        except ValueError:
            continue
        found |= {user_and_password, user_and_password.partition(":")[2]}
    return found - {""}


def of_list(text: str) -> Set[str]:
    """The items of a YAML list of words, which a file of API keys is."""
    return {item.strip().strip("'\"") for item in re.findall(r"^\s*- (.+)$", text, re.MULTILINE)} - {""}


def of_front(text: str) -> Set[str]:
    """The clients' keys in the front's table."""
    return set(re.findall(r'^\s*(?:default )?"Bearer ([^"\s]+)"', text, re.MULTILINE))


def of_apt(text: str) -> Set[str]:
    """The passwords in apt's auth.conf."""
    return set(re.findall(r"\bpassword\s+(\S+)", text))


def of_token(text: str) -> Set[str]:
    """A file that is a secret and nothing else."""
    return {text.strip()} - {""}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode("utf-8")).decode("ascii")


def _spellings(secret: str) -> Set[str]:
    escaped = html.escape(secret)
    written = {secret, quote(secret, safe=""), quote(secret), json.dumps(secret)[1:-1], escaped, _base64(secret)}
    # As systemd writes it in a unit, and a shell between single quotes.
    return written | {secret.replace("%", "%%"), secret.replace("'", "'\\''")}


class Redactor:
    """Blots out what it knows, and what looks like a secret."""

    def __init__(self, secrets: Iterable[str]) -> None:
        known = {one.strip() for secret in secrets for one in secret.splitlines()} - {""}
        spelt = sorted({text for secret in known for text in _spellings(secret)}, key=len, reverse=True)
        words = [re.escape(text) if len(text) >= SHORT else rf"(?<!\w){re.escape(text)}(?!\w)" for text in spelt]
        self._known = re.compile("|".join(words)) if words else None

    def clean(self, text: str) -> str:
        """The text with every secret blotted out."""
        if self._known:
            text = self._known.sub(BLOT, text)
        text = _USERINFO.sub(rf"\1{BLOT}@", text)
        for pattern in _LOOKS:
            text = pattern.sub(_blotted, text)
        return text


def _blotted(match: re.Match[str]) -> str:
    before, secret, after = match.groups()
    # What was taken out already begins like this.
    return match.group(0) if secret.startswith((BLOT.split()[0], BLANK)) else f"{before}{BLOT}{after}"


def blanked(text: str) -> str:
    """An environment file of which the names are left."""
    return _ASSIGNED.sub(lambda match: f"{match.group(1)}={BLANK}", text)


def blanked_list(text: str) -> str:
    """A file of keys of which their number is left."""
    return re.sub(r"^(\s*- ).+$", rf"\g<1>{BLANK}", text, flags=re.MULTILINE)


def tail(text: str, limit: int) -> str:
    """The end of a text that is too long, from the beginning of a line."""
    if len(text) <= limit:
        return text
    cut: List[str] = text[-limit:].split("\n", 1)
    return f"(the beginning is left out)\n{cut[-1]}"
