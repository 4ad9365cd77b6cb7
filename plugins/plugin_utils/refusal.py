# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A failure that is a message to people: shown once, and without the lines of the play that it came from.

Since 2.19 ansible-core prints an exception with its origin in the play, and then its message again as the task's. For a
fault of a play that is a help. What a node lacks, or a user misspelt, is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

from ansible import constants
from ansible.errors import AnsibleActionFail, AnsibleFilterError
from ansible.utils.display import Display


class Refusal(AnsibleActionFail):  # type: ignore[misc]
    """Ends the task with a message as its ``msg``, and nothing else around it."""

    @property
    def omit_exception_key(self) -> bool:
        """Keep the exception out of the result. An ansible-core that does not ask shows it twice, as before."""
        return True


#: Of a module's failure: what its message says as well, and what Ansible would print around it.
SAID = ("exception", "warnings", "deprecations", "diagnosis", "done", "progress")


def refused(result: Mapping[str, Any]) -> Refusal:
    """The failure of a module of ours, whose message is for people: only that is shown, and what it warned of."""
    for warning in result.get("warnings") or ():
        Display().warning(warning if isinstance(warning, str) else str(getattr(warning, "msg", warning)))
    kept = {key: value for key, value in result.items() if key not in SAID}
    return Refusal(str(result.get("msg")), result=kept)


def refusal(head: str, findings: Sequence[str], host: str) -> Refusal:
    """Show what was found, each in a numbered line of its own that can be searched and copied; then end with the head.

    A result is printed as YAML or as JSON, where several sentences are hard to read, so they do not stand in it.
    """
    lines = [f"{number}. {finding}" for number, finding in enumerate(findings, 1)]
    shown = "\n".join(["", f"{host}: {head}", *lines])
    Display().display(shown, color=constants.COLOR_ERROR)
    return Refusal(head)


def to_mend(count: int) -> str:
    """How a list of findings is headed."""
    return f"{count} thing{'' if count == 1 else 's'} to mend; nothing was changed."


#: What Python raises where a value has another shape than a function reads.
SHAPES = (AttributeError, KeyError, TypeError)


def refusing(name: str, function: Callable[..., Any], shape: str = "") -> Callable[..., Any]:
    """The filter of that name: where its input has another shape, it fails with ``shape``, a sentence's words.

    Without them a ValueError is the whole message, since the input may hold a secret.
    """

    @wraps(function)
    def called(*args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except (*SHAPES, ValueError) as error:
            said = f"{shape}: {error!r}" if shape else error
            raise AnsibleFilterError(f"gpunode.llm.{name}: {said}") from error

    return called
