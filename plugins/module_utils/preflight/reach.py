# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check the sources of packages, keys and images before the play changes anything.

Only what is missing on the node is checked, so a node with nothing to do sends no request.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, Iterable, List, Mapping, Sequence, Tuple

from ..docker import layout as docker_layout, registry as docker_registry
from ..packages.managers import MANAGERS

Runner = Callable[[Sequence[str]], Tuple[int, str, str]]
#: Returns a problem as a sentence, or an empty text.
Question = Callable[[], str]


def sources(
    entries: Iterable[Mapping[str, Any]], run: Runner, open_url: Callable[..., Any]
) -> Tuple[List[str], List[Question]]:
    """Problems with the keys of the repositories, and the remaining questions to apt or dnf.

    Args:
        entries: each a ``manager``, V(apt) or V(dnf), and the ``options`` of its module.
    """
    findings: List[str] = []
    questions: List[Question] = []
    for entry in entries:
        here, wanted = MANAGERS[entry["manager"]], entry["options"]
        try:
            key = here.needed_key(wanted, run, open_url)
        except ValueError as trouble:
            findings.append(f"{str(trouble).rstrip('.')}.")
            continue
        if key is not None:
            questions.append(lambda here=here, wanted=wanted, key=key: here.objection(wanted, key, run))  # type: ignore[misc]
    return findings, questions


def images(missing: Sequence[str], registry: Mapping[str, Any], machine: str, run: Runner) -> List[Question]:
    """One question for each missing image: to its registry, or to the folder that replaces it."""
    source = registry.get("source") or ""
    if source:
        return [lambda image=image: in_folder(image, source) for image in missing]  # type: ignore[misc]
    if not missing:
        return []
    docker = docker_registry.of_node(registry, run)
    return [lambda image=image: docker_registry.finding(image, docker, machine) for image in missing]  # type: ignore[misc]


def in_folder(image: str, source: str) -> str:
    """Whether the folder holds an image. A missing folder is reported by the task that copies it, not here."""
    names = docker_layout.layouts(source)
    if not os.path.isdir(source) or docker_layout.layout_name(image) in names:
        return ""
    return f"{source} holds no image {image}. It has: {', '.join(names) or 'none'}."


def ask(questions: Sequence[Question], meanwhile: Callable[[], Any]) -> Tuple[List[str], Any]:
    """Ask all questions in parallel with other work; return the problems and the result of that work."""
    if not questions:
        return [], meanwhile()
    with ThreadPoolExecutor(max_workers=8) as pool:
        futures = [pool.submit(question) for question in questions]
        result = meanwhile()
        return [problem for problem in (future.result() for future in futures) if problem], result


PREFIX = "GPUNODE_HUB_"


def hub_environment(environment: Mapping[str, str]) -> Dict[str, str]:
    """The variables for the requests to the hub only: apt and Docker have their own proxy settings."""
    return {name[len(PREFIX) :]: value for name, value in environment.items() if name.startswith(PREFIX)}
