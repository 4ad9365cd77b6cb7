# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One look, or one after the other until somebody interrupts it."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.utils.display import Display
from ansible_collections.gpunode.llm.plugins.action import vllm_status
from ansible_collections.gpunode.llm.tests.unit import as_ansible

SAID = {"instances": [], "docker_runs": True, "front": "", "gpu_message": ""}


def action(*answers: Any, **options: Any) -> Any:
    return as_ansible.action(vllm_status.ActionModule, options, *answers)


def test_a_single_look_matches_the_modules_result() -> None:
    made = action(dict(SAID), wait_s="30")
    assert made.run(task_vars={}) == SAID
    assert made._execute_module.call == ("vllm_status", {"wait_s": "30"})


@pytest.mark.parametrize(
    ("models", "listed"), [(["8b"], [True, False]), ([], [None, None]), (["no-such-model"], [None, None])]
)
def test_unlisted_instances_are_marked(models: list[str], listed: list[bool | None]) -> None:
    answer = {**SAID, "instances": [{"name": "8b"}, {"name": "70b"}]}
    result = action(answer, models=models).run(task_vars={})
    assert [instance["listed"] for instance in result["instances"]] == listed


def test_it_looks_until_it_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also at a node that is away for a while; every look is shown, and is one call."""
    shown: list[str] = []
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise KeyboardInterrupt

    def display(_self: Display, text: str, *_more: object, **_named: object) -> None:
        # A worker that is killed while it writes to the screen's queue leaves Ansible waiting for that for ever.
        assert {signal.SIGINT, signal.SIGTERM} <= signal.pthread_sigmask(signal.SIG_BLOCK, ())
        shown.append(text)

    monkeypatch.setattr(Display, "display", display)
    monkeypatch.setattr(vllm_status.time, "sleep", sleep)
    made = action(dict(SAID), AnsibleConnectionFailure("it restarts"), dict(SAID), watch_s="5")
    with pytest.raises(KeyboardInterrupt):
        made.run(task_vars={"inventory_hostname": "gpu-1"})
    assert len(made._execute_module.calls) == 3
    assert [text.strip().splitlines()[1] for text in shown] == [
        "gpu-1 serves nothing.",
        "gpu-1 could not be asked: it restarts",
        "gpu-1 serves nothing.",
    ]
    made._connection.reset.assert_called_once()
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert all(0 < seconds <= 5 for seconds in slept)


@pytest.mark.parametrize("watch", ["0", "-1", 0, -0.5, "nan"])
def test_a_watch_that_is_no_time_is_refused(watch: Any) -> None:
    with pytest.raises(
        AnsibleActionFail, match=rf"watch must be a number of seconds above 0, such as 5, not {watch}\."
    ):
        action(dict(SAID), watch_s=watch).run(task_vars={})
