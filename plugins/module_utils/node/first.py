# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first question of a play: the lock, the GPUs, and what the node was asked last.

What speaks to a network is handed in, so that a node that asks nobody needs none of its code.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, Mapping

from ..preflight import answer as preflight_answer
from ..units import settled as units_settled
from . import gpus as node_gpus, lock as node_lock, questions as node_questions

OPTIONS: Mapping[str, Any] = {"lock": {"type": "dict"}, "nonce": {"type": "str", "no_log": True}}
#: How each is answered, by the name of the module that asks it.
ANSWERS: Mapping[str, Callable[[Any], Dict[str, Any]]] = {
    "preflight_check": preflight_answer.again,
    "units_settled": units_settled.again,
}


def answer(module: Any, more: Callable[[], Dict[str, Any]] = dict) -> Dict[str, Any]:
    """All of it; where another play has the node, only that.

    Args:
        more: what is found out meanwhile, from others than the node.
    """
    lock = node_lock.taken(module, module.params["lock"]) if module.params["lock"] else {}
    if lock and not lock["lock"]["mine"]:
        return {"changed": False, **lock}
    known = ANSWERS if module.params["nonce"] else {}
    with ThreadPoolExecutor(max_workers=1) as pool:
        further = pool.submit(more)
        answers, gpus = node_questions.answers(module, known, lambda: node_gpus.answer(module))
        return {**gpus, **lock, "answers": answers, **further.result()}
