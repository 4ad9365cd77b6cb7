# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text that lands in a unit, in an env file or in Docker's --mount, quoted by each one's own rules."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_PLAIN_WORD = re.compile(r"[A-Za-z0-9_@%+=:,./${}\[\]-]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def unit_arg(value: Any) -> str:
    """One argument of a command in a unit (Exec…=): % and $ mean themselves, blanks and quotes keep it whole.

    >>> unit_arg("100% of $HOME")
    '"100%% of $$HOME"'
    """
    text = str(value)
    if "\x00" in text:
        raise ValueError("an argument of a command cannot hold a NUL character")
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    text = _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)
    text = text.replace("%", "%%").replace("$", "$$")
    return text if _PLAIN_WORD.fullmatch(text) else f'"{text}"'


def unit_text(value: Any) -> str:
    """Free text in a unit, such as a Description=: one line, with % meaning itself, that ends where it ends."""
    return comment_text(value).replace("%", "%%")


def comment_text(value: Any) -> str:
    """Free text in a comment: one line, that ends where it ends."""
    # A backslash at the end would draw the next line in.
    return " ".join(_CONTROL.sub(" ", str(value)).split()).rstrip("\\").rstrip()


def env_text(value: Any) -> str:
    """The value of an environment variable: programs know 1 and 0, not Python's True and False."""
    return str(int(value)) if isinstance(value, bool) else "" if value is None else str(value)


def env_file(variables: Mapping[str, Any]) -> str:
    """Lines of an env file as Docker reads it: nothing is quoted, so a value is all there is up to the line's end.

    A message never holds a value, since it may be a secret.
    """
    lines = []
    for name in sorted(variables):
        if not _VARIABLE.fullmatch(str(name)):
            raise ValueError(f"{name!r} is not the name of an environment variable")
        text = env_text(variables[name])
        if _CONTROL.search(text.replace("\t", " ")):
            raise ValueError(f"the value of {name} holds a line break or another control character")
        lines.append(f"{name}={text}")
    return "\n".join(lines)


def bind_mount(source: Any, target: str, readonly: bool = False) -> str:
    """The value of Docker's --mount for a path of the host. Docker reads it as one line of CSV."""
    path = str(source)
    if not path.startswith("/") or _CONTROL.search(path):
        raise ValueError(f"{path!r} is not an absolute path, or holds control characters")
    fields = ["type=bind", f"source={path}", f"target={target}"] + (["readonly"] if readonly else [])
    return ",".join(_csv(field) for field in fields)


def _csv(field: str) -> str:
    return '"{}"'.format(field.replace('"', '""')) if re.search(r'[",]', field) else field
