# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The wait for an endpoint: which state of its unit means what, and whose words tell the cause."""

from __future__ import annotations

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.instance import wait as instance_wait
from ansible_collections.gpunode.llm.plugins.module_utils.programs import vllm_wait

READY = vllm_wait.Answer(True, "it answers a completion")
NOT_YET = vllm_wait.Answer(False, "no answer yet")
ENDPOINT = {
    "name": "a",
    "unit": "vllm-a.service",
    "host": "127.0.0.1",
    "port": 8000,
    "model": "m",
    "env_file": None,
    "timeout_s": 900,
}


class Failed(Exception):
    pass


class Module:
    """Stands in for AnsibleModule: systemctl shows what it is given, the journal has a line for each run."""

    def __init__(self, resume=None, check_mode=False, **shown):
        self.params = {"endpoints": [ENDPOINT], "wait_s": 0, "resume": resume}
        self.check_mode = check_mode
        self.shown = {"ActiveState": "active", "SubState": "running", "Result": "success", "NRestarts": "0", **shown}
        self.journal = {
            "run1": "vllm serve: error: unrecognized arguments: --swap-space 16",
            "run2": "CUDA out of memory",
        }

    def run_command(self, argv):
        if argv[0] == "systemctl":
            return 0, "".join(f"{key}={value}\n" for key, value in self.shown.items()), ""
        run = [word.split("=")[1] for word in argv if word.startswith("_SYSTEMD_INVOCATION_ID=")]
        return 0, self.journal.get(run[0], "") if run else "", ""

    def fail_json(self, **result):
        raise Failed(result["msg"])


def look(module, answer=READY):
    wait = instance_wait.Wait(module, {})
    wait.ask = lambda _endpoint: answer
    wait.look(ENDPOINT)
    return wait


@pytest.mark.parametrize(
    ("shown", "answer", "ready"),
    [
        ({}, READY, True),
        ({}, NOT_YET, False),
        ({"ActiveState": "activating", "SubState": "start-post"}, READY, False),
        ({"ActiveState": "deactivating", "SubState": "stop"}, READY, False),
        ({"Job": "12"}, READY, False),
        ({"Job": "0"}, READY, True),
        ({"ActiveState": "inactive", "SubState": "dead", "Job": "12"}, NOT_YET, False),
    ],
)
def test_ready_means_that_the_unit_of_now_answers(shown, answer, ready):
    assert bool(look(Module(**shown), answer).resume["ready"]) is ready


@pytest.mark.parametrize(
    "shown",
    [
        {"ActiveState": "failed", "SubState": "failed", "Result": "exit-code", "ExecMainStatus": "2"},
        {"ActiveState": "inactive", "SubState": "dead"},
        {"ActiveState": "activating", "SubState": "auto-restart", "Result": "exit-code"},
        {"ActiveState": "activating", "SubState": "auto-restart-queued", "Result": "exit-code"},
    ],
)
def test_an_end_ends_the_wait_with_its_cause(shown):
    with pytest.raises(Failed, match=r"vllm-a\.service ended before a answered .*--swap-space 16"):
        look(Module(InvocationID="run1", **shown), READY)


def test_a_restart_between_two_looks_reports_the_ended_run():
    resume = {"started": 0, "ready": {}, "restarts": {"a": 0}, "runs": {"a": "run1"}, "before": {}}
    with pytest.raises(Failed, match="--swap-space"):
        look(Module(resume, NRestarts="1", InvocationID="run2", ActiveState="activating", SubState="start-post"))


def test_an_earlier_run_is_not_the_cause_of_a_later_failure():
    resume = {"started": 0, "ready": {}, "restarts": {"a": 0}, "runs": {"a": "run1"}, "before": {}}
    with pytest.raises(Failed, match="memory is full"):
        look(Module(resume, InvocationID="run2", ActiveState="failed", SubState="failed", Result="exit-code"))


def test_an_unknown_cause_is_reported_as_raised():
    """And not as those tell it who started the process; with the unit whose journal has the rest."""
    module = Module(
        ActiveState="failed", SubState="failed", Result="exit-code", InvocationID="run3", ExecMainStatus="1"
    )
    module.journal["run3"] = (
        "(Worker pid=38) ERROR 11-26 00:47:07 [multiproc_executor.py:953] ValueError: a new one\n"
        "(EngineCore pid=26) ERROR 11-26 00:47:08 [core.py:1510] Exception: WorkerProc initialization failed due to an "
        "exception in a background process. See stack trace for root cause.\n"
    )
    with pytest.raises(Failed) as failed:
        look(module)
    assert str(failed.value) == (
        "vllm-a.service ended before a answered (failed, exit-code, status 1). The engine's process Worker ended with "
        "ValueError: a new one. journalctl -eu vllm-a.service has all that it said."
    )


def test_last_words_are_a_whole_sentence():
    module = Module(ActiveState="failed", SubState="failed", Result="exit-code", InvocationID="run3")
    module.journal["run3"] = "no luck"
    with pytest.raises(Failed, match=r"\. Its last line: no luck\. journalctl -eu vllm-a\.service has"):
        look(module)


def test_restarts_of_before_are_not_counted():
    assert look(Module(NRestarts="3")).resume["ready"]


@pytest.mark.parametrize(
    ("detail", "message"),
    [
        (
            "/v1/models answers 404: no such page",
            "The endpoint on port 8000 refuses to serve m: /v1/models answers 404: no such page. Compare the "
            "instance's key, served-model-name and port with what runs there, then start the unit again.",
        ),
        ("its env file cannot be read: no", "a cannot be checked: its env file cannot be read: no."),
    ],
)
def test_a_refusal_ends_the_wait_with_what_was_answered(detail, message):
    module = Module()
    module.params["wait_s"] = 60
    wait = instance_wait.Wait(module, {})
    wait.ask = lambda _endpoint: vllm_wait.Answer(False, detail, refused=True)
    with pytest.raises(Failed) as failed:
        wait.slice()
    assert str(failed.value) == f"{message} journalctl -eu vllm-a.service has all that it said."


@pytest.mark.parametrize(("state", "refused"), [("active", True), ("activating", False)])
def test_a_starting_unit_logs_a_refusal(state, refused):
    """Its journal has it, and perhaps that another server has the port."""
    wait = look(Module(ActiveState=state), vllm_wait.Answer(False, "/health answers 404", refused=True))
    assert wait.answers["a"].refused is refused
    assert wait.answers["a"].detail == "/health answers 404"


def test_check_mode_ends_no_play():
    assert not look(Module(check_mode=True, ActiveState="inactive", SubState="dead")).resume["ready"]


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:8000/v1"), ("::", "http://[::1]:8000/v1"), ("h", "http://h:8000/v1")],
)
def test_url(host, url):
    assert instance_wait.url_of({"host": host, "port": 8000}) == url


#: The worker of each GPU tells its own; the engine's core tells what comes after.
START = """\
(Worker_TP0 pid=37) INFO 11-26 00:49:26 [gpu_model_runner.py:1] Model loading took 14.99 GiB memory and 11.25 seconds
(Worker_TP1 pid=38) INFO 11-26 00:49:27 [gpu_model_runner.py:1] Model loading took 14.99 GiB memory and 12.5 seconds
(EngineCore pid=25) INFO 11-26 00:49:30 [core.py:402] init engine (profile, create kv cache, warmup model) took 33.9 s
"""


def test_the_parts_of_a_start_are_those_of_the_slowest_process():
    module = Module(InvocationID="run3")
    module.journal["run3"] = START
    (endpoint,) = look(module).endpoints()
    assert {**endpoint["seconds"], "token": 0} == {"load": 12.5, "compile": 33.9, "token": 0}
    assert 0 <= endpoint["seconds"]["token"] < 60


def test_what_was_not_waited_for_has_no_parts():
    module = Module(check_mode=True, InvocationID="run3")
    module.journal["run3"] = START
    (endpoint,) = look(module).endpoints()
    assert endpoint["seconds"] == {}


def rank(number, resume=None, **shown):
    """A look at a rank of an engine over several nodes, whose API would not answer."""
    module = Module(resume, **shown)
    wait = instance_wait.Wait(module, {})
    wait.look({**ENDPOINT, "rank": number, "head": "n1"})
    return wait


def test_a_rank_without_an_api_is_ready_when_its_unit_runs():
    wait = rank(1)
    assert wait.resume["ready"] == {"a": "it is rank 1 of the engine on n1"}
    assert rank(1, ActiveState="activating", SubState="start-post").resume["ready"] == {}


def test_a_rank_that_starts_again_and_again_ends_the_wait():
    """Its own unit never ends: each time the end of another rank starts it anew."""
    starting = {"ActiveState": "activating", "SubState": "start"}
    resume = rank(1, InvocationID="run1", **starting).resume
    for run in ("run1", "run2", "run2"):
        resume = rank(1, resume, InvocationID=run, **starting).resume
    with pytest.raises(Failed, match="starts again and again, since another rank of its engine ends"):
        rank(1, resume, InvocationID="run3", **starting)


def test_an_engine_on_one_node_may_start_as_often_as_systemd_lets_it():
    resume = None
    for run in ("run1", "run2", "run3", "run4"):
        module = Module(resume, InvocationID=run, ActiveState="activating", SubState="start")
        resume = look(module, NOT_YET).resume
    assert "starts" not in resume
