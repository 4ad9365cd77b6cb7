# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a play is going to fetch from elsewhere, asked before it changes anything: packages, keys and images.

Nothing that is on the node is asked for, so a node with nothing to do asks nobody.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, Iterable, List, Mapping, Sequence, Tuple

from ..docker import layout as docker_layout, registry as docker_registry
from ..packages.managers import MANAGERS

Runner = Callable[[Sequence[str]], Tuple[int, str, str]]
#: A finding, or nothing.
Question = Callable[[], str]


def sources(
    entries: Iterable[Mapping[str, Any]], run: Runner, open_url: Callable[..., Any]
) -> Tuple[List[str], List[Question]]:
    """What is found wrong with the repositories' keys, and the questions to apt or dnf that are left.

    Args:
        entries: each a ``manager``, V(apt) or V(dnf), and the ``options`` of its module.
    """
    findings: List[str] = []
    questions: List[Question] = []
    for entry in entries:
        here, wanted = MANAGERS[entry["manager"]], entry["options"]
        try:
            key = here.owed(wanted, run, open_url)
        except ValueError as trouble:
            findings.append(f"{str(trouble).rstrip('.')}.")
            continue
        if key is not None:
            questions.append(lambda here=here, wanted=wanted, key=key: here.objection(wanted, key, run))  # type: ignore[misc]
    return findings, questions


def images(missing: Sequence[str], registry: Mapping[str, Any], machine: str, run: Runner) -> List[Question]:
    """A question for each image that is not on the node: to its registry, or to the folder that stands in for one."""
    source = registry.get("source") or ""
    if source:
        return [lambda image=image: in_folder(image, source) for image in missing]  # type: ignore[misc]
    if not missing:
        return []
    docker = docker_registry.of_node(registry, run)
    return [lambda image=image: docker_registry.finding(image, docker, machine) for image in missing]  # type: ignore[misc]


def in_folder(image: str, source: str) -> str:
    """A folder that is not there yet is said by whoever brings it."""
    found = docker_layout.layouts(source)
    if not os.path.isdir(source) or docker_layout.layout_name(image) in found:
        return ""
    return f"{source} holds no image {image}: {', '.join(found) or 'none'} is there."


def ask(questions: Sequence[Question], meanwhile: Callable[[], Any]) -> Tuple[List[str], Any]:
    """What the questions find, all at once, and what is done meanwhile."""
    if not questions:
        return [], meanwhile()
    with ThreadPoolExecutor(max_workers=8) as pool:
        asked = [pool.submit(question) for question in questions]
        result = meanwhile()
        return [said for said in (one.result() for one in asked) if said], result


PREFIX = "GPUNODE_HUB_"


def hub_environment(environment: Mapping[str, str]) -> Dict[str, str]:
    """The variables that are for the questions to the hub alone: apt and Docker have proxies of their own."""
    return {name[len(PREFIX) :]: value for name, value in environment.items() if name.startswith(PREFIX)}
