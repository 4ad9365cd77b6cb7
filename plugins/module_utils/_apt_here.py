# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An apt source on this node, wanted as apt_source takes it: what is there of it, and of its packages."""

from __future__ import annotations

import glob
from typing import Any, Callable, Dict, Mapping, Sequence, Tuple

from ansible_collections.gpunode.llm.plugins.module_utils import _apt, _source_files

SOURCES = "/etc/apt/sources.list.d"
KEYRINGS = "/etc/apt/keyrings"

Wanted = Mapping[str, Any]
Runner = Callable[[Sequence[str]], Tuple[int, str, str]]


def paths(name: str) -> Tuple[str, str]:
    """The file of the source, and that of its key."""
    return f"{SOURCES}/{name}.sources", f"{KEYRINGS}/{name}.asc"


def source_change(wanted: Wanted) -> _source_files.Change:
    """The source to write, or nothing where it is there; and the change as a diff.

    Raises:
        ValueError: another file names the same repository with another key.
    """
    path, key_path = paths(wanted["name"])
    source = _apt.Source(
        uri=wanted["uri"],
        suite=wanted["suite"],
        components=tuple(wanted.get("components") or ()),
        architectures=tuple(wanted.get("architectures") or ()),
        signed_by=key_path,
        comment=wanted.get("description") or "",
    )
    others = [other for other in ["/etc/apt/sources.list", *sorted(glob.glob(f"{SOURCES}/*"))] if other != path]
    claims = [
        claim
        for other in others
        if other.endswith((".list", ".sources"))
        for claim in _apt.claims(other, _source_files.read(other).decode("utf-8", "replace"))
    ]
    clash = _apt.clash(source, claims)
    if clash:
        raise ValueError(
            f"{clash.path} already names {clash.uri} {clash.suite} with {clash.signed_by or 'no key of its own'}, "
            f"and apt stops at one repository with two keys. Remove that entry, or leave what it installed as it is."
        )
    return _source_files.text_change(path, source.render())


def look(wanted: Wanted, run: Runner) -> Dict[str, Any]:
    """What dpkg has of the packages in question."""
    names, conflicts = list(wanted.get("packages") or ()), list(wanted.get("conflicts") or ())
    specs = _apt.pin(names, wanted.get("version"), wanted.get("pinned") or names)
    have: Dict[str, _apt.Package] = {}
    if names or conflicts:
        # Exits 1 where it knows one of them not, and lists the others all the same.
        _rc, out, _err = run(["dpkg-query", "-W", "-f", _apt.QUERY, *names, *conflicts])
        have = _apt.installed(out)
    return {
        "missing": _apt.missing(specs, have),
        "versions": {name: have[name].version for name in sorted(have)},
        "held": [name for name in names if name in have and have[name].held],
        "conflicting": [name for name in conflicts if name in have],
    }


def settled(wanted: Wanted, run: Runner) -> bool:
    """Whether apt_source would change nothing, and would find nothing to install or to remove. Asks no network."""

    def refuse() -> bytes:
        raise ValueError("the key is not there")

    try:
        source, _diff = source_change(wanted)
        key, _diff = _source_files.key_change(paths(wanted["name"])[1], wanted["fingerprint"], "", refuse)
    except ValueError:
        return False
    found = look(wanted, run)
    return not (source or key or found["missing"] or found["conflicting"])
