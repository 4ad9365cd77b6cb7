# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Durations, whatever the clock on the wall is set to."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.instance import wait as instance_wait
from ansible_collections.gpunode.llm.plugins.module_utils.node import clock
from ansible_collections.gpunode.llm.plugins.module_utils.programs import vllm_wait

CHECKOUT = Path(__file__).resolve().parents[4]
#: What asks for the time of the day, and may: for a stamp that people read, or beside stamps that others wrote.
STAMPS = {
    "molecule/shared/clients.py": 1,  # from when the journal is read
    "molecule/shared/acme.py": 1,  # from when to when a certificate is valid
    "plugins/action/gateway_key.py": 1,  # the last day of a key
    "plugins/modules/usage_info.py": 1,  # the first of the days
    "plugins/modules/apt_source.py": 1,  # the age of apt's lists, by the stamps of their files
    "plugins/modules/support_archive.py": 1,  # the files in the archive
    "tests/unit/plugins/programs/test_usage_by_day.py": 1,  # today
    "tests/unit/roles/gateway/test_gateway_keys.py": 2,  # the last day of a key
    "tests/lab/stand-ins/nvidia-ctk": 1,  # its log
}
WALL = re.compile(r"\btime\.time(_ns)?\(|\bdatetime\.(now|utcnow|today)\(|\bdate \+%s|ansible_date_time|EPOCHSECONDS")
WALL_IMPORT = re.compile(r"from time import .*\btime\b")
#: What ansible-test brings with it.
FOREIGN = CHECKOUT / "tests" / "output"
PLACES = ("awx", "docs", "execution-environment", "molecule", "playbooks", "plugins", "roles", "tests")


def test_no_duration_is_taken_from_a_clock_that_somebody_sets() -> None:
    found = {}
    for place in PLACES:
        for path in (CHECKOUT / place).rglob("*"):
            ours = path != Path(__file__).resolve() and "__pycache__" not in path.parts and FOREIGN not in path.parents
            if not path.is_file() or not ours:
                continue
            text = path.read_text(encoding="utf-8", errors="replace")
            count = len(WALL.findall(text)) + len(WALL_IMPORT.findall(text))
            if count:
                found[str(path.relative_to(CHECKOUT))] = count
    assert found == STAMPS


class Module:
    """Stands in for AnsibleModule: a unit that goes on loading."""

    check_mode = False

    def __init__(self, resume=None) -> None:
        endpoint = {"name": "a", "unit": "", "host": "127.0.0.1", "port": 8000, "model": "m", "env_file": ""}
        self.params = {"endpoints": [{**endpoint, "timeout_s": 3600}], "wait_s": 0.01, "resume": resume}

    def fail_json(self, **result) -> None:
        raise AssertionError(result["msg"])


@pytest.fixture
def stepped(monkeypatch):
    """The clock on the wall steps forward by ten years with every look at it."""
    looks = iter(range(1, 1000))
    monkeypatch.setattr(time, "time", lambda: next(looks) * 10 * 365 * 86400.0)
    monkeypatch.setattr(instance_wait, "PAUSE_S", 0)


def test_a_clock_that_steps_forward_ends_no_wait(stepped) -> None:
    resume = None
    for _call in range(3):
        wait = instance_wait.Wait(Module(resume), {})
        wait.ask = lambda _endpoint: vllm_wait.Answer(False, "no answer yet")
        wait.slice()
        assert re.search(r"no answer yet \(\d s\)$", wait.progress())
        resume = wait.resume


def test_a_wait_ends_after_its_limit(monkeypatch) -> None:
    monkeypatch.setattr(instance_wait, "PAUSE_S", 0)
    begun = {**clock.begin(), "ready": {}, "restarts": {}, "runs": {}, "before": {}}
    module = Module({**begun, "started": begun["started"] - 3601})
    module.params["wait_s"] = 60  # longer than a machine with much to do may stand still
    wait = instance_wait.Wait(module, {})
    wait.ask = lambda _endpoint: vllm_wait.Answer(False, "no answer yet")
    with pytest.raises(AssertionError, match="did not answer within 360"):
        wait.slice()


@pytest.mark.parametrize(
    ("begun", "elapsed"),
    [
        ({"started": 100.0, "boot": "b1"}, 400.0),
        # The node was restarted since: what is known is since when it runs.
        ({"started": 9000.0, "boot": "b0"}, 500.0),
    ],
)
def test_elapsed_between_calls(begun, elapsed, monkeypatch) -> None:
    monkeypatch.setattr(clock, "seconds", lambda: 500.0)
    monkeypatch.setattr(clock, "boot", lambda: "b1")
    assert clock.elapsed(begun) == elapsed


def test_what_begins_now_has_not_lasted_yet(stepped) -> None:
    begun = clock.begin()
    assert re.fullmatch(r"[0-9a-f-]{36}", begun["boot"])
    assert 0 <= clock.elapsed(begun) < 60
