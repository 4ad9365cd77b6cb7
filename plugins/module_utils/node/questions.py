# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The last questions of modules that only read. The next play's first call on the node answers them again, which saves
that play one round trip per question, if it asks the same.

Questions are kept in a folder that only root may read and that a reboot empties. They hold no secret: of a token or a
secret file they keep the SHA-256.
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
    """The node alone cannot answer, or the answer would reveal too much."""


class KeptQuestion:
    """A question in place of a module, for the code that modules share. It fails with CannotTell."""

    check_mode = True

    def __init__(self, params: Mapping[str, Any], module: Any) -> None:
        self.params = params
        self.get_bin_path: Callable[[str], Optional[str]] = module.get_bin_path
        # Unlike the module's own, it does not end the module if a program is missing.
        self.run_command = commands.runner(os.environ)

    def fail_json(self, msg: str, **_more: Any) -> NoReturn:
        raise CannotTell(msg)


Answer = Callable[[KeptQuestion], Dict[str, Any]]


def keep(name: str, digest: str, question: Question) -> None:
    """Keep a question; it replaces the one before. If that fails, the next play asks in its own call."""
    kept = json.dumps(numbered({"digest": digest, "question": question}))
    with suppress(OSError):
        files.write_atomically(FOLDER / name, kept, 0o600, 0o700, power_cut=False)


def answers(module: Any, known: Mapping[str, Answer], meanwhile: Callable[[], Any]) -> Tuple[Dict[str, Any], Any]:
    """Answer the kept questions, and do other work in parallel: all of it waits for other programs.

    Args:
        known: question name -> function that answers it.
    """
    with ThreadPoolExecutor(max_workers=len(known) or 1) as pool:
        futures = {name: pool.submit(_answered, module, name, answer) for name, answer in known.items()}
        result = meanwhile()
        answered = {name: future.result() for name, future in futures.items()}
    return {name: answer for name, answer in answered.items() if answer}, result


def _answered(module: Any, name: str, answer: Answer) -> Dict[str, Any]:
    try:
        kept = json.loads(files.read_text(FOLDER / name))
        if number_of(kept) != SCHEMA:
            return {}
        answered = answer(KeptQuestion(kept["question"], module))
        return {"digest": sealed(kept["digest"], module.params["nonce"]), "answer": answered}
    # Ignore any error: the play asks again in its own call, which reports it.
    except Exception:
        return {}


def sealed(digest: str, nonce: str) -> str:
    """A digest for this play only: -vvv shows it, and nobody can use it to test guesses of a secret."""
    return hmac.new(nonce.encode("ascii"), digest.encode("ascii"), hashlib.sha256).hexdigest()


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
