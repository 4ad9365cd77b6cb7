# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether services run from the wanted files and answer: the result of units_settled."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from ..instance import wait as instance_wait
from ..node import questions as node_questions
from . import files as units_files, run as units_run


def answer(module: Any) -> Dict[str, Any]:
    """The module's result."""
    return _result(module, [file.path for file in units_files.wanted(module) if file.changed])


def question(params: Mapping[str, Any]) -> node_questions.Question:
    """What to keep of the question; of each file only the SHA-256."""
    files = []
    for entry in params["files"]:
        content = params["secrets"].get(entry["dest"]) if entry["secret"] else entry["content"]
        kept = {name: entry[name] for name in ("dest", "mode", "present")}
        files.append({**kept, "sha256": node_questions.sha256(content or "")})
    return {"files": files, **{name: params[name] for name in ("units", "endpoints", "absent")}}


def again(kept: node_questions.KeptQuestion) -> Dict[str, Any]:
    """Answer the kept question."""
    return _result(kept, [entry["dest"] for entry in kept.params["files"] if _differs(entry)])


def _differs(entry: Mapping[str, Any]) -> bool:
    text, mode = units_files.here(entry["dest"])
    wanted = (entry["sha256"], int(entry["mode"] or "0644", 8)) if entry["present"] else (None, None)
    return (None if text is None else node_questions.sha256(text), mode) != wanted


def _result(module: Any, changed: Sequence[str]) -> Dict[str, Any]:
    lines, decisions, endpoints = _to_do(module, changed)
    return {**units_run.answer(lines, decisions), "endpoints": endpoints}


def _to_do(module: Any, changed: Sequence[str]) -> Tuple[List[str], List[Any], List[Dict[str, Any]]]:
    """File differences, what units need, and the state of endpoints. Each is checked only if nothing differs before."""
    decisions: List[Any] = []
    lines = [f"{path} differs" for path in changed]
    lines += [f"{path} must be removed" for path in module.params["absent"] if os.path.lexists(path)]
    if module.params["units"] and not lines:
        _units, decisions, to_enable = units_run.due(module)
        lines += units_run.described(decisions, to_enable)
    if lines:
        return lines, decisions, []
    wait = instance_wait.Wait(module, {}, once=True)
    wait.slice()
    endpoints = wait.endpoints()
    waiting = [endpoint for endpoint in endpoints if not endpoint["ready"]]
    return [f"{endpoint['name']}: {endpoint['detail']}" for endpoint in waiting], decisions, endpoints
