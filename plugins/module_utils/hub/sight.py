# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of the cache is seen where its folder alone is mounted: in an engine's container, and by a seeder's rsync.

On the host a link to another disk is as good as a folder. There it leads nowhere.

This file is also copied to the node for the jobs: standard library only, and nothing of Ansible.
"""

from __future__ import annotations

import os
from typing import Iterable, List, Sequence


def out_of_sight(folder: str, paths: Iterable[str]) -> str:
    """What of these paths below the folder is not seen where the folder alone is mounted, at another place: a sentence.

    Links are followed as they are read there. Empty where all is seen, or where nothing is here yet.
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
                f"Mount what it leads to in its place: rm {link} && mkdir {link} && mount --bind {there} {link}, and"
                " the same in /etc/fstab; or set huggingface_home to a disk that holds all"
            )
        else:
            remedy = f"Put the file itself there: cp --remove-destination {there} {link}"
        return f"{link} is a link to {target}, and leads nowhere in a container, which has {folder} alone. {remedy}."
    return ""


def _way_out(folder: str, parts: Sequence[str]) -> str:
    """The link by which a path below the folder leaves it; empty where none does, or where the path ends."""
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
