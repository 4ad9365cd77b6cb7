# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Variables that arrive as text, read as their specification says.

``-e name=value``, the surveys of AWX and ``set_stats`` send text, and the specification of a role checks its variables
without converting them. ``meta/argument_specs.yml`` of its role, or of the playbooks, says what a variable is to be.
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
#: The C loader reads all specifications in a tenth of the time of the Python one.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
#: Knows text, lists and dictionaries alone: what a text is to be, its specification says.
TEXT_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
Option = Mapping[str, Any]

TRUE = ("true", "yes", "on", "1", "y", "t")
FALSE = ("false", "no", "off", "0", "n", "f")
#: The text of nothing, where a variable may be nothing.
NOTHING = ("", "null", "none", "~")
#: What vLLM reads behind a number: small letters count in thousands, capitals in 1024s.
MULTIPLIERS = {
    **{letter: 1000**power for power, letter in enumerate("kmgt", 1)},
    **{letter: 1024**power for power, letter in enumerate("KMGT", 1)},
}
#: A whole number, of no more digits than any program of ours takes.
WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
#: What stands before a comma or in the beginning, and takes the commas behind it in: a quotation mark, a bracket.
ENCLOSED = re.compile(r"""(?:^|[,\n])\s*["'{]""")
#: The entry of the playbooks' specification that holds what each of them takes.
EVERY = "every"
#: Lists whose items have a form that no type tells: the form, and its words.
FORMS = {
    "nodes_at_a_time": (
        r"[1-9][0-9]{0,5}|([1-9][0-9]?|100)%",
        "numbers of nodes or shares of them, such as 1, 25% or 1,10,25%",
    ),
}
#: More of a value says no more in a message.
SHOWN = 60


class Unreadable(ValueError):
    """A value that is not what it should be. Its caller says which variable that is."""


@cache
def specification(home: str) -> Mapping[str, Any]:
    """The entry points of `playbooks`, or of a role such as `roles/vllm`, with their options."""
    text = (HOME / home / "meta" / "argument_specs.yml").read_text(encoding="utf-8")
    found: Mapping[str, Any] = yaml.load(text, Loader=LOADER)["argument_specs"]
    return found


def _specifications() -> list[Mapping[str, Any]]:
    """Those of the playbooks, then of each role."""
    # An internal role has no defaults: nobody sets anything of it.
    roles = sorted(path.parents[1].name for path in HOME.glob("roles/*/defaults/main.yml"))
    return [specification(home) for home in ("playbooks", *(f"roles/{role}" for role in roles))]


@lru_cache(maxsize=1)
def options() -> dict[str, Option]:
    """The specification of each public variable of the roles and the playbooks, by its name."""
    found: dict[str, Option] = {}
    for entries in _specifications():
        for entry in entries.values():
            for name, option in (entry.get("options") or {}).items():
                found.setdefault(name, option)
    return found


def playbooks() -> dict[str, frozenset[str]]:
    """The variables that each playbook reads beside those of the roles."""
    entries = dict(specification("playbooks"))
    common = entries.pop(EVERY)["options"]
    return {name: frozenset((*common, *(entry.get("options") or ()))) for name, entry in entries.items()}


def choices(option: Option) -> list[Any]:
    """The values that a closed list has, without null, which a specification must list as well."""
    return [choice for choice in option.get("choices", ()) if choice is not None]


def may_be_nothing(option: Option) -> bool:
    """Whether null is a value of it, which is so where it has no default."""
    return option.get("default") is None and not option.get("required")


def typed(name: str, value: Any) -> Any:
    """A public variable as its specification says. Raises ValueError with the name, the value and an example."""
    if name not in options():
        raise ValueError(f"{name} is no variable of this collection.")
    return read(name, value, options()[name])


def read(name: str, value: Any, option: Option, secret: bool = False) -> Any:
    """A value as its specification says; `secret` keeps it out of messages, as no_log does."""
    secret = secret or bool(option.get("no_log"))
    if may_be_nothing(option) and _is_nothing(value):
        return None
    kind = option.get("type", "str")
    if isinstance(value, str) and not value.strip() and "default" in option and _no_text(kind, option):
        return option["default"]
    try:
        found = READERS[kind](value, option)
    except Unreadable as error:
        raise ValueError(_refusal(name, value, option, secret, str(error))) from None
    if kind == "list":
        found = [read(f"{name}[{at}]", item, _element(option), secret) for at, item in enumerate(found)]
    if kind == "dict" and "options" in option:
        found = _suboptions(name, found, option["options"], secret)
    if kind not in ("list", "dict") and "choices" in option and found not in option["choices"]:
        raise ValueError(_refusal(name, value, option, secret))
    if name in FORMS and not all(re.fullmatch(FORMS[name][0], str(item).strip()) for item in found):
        raise ValueError(f"{name} must be {FORMS[name][1]}, not {value!r}.")
    return found


def _no_text(kind: str, option: Option) -> bool:
    """Whether an empty text is no value of it: a survey sends that for a question that nobody answered."""
    return kind in ("bool", "int", "float") or (kind == "str" and "choices" in option)


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.strip().lower() in NOTHING)


def _element(option: Option) -> Option:
    """What an element of a list is to be. Not null: that would be no element."""
    return {
        "type": option.get("elements", "raw"),
        "required": True,
        **{key: option[key] for key in ("choices", "options") if key in option},
    }


def _suboptions(name: str, value: Mapping[str, Any], known: Mapping[str, Option], secret: bool) -> dict[str, Any]:
    """A dictionary whose keys have specifications of their own. What is null is as if it were not there."""
    for key in value:
        if key not in known:
            meant = near(str(key), known)
            raise ValueError(f"{name} has no {key!r}{f', did you mean {meant[0]!r}?' if meant else '.'}")
    for key, option in known.items():
        if option.get("required") and key not in value:
            raise ValueError(f"{name} lacks {key!r}.")
    # `default(omit)` in a dictionary is taken out by ansible only later, so what is to be left out is still there.
    there = {key: item for key, item in value.items() if repr(item) != "<<Omit>>"}
    given = {key: read(f"{name}.{key}", item, known[key], secret) for key, item in there.items()}
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
    # Within quotes and brackets a comma parts nothing.
    if text[:1] == "[" or re.match(r"-\s", text):
        return _listed(_loaded(text, option))
    if ENCLOSED.search(text):
        return _listed(_loaded(f"[{text}]", option))
    parts = [part.strip() for part in re.split(r"[,\n]", text) if part.strip()]
    if len(parts) > 1 and not all(map(_is_whole, parts)):
        raise Unreadable("a comma stands within quotation marks or brackets, so write it as a list")
    return parts


def _is_whole(part: str) -> bool:
    """Whether no quotation mark or bracket in it waits for its other one, which a comma parted from it."""
    pairs = part.count("{") == part.count("}") and part.count("[") == part.count("]")
    return pairs and part.count('"') % 2 == 0


def _listed(value: Any) -> Sequence[Any]:
    if isinstance(value, list):
        return value
    raise Unreadable


def _loaded(text: str, option: Option) -> Any:
    """A list or a dictionary written as YAML, of which JSON is a part."""
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
        found = _loaded(text, option)
        if isinstance(found, Mapping) and not _colon_without_blank(found):
            return found
        raise Unreadable("a colon needs a blank behind it")
    return _pairs(text)


def _colon_without_blank(found: Any) -> bool:
    """``{a:1}`` is YAML, too: the key `a:1` with no value."""
    if isinstance(found, list):
        return any(map(_colon_without_blank, found))
    pairs = found.items() if isinstance(found, Mapping) else ()
    return any((value is None and ":" in str(key)) or _colon_without_blank(value) for key, value in pairs)


def _pairs(text: str) -> dict[str, str]:
    """``a=1 b=2`` or ``a=1,b=2``. Each value is the text that stands there."""
    words = shlex.shlex(text, posix=True)
    words.whitespace, words.escape, words.commenters, words.whitespace_split = " \t\r\n,", "", "", True
    try:
        parts = [word.partition("=") for word in words]
    except ValueError:
        raise Unreadable("a quotation mark has no other") from None
    if not all(key and mark for key, mark, _value in parts):
        raise Unreadable
    # A word's quotation marks are not part of it, and without them this would be another dictionary.
    if re.search(r"=[{\[]", text):
        raise Unreadable("a value in brackets is written as {name: value}")
    found = {key: value for key, _mark, value in parts}
    if len(found) < len(parts):
        raise Unreadable("a name stands in it twice")
    return found


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
    """A whole number as vLLM's parser reads it: 32768, 32k, 25.6k, 32K. Raises ValueError.

    A part of 1024 is refused, as vLLM does.
    """
    form = r"(-?\d{1,18})|(\d{1,18}(?:\.\d{1,18})?)([kmgt])|(\d{1,18})([KMGT])"
    match = re.fullmatch(form, str(value).strip(), re.ASCII)
    if not match or isinstance(value, bool):
        raise ValueError(f"{value!r} is no whole number, nor one such as 32k or 32K")
    plain, thousands, small, binary, capital = match.groups()
    if plain:
        return int(plain)
    return int(float(thousands) * MULTIPLIERS[small]) if small else int(binary) * MULTIPLIERS[capital]


def _refusal(name: str, value: Any, option: Option, secret: bool, why: str = "") -> str:
    """One sentence: what is wanted, an example of it, and what was there."""
    told = redact.Redactor(()).clean(repr(value))
    shown = told if len(told) <= SHOWN else told[:SHOWN] + "…"
    is_there = "not what it is now, which is a secret and not shown" if secret else f"not {shown}"
    return f"{name} must be {_wanted(option)}, {is_there}{f': {why}' if why else ''}."


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
    return wanted + (" (or null)" if may_be_nothing(option) else "")
