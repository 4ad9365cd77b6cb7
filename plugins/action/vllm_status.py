# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the node once, or repeatedly until interrupted and show each result."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ..plugin_utils.planner import listed as planner_listed
from ..plugin_utils.refusal import Refusal
from ..plugin_utils.screen import status as screen_status

MODULE = "gpunode.llm.vllm_status"
#: Options of this plugin that the module on the node does not take.
OWN: dict[str, Any] = {
    "watch_s": {"type": "float"},
    "models": {"type": "list", "elements": "raw", "default": []},
    "extra_models": {"type": "dict", "default": {}},
}
Result = dict[str, Any]


def watch(look: Callable[[], Result], show: Callable[[Result], None], every_s: float) -> None:
    """Look and show every ``every_s`` seconds, forever. A look that takes longer delays the next."""
    while True:
        start = time.monotonic()
        show(look())
        time.sleep(max(0, start + every_s - time.monotonic()))


@contextmanager
def unbroken() -> Iterator[None]:
    """Delay ctrl-c until the end of the block.

    A worker's output goes through a queue, and Ansible waits forever for a worker that is killed while it writes.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class ActionModule(ActionBase):  # type: ignore[misc]
    """vllm_status"""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> Result:
        """Look once, or with `watch_s` until interrupted."""
        super().run(tmp, task_vars)
        args = {key: value for key, value in self._task.args.items() if key not in OWN}
        mine = {key: value for key, value in self._task.args.items() if key in OWN}
        _result, options = self.validate_argument_spec(argument_spec={**OWN, **{key: {"type": "raw"} for key in args}})
        every_s = options["watch_s"]
        if every_s is not None and not every_s > 0:
            raise Refusal(f"watch must be a number of seconds above 0, such as 5, not {mine['watch_s']}.")
        wanted = planner_listed.listed(options["models"], options["extra_models"])

        def look() -> Result:
            # A copy, since Ansible adds to what it is given.
            result: Result = self._execute_module(module_name=MODULE, module_args=dict(args), task_vars=task_vars)
            for instance in result.get("instances", ()):
                instance["listed"] = None if wanted is None else instance["name"] in wanted
            return result

        if every_s is None:
            return look()
        host = str((task_vars or {}).get("inventory_hostname", "node"))
        watch(lambda: self._again(look), lambda result: self._show(host, result), every_s)
        return {"changed": False}

    def _again(self, look: Callable[[], Result]) -> Result:
        """Look; if the node cannot be reached, as during a reboot, return a failure and go on."""
        try:
            return look()
        except AnsibleConnectionFailure as failure:
            self._connection.reset()
            return {"failed": True, "msg": str(failure)}

    @staticmethod
    def _show(host: str, result: Result) -> None:
        lines = screen_status.report({host: result}, short=True)["text"]
        with unbroken():
            Display().display("\n".join([f"\n{time.strftime('%H:%M:%S')}", *lines]))
