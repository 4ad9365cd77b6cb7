# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers that the first call of a play fetched in advance: the controller's side of
``module_utils/node/questions.py``.

Answers are stored in the temporary folder of this run of ansible-playbook, not in a registered variable. Questions may
contain secrets, so the node returns only a sealed digest of each: -vvv prints the result.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.plugins.action import ActionBase

from ...module_utils.node import files
from ...module_utils.node.questions import sealed

Result = dict[str, Any]


def digest(args: Mapping[str, Any]) -> str:
    """A digest of a question: equal only for equal questions."""
    text = json.dumps(args, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _place(host: str) -> Path:
    name = hashlib.sha256(host.encode()).hexdigest()[:16]
    return Path(constants.DEFAULT_LOCAL_TMP) / f"gpunode-asked-{name}.json"


def nonce() -> str:
    """A random text that seals the digests of one first call."""
    return secrets.token_hex(16)


def bring(host: str, answers: Mapping[str, Any], sealed_under: str) -> None:
    """Store the answers that the first call to a host returned."""
    with suppress(OSError):
        files.write(_place(host), json.dumps({"nonce": sealed_under, "answers": answers}), 0o600)


def take(host: str, name: str, wanted: str) -> Result | None:
    """Take the answer to a question out of the store. It is used once: a second question expects a fresh answer."""
    try:
        kept = json.loads(files.read_text(_place(host)))
        answer = kept["answers"].pop(name)
        bring(host, kept["answers"], kept["nonce"])
    except (OSError, ValueError, KeyError):
        return None
    return dict(answer["answer"]) if answer["digest"] == sealed(wanted, kept["nonce"]) else None


def ask(
    action: ActionBase, module: str, args: Mapping[str, Any], task_vars: dict[str, Any], unchanged: bool = True
) -> Result:
    """Return the stored answer, or call the module if there is none.

    Args:
        unchanged: whether the node has not changed since it answered.
    """
    wanted = digest(args)
    stored = take(str(task_vars.get("inventory_hostname", "node")), module.rpartition(".")[2], wanted)
    if stored is not None and unchanged:
        return {"changed": False, **stored}
    called = {"module_name": module, "module_args": {**args, "digest": wanted}, "task_vars": task_vars}
    result: Result = action._execute_module(**called)
    return result
