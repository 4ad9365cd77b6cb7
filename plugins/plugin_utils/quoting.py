# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Quote text for systemd units, env files, Docker's --mount and nginx's configuration."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_PLAIN_WORD = re.compile(r"[A-Za-z0-9_@%+=:,./${}\[\]-]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def unit_arg(value: Any) -> str:
    """Quote one argument of a command in a unit (Exec…=): % and $ are escaped, and blanks and quotes do not split it.

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
    """Free text for a unit, such as Description=: one line, % escaped, no backslash at the end."""
    return comment_text(value).replace("%", "%%")


def comment_text(value: Any) -> str:
    """Free text for a comment: one line, no backslash at the end."""
    # A backslash at the end would join the next line.
    return " ".join(_CONTROL.sub(" ", str(value)).split()).rstrip("\\").rstrip()


def env_text(value: Any) -> str:
    """The value of an environment variable: programs expect 1 and 0, not Python's True and False."""
    return str(int(value)) if isinstance(value, bool) else "" if value is None else str(value)


def env_file(variables: Mapping[str, Any], *further: Mapping[str, Any]) -> str:
    """Lines of an env file for Docker, which knows no quotes: a value reaches to the end of its line.

    Messages never contain a value, since it may be a secret.
    """
    lines = []
    variables = {name: value for layer in (variables, *further) for name, value in layer.items()}
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


def nginx_text(value: Any) -> str:
    """Quote a text for nginx's configuration. A dollar still begins a variable where nginx looks for one."""
    text = str(value)
    if _CONTROL.search(text):
        raise ValueError("a text for nginx cannot hold a line break or another control character")
    return '"{}"'.format(text.replace("\\", "\\\\").replace('"', '\\"'))


#: Options of docker run whose value is, or begins with, a path of the host.
_VOLUME = re.compile(r"(?:--volume|-v|--env-file)(?:=|$)|-v(?=/)")
_MOUNT = re.compile(r"--mount(?:=|$)")
_SOURCE = re.compile(r"""(?:^|,)"?(?:source|src)=([^,"]*)""")


def docker_paths(arguments: Sequence[Any]) -> list[str]:
    """The host paths in arguments of ``docker run``."""
    paths, words = [], [str(word) for word in arguments]
    for word, following in zip(words, [*words[1:], ""]):
        option = _VOLUME.match(word) or _MOUNT.match(word)
        if not option:
            continue
        value = word[option.end() :] or following
        source = _SOURCE.search(value) if _MOUNT.match(word) else None
        paths.append(source.group(1) if source else value.split(":")[0])
    return [path for path in paths if path.startswith("/")]


def mounts_for(paths: Sequence[Any], docker_args: Sequence[Any] = ()) -> str:
    """The value of RequiresMountsFor=: each path once, without parent folders of other paths.

    Paths that systemd would reject (relative, or with control characters) are left out: their user reports them.
    """
    valid = _valid((*map(str, paths), *docker_paths(docker_args)))
    # The mounts of a path include those of its parent folders.
    above = {path for path in valid if any(other.startswith(path.rstrip("/") + "/") for other in valid)}
    return " ".join(_unit_word(path) for path in valid if path not in above)


def mount_units(paths: Sequence[Any]) -> str:
    """The units of all mounts that paths may be on, for Wants= and After=. systemd ignores units that do not exist.

    RequiresMountsFor= would also stop the unit when such a mount goes away, although a running unit no longer needs it.

    >>> mount_units(["/srv/my tls"])
    'srv.mount srv-my\\\\x20tls.mount'
    """
    valid = _valid(map(str, paths))
    folders = {path[:end] for path in valid for end in (*(at.start() for at in re.finditer("/", path)), len(path))}
    return " ".join(f"{_escaped_path(folder)}.mount" for folder in sorted(folders - {"", "/"}))


def _valid(paths: Iterable[str]) -> list[str]:
    """The paths that systemd accepts, each once: absolute, without control characters."""
    normal = {posixpath.normpath(path) for path in paths if path.startswith("/")}
    return sorted(path for path in normal if not _CONTROL.search(path))


def _escaped_path(path: str) -> str:
    """A path escaped for the name of a unit, as ``systemd-escape --path`` prints it."""
    escaped = re.sub(
        r"[^A-Za-z0-9:_./]|^\.", lambda match: "".join(f"\\x{byte:02x}" for byte in match[0].encode()), path.strip("/")
    )
    return escaped.replace("/", "-")


def _unit_word(text: str) -> str:
    """Quote one word of a list in a unit, where a dollar needs no escape."""
    return unit_arg(text).replace("$$", "$")
