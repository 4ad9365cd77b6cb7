# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read every variable of the collection that the play knows, on the controller, before anything changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from ansible import context
from ansible.errors import AnsibleError, AnsibleUndefinedVariable
from ansible.parsing.splitter import parse_kv
from ansible.plugins.action import ActionBase

from ..plugin_utils import names, values
from ..plugin_utils.refusal import problems_found, refusal


class ActionModule(ActionBase):  # type: ignore[misc]
    """settings_check"""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fail with a sentence for every variable that is misspelt, misplaced, or that cannot be read."""
        super().run(tmp, task_vars)
        self.validate_argument_spec(argument_spec={})
        known = task_vars or {}
        findings = [
            *names.misplaced(*called()),
            *self._misspelt(known),
            *self._unreadable(known),
            *self._too_late(known),
        ]
        if findings:
            host = str(known.get("inventory_hostname", "node"))
            raise refusal(problems_found(len(findings)), findings, host)
        return {"changed": False, "findings": []}

    def _misspelt(self, known: Mapping[str, Any]) -> list[str]:
        try:
            others = values.typed(names.OTHERS, self._value(known.get(names.OTHERS, [])))
        except (AnsibleError, ValueError):  # told of with all others that cannot be read
            others = []
        return names.misspelt(known, others)

    def _unreadable(self, known: Mapping[str, Any]) -> Iterator[str]:
        for name, option in values.options().items():
            if name in known and not self._is_settled(known[name], option, known):
                try:
                    values.typed(name, self._value(known[name]))
                except ValueError as error:
                    yield str(error)
                except AnsibleUndefinedVariable as error:
                    # What follows from the node's facts is known only later, and whoever uses it reads it then.
                    problem = names.unresolved(name, known[name], str(error), known)
                    yield from [problem] if problem else []
                except AnsibleError:
                    continue

    def _too_late(self, known: Mapping[str, Any]) -> Iterator[str]:
        """A play parts its nodes before it reads what an inventory says: all of them would change at the same time."""
        taken = self._task.get_play().serial  # empty if a playbook does not change its nodes in waves
        try:
            wanted = values.typed(names.WAVES, self._value(known.get(names.WAVES)))
        except (AnsibleError, ValueError):  # told of with all others that cannot be read
            return
        if wanted and taken and list(map(str, wanted)) != list(map(str, taken)):
            yield (
                f"{names.WAVES} is set in the inventory, but it is needed before the inventory is read: set it with -e "
                f"{names.WAVES}={','.join(map(str, wanted))}, or in a file behind -e."
            )

    def _value(self, raw: Any) -> Any:
        """The value, templated only if it contains a template: templating all of them would take most of the time."""
        plain = raw is None or isinstance(raw, (bool, int, float)) or (isinstance(raw, str) and "{" not in raw)
        return raw if plain or not raw else self._templar.template(raw)

    @staticmethod
    def _is_settled(raw: Any, option: values.Option, known: Mapping[str, Any]) -> bool:
        """Whether any text is a value of it, and it is a text, or a template of what is known or comes later."""
        if not isinstance(raw, str) or option["type"] not in ("str", "path") or "choices" in option:
            return False
        # Such a template is not worked out: it may ask a vault.
        return "{" not in raw or raw == option.get("default") or not names.unknown(names.roots(raw, known), known)


def called() -> tuple[list[str], list[str]]:
    """The names that stand behind -e on the command line itself, and the playbooks that were called, if all are ours.

    A file of variables is not meant: it may be for several playbooks, each of which reads its own.
    """
    given: list[str] = []
    for text in context.CLIARGS.get("extra_vars") or ():
        if text[:1] in ("[", "{"):
            read = yaml.load(text.strip(), Loader=values.LOADER)  # which no longer has the tags of Ansible
            given += read if isinstance(read, Mapping) else ()
        elif text[:1] not in ("@", ""):
            given += parse_kv(text)
    playbooks = names.played(map(str, context.CLIARGS.get("args") or ()))
    return (given, playbooks) if playbooks else ([], [])
