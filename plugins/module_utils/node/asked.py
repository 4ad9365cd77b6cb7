# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node was asked last. The first question of the next play has it answered once more, which spares that play a
round trip for each question that it asks in the same words.

Questions are kept in a folder that only root reads and that a restart of the node empties. They hold no secret: of a
token or a secret file they have the SHA-256.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, NoReturn, Optional, Tuple

from . import commands, files
from .schema import SCHEMA, number_of, numbered

FOLDER = Path("/run/gpunode/asked")

Question = Dict[str, Any]


class CannotTell(Exception):
    """The node alone cannot answer it, or not without saying more than an answer."""


class Asked:
    """A question, as a module has its own: what the cores of modules take for one. It fails by CannotTell."""

    check_mode = True

    def __init__(self, params: Mapping[str, Any], module: Any) -> None:
        self.params = params
        self.get_bin_path: Callable[[str], Optional[str]] = module.get_bin_path
        # Not the module's own, which ends the module where a program is missing.
        self.run_command = commands.runner(os.environ)

    def fail_json(self, msg: str, **_more: Any) -> NoReturn:
        raise CannotTell(msg)


Answer = Callable[[Asked], Dict[str, Any]]


def keep(name: str, digest: str, question: Question) -> None:
    """Keep a question, in the place of the one before. A node on which that cannot be is asked the longer way."""
    kept = json.dumps(numbered({"digest": digest, "question": question}))
    with suppress(OSError):
        files.write_atomically(FOLDER / name, kept, 0o600, 0o700, power_cut=False)


def answers(module: Any, known: Mapping[str, Answer], meanwhile: Callable[[], Any]) -> Tuple[Dict[str, Any], Any]:
    """The answers to what was asked last, and what is done meanwhile: all of it waits for other programs.

    Args:
        known: how each is answered, by its name.
    """
    with ThreadPoolExecutor(max_workers=len(known) or 1) as pool:
        asked = {name: pool.submit(_told, module, name, answer) for name, answer in known.items()}
        result = meanwhile()
        found = {name: one.result() for name, one in asked.items()}
    return {name: one for name, one in found.items() if one}, result


def _told(module: Any, name: str, answer: Answer) -> Dict[str, Any]:
    try:
        kept = json.loads(files.read_text(FOLDER / name))
        if number_of(kept) != SCHEMA:
            return {}
        told = answer(Asked(kept["question"], module))
        return {"digest": sealed(kept["digest"], module.params["nonce"]), "answer": told}
    # Whatever it is: the question comes again in its own call, which says what is wrong.
    except Exception:
        return {}


def sealed(digest: str, nonce: str) -> str:
    """A digest for this play alone: with -vvv it is seen, and nobody can try secrets against it."""
    return hmac.new(nonce.encode("ascii"), digest.encode("ascii"), hashlib.sha256).hexdigest()


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
