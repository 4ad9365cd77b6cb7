# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first call of a play: the lock, the GPUs, and the answers to the last questions.

Code that uses the network is passed in, so that modules without it do not carry it to the node.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, Mapping

from ..preflight import answer as preflight_answer
from ..units import settled as units_settled
from . import gpus as node_gpus, lock as node_lock, questions as node_questions

OPTIONS: Mapping[str, Any] = {"lock": {"type": "dict"}, "nonce": {"type": "str", "no_log": True}}
#: The function that answers each question, by the module that asks it.
ANSWERS: Mapping[str, Callable[[Any], Dict[str, Any]]] = {
    "preflight_check": preflight_answer.again,
    "units_settled": units_settled.again,
}


def answer(module: Any, more: Callable[[], Dict[str, Any]] = dict) -> Dict[str, Any]:
    """All parts of the answer; if another play has locked the node, only that.

    Args:
        more: other work that is done in parallel, such as requests to the hub.
    """
    lock = node_lock.taken(module, module.params["lock"]) if module.params["lock"] else {}
    if lock and not lock["lock"]["mine"]:
        return {"changed": False, **lock}
    known = ANSWERS if module.params["nonce"] else {}
    with ThreadPoolExecutor(max_workers=1) as pool:
        further = pool.submit(more)
        answers, gpus = node_questions.answers(module, known, lambda: node_gpus.answer(module))
        return {**gpus, **lock, "answers": answers, **further.result()}
