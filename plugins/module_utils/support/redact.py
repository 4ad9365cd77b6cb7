# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remove secrets from texts: those on the node, those that were given, and everything that looks like one.

The secrets of a node are read from its own files, so they are removed wherever they occur, for example in a journal.
Each is recognised in every form in which programs write it: plain, in a URL, in JSON, in XML, in base64.
"""

from __future__ import annotations

import base64
import html
import json
import re
from typing import Iterable, List, Set, Tuple
from urllib.parse import quote, unquote

from . import secret_names

BLOT = "(blotted out)"
BLANK = "(blank)"
#: Shorter secrets are removed only as whole words: texts contain them by chance as parts of words.
SHORT = 5

_ASSIGNED = re.compile(r"^[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*=(.*)$", re.MULTILINE)
_USERINFO = re.compile(r"((?<![a-z0-9+.-])[a-z][a-z0-9+.-]{0,30}://)([^\s/\"'<>]+)@", re.IGNORECASE)
#: Values that any text may contain. Such a secret is recognised only by its name.
_EVERYWHERE = re.compile(r"^(?:[\d.:,]+|true|false|none|/[\w./:-]*|[a-z]+://[^\s@]*)$", re.IGNORECASE)
#: Secrets by their form alone.
_ALWAYS = ("VLLM_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
#: What looks like a secret: text before it, the secret, text after it.
_LOOKS = tuple(
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        r"(\b)(hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|A[KS]IA[A-Z0-9]{16})(\b)",
        r"(\b)(github_pat_\w{20,}|dckr_pat_[\w-]{16,}|npm_[A-Za-z0-9]{30,}|AIza[\w-]{30,})(\b)",
        r"(\b)(glpat-[\w-]{16,}|nvapi-[\w-]{16,}|xox[abeprs]-[\w-]{10,}|eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]+)(\b)",
        r"(\b(?:bearer|basic)[ \t]+)([A-Za-z0-9_.~+/=-]{8,})()",
        r"(\bhooks\.slack\.com/(?:services|workflows)/)([\w/-]+)()",
        # One-letter options mean a password only after the name of their program.
        r"(\bcurl\b[^\n]{0,300}?[ \t](?:-u|--user|--proxy-user|-U)[ =]?['\"]?[^\s:'\"]+:)([^\s'\"]+)()",
        r"(\b(?:docker|podman|nerdctl|helm)[ \t]+(?:registry[ \t]+)?login\b[^\n]{0,300}?[ \t]-p[ =]?)([^\s=]\S*)()",
        r"(\b(?:sshpass[ \t]+-p[ \t]?|redis-cli\b[^\n]{0,300}?[ \t]-a[ \t]+|mysql\w*\b[^\n]{0,300}?[ \t]-p))(\S+)()",
        r"(\bmachine[ \t]+\S+[ \t]+login[ \t]+\S+[ \t]+password[ \t]+)(\S+)()",
        r"(-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----)((?:(?!-----END).){1,20000})()",
    )
)
_NAME = r"[A-Za-z_][\w.-]{0,99}"
_QUOTED = r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'"
#: Places of environment variables in texts: in a unit, in Docker's command line, in docker inspect.
_ENVIRONMENTS = (
    re.compile(r"^(?P<before>[ \t]*(?:Default|Manager)?Environment=)(?P<value>(?:[^\n\\]|\\.|\\\n)*)$", re.MULTILINE),
    re.compile(rf"(?P<before>)(?P<value>[\"'](?:--env[= ]|-e[= ]){_NAME}=[^\n]*?[\"'](?=\s|$))", re.MULTILINE),
    re.compile(
        r"(?P<before>(?<![\w\"'-])(?:--(?:set)?env[= ]|-[eE][= ]?)[ \t]*)"
        rf"(?P<value>{_QUOTED}|{_NAME}=(?:{_QUOTED}|[^\s\"'])*)"
    ),
    # In a list of words.
    re.compile(rf"(?P<before>[\"'](?:--(?:set)?env|-[eE])[\"'][ \t]*,?\s*)(?P<value>{_QUOTED})"),
    re.compile(
        rf"(?P<before>(?<![\w.-])env[ \t]+(?:-\S+[ \t]+)*)(?P<value>(?:{_NAME}=(?:{_QUOTED}|[^\s\"'])*[ \t]+)+)"
    ),
    re.compile(r"(?P<before>\"Env\"\s*:\s*\[)(?P<value>(?:\"(?:[^\"\\]|\\.)*\"|[^\]\"])*)"),
)
_VARIABLE = re.compile(
    rf"\"(?:--env[= ]|-e[= ])?(?P<a>{_NAME})=(?P<x>(?:[^\"\\]|\\.)*)\""
    rf"|'(?:--env[= ]|-e[= ])?(?P<b>{_NAME})=(?P<y>(?:[^'\\]|\\.)*)'"
    rf"|(?<![\w.-])(?P<c>{_NAME})=(?P<z>(?:{_QUOTED}|[^\s\"'])*)",
    re.DOTALL,
)


def variables(text: str) -> List[Tuple[str, str]]:
    """The environment variables that a text sets, in the syntax of units, command lines and Docker."""
    pairs = []
    for pattern in _ENVIRONMENTS:
        for held in pattern.finditer(text):
            pairs += [_variable(match)[:2] for match in _VARIABLE.finditer(held.group("value"))]
    return pairs


def _variable(match: re.Match[str]) -> Tuple[str, str, Tuple[int, int]]:
    """Name, value, and the position of the value in the text."""
    which, value = next(pair for pair in ("ax", "by", "cz") if match.group(pair[0]) is not None)
    return match.group(which), match.group(value), match.span(value)


def of_environment(text: str) -> Set[str]:
    """The secret values of an environment file: secret by name, or not known to be harmless."""
    return _worth_knowing(_ASSIGNED.findall(text)) | of_urls(text)


def of_unit(text: str) -> Set[str]:
    """The secret values in a unit: of its environment variables, and of settings with a secret name."""
    values = _worth_knowing(variables(text)) | of_settings(text)
    # Programs get them without systemd's doubled marks.
    return values | {value.replace("%%", "%").replace("$$", "$") for value in values}


def environment_files(text: str) -> List[str]:
    """The environment files that a unit reads."""
    return re.findall(r"(?:^[ \t]*EnvironmentFile=-?|--env-file[= ])[\"']?(/[^\s\"']+)", text, re.MULTILINE)


def of_settings(text: str) -> Set[str]:
    """The values in a configuration with a secret name, and the passwords in its addresses."""
    lines = [line for begin, end in secret_names.secret_spans(text) for line in text[begin:end].splitlines()]
    values = {_bare(re.sub(r"^\s*- ", "", line)) for line in lines}
    return {value for value in values if len(value) >= SHORT - 1 and not _gone(value)} | of_urls(text)


def _worth_knowing(pairs: Iterable[Tuple[str, str]]) -> Set[str]:
    """Values to remove everywhere, without those that half of all texts contain."""
    found = set()
    for name, written in pairs:
        value = _bare(written)
        by_name = secret_names.is_secret(name, value) and len(value) >= SHORT - 1
        unknown = not secret_names.may_be_shown(name, value) and len(value) >= SHORT and not _EVERYWHERE.match(value)
        if name in _ALWAYS or by_name or unknown:
            found.add(value)
    return found - {""}


def _bare(value: str) -> str:
    """A value as a program gets it."""
    value = value.strip().rstrip(",")
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if quoted else value.strip("'\"")


def of_urls(text: str) -> Set[str]:
    """The passwords in addresses, also in the form for Basic authorization."""
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
    """The items of a YAML list of words, such as a file of API keys."""
    return {item.strip().strip("'\"") for item in re.findall(r"^\s*- (.+)$", text, re.MULTILINE)} - {""}


def of_front(text: str) -> Set[str]:
    """The clients' keys in the gateway's table."""
    return set(re.findall(r'^\s*(?:default )?"Bearer ([^"\s]+)"', text, re.MULTILINE))


def of_apt(text: str) -> Set[str]:
    """The passwords in apt's auth.conf."""
    return set(re.findall(r"\bpassword\s+(\S+)", text))


def of_token(text: str) -> Set[str]:
    """The content of a file that is one secret."""
    return {text.strip()} - {""}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode("utf-8")).decode("ascii")


def _spellings(secret: str) -> Set[str]:
    escaped = html.escape(secret)
    written = {secret, quote(secret, safe=""), quote(secret), json.dumps(secret)[1:-1], escaped, _base64(secret)}
    # As systemd writes it in a unit, and as a shell quotes it.
    unit = secret.replace("%", "%%").replace("$", "$$")
    return written | {secret.replace("%", "%%"), unit, json.dumps(unit)[1:-1], secret.replace("'", "'\\''")}


class Redactor:
    """Removes known secrets, values with a secret name, unknown environment variables, and what looks like a secret."""

    def __init__(self, secrets: Iterable[str]) -> None:
        known = {line.strip() for secret in secrets for line in secret.splitlines()} - {""}
        spelt = sorted({text for secret in known for text in _spellings(secret)}, key=len, reverse=True)
        words = [re.escape(text) if len(text) >= SHORT else rf"(?<!\w){re.escape(text)}(?!\w)" for text in spelt]
        self._known = re.compile("|".join(words)) if words else None

    def clean(self, text: str) -> str:
        """The text with every secret replaced."""
        if self._known:
            text = self._known.sub(BLOT, text)
        text = _USERINFO.sub(rf"\1{BLOT}@", text)
        for pattern in _ENVIRONMENTS:
            text = pattern.sub(lambda match: match.group("before") + _VARIABLE.sub(_hidden, match.group("value")), text)
        text = _without(text, secret_names.secret_spans(text))
        for pattern in _LOOKS:
            text = pattern.sub(_blotted, text)
        return text


def _hidden(match: re.Match[str]) -> str:
    """A variable without its value, unless that is known to be harmless."""
    name, value, (begin, end) = _variable(match)
    if _gone(value) or not value or secret_names.may_be_shown(name, value):
        return match.group()
    return match.group()[: begin - match.start()] + BLOT + match.group()[end - match.start() :]


def _without(text: str, spans: Iterable[Tuple[int, int]]) -> str:
    parts, at = [], 0
    for begin, end in spans:
        held = text[begin:end]
        if not _gone(held):
            dent = held[: len(held) - len(held.lstrip())]
            parts += [text[at:begin], dent, BLOT, "\n" if held.endswith("\n") else ""]
            at = end
    return "".join([*parts, text[at:]])


def _gone(text: str) -> bool:
    """Whether this was removed already."""
    return text.strip().lstrip("\\'\"[- ").startswith((BLOT.split()[0], BLANK))


def _blotted(match: re.Match[str]) -> str:
    before, secret, after = match.groups()
    return match.group() if _gone(secret) else f"{before}{BLOT}{after}"


#: The part of a line in an environment file or a key file that shows no value: the name, or the dash of an item.
_NO_VALUE = re.compile(r"[ \t]*#[^=]*|\s*|[\w-]+:\s*")
_ASSIGNS = re.compile(r"(?P<kept>[ \t]*#?[ \t]*[^#\s=][^\n=]*=).*")
_ITEM = re.compile(r"(?P<kept>[ \t]*- ).*")


def _blanked(text: str, known: re.Pattern[str]) -> str:
    lines = []
    for line in text.split("\n"):
        if not _NO_VALUE.fullmatch(line):
            match = known.fullmatch(line)
            line = f"{match.group('kept') if match else ''}{BLANK}"
        lines.append(line)
    return "\n".join(lines)


def blanked(text: str) -> str:
    """An environment file with its names only."""
    return _blanked(text, _ASSIGNS)


def blanked_list(text: str) -> str:
    """A key file with one dash per key and no values."""
    return _blanked(text, _ITEM)


def tail(text: str, limit: int) -> str:
    """The end of a text that is too long, from the start of a line."""
    if len(text) <= limit:
        return text
    cut: List[str] = text[-limit:].split("\n", 1)
    return f"(the beginning was removed)\n{cut[-1]}"
