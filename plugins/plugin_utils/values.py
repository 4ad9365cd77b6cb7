# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Convert variables that arrive as text to the type of their specification.

``-e name=value``, the surveys of AWX and ``set_stats`` send text, and Ansible checks a role's variables
without converting them. The type of a variable is in ``meta/argument_specs.yml`` of its role or of the playbooks.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import yaml

from ..module_utils.support import redact
from .planner.catalog import near

HOME = Path(__file__).resolve().parents[2]
#: The C loader is ten times as fast as the Python one.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
#: Reads only text, lists and dictionaries; the specification gives the type of a text.
TEXT_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
Option = Mapping[str, Any]

TRUE = ("true", "yes", "on", "1", "y", "t")
FALSE = ("false", "no", "off", "0", "n", "f")
#: Texts that mean null, for variables that may be null.
NOTHING = ("", "null", "none", "~")
#: vLLM's suffixes of numbers: small letters are powers of 1000, capitals powers of 1024.
MULTIPLIERS = {
    **{letter: 1000**power for power, letter in enumerate("kmgt", 1)},
    **{letter: 1024**power for power, letter in enumerate("KMGT", 1)},
}
#: A whole number with at most the digits that our programs accept.
WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
#: An item that begins with a quotation mark or a bracket, and so may contain commas.
ENCLOSED = re.compile(r"""(?:^|[,\n])\s*["'{]""")
#: The entry of the playbooks' specification with the variables of every playbook.
EVERY = "every"
#: Lists whose items have a form that no type expresses: the pattern, and its description.
FORMS = {
    "nodes_at_a_time": (
        r"[1-9][0-9]{0,5}|([1-9][0-9]?|100)%",
        "numbers of nodes or shares of them, such as 1, 25% or 1,10,25%",
    ),
}
#: Characters of a value that a message shows.
SHOWN = 60


class Unreadable(ValueError):
    """A value that does not fit its type. The caller adds the variable's name."""


@cache
def specification(home: str) -> Mapping[str, Any]:
    """The entry points of `playbooks`, or of a role such as `roles/vllm`, with their options."""
    text = (HOME / home / "meta" / "argument_specs.yml").read_text(encoding="utf-8")
    content: Mapping[str, Any] = yaml.load(text, Loader=LOADER)["argument_specs"]
    return content


def _specifications() -> list[Mapping[str, Any]]:
    """The specifications of the playbooks, then of each role."""
    # An internal role has no defaults, and so no public variables.
    roles = sorted(path.parents[1].name for path in HOME.glob("roles/*/defaults/main.yml"))
    return [specification(home) for home in ("playbooks", *(f"roles/{role}" for role in roles))]


@lru_cache(maxsize=1)
def options() -> dict[str, Option]:
    """The specification of each public variable of the roles and the playbooks, by its name."""
    by_name: dict[str, Option] = {}
    for entries in _specifications():
        for entry in entries.values():
            for name, option in (entry.get("options") or {}).items():
                by_name.setdefault(name, option)
    return by_name


def playbooks() -> dict[str, frozenset[str]]:
    """The variables that each playbook reads itself, without those of the roles."""
    entries = dict(specification("playbooks"))
    common = entries.pop(EVERY)["options"]
    return {name: frozenset((*common, *(entry.get("options") or ()))) for name, entry in entries.items()}


def choices(option: Option) -> list[Any]:
    """The choices of an option without null, which a specification has to list too."""
    return [choice for choice in option.get("choices", ()) if choice is not None]


def may_be_null(option: Option) -> bool:
    """Whether an option accepts null: it is not required and has no default."""
    return option.get("default") is None and not option.get("required")


def typed(name: str, value: Any) -> Any:
    """Convert a public variable to its type. Raises ValueError with the name, the value and an example."""
    if name not in options():
        raise ValueError(f"{name} is not a variable of this collection.")
    return read(name, value, options()[name])


def read(name: str, value: Any, option: Option, secret: bool = False) -> Any:
    """Convert a value to its type; `secret` keeps it out of messages, as no_log does."""
    secret = secret or bool(option.get("no_log"))
    if may_be_null(option) and _is_nothing(value):
        return None
    kind = option.get("type", "str")
    if isinstance(value, str) and not value.strip() and "default" in option and _no_text(kind, option):
        return option["default"]
    try:
        converted = READERS[kind](value, option)
    except Unreadable as error:
        raise ValueError(_refusal(name, value, option, secret, str(error))) from None
    if kind == "list":
        converted = [read(f"{name}[{at}]", item, _element(option), secret) for at, item in enumerate(converted)]
    if kind == "dict" and "options" in option:
        converted = _suboptions(name, converted, option["options"], secret)
    if kind not in ("list", "dict") and "choices" in option and converted not in option["choices"]:
        raise ValueError(_refusal(name, value, option, secret))
    if name in FORMS and not all(re.fullmatch(FORMS[name][0], str(item).strip()) for item in converted):
        raise ValueError(f"{name} must be {FORMS[name][1]}, not {value!r}.")
    return converted


def _no_text(kind: str, option: Option) -> bool:
    """Whether an empty text is not a valid value: a survey sends one for an unanswered question."""
    return kind in ("bool", "int", "float") or (kind == "str" and "choices" in option)


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.strip().lower() in NOTHING)


def _element(option: Option) -> Option:
    """The specification of a list's elements, which may not be null."""
    return {
        "type": option.get("elements", "raw"),
        "required": True,
        **{key: option[key] for key in ("choices", "options") if key in option},
    }


def _suboptions(name: str, value: Mapping[str, Any], known: Mapping[str, Option], secret: bool) -> dict[str, Any]:
    """Convert a dictionary whose keys have specifications. A null value counts as absent."""
    for key in value:
        if key not in known:
            meant = near(str(key), known)
            raise ValueError(f"{name} has no {key!r}{f', did you mean {meant[0]!r}?' if meant else '.'}")
    for key, option in known.items():
        if option.get("required") and key not in value:
            raise ValueError(f"{name} lacks {key!r}.")
    # Ansible removes the placeholder of `default(omit)` from dictionaries only later.
    present = {key: item for key, item in value.items() if repr(item) != "<<Omit>>"}
    given = {key: read(f"{name}.{key}", item, known[key], secret) for key, item in present.items()}
    return {key: item for key, item in given.items() if item is not None}


def _bool(value: Any, _option: Option) -> bool:
    text = str(value).strip().lower()
    if isinstance(value, (bool, int, str)) and text in TRUE + FALSE:
        return text in TRUE
    raise Unreadable


def _int(value: Any, _option: Option) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, (int, str)) and WHOLE.fullmatch(str(value).strip()):
        return int(str(value))
    raise Unreadable


def _float(value: Any, _option: Option) -> float:
    try:
        number = float(str(value))
    except ValueError:
        raise Unreadable from None
    if isinstance(value, bool) or not math.isfinite(number):
        raise Unreadable
    return number


def _str(value: Any, _option: Option) -> str:
    if value is None or isinstance(value, (bool, Mapping, list, tuple)):
        raise Unreadable
    return value if isinstance(value, str) else str(value)


def _list(value: Any, option: Option) -> Sequence[Any]:
    if value is None:
        return []
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, (bool, Mapping)):
        raise Unreadable
    text = str(value).strip()
    # A comma within quotes or brackets does not separate items.
    if text[:1] == "[" or re.match(r"-\s", text):
        return _listed(_loaded(text, option))
    if ENCLOSED.search(text):
        return _listed(_loaded(f"[{text}]", option))
    parts = [part.strip() for part in re.split(r"[,\n]", text) if part.strip()]
    if len(parts) > 1 and not all(map(_is_whole, parts)):
        raise Unreadable("a comma stands within quotation marks or brackets, so write it as a list")
    return parts


def _is_whole(part: str) -> bool:
    """Whether all quotation marks and brackets are closed, so that no comma has split an item."""
    pairs = part.count("{") == part.count("}") and part.count("[") == part.count("]")
    return pairs and part.count('"') % 2 == 0


def _listed(value: Any) -> Sequence[Any]:
    if isinstance(value, list):
        return value
    raise Unreadable


def _loaded(text: str, option: Option) -> Any:
    """Read a list or a dictionary in YAML, which includes JSON."""
    plain = option["type"] == "list" and option.get("elements", "raw") not in ("raw", "dict", "list")
    try:
        return yaml.load(text, Loader=TEXT_LOADER if plain else LOADER)
    except yaml.YAMLError:
        raise Unreadable("it begins as YAML or JSON and is neither") from None


def _dict(value: Any, option: Option) -> Mapping[str, Any]:
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return value
    if not isinstance(value, str):
        raise Unreadable
    text = value.strip()
    if text[:1] == "{" or re.match(r"['\"\w.-]+:(\s|$)", text):
        loaded = _loaded(text, option)
        if isinstance(loaded, Mapping) and not _colon_without_blank(loaded):
            return loaded
        raise Unreadable("a colon needs a blank behind it")
    return _pairs(text)


def _colon_without_blank(found: Any) -> bool:
    """Whether a colon lacks its blank: ``{a:1}`` is valid YAML, but means the key `a:1` without a value."""
    if isinstance(found, list):
        return any(map(_colon_without_blank, found))
    pairs = found.items() if isinstance(found, Mapping) else ()
    return any((value is None and ":" in str(key)) or _colon_without_blank(value) for key, value in pairs)


def _pairs(text: str) -> dict[str, str]:
    """Read ``a=1 b=2`` or ``a=1,b=2``. Each value is text."""
    words = shlex.shlex(text, posix=True)
    words.whitespace, words.escape, words.commenters, words.whitespace_split = " \t\r\n,", "", "", True
    try:
        parts = [word.partition("=") for word in words]
    except ValueError:
        raise Unreadable("a quotation mark is not closed") from None
    if not all(key and mark for key, mark, _value in parts):
        raise Unreadable
    # The quotation marks of a word are removed, so a value in brackets would lose its own.
    if re.search(r"=[{\[]", text):
        raise Unreadable("a value in brackets is written as {name: value}")
    pairs = {key: value for key, _mark, value in parts}
    if len(pairs) < len(parts):
        raise Unreadable("it contains a name twice")
    return pairs


READERS: dict[str, Callable[[Any, Option], Any]] = {
    "bool": _bool,
    "int": _int,
    "float": _float,
    "str": _str,
    "path": _str,
    "list": _list,
    "dict": _dict,
    "raw": lambda value, _option: value,
}


def size(value: Any) -> int:
    """Read a whole number as vLLM's parser does: 32768, 32k, 25.6k, 32K. Raises ValueError.

    A fraction with a capital suffix, such as 1.5K, is refused, as in vLLM.
    """
    form = r"(-?\d{1,18})|(\d{1,18}(?:\.\d{1,18})?)([kmgt])|(\d{1,18})([KMGT])"
    match = re.fullmatch(form, str(value).strip(), re.ASCII)
    if not match or isinstance(value, bool):
        raise ValueError(f"{value!r} is not a whole number such as 32768, 32k or 32K")
    plain, thousands, small, binary, capital = match.groups()
    if plain:
        return int(plain)
    return int(float(thousands) * MULTIPLIERS[small]) if small else int(binary) * MULTIPLIERS[capital]


def _refusal(name: str, value: Any, option: Option, secret: bool, why: str = "") -> str:
    """One sentence: what is wanted, an example, and what was found."""
    text = redact.Redactor(()).clean(repr(value))
    shown = text if len(text) <= SHOWN else text[:SHOWN] + "…"
    actual = "not the current value, which is secret and not shown" if secret else f"not {shown}"
    return f"{name} must be {_wanted(option)}, {actual}{f': {why}' if why else ''}."


def _wanted(option: Option) -> str:
    kind = option.get("type", "str")
    if "choices" in option and kind != "list":
        return f"one of {', '.join(map(str, choices(option)))}"
    example = option.get("default")
    numbers = {"int": "a whole number", "float": "a number"}
    wanted = {
        "bool": "true or false",
        **{number: words + (f" such as {example}" if example else "") for number, words in numbers.items()},
        "list": "a list such as [one, two] or one,two",
        "dict": "a dictionary such as {name: value} or name=value",
    }.get(kind, "a text")
    return wanted + (" (or null)" if may_be_null(option) else "")
