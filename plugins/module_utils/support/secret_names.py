# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which names belong to secrets, and which variables may be shown with their values.

A name is split into its words: ``AZURE_STORAGE_KEY``, ``ldap-pw`` and ``secretAccessKey`` are secret, ``tokenizer`` and
``KeyringMode`` are not.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import accumulate
from typing import Iterator, List, Sequence, Tuple

#: Words that end like this are secret: apikey, dbpass, oauth.
_ENDINGS = (
    *(
        "key",
        "token",
        "secret",
        "password",
        "passwd",
        "passphrase",
        "passcode",
        "pass",
        "pwd",
        "pw",
        "credential",
        "cred",
    ),
    *("auth", "authorization", "cookie", "signature", "webhook"),
)
_BEGINNINGS = ("password", "passwd", "secret", "credential")
_WORDS = ("sig", "sas", "dsn")
_NOT = ("bypass", "compass", "monkey")
#: Names with key or token that are not secret: KeyError, num_key_value_heads, key_fingerprint.
_ABOUT = (
    *(
        "error",
        "exception",
        "warning",
        "head",
        "fingerprint",
        "type",
        "mode",
        "parser",
        "size",
        "dim",
        "length",
        "format",
    ),
    *("count", "limit", "algorithm", "ring"),
)
#: The path of a secret is not secret itself. A secret may start like a path, so only usual folders count.
_PATH = re.compile(r"(?:~|/(?:etc|var|run|root|home|srv|opt|usr|tmp|mnt|data|dev)|file://)(?:/[\w./@:+-]*)?|/")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^\s@?#]*", re.IGNORECASE)
#: Where public keys are.
_ADDRESSED = re.compile(r"(?:.*[_.-])?key[_.-]ur[il]|gpgkey|key", re.IGNORECASE)
_NUMBER = re.compile(r"[\d.,]+(?:[kmgt]i?b?)?", re.IGNORECASE)
_NOTHING = ("", "true", "false", "yes", "no", "on", "off", "none", "null", "~", "[]", "{}", "''", '""')
#: Variables with harmless and helpful values: settings of programs, never the user's own.
_KNOWN = re.compile(
    r"(?:https?|all|no|ftp)_proxy|path|home|user|logname|shell|lang|language|lc_\w+|tz|term|hostname|(?:old)?pwd|tmpdir"
    r"|xdg_\w+|python\w+|ld_\w+|vllm_\w+|hf_\w+|transformers_\w+|(?:py)?torch\w*|nccl_\w+|cuda_\w+|nvidia_\w+|omp_\w+"
    r"|mkl_\w+|ray_\w+|triton_\w+|gloo_\w+|ucx_\w+|notify_socket|invocation_id|journal_stream|systemd_\w+|docker_host"
    r"|ssl_cert_\w+|requests_ca_bundle|curl_ca_bundle",
    re.IGNORECASE,
)


def words(name: str) -> List[str]:
    """The words of a name, in lower case and singular.

    >>> words("secretAccessKeys")
    ['secret', 'access', 'key']
    """
    parts = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]
    return [word[:-1] if word.endswith("s") and not word.endswith(("ss", "sas")) else word for word in parts]


@lru_cache(maxsize=4096)
def telling(name: str) -> bool:
    """Whether the name says that its value is a secret."""
    found = words(name)
    if found and found[-1] in _ABOUT:
        return any(word.startswith(_BEGINNINGS) for word in found[:-1])
    return any(
        word in _WORDS or (word not in _NOT and (word.endswith(_ENDINGS) or word.startswith(_BEGINNINGS)))
        for word in found
    )


def is_secret(name: str, value: str) -> bool:
    """Whether a value is secret by its name. Paths, numbers of tokens and empty values are not."""
    value = value.strip().strip("'\"").strip()
    if value.lower() in _NOTHING or _BELOW.fullmatch(value) or not telling(name):
        return False
    last = re.split(r"[_.-]", name)[-1].lower()
    if _PATH.fullmatch(value) or (_ADDRESSED.fullmatch(name) and _ADDRESS.fullmatch(value)):
        return False
    counted = last.endswith("tokens") or last in ("keys", "id", "ids")
    return not (counted and _NUMBER.fullmatch(value))


def may_be_shown(name: str, value: str) -> bool:
    """Whether a variable may be shown with its value: it is a known one, and its name is not secret."""
    return bool(_KNOWN.fullmatch(name)) and not is_secret(name, value)


# -- where such values are in a text ----------------------------------------------------------------------------------
_NAME = r"[A-Za-z_][\w.-]{0,99}"
_QUOTED = r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'"
#: A line that starts with a name. The value is the rest of the line, or in YAML the indented lines below.
_LINE = re.compile(
    r"[ \t]*(?:-[ \t]+)?(?:export[ \t]+)?"
    rf"(?P<quote>[\"']?)(?P<name>{_NAME})(?P=quote)[ \t]*[:=][ \t]*"
)
_BELOW = re.compile(r"(?:[|>][-+\d]*|[\[{])?")
#: Between an option and its value: a command line may continue on the next line, or be a list of words.
_THEN = r"(?:=|[\\\"']{1,2}[ \t]*,\s*|[\"']?[ \t]+(?:\\\n[ \t]*)?|[\"']?[ \t]*\n[ \t]*-[ \t]+)"
#: A name inside a line (in a program's message, JSON, a command line or an address) and the value after it.
_NAMED = re.compile(
    rf"(?<![\w.-])(?:(?P<option>--{_NAME}){_THEN}|(?P<name>{_NAME})(?P<mark>\\?[\"']?[ \t]*(?:=>|[:=])[ \t]*)"
    rf"|<(?P<element>{_NAME})>)"
)
_VALUE = re.compile(
    rf"\\\"(?P<escaped>(?:(?!\\\").)*)|{_QUOTED}|\[[^\]\n]{{0,4000}}\]"
    r"|[\"']?(?:(?:bearer|basic|digest|token)[ \t]+)?[^\s\"'<]+",
    re.IGNORECASE,
)
#: A further value of an option that takes several, such as vLLM's --api-key.
_FURTHER = re.compile(rf"(?:[ \t]*,\s*|[ \t]+)(?P<value>{_QUOTED}|(?![-\\\[\]{{}}])[^\s\"',]+)")
#: A name and a value in separate fields called name and value, as in Kubernetes.
_TOLD = re.compile(
    rf"\bname\"?[ \t]*[:=][ \t]*[\"']?(?P<name>{_NAME})[\"']?,?\s+\"?value\"?[ \t]*[:=][ \t]*|"
    rf"\bname\"[ \t]*:[ \t]*\"(?P<tight>{_NAME})\",\"value\"[ \t]*:[ \t]*"
)
Span = Tuple[int, int]


def secret_spans(text: str) -> List[Span]:
    """The positions of values with a secret name, in order, without overlaps."""
    taken: List[Span] = []
    spans = [*_of_lines(text), *_within_lines(text), *_by_words(text)]
    for begin, end in sorted(spans, key=lambda span: (span[0], -span[1])):
        if begin >= (taken[-1][1] if taken else 0):
            taken.append((begin, end))
    return taken


def _of_lines(text: str) -> Iterator[Span]:
    lines = text.splitlines(keepends=True)
    starts = [0, *accumulate(map(len, lines))]
    at = 0
    while at < len(lines):
        head, line, at = _LINE.match(lines[at]), lines[at].rstrip(), at + 1
        if not head or not telling(head.group("name")):
            continue
        value, begin = line[head.end() :], starts[at - 1] + head.end()
        if not _BELOW.fullmatch(value):
            if not is_secret(head.group("name"), value):
                continue
            yield _inner(value, begin)
        end = _end_below(lines, at, head.start("quote"))
        if end > at:
            yield starts[at], starts[end]
        at = end


def _end_below(lines: Sequence[str], at: int, column: int) -> int:
    """The end of the last line that is indented more than a name at this column; list items may be at the column."""
    end = at
    for number in range(at, len(lines)):
        rest = lines[number].lstrip()
        dent = len(lines[number]) - len(rest)
        if dent > column or (dent == column and rest.startswith("- ")):
            end = number + 1 if rest else end
        elif rest:
            break
    return end


def _within_lines(text: str) -> Iterator[Span]:
    for head in _NAMED.finditer(text):
        name = (head.group("option") or head.group("name") or head.group("element") or "").lstrip("-")
        # In "/etc/huggingface/token: no such file" the name belongs to a file.
        is_place = (head.group("mark") or "").strip() == ":" and text[head.start() - 1 : head.start()] == "/"
        value = None if is_place or not telling(name) else _VALUE.match(text, head.end())
        if value and is_secret(name, value.group()):
            yield value.span("escaped") if value.group("escaped") else _inner(value.group(), value.start())
            yield from _further(text, value.end()) if head.group("option") and words(name)[-1:] == ["key"] else ()


def _further(text: str, at: int) -> Iterator[Span]:
    """The further values after an option, up to the next option."""
    while True:
        more = _FURTHER.match(text, at)
        if not more or more.group("value").lstrip("\"'").startswith("-"):
            return
        yield _inner(more.group("value"), more.start("value"))
        at = more.end()


def _by_words(text: str) -> Iterator[Span]:
    for head in _TOLD.finditer(text):
        value = _VALUE.match(text, head.end())
        if value and is_secret(head.group("name") or head.group("tight"), value.group()):
            yield _inner(value.group(), value.start())


def _inner(value: str, begin: int) -> Span:
    """The part between the quotes of a value, if it has quotes."""
    if re.fullmatch(_QUOTED, value.rstrip(", ")):
        return begin + 1, begin + len(value.rstrip(", ")) - 1
    return begin, begin + len(value)
