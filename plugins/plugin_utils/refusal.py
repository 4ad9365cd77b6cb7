# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A failure whose message is for users: shown once, without the origin in the play.

Since 2.19, ansible-core prints an exception with its origin in the play, and then its message again as the task's. That
helps with an error in a play, but not with a problem of a node or a user's typing error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

from ansible import constants
from ansible.errors import AnsibleActionFail, AnsibleFilterError
from ansible.utils.display import Display


class Refusal(AnsibleActionFail):  # type: ignore[misc]
    """End the task with this message as ``msg`` and nothing else."""

    @property
    def omit_exception_key(self) -> bool:
        """Keep the exception out of the result. An ansible-core without this property shows it twice."""
        return True


#: Keys of a module's failure that repeat its message, or that Ansible would print around it.
REDUNDANT = ("exception", "warnings", "deprecations", "diagnosis", "done", "progress")


def refused(result: Mapping[str, Any]) -> Refusal:
    """Turn a module's failure into a refusal: show only its message and its warnings."""
    for warning in result.get("warnings") or ():
        Display().warning(warning if isinstance(warning, str) else str(getattr(warning, "msg", warning)))
    kept = {key: value for key, value in result.items() if key not in REDUNDANT}
    return Refusal(str(result.get("msg")), result=kept)


def refusal(head: str, findings: Sequence[str], host: str) -> Refusal:
    """Show the findings as numbered lines that can be searched and copied; return a refusal with the heading.

    Findings are not part of the result: Ansible prints it as YAML or JSON, where sentences are hard to read.
    """
    lines = [f"{number}. {finding}" for number, finding in enumerate(findings, 1)]
    shown = "\n".join(["", f"{host}: {head}", *lines])
    Display().display(shown, color=constants.COLOR_ERROR)
    return Refusal(head)


def problems_found(count: int) -> str:
    """The heading of a list of findings."""
    return f"{count} problem{'' if count == 1 else 's'} found; nothing was changed."


#: What Python raises for a value of an unexpected structure.
SHAPES = (AttributeError, KeyError, TypeError)


def refusing(name: str, function: Callable[..., Any], shape: str = "") -> Callable[..., Any]:
    """Wrap a filter so that malformed input fails with the words ``shape`` and the error.

    Without ``shape`` the message is the error alone, since the input may hold a secret.
    """

    @wraps(function)
    def called(*args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except (*SHAPES, ValueError) as error:
            message = f"{shape}: {error!r}" if shape else error
            raise AnsibleFilterError(f"gpunode.llm.{name}: {message}") from error

    return called
