# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the first question of a play brought along: the controller's side of ``module_utils/node/asked.py``.

Answers lie in the folder that this run of ansible-playbook has for itself, and in no register. What they are answers to
may hold secrets: its digest is sealed for this play before it leaves the node, since -vvv shows what a node says.
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

from ..module_utils.node import files
from ..module_utils.node.asked import sealed

Result = dict[str, Any]


def digest(args: Mapping[str, Any]) -> str:
    """The same for the same question alone."""
    text = json.dumps(args, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _place(host: str) -> Path:
    name = hashlib.sha256(host.encode()).hexdigest()[:16]
    return Path(constants.DEFAULT_LOCAL_TMP) / f"gpunode-asked-{name}.json"


def nonce() -> str:
    """A random text for one first question."""
    return secrets.token_hex(16)


def bring(host: str, answers: Mapping[str, Any], sealed_under: str) -> None:
    """Put down what the first question to a host brought along."""
    with suppress(OSError):
        files.write(_place(host), json.dumps({"nonce": sealed_under, "answers": answers}), 0o600)


def take(host: str, name: str, asks: str) -> Result | None:
    """The answer to a question, once: whoever asks again, asks since something may have changed."""
    try:
        kept = json.loads(files.read_text(_place(host)))
        found = kept["answers"].pop(name)
        bring(host, kept["answers"], kept["nonce"])
    except (OSError, ValueError, KeyError):
        return None
    return dict(found["answer"]) if found["digest"] == sealed(asks, kept["nonce"]) else None


def ask(
    action: ActionBase, module: str, args: Mapping[str, Any], task_vars: dict[str, Any], unchanged: bool = True
) -> Result:
    """Take the answer that is there, or have the action call its module.

    Args:
        unchanged: whether the node is as it was when it answered.
    """
    asks = digest(args)
    found = take(str(task_vars.get("inventory_hostname", "node")), module.rpartition(".")[2], asks)
    if found is not None and unchanged:
        return {"changed": False, **found}
    called = {"module_name": module, "module_args": {**args, "digest": asks}, "task_vars": task_vars}
    result: Result = action._execute_module(**called)
    return result
