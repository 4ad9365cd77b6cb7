# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text that lands in a unit, an env file, Docker's --mount or nginx's configuration, quoted by each one's own rules."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
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


def env_file(variables: Mapping[str, Any], *further: Mapping[str, Any]) -> str:
    """Lines of an env file as Docker reads it: nothing is quoted, so a value is all there is up to the line's end.

    A message never holds a value, since it may be a secret.
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
    """A text in nginx's configuration, in quotes and meaning itself; dollars are the caller's matter."""
    text = str(value)
    if _CONTROL.search(text):
        raise ValueError("a text for nginx cannot hold a line break or another control character")
    return '"{}"'.format(text.replace("\\", "\\\\").replace('"', '\\"'))


#: Options of docker run whose value begins with, or names, a path of the host.
_VOLUME = re.compile(r"(?:--volume|-v|--env-file)(?:=|$)|-v(?=/)")
_MOUNT = re.compile(r"--mount(?:=|$)")
_SOURCE = re.compile(r"""(?:^|,)"?(?:source|src)=([^,"]*)""")


def docker_paths(arguments: Sequence[Any]) -> list[str]:
    """The paths of the host that arguments of ``docker run`` give to a container."""
    found, words = [], [str(word) for word in arguments]
    for word, following in zip(words, [*words[1:], ""]):
        option = _VOLUME.match(word) or _MOUNT.match(word)
        if not option:
            continue
        value = word[option.end() :] or following
        source = _SOURCE.search(value) if _MOUNT.match(word) else None
        found.append(source.group(1) if source else value.split(":")[0])
    return [path for path in found if path.startswith("/")]


def mounts_for(paths: Sequence[Any], docker_args: Sequence[Any] = ()) -> str:
    """The value of RequiresMountsFor=: each path once, and no folder of another one.

    A path that systemd would not take, one that is not absolute or holds control characters, is left out: what needs
    it will say so.
    """
    fit = _fit((*map(str, paths), *docker_paths(docker_args)))
    # What lies in a folder needs the folder's mounts and maybe one more, so the folder goes without saying.
    above = {path for path in fit if any(other.startswith(path.rstrip("/") + "/") for other in fit)}
    return " ".join(_unit_word(path) for path in fit if path not in above)


def mount_units(paths: Sequence[Any]) -> str:
    """The units of all mounts on which paths may lie, for Wants= and After=. systemd passes over those there are not.

    RequiresMountsFor= would stop a unit together with a mount that it no longer needs once it runs.

    >>> mount_units(["/srv/my tls"])
    'srv.mount srv-my\\\\x20tls.mount'
    """
    fit = _fit(map(str, paths))
    folders = {path[:end] for path in fit for end in (*(at.start() for at in re.finditer("/", path)), len(path))}
    return " ".join(f"{_escaped_path(folder)}.mount" for folder in sorted(folders - {"", "/"}))


def _fit(paths: Iterable[str]) -> list[str]:
    """The paths that systemd would take, each once: absolute ones without control characters."""
    known = {posixpath.normpath(path) for path in paths if path.startswith("/")}
    return sorted(path for path in known if not _CONTROL.search(path))


def _escaped_path(path: str) -> str:
    """A path as the name of a unit has it, as ``systemd-escape --path`` prints it."""
    escaped = re.sub(
        r"[^A-Za-z0-9:_./]|^\.", lambda found: "".join(f"\\x{byte:02x}" for byte in found[0].encode()), path.strip("/")
    )
    return escaped.replace("/", "-")


def _unit_word(text: str) -> str:
    """One word of a list in a unit, where a dollar means itself."""
    return unit_arg(text).replace("$$", "$")
