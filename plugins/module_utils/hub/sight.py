# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find links that leave the cache. They are dead in an engine's container and for a seeder's rsync.

Both see the cache's folder alone. On the host such a link works, so nobody notices.

This file is also copied to the node for the jobs: standard library only, and nothing of Ansible.
"""

from __future__ import annotations

import os
from typing import Iterable, List, Sequence


def out_of_sight(folder: str, paths: Iterable[str]) -> str:
    """Find the first of these paths that is not visible if only the folder is mounted, at another place.

    Returns a sentence with the remedy; empty if all paths are visible, or if nothing is there yet.
    """
    for path in paths:
        link = _way_out(folder, os.path.relpath(path, folder).split("/"))
        if not link:
            continue
        target, there = os.readlink(link), os.path.realpath(link)
        if there.startswith(os.path.realpath(folder) + "/"):
            remedy = f"Make it a relative one: ln -sfnr {there} {link}"
        elif os.path.isdir(link):
            remedy = (
                f"Mount its target in its place: rm {link} && mkdir {link} && mount --bind {there} {link}, and"
                " the same in /etc/fstab; or set huggingface_home to a disk that has room for everything"
            )
        else:
            remedy = f"Replace it with the file itself: cp --remove-destination {there} {link}"
        return f"{link} is a link to {target}, which a container cannot see: it gets {folder} alone. {remedy}."
    return ""


def _way_out(folder: str, parts: Sequence[str]) -> str:
    """The link that leads out of the folder on this path; empty if none does, or if the path does not exist."""
    here: List[str] = []
    ahead, through, hops = list(reversed(parts)), "", 0
    while ahead:
        part = ahead.pop()
        if part == "..":
            if not here:
                return through
            here.pop()
            continue
        place = os.path.join(folder, *here, part)
        if not os.path.islink(place):
            here += [part] if part != "." else []
            continue
        target, through, hops = os.readlink(place), place, hops + 1
        if os.path.isabs(target) or hops > 40:
            return place
        ahead += reversed(target.split("/"))
    return ""
