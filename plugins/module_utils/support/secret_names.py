# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which names tell that what they stand for is a secret, and of which variables the value may be shown.

A name is taken apart into its words: ``AZURE_STORAGE_KEY``, ``ldap-pw`` and ``secretAccessKey`` tell, ``tokenizer`` and
``KeyringMode`` do not.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import accumulate
from typing import Iterator, List, Sequence, Tuple

#: A word that ends like this tells: apikey, dbpass, oauth.
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
#: What is known of a key or a token, and is none: KeyError, num_key_value_heads, key_fingerprint.
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
#: A place where a secret lies is none. What begins like a path may be one, so the folder has to be a usual one.
_PATH = re.compile(r"(?:~|/(?:etc|var|run|root|home|srv|opt|usr|tmp|mnt|data|dev)|file://)(?:/[\w./@:+-]*)?|/")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^\s@?#]*", re.IGNORECASE)
#: Where a public key lies.
_ADDRESSED = re.compile(r"(?:.*[_.-])?key[_.-]ur[il]|gpgkey|key", re.IGNORECASE)
_NUMBER = re.compile(r"[\d.,]+(?:[kmgt]i?b?)?", re.IGNORECASE)
_NOTHING = ("", "true", "false", "yes", "no", "on", "off", "none", "null", "~", "[]", "{}", "''", '""')
#: Variables whose values help whoever reads them: those of programs, of which none is the user's own.
_KNOWN = re.compile(
    r"(?:https?|all|no|ftp)_proxy|path|home|user|logname|shell|lang|language|lc_\w+|tz|term|hostname|(?:old)?pwd|tmpdir"
    r"|xdg_\w+|python\w+|ld_\w+|vllm_\w+|hf_\w+|transformers_\w+|(?:py)?torch\w*|nccl_\w+|cuda_\w+|nvidia_\w+|omp_\w+"
    r"|mkl_\w+|ray_\w+|triton_\w+|gloo_\w+|ucx_\w+|notify_socket|invocation_id|journal_stream|systemd_\w+|docker_host"
    r"|ssl_cert_\w+|requests_ca_bundle|curl_ca_bundle",
    re.IGNORECASE,
)


def words(name: str) -> List[str]:
    """The words of a name, in lower case and in the singular.

    >>> words("secretAccessKeys")
    ['secret', 'access', 'key']
    """
    found = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]
    return [word[:-1] if word.endswith("s") and not word.endswith(("ss", "sas")) else word for word in found]


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
    """Whether a value is a secret by its name: not a place where one lies, a number of tokens, or nothing at all."""
    value = value.strip().strip("'\"").strip()
    if value.lower() in _NOTHING or _BELOW.fullmatch(value) or not telling(name):
        return False
    last = re.split(r"[_.-]", name)[-1].lower()
    if _PATH.fullmatch(value) or (_ADDRESSED.fullmatch(name) and _ADDRESS.fullmatch(value)):
        return False
    counted = last.endswith("tokens") or last in ("keys", "id", "ids")
    return not (counted and _NUMBER.fullmatch(value))


def may_be_shown(name: str, value: str) -> bool:
    """Whether a variable's value may be shown, out of an environment: it is a known one, and no secret by its name."""
    return bool(_KNOWN.fullmatch(name)) and not is_secret(name, value)


# -- where in a text such values stand --------------------------------------------------------------------------------
_NAME = r"[A-Za-z_][\w.-]{0,99}"
_QUOTED = r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'"
#: A line that begins with a name: its value is the rest of it, or in YAML what stands below, further in.
_LINE = re.compile(
    r"[ \t]*(?:-[ \t]+)?(?:export[ \t]+)?"
    rf"(?P<quote>[\"']?)(?P<name>{_NAME})(?P=quote)[ \t]*[:=][ \t]*"
)
_BELOW = re.compile(r"(?:[|>][-+\d]*|[\[{])?")
#: What is between an option and its value: on a command line that may go on in the next one, or in a list of words.
_THEN = r"(?:=|[\\\"']{1,2}[ \t]*,\s*|[\"']?[ \t]+(?:\\\n[ \t]*)?|[\"']?[ \t]*\n[ \t]*-[ \t]+)"
#: A name within a line, in a program's words, JSON, a command line or an address, and the value after it.
_NAMED = re.compile(
    rf"(?<![\w.-])(?:(?P<option>--{_NAME}){_THEN}|(?P<name>{_NAME})(?P<mark>\\?[\"']?[ \t]*(?:=>|[:=])[ \t]*)"
    rf"|<(?P<element>{_NAME})>)"
)
_VALUE = re.compile(
    rf"\\\"(?P<escaped>(?:(?!\\\").)*)|{_QUOTED}|\[[^\]\n]{{0,4000}}\]"
    r"|[\"']?(?:(?:bearer|basic|digest|token)[ \t]+)?[^\s\"'<]+",
    re.IGNORECASE,
)
#: A further value of an option that takes several, as vLLM's --api-key does.
_FURTHER = re.compile(rf"(?:[ \t]*,\s*|[ \t]+)(?P<value>{_QUOTED}|(?![-\\\[\]{{}}])[^\s\"',]+)")
#: A name and a value that are told by these very words, as Kubernetes has its variables.
_TOLD = re.compile(
    rf"\bname\"?[ \t]*[:=][ \t]*[\"']?(?P<name>{_NAME})[\"']?,?\s+\"?value\"?[ \t]*[:=][ \t]*|"
    rf"\bname\"[ \t]*:[ \t]*\"(?P<tight>{_NAME})\",\"value\"[ \t]*:[ \t]*"
)
Span = Tuple[int, int]


def told(text: str) -> List[Span]:
    """Where the values stand that names tell of, in order, and none within another."""
    taken: List[Span] = []
    found = [*_of_lines(text), *_within_lines(text), *_by_words(text)]
    for begin, end in sorted(found, key=lambda span: (span[0], -span[1])):
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
    """Behind the last line that stands further in than a name at this column; a list's items need not."""
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
        # "/etc/huggingface/token: no such file" names a file.
        is_place = (head.group("mark") or "").strip() == ":" and text[head.start() - 1 : head.start()] == "/"
        value = None if is_place or not telling(name) else _VALUE.match(text, head.end())
        if value and is_secret(name, value.group()):
            yield value.span("escaped") if value.group("escaped") else _inner(value.group(), value.start())
            yield from _further(text, value.end()) if head.group("option") and words(name)[-1:] == ["key"] else ()


def _further(text: str, at: int) -> Iterator[Span]:
    """What else stands behind an option, up to the next one."""
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
    """Between its quotes, where a value has some."""
    if re.fullmatch(_QUOTED, value.rstrip(", ")):
        return begin + 1, begin + len(value.rstrip(", ")) - 1
    return begin, begin + len(value)
